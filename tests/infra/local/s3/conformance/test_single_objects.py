"""Objects one by one: put, get, delete, copies, ranges, conditions, tags."""

import base64
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256

import pytest
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject

from tests.infra.local.s3.conformance.stores import (
    fill,
    keys,
    prefixes,
    read,
    refused,
)


def test_put_get_head_delete(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="in/a.fil", Body=b"hello", ContentType="text/plain")
    assert put["ETag"] == f'"{md5(b"hello").hexdigest()}"'
    head = s3.head_object(Bucket=bucket, Key="in/a.fil")
    assert (head["ContentLength"], head["ETag"], head["ContentType"]) == (5, put["ETag"], "text/plain")
    assert abs(head["LastModified"] - datetime.now(UTC)) < timedelta(seconds=60)
    assert head["AcceptRanges"] == "bytes"
    assert read(s3, bucket, "in/a.fil") == b"hello"
    assert s3.delete_object(Bucket=bucket, Key="in/a.fil")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(s3.get_object, Bucket=bucket, Key="in/a.fil") == ("NoSuchKey", 404)
    assert refused(s3.head_object, Bucket=bucket, Key="in/a.fil") == ("404", 404)
    assert s3.delete_object(Bucket=bucket, Key="in/a.fil")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_the_last_put_counts(s3, bucket):
    for body in (b"first, and longer", b"second"):
        s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert read(s3, bucket, "k") == b"second" and keys(s3.list_objects_v2(Bucket=bucket)) == ["k"]


def test_an_empty_object(s3, bucket):
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"")["ETag"] == f'"{md5(b"").hexdigest()}"'
    assert read(s3, bucket, "k") == b"" and s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 0


def test_headers_are_kept(s3, bucket):
    headers = {
        "CacheControl": "max-age=5",
        "ContentDisposition": 'attachment; filename="a"',
        "ContentType": "application/x-hdf5",
    }
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **headers)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert {name: head.get(name) for name in headers} == headers


def test_encoding_and_language_are_kept(s3, bucket):
    headers = {"ContentEncoding": "gzip", "ContentLanguage": "it"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **headers)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert {name: head.get(name) for name in headers} == headers


def test_user_metadata_is_kept(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"dioscar-hops": "1", "Site": "SRT"})
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"dioscar-hops": "1", "site": "SRT"}


def test_a_content_type_that_nobody_gave(s3, bucket):
    s3.put_object(Bucket=bucket, Key="noend", Body=b"x")
    assert s3.head_object(Bucket=bucket, Key="noend")["ContentType"] == "binary/octet-stream"


def test_answers_may_have_other_headers(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/csv", ResponseCacheControl="no-store")
    answer["Body"].close()
    assert (answer["ContentType"], answer["CacheControl"]) == ("text/csv", "no-store")


ODD = {
    "blank": "a b/c d",
    "plus": "a+b",
    "percent": "100%41",
    "markup": "a&b<c>'\"",
    "umlaut": "möß/ü",
    "decomposed": "u\u0308",
    "kanji": "日本/物理",
    "emoji": "🚀",
    "hash": "a#b?c=d",
    "tilde": "~$*!(),;:@=",
    "dots": "a..b/...c",
    "tab": "a\tb",
    "newline": "a\nb",
    "backslash": "a\\b",
    "double-slash": "a//b",
    "first-slash": "/a",
    "dot-dot": "a/../b",
    "dot": "a/./b",
    "long-name": "n" * 256,
    "long": "/".join(["n" * 200] * 5),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_keys(s3, bucket, odd):
    key = ODD[odd]
    s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert read(s3, bucket, key) == b"x"
    assert keys(s3.list_objects_v2(Bucket=bucket)) == [key]
    assert keys(s3.list_objects(Bucket=bucket, Prefix=key[:2])) == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert keys(s3.list_objects_v2(Bucket=bucket)) == []


def test_a_key_that_is_too_long(s3, bucket):
    assert refused(s3.put_object, Bucket=bucket, Key="n/" * 513, Body=b"") == ("KeyTooLongError", 400)


def test_a_key_may_be_the_folder_of_another(s3, bucket):
    fill(s3, bucket, "a", "a/b")
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["a", "a/b"]


def test_a_folder_marker_is_an_object(s3, bucket):
    fill(s3, bucket, "in/a")
    s3.put_object(Bucket=bucket, Key="out/", Body=b"")
    assert s3.head_object(Bucket=bucket, Key="out/")["ContentLength"] == 0
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["in/a", "out/"]
    assert prefixes(s3.list_objects_v2(Bucket=bucket, Delimiter="/")) == ["in/", "out/"]


def test_a_folder_is_no_object(s3, bucket):
    fill(s3, bucket, "in/a")
    assert refused(s3.head_object, Bucket=bucket, Key="in/") == ("404", 404)
    assert refused(s3.get_object, Bucket=bucket, Key="in") == ("NoSuchKey", 404)


def test_a_copy_keeps_what_the_source_has(store, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a b/ü", Body=b"x", ContentType="text/plain", Metadata={"m": "1"})
    done = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a b/ü"})
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert done["CopyObjectResult"]["ETag"] == head["ETag"] == f'"{md5(b"x").hexdigest()}"'
    assert (head["ContentType"], head["Metadata"]) == ("text/plain", {"m": "1"})
    store.minio.copy_object(bucket, "again", CopySource(bucket, "copy"))
    assert read(s3, bucket, "again") == b"x"


def test_a_copy_may_have_metadata_of_its_own(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"m": "1"})
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "2"})
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"n": "2"}


def test_a_copy_to_itself_must_change_something(s3, bucket):
    fill(s3, bucket, "k")
    source = {"Bucket": bucket, "Key": "k"}
    assert refused(s3.copy_object, Bucket=bucket, Key="k", CopySource=source) == ("InvalidRequest", 400)


def test_a_copy_of_nothing(s3, bucket):
    source = {"Bucket": bucket, "Key": "none"}
    assert refused(s3.copy_object, Bucket=bucket, Key="k", CopySource=source) == ("NoSuchKey", 404)


@pytest.mark.parametrize(
    "wanted, span", [("0-3", "0123"), ("8-", "89"), ("-3", "789"), ("5-100", "56789"), ("-100", "0123456789")]
)
def test_ranges(s3, bucket, wanted, span):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    answer = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={wanted}")
    with closing(answer["Body"]) as body:
        assert body.read() == span.encode()
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["ContentRange"] == f"bytes {span[0]}-{span[-1]}/10"


def test_a_range_beyond_the_end(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    assert refused(s3.get_object, Bucket=bucket, Key="k", Range="bytes=10-") == ("InvalidRange", 416)


def test_conditional_reads(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    later, earlier = (datetime.now(UTC) + sign * timedelta(hours=1) for sign in (1, -1))
    assert read(s3, bucket, "k", IfMatch=etag) == b"x"
    assert read(s3, bucket, "k", IfModifiedSince=earlier) == b"x"
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfMatch='"other"') == ("PreconditionFailed", 412)
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag)[1] == 304
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfModifiedSince=later)[1] == 304
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfUnmodifiedSince=earlier) == ("PreconditionFailed", 412)


def test_conditional_writes(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfNoneMatch="*")["ETag"]
    assert refused(s3.put_object, Bucket=bucket, Key="k", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refused(s3.put_object, Bucket=bucket, Key="k", IfMatch='"other"') == ("PreconditionFailed", 412)
    s3.put_object(Bucket=bucket, Key="k", Body=b"y", IfMatch=etag)


def test_a_body_that_is_not_what_its_md5_says(s3, bucket):
    wrong = base64.b64encode(md5(b"other").digest()).decode()
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5=wrong) == ("BadDigest", 400)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5="nonsense") == ("InvalidDigest", 400)
    assert keys(s3.list_objects_v2(Bucket=bucket)) == []


def test_a_checksum_is_verified_and_kept(s3, bucket):
    digest = base64.b64encode(sha256(b"x").digest()).decode()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumSHA256=digest)
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED").get("ChecksumSHA256") == digest
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"y", ChecksumSHA256=digest)[1] == 400


def test_tags(s3, bucket):
    def tags():
        return {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]}

    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="run=7&site=SRT%201")
    assert tags() == {"run": "7", "site": "SRT 1"}
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert tags() == {"a": "b"}
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert tags() == {}


def test_too_many_tags(s3, bucket):
    fill(s3, bucket, "k")
    many = {"TagSet": [{"Key": str(number), "Value": ""} for number in range(11)]}
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=many)[1] == 400


def test_many_objects_are_deleted_at_once(store, s3, bucket):
    fill(s3, bucket, "a b", "ü", "c/d", "stays")
    assert list(store.minio.remove_objects(bucket, map(DeleteObject, ["a b", "ü", "never-was"]))) == []
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["c/d", "stays"]


def test_no_folder_is_left_where_many_objects_were_deleted(store, s3, bucket):
    fill(s3, bucket, "c/d")
    assert list(store.minio.remove_objects(bucket, [DeleteObject("c/d")])) == []
    assert keys(s3.list_objects_v2(Bucket=bucket)) == []


def test_many_objects_are_deleted_at_once_as_boto3_asks(s3, bucket):
    fill(s3, bucket, "a", "b")
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "none"}]})
    assert sorted(one["Key"] for one in done["Deleted"]) == ["a", "none"]
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["b"]
