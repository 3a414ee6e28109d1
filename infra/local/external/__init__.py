"""Objects in another store: a MinIO or any S3, which tells of its events by webhook, and is listed now and then."""
