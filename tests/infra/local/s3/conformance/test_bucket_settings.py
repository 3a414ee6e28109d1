"""Buckets and what is set on them."""

from datetime import UTC, datetime
from hashlib import sha256

import pytest

from layers.objects import sigv4
from tests.infra.local.s3.conformance.stores import fill, refused
from tests.infra.local.s3.helpers import ACCESS, SECRET


def test_buckets(s3, bucket):
    assert bucket in [one["Name"] for one in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 200
    fill(s3, bucket, "k")
    assert refused(s3.delete_bucket, Bucket=bucket) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    assert refused(s3.head_bucket, Bucket=bucket) == ("404", 404)
    for function in (s3.delete_bucket, s3.list_objects, s3.list_objects_v2):
        assert refused(function, Bucket=bucket) == ("NoSuchBucket", 404)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x") == ("NoSuchBucket", 404)
    assert refused(s3.get_object, Bucket=bucket, Key="k") == ("NoSuchBucket", 404)


def test_a_bucket_is_made_once(s3, bucket):
    assert refused(s3.create_bucket, Bucket=bucket) == ("BucketAlreadyOwnedByYou", 409)


def test_a_bucket_that_held_folders_can_go(s3, bucket):
    fill(s3, bucket, "a/b/c")
    s3.delete_object(Bucket=bucket, Key="a/b/c")
    s3.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("name", ["UPPER", "ab", "192.168.0.1", "a..b"])
def test_names_that_are_none(store, name):
    url = f"{store.url}/{name}"
    answer = store.minio._http.request("PUT", url, headers=signature(store, name))
    assert (answer.status, b"InvalidBucketName" in answer.data) == (400, True)


def signature(store, name):

    host = store.url.removeprefix("http://")
    empty = sha256(b"").hexdigest()
    keys = sigv4.Credentials(ACCESS, SECRET)
    now = datetime.now(UTC)
    return sigv4.sign(
        "PUT", f"/{name}", "", {"host": host}, payload=empty, credentials=keys, region="us-east-1", now=now
    )


def test_the_region_is_the_first_one(s3, bucket):
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


def test_buckets_are_not_versioned(s3, bucket):
    assert s3.get_bucket_versioning(Bucket=bucket).get("Status") is None


UNSET = {
    "get_bucket_policy": "NoSuchBucketPolicy",
    "get_bucket_lifecycle_configuration": "NoSuchLifecycleConfiguration",
    "get_bucket_tagging": "NoSuchTagSet",
    "get_bucket_encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "get_bucket_cors": "NoSuchCORSConfiguration",
    "get_object_lock_configuration": "ObjectLockConfigurationNotFoundError",
    "get_bucket_replication": "ReplicationConfigurationNotFoundError",
    "get_bucket_website": "NoSuchWebsiteConfiguration",
}


@pytest.mark.parametrize("ask", UNSET)
def test_what_is_not_configured_says_so(s3, bucket, ask):
    assert refused(getattr(s3, ask), Bucket=bucket) == (UNSET[ask], 404)
