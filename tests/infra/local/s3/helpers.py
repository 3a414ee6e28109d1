"""What several of these tests say."""

from datetime import UTC, datetime
from hashlib import sha256

import boto3
from botocore.config import Config
from defusedxml.ElementTree import fromstring

from layers.objects import sigv4

ACCESS, SECRET = "test-access", "test-secret/with+odd=characters"


def boto(url, *, verify=None, **config):
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=config.pop("secret", SECRET),
        region_name="us-east-1",
        verify=verify,
        config=Config(retries={"max_attempts": 1}, **config),
    )


def code(caught):
    """The error's code and HTTP status."""
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def signed(method, path, endpoint, *, query="", body=b"", now=None, credentials=None, host=None, **more):
    """The headers of a request, signed."""
    return sigv4.sign(
        method,
        path,
        query,
        {"host": host or f"127.0.0.1:{endpoint.port}", **more.get("headers", {})},
        payload=more.get("payload") or sha256(body).hexdigest(),
        credentials=credentials or sigv4.Credentials(ACCESS, SECRET),
        region="us-east-1",
        now=now or datetime.now(UTC),
    )


def parsed(document):
    """The texts of a flat XML document."""
    return {child.tag.rpartition("}")[2]: child.text or "" for child in fromstring(document)}
