"""Bodies: what they promise and what they are, in one piece and in chunks; with plain HTTP, as no good client would."""

import contextlib
import http.client
import os
import socket
import time
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import md5, sha1, sha256
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.local.contents import Content
from infra.local.s3.chunked import SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER, ChunkDecoder
from infra.local.s3.errors import S3Error
from infra.local.s3.request import Signed
from layers.objects import sigv4
from tests.infra.local.s3.helpers import ACCESS, SECRET, parsed, signed


def b64(data):
    return b64encode(data).decode()


def crc(data):
    return b64(crc32(data).to_bytes(4, "big"))


@pytest.fixture(scope="module")
def put(endpoint, s3):
    s3.create_bucket(Bucket="bodies")

    def put(body, headers=None, *, payload=None, key="k", method="PUT", query=""):
        path = f"/bodies/{key}"
        headers = signed(method, path, endpoint, body=body, payload=payload, headers=headers or {}, query=query)
        headers.setdefault("content-length", str(len(body)))
        connection = http.client.HTTPConnection(*endpoint.address)
        with contextlib.closing(connection):
            connection.request(method, f"{path}?{query}", body=body, headers=headers)
            response = connection.getresponse()
            answer = response.read()
            return response.status, parsed(answer)["Code"] if answer else ""

    return put


@pytest.mark.parametrize(
    "name, value",
    [
        ("content-md5", b64(md5(b"hello").digest())),
        ("x-amz-checksum-crc32", crc(b"hello")),
        ("x-amz-checksum-crc32c", "mnG7TA=="),
        ("x-amz-checksum-crc64nvme", "M3eFcAZSQlc="),
        ("x-amz-checksum-sha1", b64(sha1(b"hello").digest())),
        ("x-amz-checksum-sha256", b64(sha256(b"hello").digest())),
    ],
)
def test_a_checksum_is_verified(put, endpoint, name, value):
    assert put(b"hello", {name: value}) == (200, "")
    assert put(b"hellO", {name: value}, key="bad") == (400, "BadDigest")
    assert put(b"hello", {name: "no base64!"}, key="bad") == (400, "InvalidDigest")
    assert endpoint.call(endpoint.store.get, "bodies", "bad") is None


def test_a_checksum_that_is_not_known_is_said(put):
    assert put(b"hello", {"x-amz-checksum-md17": "aaaa"}) == (400, "InvalidRequest")
    assert put(b"x", {"x-amz-checksum-crc32": crc(b"x"), "x-amz-checksum-sha1": "aaaa"}) == (400, "InvalidRequest")


def test_a_payload_hash_that_is_none(put):
    assert put(b"hello", payload="UNSIGNED-PAYLOAD") == (200, "")
    assert put(b"hello", payload="anything") == (400, "InvalidArgument")
    assert put(b"hello", payload="0" * 64) == (400, "XAmzContentSHA256Mismatch")


@pytest.mark.parametrize("size", [0, 10, 70_000, 3_000_000])
def test_a_refused_body_leaves_nothing(put, endpoint, size):
    before = len(endpoint.files())
    assert put(b"x" * size, payload="0" * 64, key="bad")[1] == "XAmzContentSHA256Mismatch"
    assert len(endpoint.files()) == before


def test_metadata_that_is_too_large(put):
    assert put(b"", {"x-amz-meta-a": "x" * 9000}) == (400, "MetadataTooLarge")


def test_a_key_with_a_nul(put):
    assert put(b"x", key="a%00b") == (400, "InvalidArgument")
    assert put(b"x", key="x" * 1025) == (400, "KeyTooLongError")
    assert put(b"x", key="%ff%fe") == (400, "InvalidURI")


@pytest.mark.parametrize(
    "method, query, body, expected",
    [
        ("POST", "", b"", (405, "MethodNotAllowed")),
        ("GET", "torrent=", b"", (501, "NotImplemented")),
        ("PUT", "tagging=", b"<Tagging>", (400, "MalformedXML")),
        ("PUT", "tagging=", b"<Other/>", (400, "MalformedXML")),
        ("PUT", "tagging=", b"\xff\xfe\x00", (400, "MalformedXML")),
        (
            "PUT",
            "tagging=",
            b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><Tagging>&b;</Tagging>',
            (400, "MalformedXML"),
        ),
        (
            "PUT",
            "tagging=",
            b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><Tagging>&a;</Tagging>',
            (400, "MalformedXML"),
        ),
    ],
)
def test_what_cannot_be_understood(put, method, query, body, expected):
    put(b"x", key="there")
    assert put(body, method=method, query=query, key="there") == expected


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_document_is_ever_an_internal_error(put, body):
    put(b"x", key="there")
    status, code = put(b"<Tagging>" + body, method="PUT", query="tagging=", key="there")
    assert (status, code) in {(400, "MalformedXML"), (200, "")}


def raw(endpoint, data, *, then=b"", pause=0.0, half=False):
    with socket.create_connection(endpoint.address, timeout=10) as connection:
        connection.sendall(data)
        if pause:
            time.sleep(pause)
        if then:
            connection.sendall(then)
        if half:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while block := connection.recv(65536):
            received += block
        return received


def head(endpoint, key, length, body=b"", **headers):
    lines = signed("PUT", f"/bodies/{key}", endpoint, body=body, headers=headers)
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"PUT /bodies/{key} HTTP/1.1\r\n{text}content-length: {length}\r\nconnection: close\r\n\r\n".encode()


def test_a_body_shorter_than_declared_leaves_nothing(endpoint, put):
    before = len(endpoint.files())
    for size in (10, 200_000):
        answer = raw(endpoint, head(endpoint, "short", size + 1, b"x" * size), then=b"x" * size, half=True)
        assert b"200" not in answer[:20]
    assert endpoint.call(endpoint.store.get, "bodies", "short") is None
    assert len(endpoint.files()) == before


def test_a_body_longer_than_declared_is_cut_there(endpoint, put):
    answer = raw(endpoint, head(endpoint, "long", 5, b"hello"), then=b"hello and something that is no request")
    assert answer.startswith(b"HTTP/1.1 200")
    assert endpoint.call(endpoint.store.get, "bodies", "long").size == 5


def test_a_client_that_waits_for_100_continue(endpoint, put):
    request = head(endpoint, "expect", 5, b"hello", expect="100-continue")
    with socket.create_connection(endpoint.address, timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_refused_client_that_waits_for_100_continue_never_sends_its_body(endpoint, put):
    put(b"x", key="taken")
    request = head(endpoint, "taken", 10**9, b"", expect="100-continue", **{"if-none-match": "*"})
    with socket.create_connection(endpoint.address, timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 412")
        while connection.recv(10_000):
            pass  # and the connection is closed, for its body will never come


def test_a_refused_body_does_not_spoil_the_next_request(endpoint, put):
    connection = http.client.HTTPConnection(*endpoint.address)
    with contextlib.closing(connection):
        for _ in range(3):
            connection.request("PUT", "/bodies/k", body=b"x" * 100_000, headers={"authorization": "none"})
            response = connection.getresponse()
            assert (response.status, parsed(response.read())["Code"]) == (400, "InvalidRequest")


def test_slow_clients_hurt_nobody_and_leave_nothing(endpoint, put, s3):
    def files_become(wanted):
        deadline = time.monotonic() + 10
        while (count := len(endpoint.files())) != wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        return count == wanted

    before = len(endpoint.files())
    with contextlib.ExitStack() as slow:
        for number in range(50):
            connection = slow.enter_context(socket.create_connection(endpoint.address, timeout=10))
            connection.sendall(head(endpoint, f"slow{number}", 1_000_000) + b"x" * 600_000)
        assert files_become(before + 50)
        started = time.perf_counter()
        s3.put_object(Bucket="bodies", Key="quick", Body=b"x")
        assert time.perf_counter() - started < 2
    assert files_become(before)


def test_a_reader_who_goes_is_not_read_for(endpoint, s3, put, monkeypatch):
    reads = []
    read = Content.ready

    def counted(self, start, count):
        reads.append(count)
        return read(self, start, count)

    s3.put_object(Bucket="bodies", Key="large", Body=bytes(100_000_000))
    monkeypatch.setattr(Content, "ready", counted)
    headers = signed("GET", "/bodies/large", endpoint)
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(endpoint.address, timeout=10) as connection:
        connection.sendall(f"GET /bodies/large HTTP/1.1\r\n{text}\r\n".encode())
        connection.recv(1000)
    s3.head_object(Bucket="bodies", Key="large")
    time.sleep(0.3)

    assert 0 < len(reads) < 50


# aws-chunked

NOW = datetime(2026, 5, 17, tzinfo=UTC)
SCOPE = sigv4.Scope("20260517", "us-east-1")
SEED = Signed(ACCESS, SECRET, SCOPE, sigv4.timestamp(NOW), "seed" * 16, "")


def framed(chunks, kind, claim, trailer=()):
    """A body as a client frames it."""
    out, previous = b"", claim.signature

    def sign(algorithm, content):
        text = f"{algorithm}\n{claim.moment}\n{claim.scope}\n{previous}\n{content}"
        return sigv4.signature(claim.secret_key, claim.scope, text)

    for chunk in (*chunks, b""):
        extension = b""
        if kind != UNSIGNED_TRAILER:
            previous = sign("AWS4-HMAC-SHA256-PAYLOAD", f"{sigv4.EMPTY_SHA256}\n{sha256(chunk).hexdigest()}")
            extension = b";chunk-signature=" + previous.encode()
        out += b"%x" % len(chunk) + extension + b"\r\n" + chunk + (b"\r\n" if chunk else b"")
    if kind != SIGNED:
        lines = "".join(f"{name}:{value}\n" for name, value in trailer)
        out += lines.replace("\n", "\r\n").encode()
        if kind == SIGNED_TRAILER:
            found = sign("AWS4-HMAC-SHA256-TRAILER", sha256(lines.encode()).hexdigest())
            out += f"x-amz-trailer-signature:{found}\r\n".encode()
    return out + b"\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER]),
    st.integers(1, 50),
)
def test_chunks_come_out_whole_however_they_arrive(chunks, kind, step):
    trailers = []
    decoder = ChunkDecoder(kind, SEED, lambda *line: trailers.append(line))
    body = framed(chunks, kind, SEED, [("x-amz-checksum-crc32", "abc=")])
    out = []
    for start in range(0, len(body), step):
        out += decoder.feed(body[start : start + step])
    decoder.finish()

    assert b"".join(out) == b"".join(chunks)
    assert trailers == ([] if kind == SIGNED else [("x-amz-checksum-crc32", "abc=")])


@given(st.data())
def test_an_altered_chunk_is_never_accepted(data):
    kind = data.draw(st.sampled_from([SIGNED, SIGNED_TRAILER]))
    body = bytearray(framed([b"hello", b"world"], kind, SEED, [("x-amz-checksum-crc32", "abc=")]))
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    decoder = ChunkDecoder(kind, SEED, lambda *_: None)
    try:
        out = decoder.feed(bytes(body))
        decoder.finish()
    except S3Error:
        return
    assert b"".join(out) == b"helloworld"  # what was altered had no meaning, such as a name's capitals


@given(st.binary(max_size=300))
def test_no_framing_is_ever_an_internal_error(body):
    decoder = ChunkDecoder(UNSIGNED_TRAILER, SEED, lambda *_: None)
    with contextlib.suppress(S3Error):
        decoder.feed(body)
        decoder.finish()


@pytest.mark.parametrize("kind", [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])
@pytest.mark.parametrize("size", [0, 5, 400_000])
def test_a_body_in_chunks_over_the_wire(endpoint, s3, put, kind, size):
    data = os.urandom(size)
    extra = {"x-amz-decoded-content-length": str(size), "content-encoding": "aws-chunked"}
    trailer = []
    if kind != SIGNED:
        extra["x-amz-trailer"] = "x-amz-checksum-crc32"
        trailer = [("x-amz-checksum-crc32", crc(data))]
    chunks = [data[start : start + 65536] for start in range(0, size, 65536)]

    def send(key, alter=lambda body: body):
        headers = signed("PUT", f"/bodies/{key}", endpoint, payload=kind, headers=extra)
        moment = headers["x-amz-date"]
        seed = Signed(
            ACCESS, SECRET, sigv4.Scope(moment[:8], "us-east-1"), moment, headers["authorization"][-64:], kind
        )
        body = alter(framed(chunks, kind, seed, trailer))
        connection = http.client.HTTPConnection(*endpoint.address)
        with contextlib.closing(connection):
            connection.request("PUT", f"/bodies/{key}", body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    assert send("chunked")[0] == 200
    found = s3.get_object(Bucket="bodies", Key="chunked")
    assert found["Body"].read() == data and "ContentEncoding" not in found
    if size:
        status, answer = send("altered", lambda body: body.replace(data[:5], bytes(5)))
        assert status in (400, 403) and parsed(answer)["Code"] in ("SignatureDoesNotMatch", "BadDigest")
        status, answer = send("cut", lambda body: body[: len(body) // 2])
        assert status == 400 and parsed(answer)["Code"] == "IncompleteBody"
    assert endpoint.call(endpoint.store.get, "bodies", "altered") is None


def test_metadata_that_is_no_text_harms_nobody(endpoint, put, s3):
    """Bytes of a header that are no UTF-8 are kept as Latin-1, so that events and documents stay text."""
    headers = signed("PUT", "/bodies/latin", endpoint, headers={"x-amz-meta-a": "\udce9t\udce9"})
    headers["x-amz-meta-a"] = b"\xe9t\xe9"
    headers["content-length"] = "0"
    connection = http.client.HTTPConnection(*endpoint.address)
    with contextlib.closing(connection):
        connection.request("PUT", "/bodies/latin", headers=headers)
        assert connection.getresponse().status == 200
    assert endpoint.call(endpoint.store.get, "bodies", "latin").metadata == {"a": "été"}
