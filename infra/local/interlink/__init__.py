"""Services that run on an interLink node: their jobs become the pods that OSCAR would send, and are followed here."""
