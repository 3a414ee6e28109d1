"""What functions share, lowest first: objects, runtime, quality, learning."""
