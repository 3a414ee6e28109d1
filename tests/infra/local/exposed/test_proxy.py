"""What passes between a client and an exposed service: bodies, streams, headers, addresses, and who may ask."""

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster import Cluster, eventually
from tests.infra.local.exposed.conftest import PATIENCE_S, Exposed, expose

BASE = "/system/services/exposed-answer/exposed"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_passes_with_its_body(answer: Exposed, method: str):
    facts = answer.ask("/a/b", method, data=b"some bytes").json()
    assert (facts["method"], facts["size"], facts["first"]) == (method, 10, "some bytes")


def test_head_has_headers_and_no_body(answer: Exposed):
    reply = answer.ask("/a/b", "HEAD")
    assert reply.headers["X-Answer"] == "yes"
    assert int(reply.headers["Content-Length"]) > 100
    assert reply.content == b""


@pytest.mark.parametrize(
    "path, seen",
    [
        ("", f"{BASE}/"),
        ("/", f"{BASE}/"),
        ("/a%2Fb/%C3%A9%20", f"{BASE}/a%2Fb/%C3%A9%20"),
        ("/a//b/./c;d=[1]", f"{BASE}/a//b/./c;d=[1]"),
        ("//elsewhere.example.org/x", f"{BASE}//elsewhere.example.org/x"),
        ("/%2e%2e/%2e%2e/x", f"{BASE}/%2e%2e/%2e%2e/x"),
    ],
)
def test_addresses_pass_as_they_are_written(answer: Exposed, path: str, seen: str):
    reply = raw(answer.cluster, f"GET {BASE}{path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    if path in ("", "/"):
        assert reply.endswith(b"here")
    else:
        assert f'"raw_path":"{seen}"'.encode() in reply


def test_a_query_passes_as_it_is_written(answer: Exposed):
    head = f"GET {BASE}/x?a=%20+b&a=%C3%A9&c?d= HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    assert b'"query":"a=%20+b&a=%C3%A9&c?d="' in raw(answer.cluster, head.encode())


def test_the_prefix_is_taken_off_unless_it_is_to_stay(cluster: Cluster):
    script = "exec python3 -P -m http.server $PORT\n"
    service = expose(cluster, "exposed-prefix", script=script)
    service.reaches("ready")
    service.ask("/there?x=1")
    eventually(lambda: '"GET /there?x=1 HTTP/1.1" 404' in "".join(service.log()), PATIENCE_S, "the request")
    expose(cluster, "exposed-prefix", script=script, rewrite_target=True, health_path="/", probe_mode="direct")
    service.reaches("ready")
    service.ask("/there?x=2")
    seen = f'"GET /system/services/{service.name}/exposed/there?x=2 HTTP/1.1" 404'
    eventually(lambda: seen in "".join(service.log()), PATIENCE_S, "the request")
    service.remove()


def test_an_app_knows_its_public_address_whether_the_prefix_is_taken_off_or_not(cluster: Cluster, answer: Exposed):
    kept = expose(cluster, "exposed-kept", rewrite_target=True)
    kept.reaches("ready")
    for service in (answer, kept):
        facts = service.ask("/here").json()
        assert facts["root_path"] == f"/system/services/{service.name}/exposed"
        assert facts["path"] == f"/system/services/{service.name}/exposed/here"
        assert facts["url"] == service.url("/x")
    kept.remove()


def test_a_service_is_told_of_its_client_by_the_cluster_alone(answer: Exposed):
    lies = {
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-User": "admin",
        "X_Forwarded_Host": "evil.example.org",
        "X-Real-IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "Content_Length": "3",
        "X-Mine": "kept",
        "api_key": "kept too",
    }
    headers = dict(answer.ask("/x", headers=lies).json()["headers"])
    assert headers["x-forwarded-for"] == headers["x-real-ip"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-prefix"] == BASE
    assert f"http://{headers['x-forwarded-host']}" == answer.cluster.facts["api"]
    assert headers["host"] == headers["x-forwarded-host"]
    assert (headers["x-mine"], headers["api_key"]) == ("kept", "kept too")
    assert not {"x-forwarded-user", "x_forwarded_host", "forwarded", "content_length"} & headers.keys()


def test_what_is_hop_by_hop_stays_where_it_is(answer: Exposed):
    sent = {"Connection": "X-Secret, X-Real-IP, keep-alive", "X-Secret": "1", "TE": "trailers", "Keep-Alive": "5"}
    reply = answer.ask("/x", headers=sent)
    seen = dict(reply.json()["headers"])
    assert not {"x-secret", "te", "keep-alive"} & seen.keys()
    assert seen["x-real-ip"] == "127.0.0.1"  # the client cannot have it taken away
    assert "X-Secret" not in reply.headers
    assert reply.headers.get("Connection") is None


@pytest.mark.parametrize("code", [201, 204, 301, 304, 404, 418, 500, 503])
def test_answers_pass_as_they_are(answer: Exposed, code: int):
    reply = answer.ask(f"/status/{code}")
    assert reply.status_code == code
    assert reply.headers["Location"] == "/elsewhere"
    assert len(reply.raw.headers.getlist("Set-Cookie")) == 2
    assert len(reply.raw.headers.getlist("Date")) == 1
    assert reply.text == ("" if code in (204, 304) else "said so")


def test_events_arrive_as_they_are_sent_and_a_client_that_leaves_ends_them(cluster: Cluster):
    service = expose(cluster, "exposed-events", variables={"PAUSE_S": "0.05"})
    service.reaches("ready")
    with requests.get(service.url("/stream"), stream=True, timeout=PATIENCE_S) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        lines = (line for line in reply.iter_lines() if line)
        assert [next(lines) for _ in range(3)] == [b"data: 0", b"data: 1", b"data: 2"]
        assert service.ask("/count").json() == {"open_streams": 1}
    eventually(lambda: service.ask("/count").json() == {"open_streams": 0}, PATIENCE_S, "the end of the stream")
    service.remove()


def test_bodies_are_larger_than_memory(answer: Exposed):
    assert answer.cluster.process is not None
    before = peak_mib(answer.cluster.process.pid)

    def pieces() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(1 << 20)

    with tempfile.TemporaryFile() as file:
        file.truncate(200 << 20)
        for body in (pieces(), file):
            assert answer.ask("/x", "POST", data=body).json()["size"] == 200 << 20
    with requests.get(answer.url("/large?mib=200"), stream=True, timeout=PATIENCE_S) as reply:
        assert reply.headers["Content-Length"] == str(200 << 20)
        assert sum(len(chunk) for chunk in reply.iter_content(1 << 20)) == 200 << 20
    assert peak_mib(answer.cluster.process.pid) - before < 100


def test_a_slow_client_holds_back_what_it_does_not_read(answer: Exposed):
    assert answer.cluster.process is not None
    before = peak_mib(answer.cluster.process.pid)
    address = answer.cluster.facts["api"].removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=PATIENCE_S) as client:
        client.sendall(f"GET {BASE}/large?mib=400 HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        time.sleep(1)  # what it would take to fill the memory of the cluster, were it not held back
        assert client.recv(5) == b"HTTP/"
    assert peak_mib(answer.cluster.process.pid) - before < 100


def test_an_answer_that_breaks_off_is_broken_off_for_its_client(cluster: Cluster, no_defect: None):
    service = expose(cluster, "exposed-broken")
    service.reaches("ready")
    with pytest.raises(requests.exceptions.RequestException):
        _ = service.ask("/broken").content
    service.remove()


def test_a_service_that_refuses_a_body_is_not_sent_all_of_it(answer: Exposed):
    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield bytes(1 << 16)

    with contextlib.suppress(requests.exceptions.ConnectionError):  # as with any server that closes on what it refuses
        reply = answer.ask("/refuse", "POST", data=endless())
        assert reply.status_code in (413, 502)  # what it said is lost, where it closed before that was read
    assert answer.ask("/x").status_code == 200


def test_a_service_that_does_not_answer_in_time_is_504(cluster: Cluster):
    service = expose(cluster, "exposed-slow", annotations={"dioscar/timeout": "1"})
    service.reaches("ready")
    reply = service.ask("/slow?s=3")
    assert (reply.status_code, reply.text) == (504, "exposed-slow has not answered within 1 s")
    assert service.ask("/slow?s=0.1").text == "at last"
    service.remove()


NO_HTTP = """exec python3 -c '
import os, socket
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    client, _ = listener.accept()
    head = client.recv(65536)
    if b"GET / " in head:
        client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    elif b"GET /odd" in head:
        client.sendall(b"I speak no HTTP\\r\\n\\r\\n")
    elif b"GET /split" in head:
        both = b"Content-Length: 2\\r\\nTransfer-Encoding: chunked"
        client.sendall(b"HTTP/1.1 200 OK\\r\\n" + both + b"\\r\\n\\r\\n0\\r\\n\\r\\n")
    elif b"GET /status" in head:
        client.sendall(b"HTTP/1.1 999 Odd\\r\\nContent-Length: 0\\r\\n\\r\\n")
    client.close()
'
"""


def test_a_service_that_answers_no_http_is_502(cluster: Cluster, no_defect: None):
    service = expose(cluster, "exposed-odd", script=NO_HTTP)
    service.reaches("ready")
    for path, sentence in (
        ("/odd", "exposed-odd has answered with something that is no HTTP"),
        ("/gone", "exposed-odd has ended the connection without an answer"),
        ("/status", "exposed-odd has answered with the status 999, which there is not"),
    ):
        reply = service.ask(path)
        assert (reply.status_code, reply.text) == (502, sentence)
    assert service.ask("/split").status_code in (200, 502)  # never two answers
    service.remove()


def test_basic_authentication_is_with_the_service_and_its_token(cluster: Cluster):
    service = expose(cluster, "exposed-basic", set_auth=True)
    service.reaches("ready")
    token = cluster.token(service.name)
    for auth in (None, (service.name, "0" * 64), ("oscar", token), cluster.http.auth):
        refused = service.ask("/x", auth=auth)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="Authentication Required"'
        assert refused.text == f"the user name is {service.name}, the password the token of that service"
    assert service.ask("/x", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert service.ask("/x", auth=(service.name, token)).status_code == 200
    service.remove()


def test_forward_authentication_takes_the_token_and_gives_a_cookie(cluster: Cluster):
    service = expose(cluster, "exposed-forward", set_auth=True, auth_type="forward")
    service.reaches("ready")
    token = cluster.token(service.name)
    assert service.ask("/x").status_code == 401
    assert service.ask(f"/x?token={'0' * 64}").status_code == 401
    assert service.ask("/x", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    with requests.Session() as browser:
        first = browser.get(service.url(f"/x?token={token}"), timeout=PATIENCE_S)
        assert first.status_code == 200
        path = f"/system/services/{service.name}/exposed"
        expected = f"oscar_service_exposed_forward_auth={token}; Path={path}; HttpOnly; SameSite=Lax"
        assert first.headers["Set-Cookie"] == expected
        assert browser.get(service.url("/x"), timeout=PATIENCE_S).status_code == 200
    assert service.ask("/x", auth=cluster.http.auth).status_code == 200  # the administrator, as in OSCAR
    service.remove()


def test_the_helper_for_forward_authentication_answers_like_oscars(cluster: Cluster, answer: Exposed):
    token, url = cluster.token(answer.name), cluster.url(f"/system/services/{answer.name}/auth")

    def status(address: str = url, **more: Any) -> int:
        return requests.get(address, timeout=PATIENCE_S, **more).status_code

    assert status() == 401
    assert status(headers={"Authorization": f"Bearer {token}"}) == 200
    assert status(headers={"X-Forwarded-Uri": f"/x?token={token}"}) == 200
    assert status(cookies={"oscar_service_exposed_answer_auth": token}) == 200
    assert status(headers={"Authorization": f"Bearer {'0' * 64}"}) == 401
    assert status(auth=cluster.http.auth) == 200
    nobody = cluster.url("/system/services/exposed-nobody/auth")
    assert status(nobody, auth=cluster.http.auth) == 404
    assert status(nobody, headers={"Authorization": f"Bearer {token}"}) == 404


def test_the_password_of_the_cluster_is_passed_on_to_no_service(cluster: Cluster, answer: Exposed):
    passed = dict(answer.ask("/x", auth=("somebody", "else")).json()["headers"])
    assert passed["authorization"].startswith("Basic ")
    kept = dict(answer.ask("/x", auth=cluster.http.auth).json()["headers"])
    assert "authorization" not in kept


@pytest.mark.parametrize("path", ["/system/services/exposed-nobody/exposed/", "/system/services/%00/exposed/x"])
def test_what_is_not_exposed_is_404(cluster: Cluster, path: str):
    reply = requests.get(cluster.url(path), timeout=PATIENCE_S)
    assert (reply.status_code, reply.text) == (404, "there is no exposed service of that name")


def test_an_app_is_run_by_no_call_and_by_no_upload(answer: Exposed):
    words = (
        "functions/contract/answer.py: is an exposed service (it has app and no run), which no event and no call runs"
    )
    called = answer.cluster.run(answer.name, b"x")
    assert (called.status_code, called.json()["error"]["message"]) == (400, words)
    answer.cluster.put(answer.name, "in/a.txt", b"x")
    (job,) = answer.cluster.ended(answer.name)
    assert (job["state"], job["reason"]) == ("Dead", f"InputError: {words}")
    answer.cluster.s3.delete(answer.name, "in/a.txt")
    answer.cluster.http.delete(answer.cluster.url(f"/system/logs/{answer.name}?all=true"))


def test_requests_are_counted(cluster: Cluster):
    service = expose(cluster, "exposed-counted")
    service.reaches("ready")
    for path in ("/a", "/b", "/status/404"):
        service.ask(path)
    counted = cluster.get(f"/system/metrics/{service.name}?metric=requests-exposed-per-service")
    assert counted["value"] == 2
    service.remove()


def raw(cluster: Cluster, data: bytes) -> bytes:
    """What the API answers to these bytes."""
    host, port = cluster.facts["api"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
        client.sendall(data)
        received = b""
        while chunk := client.recv(1 << 16):
            received += chunk
        return received


def peak_mib(pid: int) -> float:
    """The most memory that a process has had."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024
