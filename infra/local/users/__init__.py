"""Who uses a cluster besides its administrator: users of OpenID Connect issuers, what they see, and their S3 keys."""
