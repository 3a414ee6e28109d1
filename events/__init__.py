"""What makes a function run."""
