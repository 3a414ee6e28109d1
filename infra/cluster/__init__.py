"""OSCAR on Kubernetes: what is made for it here."""
