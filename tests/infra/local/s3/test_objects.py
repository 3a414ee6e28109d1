"""Objects in and out, with the clients that people use."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.infra.local.s3.helpers import code

KEYS = [
    "plain",
    "in/folder/file.txt",
    "with space + plus & amp = % percent ?question #hash",
    "Ünïcödé/日本語/🙂",
    "../../etc/passwd",
    "a//b/./c/../d",
    "trailing/",
    "quote\"'`<xml>;:@!$*(),[]{}|\\^~",
    "e\u0301",
    "\u00e9",
    "x" * 1024,
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_whatever_a_client_says(s3, minio, client, bucket, tmp_path, key):
    s3.put_object(Bucket=bucket, Key=key, Body=b"boto3")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"boto3"
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]

    (tmp_path / "source").write_bytes(b"ours")
    client.put(bucket, key, tmp_path / "source")
    client.get(bucket, key, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"ours"
    assert [info.key for info in client.list(bucket)] == [key]

    if ".." not in key and "./" not in key:  # minio's client refuses these itself
        minio.put_object(bucket, key, io.BytesIO(b"minio"), 5)
        response = minio.get_object(bucket, key)
        assert response.read() == b"minio"
        response.close()
        response.release_conn()
        assert [entry.object_name for entry in minio.list_objects(bucket, recursive=True)] == [key]

    s3.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_what_describes_an_object_comes_back(s3, minio, bucket):
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"hello",
        ContentType="text/plain",
        CacheControl="no-store",
        ContentEncoding="identity",
        ContentDisposition='attachment; filename="a"',
        ContentLanguage="fr",
        Expires=expires,
        Metadata={"hop": "3", "from": "a b"},
        Tagging="k=v&w=x%20y",
    )

    head = s3.head_object(Bucket=bucket, Key="k")

    assert head["ContentType"] == "text/plain" and head["CacheControl"] == "no-store"
    assert head["ContentEncoding"] == "identity" and head["ContentLanguage"] == "fr"
    assert head["Metadata"] == {"hop": "3", "from": "a b"}
    assert head["ETag"] == '"5d41402abc4b2a76b9719d911017c592"' and head["ContentLength"] == 5
    assert head["TagCount"] == 2
    assert abs(head["LastModified"] - datetime.now(UTC)) < timedelta(seconds=20)
    assert minio.stat_object(bucket, "k").metadata["x-amz-meta-hop"] == "3"


def test_an_object_that_is_not_there(s3, client, bucket, tmp_path):
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="no")
    assert code(caught) == ("NoSuchKey", 404)
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="no")
    assert code(caught) == ("404", 404)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="no-such-bucket", Key="k", Body=b"x")
    assert code(caught) == ("NoSuchBucket", 404)
    assert s3.delete_object(Bucket=bucket, Key="no")["ResponseMetadata"]["HTTPStatusCode"] == 204


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_contents_of_any_size(s3, bucket, size):
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    s3.put_object(Bucket=bucket, Key="k", Body=data)

    found = s3.get_object(Bucket=bucket, Key="k")

    assert found["Body"].read() == data and found["ContentLength"] == size
    assert found["ChecksumCRC32"] and found["ChecksumType"] == "FULL_OBJECT"


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize(
    "asked, start, end",
    [("bytes=0-9", 0, 10), ("bytes=90-", 90, None), ("bytes=-7", -7, None), ("bytes=50-9999999", 50, None)],
)
def test_a_range(s3, bucket, size, asked, start, end):
    data = bytes(range(250)) * (size // 250 + 1)
    data = data[:size]
    s3.put_object(Bucket=bucket, Key="k", Body=data)

    found = s3.get_object(Bucket=bucket, Key="k", Range=asked)

    assert found["Body"].read() == data[start:end]
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert found["ContentRange"].endswith(f"/{size}")


def test_a_range_that_is_none(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")

    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=10-")
    assert code(caught) == ("InvalidRange", 416)
    assert s3.get_object(Bucket=bucket, Key="k", Range="lines=1-2")["Body"].read() == b"0123456789"


def test_reading_under_conditions(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    past, future = datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)

    for allowed in (
        {"IfMatch": etag},
        {"IfNoneMatch": '"no"'},
        {"IfModifiedSince": past},
        {"IfUnmodifiedSince": future},
    ):
        assert s3.get_object(Bucket=bucket, Key="k", **allowed)["Body"].read() == b"x"
    for refused, status in (
        ({"IfMatch": '"no"'}, 412),
        ({"IfNoneMatch": etag}, 304),
        ({"IfModifiedSince": future}, 304),
        ({"IfUnmodifiedSince": past}, 412),
    ):
        with pytest.raises(ClientError) as caught:
            s3.get_object(Bucket=bucket, Key="k", **refused)
        assert code(caught)[1] == status


def test_deleting_many(s3, minio, bucket):
    from minio.deleteobjects import DeleteObject

    for number in range(6):
        s3.put_object(Bucket=bucket, Key=f"k{number} &<", Body=b"x")

    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k0 &<"}, {"Key": "k1 &<"}, {"Key": "no"}]})
    assert {entry["Key"] for entry in done["Deleted"]} == {"k0 &<", "k1 &<", "no"}
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k2 &<"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert list(minio.remove_objects(bucket, [DeleteObject("k3 &<"), DeleteObject("k4 &<")])) == []
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k5 &<"]


def test_copying(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a b/ü+", Body=b"x" * 100_000, Metadata={"m": "1"}, ContentType="text/plain")
    source = {"Bucket": bucket, "Key": "a b/ü+"}

    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"m": "1"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "2"})
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"n": "2"}
    s3.copy_object(**source, CopySource=source, MetadataDirective="REPLACE", Metadata={"self": "yes"})
    assert s3.get_object(**source)["Body"].read() == b"x" * 100_000

    for refused, expected in (
        ({"CopySource": source, "Key": "a b/ü+"}, "InvalidRequest"),
        ({"CopySource": {"Bucket": bucket, "Key": "no"}, "Key": "c"}, "NoSuchKey"),
        ({"CopySource": source, "Key": "c", "CopySourceIfMatch": "no"}, "PreconditionFailed"),
        ({"CopySource": {"Bucket": "no-bucket", "Key": "no"}, "Key": "c"}, "NoSuchBucket"),
    ):
        with pytest.raises(ClientError) as caught:
            s3.copy_object(Bucket=bucket, **refused)
        assert code(caught)[0] == expected


def test_a_copy_outlives_its_source(s3, bucket, endpoint):
    s3.put_object(Bucket=bucket, Key="a", Body=b"y" * 200_000)
    s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    s3.delete_object(Bucket=bucket, Key="a")
    before = endpoint.files()

    assert s3.get_object(Bucket=bucket, Key="b")["Body"].read() == b"y" * 200_000
    s3.delete_object(Bucket=bucket, Key="b")
    assert len(endpoint.files()) == len(before) - 1


def test_object_tags(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    tags = [{"Key": "a", "Value": "1"}, {"Key": "é & <", "Value": ""}]

    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    with pytest.raises(ClientError) as caught:
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "1"}] * 2})
    assert code(caught)[0] == "InvalidTag"


def test_attributes(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")

    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag", "ObjectSize", "Checksum"])

    assert (found["ETag"], found["ObjectSize"]) == ("5d41402abc4b2a76b9719d911017c592", 5)
    assert found["Checksum"]["ChecksumCRC32"] == "NhCmhg=="
