"""Uploads in parts, with the clients that people use."""

import asyncio
import io
import os
from functools import partial
from hashlib import md5, sha256

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from infra.local.garbage import UPLOAD_AGE_S
from infra.local.multipart import InvalidPart, Uploads, joined_etag
from infra.local.s3 import multipart as s3_multipart
from tests.infra.local.s3.helpers import code

MIB = 1 << 20


@pytest.fixture
def upload(s3, bucket):
    return {"Bucket": bucket, "Key": "k", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}


def part(s3, upload, number, data):
    return {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=data)["ETag"]}


def test_a_big_file_of_boto3(s3, endpoint, bucket, tmp_path):
    data = os.urandom(20 * MIB + 17)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=6 * MIB, max_concurrency=3)

    s3.upload_fileobj(
        io.BytesIO(data), bucket, "big", ExtraArgs={"ContentType": "x/y", "Metadata": {"a": "b"}}, Config=config
    )
    s3.download_file(bucket, "big", str(tmp_path / "big"), Config=config)

    assert (tmp_path / "big").read_bytes() == data
    head = s3.head_object(Bucket=bucket, Key="big")
    assert head["ContentType"] == "x/y" and head["Metadata"] == {"a": "b"} and head["ETag"].endswith('-4"')
    stored = endpoint.call(endpoint.store.get, bucket, "big")
    assert stored.sha256 == sha256(data).hexdigest()
    second = s3.get_object(Bucket=bucket, Key="big", PartNumber=2)
    assert second["Body"].read() == data[6 * MIB : 12 * MIB] and second["PartsCount"] == 4
    assert endpoint.store.garbage and len(endpoint.files()) == len(set(endpoint.files()))


def test_a_big_file_of_the_minio_client(minio, bucket):
    data = os.urandom(11 * MIB)
    minio.put_object(bucket, "big", io.BytesIO(data), len(data), part_size=5 * MIB)
    response = minio.get_object(bucket, "big")
    assert response.read() == data
    response.close()
    response.release_conn()


def test_parts_leave_no_files_behind(s3, endpoint, upload):
    before = len(endpoint.files())
    parts = [part(s3, upload, 1, b"a" * 5 * MIB), part(s3, upload, 2, b"b" * 5 * MIB)]
    part(s3, upload, 3, b"c" * MIB)  # named by nobody
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert len(endpoint.files()) == before + 1

    s3.delete_object(Bucket=upload["Bucket"], Key="k")
    assert len(endpoint.files()) == before


def test_a_part_sent_again_takes_the_place_of_the_first(s3, endpoint, upload):
    before = len(endpoint.files())
    part(s3, upload, 1, b"a" * MIB)
    last = part(s3, upload, 1, b"b" * MIB)
    done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [last]})

    assert s3.get_object(Bucket=upload["Bucket"], Key="k")["Body"].read() == b"b" * MIB
    assert done["ETag"] == f'"{md5(md5(b"b" * MIB).digest()).hexdigest()}-1"'
    assert len(endpoint.files()) == before + 1


def test_listing_parts_and_uploads(s3, bucket, upload):
    for number in (7, 2, 9):
        part(s3, upload, number, bytes([number]) * 10)
    other = s3.create_multipart_upload(Bucket=bucket, Key="dir/x y")

    found = s3.list_parts(**upload, MaxParts=2)
    assert [one["PartNumber"] for one in found["Parts"]] == [2, 7] and found["IsTruncated"]
    following = s3.list_parts(**upload, PartNumberMarker=found["NextPartNumberMarker"])
    assert [(one["PartNumber"], one["Size"]) for one in following["Parts"]] == [(9, 10)]

    uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(one["Key"], one["UploadId"]) for one in uploads] == [
        ("dir/x y", other["UploadId"]),
        ("k", upload["UploadId"]),
    ]
    first = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=1)
    assert first["IsTruncated"] and first["NextKeyMarker"] == "dir/x y"
    rest = s3.list_multipart_uploads(
        Bucket=bucket, KeyMarker=first["NextKeyMarker"], UploadIdMarker=first["NextUploadIdMarker"]
    )
    assert [one["Key"] for one in rest["Uploads"]] == ["k"]
    assert s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")["CommonPrefixes"] == [{"Prefix": "dir/"}]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_pages_of_uploads_of_any_size_make_the_same_whole(s3, bucket, size):
    """Each upload once and each group once, wherever a page ends; several uploads of one key are several entries."""
    keys = ["a/1", "a/2", "a/2", "b", "b", "b", "c/1", "c/d/2", "e", "\U0010ffff/x", "\U0010ffff/y"]
    made = sorted((key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]) for key in keys)
    for delimiter, wanted, groups in (
        ("", made, []),
        ("/", [one for one in made if "/" not in one[0]], ["a/", "c/", "\U0010ffff/"]),
    ):
        pages = s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, Delimiter=delimiter, PaginationConfig={"PageSize": size}
        )
        found = list(pages)
        sizes = [len(page.get("Uploads", [])) + len(page.get("CommonPrefixes", [])) for page in found]
        assert all(one == size for one in sizes[:-1]) and 0 < sizes[-1] <= size
        assert [(one["Key"], one["UploadId"]) for page in found for one in page.get("Uploads", [])] == wanted
        assert [one["Prefix"] for page in found for one in page.get("CommonPrefixes", [])] == groups
    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, Prefix="c/", Delimiter="/", PaginationConfig={"PageSize": size}
    )
    found = [(page.get("Uploads", []), page.get("CommonPrefixes", [])) for page in pages]
    assert [one["Key"] for uploads, _ in found for one in uploads] == ["c/1"]
    assert [one["Prefix"] for _, groups in found for one in groups] == ["c/d/"]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_pages_of_parts_of_any_size_make_the_same_whole(s3, upload, size):
    numbers = [1, 2, 5, 9, 10_000]
    for number in reversed(numbers):
        part(s3, upload, number, b"x")
    pages = list(s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": size}))
    assert [one["PartNumber"] for page in pages for one in page["Parts"]] == numbers
    assert all(len(page["Parts"]) <= size for page in pages)


def test_an_aborted_upload_leaves_nothing(s3, endpoint, upload):
    before = len(endpoint.files())
    one = part(s3, upload, 1, b"a" * MIB)
    assert len(endpoint.files()) == before + 1
    s3.abort_multipart_upload(**upload)

    assert len(endpoint.files()) == before
    for call in (
        lambda: s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [one]}),
        lambda: part(s3, upload, 2, b"x"),
        lambda: s3.list_parts(**upload),
        lambda: s3.abort_multipart_upload(**upload),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert code(caught) == ("NoSuchUpload", 404)


def test_an_upload_that_nobody_completes_is_given_up(s3, endpoint, bucket, upload):
    before = len(endpoint.files())
    part(s3, upload, 1, b"a" * MIB)
    week_ago = endpoint.store.clock() - UPLOAD_AGE_S
    for age_s, kept in ((-60, True), (60, False)):
        endpoint.write(partial(_set_initiated, upload=upload["UploadId"], initiated=week_ago - age_s))
        endpoint.call(endpoint.store.garbage.expire)
        assert ("Uploads" in s3.list_multipart_uploads(Bucket=bucket)) is kept
    assert len(endpoint.files()) == before


def _set_initiated(connection, upload, initiated):
    connection.execute("UPDATE uploads SET initiated = ? WHERE id = ?", (initiated, upload))


def test_what_cannot_be_put_together(s3, upload):
    small, large = part(s3, upload, 1, b"a"), part(s3, upload, 2, b"b" * 5 * MIB)
    for parts, expected in (
        ([small, large], "EntityTooSmall"),
        ([large, small], "InvalidPartOrder"),
        ([large, large], "InvalidPartOrder"),
        ([{**small, "ETag": '"0123"'}], "InvalidPart"),
        ([{**small, "PartNumber": 5}], "InvalidPart"),
        ([], "MalformedXML"),
    ):
        with pytest.raises(ClientError) as caught:
            s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        assert code(caught)[0] == expected
    for number in (0, 10_001):
        with pytest.raises(ClientError) as caught:
            part(s3, upload, number, b"x")
        assert code(caught) == ("InvalidArgument", 400)
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [large]})


def test_completing_twice_gives_the_same_answer(s3, upload):
    parts = {"Parts": [part(s3, upload, 1, b"a" * 5 * MIB), part(s3, upload, 2, b"b")]}
    first = s3.complete_multipart_upload(**upload, MultipartUpload=parts)
    again = s3.complete_multipart_upload(**upload, MultipartUpload=parts)

    assert first["ETag"] == again["ETag"] == f'"{joined_etag([p["ETag"].strip(chr(34)) for p in parts["Parts"]])}"'


def test_an_upload_that_takes_long_to_put_together_is_told_by_and_by(s3, upload, monkeypatch):
    """S3's way: the status first, then blanks, then the document; also when that is an error."""
    join = Uploads.join
    broken = [True]

    async def slow(self, *arguments):
        await asyncio.sleep(0.2)
        if broken:
            raise InvalidPart("it has gone meanwhile")
        return await join(self, *arguments)

    monkeypatch.setattr(s3_multipart, "WORDLESS_S", 0.02)
    monkeypatch.setattr(Uploads, "join", slow)
    answers = []
    s3.meta.events.register(
        "after-call.s3.CompleteMultipartUpload", lambda http_response, **_: answers.append(http_response)
    )
    parts = {"Parts": [part(s3, upload, 1, b"a" * 5 * MIB), part(s3, upload, 2, b"b")]}
    with pytest.raises(ClientError) as caught:
        s3.complete_multipart_upload(**upload, MultipartUpload=parts)
    assert caught.value.response["Error"]["Code"] == "InvalidPart"
    broken.clear()
    done = s3.complete_multipart_upload(**upload, MultipartUpload=parts)
    assert done["ETag"] == s3.head_object(Bucket=upload["Bucket"], Key=upload["Key"])["ETag"]
    assert answers[-1].content.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n   ')


def test_a_part_copied_from_another_object(s3, bucket, upload):
    data = os.urandom(7 * MIB)
    s3.put_object(Bucket=bucket, Key="source ü", Body=data)
    source = {"Bucket": bucket, "Key": "source ü"}
    first = s3.upload_part_copy(**upload, PartNumber=1, CopySource=source, CopySourceRange=f"bytes=0-{6 * MIB - 1}")
    second = s3.upload_part_copy(**upload, PartNumber=2, CopySource=source)
    parts = [
        {"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]} for number, copied in ((1, first), (2, second))
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})

    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data[: 6 * MIB] + data
    with pytest.raises(ClientError) as caught:
        s3.upload_part_copy(**upload, PartNumber=1, CopySource=source, CopySourceRange="bytes=0-99999999")
    assert code(caught)[0] in ("InvalidArgument", "NoSuchUpload")


def test_the_checksum_of_an_upload_in_parts(s3, bucket):
    data = os.urandom(5 * MIB), b"tail"
    for kind, suffix in (("COMPOSITE", "-2"), ("FULL_OBJECT", "")):
        started = s3.create_multipart_upload(Bucket=bucket, Key=kind, ChecksumAlgorithm="CRC32", ChecksumType=kind)
        upload = {"Bucket": bucket, "Key": kind, "UploadId": started["UploadId"]}
        parts = []
        for number, block in enumerate(data, 1):
            sent = s3.upload_part(**upload, PartNumber=number, Body=block, ChecksumAlgorithm="CRC32")
            parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32": sent["ChecksumCRC32"]})
        done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        found = s3.get_object(Bucket=bucket, Key=kind)

        assert found["Body"].read() == b"".join(data)  # boto3 verifies a full checksum as it reads
        assert found["ChecksumCRC32"] == done["ChecksumCRC32"] and found["ChecksumCRC32"].endswith(suffix)
        assert found["ChecksumType"] == kind
