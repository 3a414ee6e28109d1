"""OSCAR's script contract, the same under our supervisor, OSCAR's own and the embedded cluster."""
