"""Who is let in."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import requests
from minio import Minio
from minio.error import S3Error

from tests.infra.local.s3.conformance.stores import (
    fill,
    refused,
)
from tests.infra.local.s3.helpers import SECRET, boto


def test_a_wrong_secret(store, bucket):
    with closing(boto(store.url, secret="wrong-secret")) as other:
        assert refused(other.list_objects_v2, Bucket=bucket) == ("SignatureDoesNotMatch", 403)
        assert refused(other.put_object, Bucket=bucket, Key="k", Body=b"x") == ("SignatureDoesNotMatch", 403)


def test_an_unknown_key(store, bucket):
    other = Minio(store.url.removeprefix("http://"), "nobody-here", SECRET, secure=False, region="us-east-1")
    with pytest.raises(S3Error) as caught:
        list(other.list_objects(bucket))
    other._http.clear()
    assert (caught.value.code, caught.value.response.status) == ("InvalidAccessKeyId", 403)


def test_nobody(store, s3, bucket):
    fill(s3, bucket, "k")
    for method, path in (("GET", ""), ("GET", f"{bucket}"), ("GET", f"{bucket}/k"), ("PUT", f"{bucket}/new")):
        answer = requests.request(method, f"{store.url}/{path}", timeout=10)
        assert answer.status_code == 403 and "<Code>AccessDenied</Code>" in answer.text


def test_presigned(s3, bucket):
    body, key = b"presigned", "a b/ü+"
    url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": key}, ExpiresIn=60)
    assert requests.put(url, data=body, timeout=10).status_code == 200
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=60)
    assert requests.get(url, timeout=10).content == body
    altered = requests.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), timeout=10)
    assert (altered.status_code, "SignatureDoesNotMatch" in altered.text) == (403, True)


def test_a_presigned_url_ends(store, bucket):
    past = datetime.now(UTC) - timedelta(hours=1)
    url = store.minio.get_presigned_url("GET", bucket, "k", timedelta(minutes=5), request_date=past)
    answer = requests.get(url, timeout=10)
    assert (answer.status_code, "<Code>AccessDenied</Code>" in answer.text) == (403, True)
