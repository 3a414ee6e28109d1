"""Requests that no client would make, signed so that they get to the handlers: always an answer, never a 500."""

import contextlib
import http.client

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layers.objects import sigv4
from tests.infra.local.s3.helpers import parsed, signed

METHODS = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"])
BUCKETS = st.sampled_from(["fuzz", "no-such-bucket", "Bad_Name", ""])
KEYS = st.one_of(
    st.just(""),
    st.sampled_from(["k", "dir/k", "..", "a//b"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
NAMES = st.sampled_from(
    [
        "acl",
        "attributes",
        "continuation-token",
        "cors",
        "delete",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "key-marker",
        "lifecycle",
        "list-type",
        "location",
        "logging",
        "marker",
        "max-keys",
        "max-parts",
        "max-uploads",
        "notification",
        "part-number-marker",
        "partNumber",
        "policy",
        "prefix",
        "response-content-type",
        "start-after",
        "tagging",
        "torrent",
        "upload-id-marker",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "x-id",
    ]
)
VALUES = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "2", "url", "/", "null", "true", "99999999999999999999", "%"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-md5",
            "content-type",
            "if-match",
            "if-modified-since",
            "if-none-match",
            "if-range",
            "if-unmodified-since",
            "range",
            "x-amz-acl",
            "x-amz-checksum-algorithm",
            "x-amz-checksum-crc32",
            "x-amz-checksum-mode",
            "x-amz-copy-source",
            "x-amz-copy-source-if-match",
            "x-amz-copy-source-range",
            "x-amz-decoded-content-length",
            "x-amz-meta-a",
            "x-amz-metadata-directive",
            "x-amz-object-attributes",
            "x-amz-tagging",
            "x-amz-trailer",
        ]
    ),
    st.one_of(
        st.sampled_from(
            [
                "",
                "*",
                "bytes=0-",
                "bytes=-",
                "bytes=9-1",
                "fuzz/k",
                "/fuzz/%ff",
                "fuzz",
                "COPY",
                "REPLACE",
                "CRC32",
                "0",
                "ENABLED",
                "a=1&b=2",
                "Sat, 01 Jan 2000 00:00:00 GMT",
                "x-amz-checksum-crc32",
            ]
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12),
    ),
    max_size=4,
)
PAYLOADS = st.sampled_from(
    [None, "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x"]
)


@pytest.fixture(scope="module")
def fuzzed(s3):
    s3.create_bucket(Bucket="fuzz")
    s3.put_object(Bucket="fuzz", Key="k", Body=b"x" * 100)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(METHODS, BUCKETS, KEYS, st.dictionaries(NAMES, VALUES, max_size=3), HEADERS, PAYLOADS, st.binary(max_size=40))
def test_whatever_is_asked_is_answered(endpoint, fuzzed, method, bucket, key, query, headers, payload, body):
    path = sigv4.quote_path(f"/{bucket}/{key}" if key else f"/{bucket}")
    search = sigv4.canonical_query(query.items())
    sent = signed(method, path, endpoint, query=search, body=body, payload=payload, headers=headers)
    connection = http.client.HTTPConnection(*endpoint.address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, f"{path}?{search}", body=body, headers=sent)
        response = connection.getresponse()
        answer = response.read()

    assert response.status < 500 or response.status == 501, (response.status, answer)
    if response.status >= 400 and method != "HEAD":
        assert parsed(answer)["Code"] and parsed(answer)["RequestId"]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), st.sampled_from(["header", "query"]))
def test_no_authorization_is_ever_an_internal_error(endpoint, text, where):
    connection = http.client.HTTPConnection(*endpoint.address, timeout=10)
    with contextlib.closing(connection):
        if where == "header":
            connection.request("GET", "/fuzz", headers={"authorization": f"AWS4-HMAC-SHA256 {text}"})
        else:
            query = sigv4.canonical_query(
                [("X-Amz-Algorithm", sigv4.ALGORITHM), ("X-Amz-Credential", text), ("X-Amz-Expires", text)]
            )
            connection.request("GET", f"/fuzz?{query}")
        response = connection.getresponse()
        assert response.status in (400, 403) and parsed(response.read())["Code"]
