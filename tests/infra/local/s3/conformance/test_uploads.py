"""Multipart uploads."""

from hashlib import md5

from tests.infra.local.s3.conformance.stores import PART, complete, keys, part, read, refused, upload


def test_multipart(s3, bucket):
    identity = upload(s3, bucket, ContentType="text/plain", Metadata={"a": "b"})
    bodies = [b"1" * PART, b"2" * 100]
    parts = [part(s3, bucket, number, body, identity) for number, body in enumerate(bodies, 1)]
    assert [one["ETag"] for one in parts] == [f'"{md5(body).hexdigest()}"' for body in bodies]
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=identity)["Parts"]
    assert [(one["PartNumber"], one["Size"]) for one in listed] == [(1, PART), (2, 100)]
    assert keys(s3.list_objects_v2(Bucket=bucket)) == []
    done = complete(s3, bucket, identity, parts)
    digest = md5(b"".join(md5(body).digest() for body in bodies)).hexdigest()
    assert done["ETag"] == f'"{digest}-2"'
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["ETag"]) == (PART + 100, done["ETag"])
    assert (head["ContentType"], head["Metadata"]) == ("text/plain", {"a": "b"})
    assert read(s3, bucket, "k", Range=f"bytes={PART - 1}-{PART}") == b"12"


def test_a_part_may_be_sent_again_and_left_out(s3, bucket):
    identity = upload(s3, bucket)
    part(s3, bucket, 7, b"wrong", identity)
    right = part(s3, bucket, 7, b"right", identity)
    part(s3, bucket, 9, b"left out", identity)
    complete(s3, bucket, identity, [right])
    assert read(s3, bucket, "k") == b"right"


def test_an_upload_that_is_given_up(s3, bucket):
    identity = upload(s3, bucket)
    part(s3, bucket, 1, b"x", identity)
    assert s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=identity)
    assert refused(s3.list_parts, Bucket=bucket, Key="k", UploadId=identity) == ("NoSuchUpload", 404)
    assert refused(complete, s3, bucket, identity, [{"PartNumber": 1, "ETag": "x"}]) == ("NoSuchUpload", 404)


def test_uploads_are_listed(s3, bucket):
    identity = upload(s3, bucket, "in/k")
    listed = s3.list_multipart_uploads(Bucket=bucket, Prefix="in/k")["Uploads"]
    assert [(one["Key"], one["UploadId"]) for one in listed] == [("in/k", identity)]


def test_parts_that_do_not_fit(s3, bucket):
    identity = upload(s3, bucket)
    small = [part(s3, bucket, number, b"x", identity) for number in (1, 2)]
    assert refused(complete, s3, bucket, identity, small[::-1]) == ("InvalidPartOrder", 400)
    wrong = [{"PartNumber": 1, "ETag": f'"{md5(b"y").hexdigest()}"'}]
    assert refused(complete, s3, bucket, identity, wrong) == ("InvalidPart", 400)


def test_parts_that_are_too_small(s3, bucket):
    identity = upload(s3, bucket)
    small = [part(s3, bucket, number, b"x", identity) for number in (1, 2)]
    assert refused(complete, s3, bucket, identity, small) == ("EntityTooSmall", 400)


def test_a_part_may_be_a_copy(s3, bucket):
    s3.put_object(Bucket=bucket, Key="source", Body=b"0123456789")
    identity = upload(s3, bucket)
    copied = s3.upload_part_copy(
        Bucket=bucket,
        Key="k",
        UploadId=identity,
        PartNumber=1,
        CopySource=f"{bucket}/source",
        CopySourceRange="bytes=2-5",
    )["CopyPartResult"]["ETag"]
    complete(s3, bucket, identity, [{"PartNumber": 1, "ETag": copied}])
    assert read(s3, bucket, "k") == b"2345"


def test_a_part_is_read_by_its_number(s3, bucket):
    identity = upload(s3, bucket)
    parts = [part(s3, bucket, number, body, identity) for number, body in ((1, b"1" * PART), (2, b"22"))]
    complete(s3, bucket, identity, parts)
    assert read(s3, bucket, "k", PartNumber=2) == b"22"
