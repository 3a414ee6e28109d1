"""Requests that could be read in two ways are refused or read in one; none of them carries a second one along."""

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tests.infra.local.exposed.conftest import PATIENCE_S, Exposed, expose

pytestmark = pytest.mark.usefixtures("no_defect")

BASE = "/system/services/exposed-answer/exposed"
SMUGGLED = b"GET /system/services/exposed-answer/exposed/smuggled HTTP/1.1\r\nHost: h\r\nX-Real-IP: 6.6.6.6\r\n\r\n"


def exchange(cluster: Cluster, data: bytes) -> bytes:
    """All that the API answers to these bytes, the last of which is to have it close the connection."""
    host, port = cluster.facts["api"].removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
        client.sendall(data)
        while chunk := client.recv(1 << 16):
            received += chunk
    return received


def request(*headers: str, path: str = f"{BASE}/x", method: str = "POST", body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode("latin-1") + body


def statuses(answer: bytes) -> list[int]:
    """The statuses of the answers on one connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.mark.parametrize(
    "headers",
    [
        ["Host: h", "Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Host: h", "Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Host: h", "Content-Length: 5", "Content-Length: 6"],
        ["Host: h", "Content-Length: 5", "Content-Length: 5"],
        ["Host: h", "Content-Length: 5, 5"],
        ["Host: h", "Content-Length: +5"],
        ["Host: h", "Content-Length: -5"],
        ["Host: h", "Content-Length: 0x5"],
        ["Host: h", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Host: h", "Transfer-Encoding: gzip, chunked"],
        ["Host: h", "Transfer-Encoding: identity"],
        ["Host: h", "Transfer-Encoding: xchunked"],
        ["Host: h", "Transfer-Encoding : chunked"],
        ["Host: h", "Content-Length : 5"],
        ["Host: h", "Host: elsewhere.example.org", "Content-Length: 0"],
        ["Host: h", "X-A: b\rX-Real-IP: 6.6.6.6", "Content-Length: 0"],
        ["Host: h", "X-A: b\nX-Real-IP: 6.6.6.6", "Content-Length: 0"],
        ["Host: h", "X-A: b\x00c", "Content-Length: 0"],
        ["Host: h", "X-A: b\x7fc", "Content-Length: 0"],
        ["Host: h", "X A: b", "Content-Length: 0"],
        ["Host: h", "X-\xc3\xa9: b", "Content-Length: 0"],
        ["Host: h", ": b", "Content-Length: 0"],
        ["Host: h", "no colon", "Content-Length: 0"],
        ["Host: h", " X-Folded: b", "Content-Length: 0"],
    ],
    ids=lambda headers: " | ".join(headers[1:]).encode("unicode_escape").decode(),
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(answer: Exposed, headers: list[str]):
    received = exchange(answer.cluster, request(*headers, body=b"0\r\n\r\n" + SMUGGLED))
    assert statuses(received) == [400]
    assert b"smuggled" not in received
    assert b"Traceback" not in received


@pytest.mark.parametrize(
    "headers",
    [
        ["Host: h", "Connection: close", "Transfer_Encoding: chunked", "Content-Length: 5"],
        ["Host: h", "Connection: close", "Content_Length: 500", "Content-Length: 5"],
        ["Host: h", "Connection: Content-Length, close", "Content-Length: 5"],
        ["Host: h", "Connection: Transfer-Encoding, Host, close", "Content-Length: 5"],
        [
            "Host: h",
            "Connection: close",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            "Content-Length: 5",
        ],
        ["Host: h", "Connection: close", "Expect: 100-continue", "Content-Length: 5"],
        ["Host: h", "Connection: close", "Trailer: X-Real-IP", "Content-Length: 5"],
    ],
    ids=lambda headers: " | ".join(headers[1:]),
)
def test_what_is_about_a_connection_is_about_ours_alone(answer: Exposed, headers: list[str]):
    received = exchange(answer.cluster, request(*headers, body=b"12345"))
    assert statuses(received)[-1] == 200
    facts = answer_in(received)
    seen = {name for name, _ in facts["headers"]}
    assert (facts["size"], facts["first"]) == (5, "12345")
    assert not {"transfer_encoding", "content_length", "upgrade", "http2-settings", "expect", "trailer"} & seen
    assert dict(facts["headers"])["host"] == "h"


def test_trailers_do_not_become_headers(answer: Exposed):
    body = b"5\r\n12345\r\n0\r\nX-Real-IP: 6.6.6.6\r\nX-Late: 1\r\n\r\n"
    received = exchange(
        answer.cluster, request("Host: h", "Connection: close", "Transfer-Encoding: chunked", body=body)
    )
    facts = answer_in(received)
    assert facts["size"] == 5
    headers = dict(facts["headers"])
    assert headers["x-real-ip"] == "127.0.0.1"
    assert "x-late" not in headers


def test_requests_in_one_piece_are_answered_one_by_one(answer: Exposed):
    first = request("Host: h", "Content-Length: 5", path=f"{BASE}/first", body=b"12345")
    second = request("Host: h", "Connection: close", path=f"{BASE}/second", method="GET")
    received = exchange(answer.cluster, first + second)
    assert statuses(received) == [200, 200]
    assert received.index(b"/first") < received.index(b"/second")


@pytest.mark.parametrize(
    "target, status",
    [
        (f"http://elsewhere.example.org{BASE}/x", 200),
        (f"https://127.0.0.1:1{BASE}/x", 200),
        (f"{BASE}/x#fragment", 200),
        ("/system/services/%65xposed-answer/exposed/x", 404),
        ("/system/services/exposed-answer%2Fexposed/x", 404),
        ("/system/services/exposed-answer/exposed%2Fx", 404),
        ("/system/services/exposed-answer/exposed%3F/x", 404),
        ("/system/services/x/../exposed-answer/exposed/x", 404),
        ("/system/services//exposed-answer/exposed/x", 404),
    ],
)
def test_a_target_leads_to_the_service_that_it_names_or_nowhere(answer: Exposed, target: str, status: int):
    received = exchange(answer.cluster, request("Host: h", "Connection: close", path=target, method="GET"))
    assert statuses(received) == [status]
    if status == 200:
        facts = answer_in(received)
        assert facts["path"] == f"{BASE}/x"
        assert dict(facts["headers"])["host"] == "h"


@pytest.mark.parametrize("path", ["/\xe9", "/a\x01b", "/a\tb", "/\x80"])
def test_characters_that_no_address_has_are_refused(answer: Exposed, path: str):
    received = exchange(answer.cluster, request("Host: h", "Connection: close", path=f"{BASE}{path}", method="GET"))
    assert statuses(received) == [400]
    assert b"Traceback" not in received


def test_a_body_shorter_than_it_was_said_to_be_is_no_request(cluster: Cluster):
    service = expose(cluster, "exposed-short")
    service.reaches("ready")
    path = f"/system/services/{service.name}/exposed/short"
    host, port = cluster.facts["api"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
        client.sendall(request("Host: h", "Content-Length: 50", path=path, body=b"12345"))
    # the service was asked at most for half of it, and answers whoever comes next as if nothing had been
    for _ in range(5):
        facts = service.ask("/next", "POST", data=b"whole").json()
        assert (facts["path"].endswith("/next"), facts["size"]) == (True, 5)
    service.remove()


ANSWERS = """exec python3 -c '
import os, socket
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    client, _ = listener.accept()
    head = client.recv(65536)
    body = b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nfalse"
    if b"GET /two" in head:
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\ntrue" + body)
    elif b"GET /early" in head:
        client.sendall(b"HTTP/1.1 103 Early Hints\\r\\nLink: </a>\\r\\n\\r\\n")
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\ntrue")
    elif b"GET /switch" in head:
        client.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: x\\r\\n\\r\\n" + body)
    elif b"GET /close" in head:
        client.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\ntrue")
    else:
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    client.close()
'
"""


@pytest.fixture(scope="module")
def talker(cluster: Cluster) -> Iterator[Exposed]:
    """A service that answers as it likes."""
    service = expose(cluster, "exposed-talker", script=ANSWERS)
    service.reaches("ready")
    yield service
    service.remove()


@pytest.mark.parametrize("path, status", [("/two", 200), ("/early", 200), ("/switch", 502), ("/close", 200)])
def test_a_service_has_one_answer_to_each_request(talker: Exposed, path: str, status: int):
    reply = talker.ask(path)
    assert reply.status_code == status
    assert reply.text == "true" if status == 200 else "false" not in reply.text
    assert talker.ask("/").status_code == 200


def answer_in(received: bytes) -> dict:
    """What the example saw, in the last of these answers."""
    return dict(json.loads(received[received.rindex(b'{"greeting"') : received.rindex(b"}") + 1]))
