"""What several of these tests say."""

import boto3
from botocore.config import Config

ACCESS, SECRET = "test-access", "test-secret/with+odd=characters"


def boto(url, **config):
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=config.pop("secret", SECRET),
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, **config),
    )


def code(caught):
    """The error's code and HTTP status."""
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]
