"""Object storage as functions see it: one small S3 client and the signature that both ends of it agree on."""
