"""The object store's S3 endpoint, in the dialect that MinIO's clients speak."""
