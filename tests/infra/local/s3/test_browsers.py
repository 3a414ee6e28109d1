"""What browsers do: uploads by form, and questions asked before a question."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from minio.datatypes import PostPolicy

from infra.local.s3.errors import S3Error
from infra.local.s3.forms import read_form
from tests.infra.local.s3.helpers import boto, parsed


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize("size", [5, 2_000_000])
def test_a_form_of_boto3(endpoint, s3, bucket, version, size):
    data = (b"\r\n--" + bytes(range(256))) * (size // 260 + 1)
    with contextlib.closing(boto(endpoint.url, signature_version=version)) as client:
        form = client.generate_presigned_post(
            bucket,
            "in/${filename}",
            Fields={"Content-Type": "x/y", "x-amz-meta-a": "b", "success_action_status": "201"},
            Conditions=[
                {"Content-Type": "x/y"},
                ["starts-with", "$x-amz-meta-a", ""],
                {"success_action_status": "201"},
            ],
        )
    answer = requests.post(form["url"], data=form["fields"], files={"file": ("ü 1.bin", data)}, timeout=10)

    assert answer.status_code == 201 and parsed(answer.content)["Key"] == "in/ü 1.bin"
    found = s3.get_object(Bucket=bucket, Key="in/ü 1.bin")
    assert found["Body"].read() == data and found["ContentType"] == "x/y" and found["Metadata"] == {"a": "b"}


def test_a_form_of_the_minio_client(endpoint, minio, s3, bucket):
    policy = PostPolicy(bucket, datetime.now(UTC) + timedelta(minutes=5))
    policy.add_starts_with_condition("key", "in/")
    policy.add_content_length_range_condition(2, 10)
    fields = {**minio.presigned_post_policy(policy), "key": "in/k"}

    def post(data, **other):
        answer = requests.post(f"{endpoint.url}/{bucket}", data={**fields, **other}, files={"file": data}, timeout=10)
        return answer.status_code, parsed(answer.content)["Code"] if answer.content else ""

    assert post(b"hello") == (204, "")
    assert s3.get_object(Bucket=bucket, Key="in/k")["Body"].read() == b"hello"
    assert post(b"x") == (400, "EntityTooSmall")
    assert post(b"x" * 11) == (400, "EntityTooLarge")
    assert post(b"hello", key="out/k") == (403, "AccessDenied")
    assert post(b"hello", **{"x-amz-meta-more": "x"}) == (403, "AccessDenied")
    assert post(b"hello", policy="e30=") == (403, "SignatureDoesNotMatch")
    late = datetime.now(UTC) + timedelta(minutes=6)
    endpoint.app._clock = lambda: late
    try:
        assert post(b"hello") == (403, "AccessDenied")
    finally:
        endpoint.app._clock = lambda: datetime.now(UTC)


def test_a_form_that_nobody_signed(endpoint, bucket):
    answer = requests.post(f"{endpoint.url}/{bucket}", data={"key": "k"}, files={"file": b"x"}, timeout=10)
    assert (answer.status_code, parsed(answer.content)["Code"]) == (403, "AccessDenied")
    answer = requests.post(
        f"{endpoint.url}/{bucket}", data=b"no form", headers={"content-type": "multipart/form-data"}, timeout=10
    )
    assert (answer.status_code, parsed(answer.content)["Code"]) == (400, "MalformedPOSTRequest")


async def cut(body, step):
    for start in range(0, len(body), step):
        yield body[start : start + step]


@pytest.mark.anyio
@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
async def test_a_form_however_it_is_cut(step):
    prepared = requests.Request(
        "POST", "http://h/", data={"Key": "a\r\nb", "other": "ü"}, files={"file": ('q".bin', b"x\r\n--y" * 20)}
    ).prepare()
    form = await read_form(prepared.headers["content-type"], cut(prepared.body, step))

    assert form.fields == {"key": "a\r\nb", "other": "ü"}
    assert b"".join([block async for block in form.file]) == b"x\r\n--y" * 20


@given(st.binary(max_size=200))
def test_no_form_is_ever_an_internal_error(body):
    async def read():
        form = await read_form("multipart/form-data; boundary=b", cut(body, 9))
        return [block async for block in form.file]

    with contextlib.suppress(S3Error):
        coroutine = read()
        with contextlib.suppress(StopIteration):
            coroutine.send(None)


@pytest.mark.anyio
async def test_fields_without_end_are_not_kept():
    field = b'Content-Disposition: form-data; name="f%d"\r\n\r\n' + b"x" * 1000
    body = b"--b\r\n" + b"\r\n--b\r\n".join(field % number for number in range(100))
    with pytest.raises(S3Error, match="too long"):
        await read_form("multipart/form-data; boundary=b", cut(body, 5000))


def test_a_browser_may_ask(endpoint, bucket):
    page = {"Origin": "https://oscar.example.org"}
    asked = {
        **page,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization,x-amz-date",
    }
    answer = requests.options(f"{endpoint.url}/{bucket}/k", headers=asked, timeout=10)

    assert answer.status_code == 204 and answer.headers["access-control-allow-origin"] == "*"
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,x-amz-date"
    refused = requests.get(f"{endpoint.url}/{bucket}", headers=page, timeout=10)
    assert refused.status_code == 403 and refused.headers["access-control-allow-origin"] == "*"
