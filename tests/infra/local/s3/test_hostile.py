"""Clients that mean harm or know no better: nobody is held up, nothing is left, nothing is an internal error."""

import contextlib
import selectors
import socket
import threading
import time

import pytest

from infra.local import connections
from infra.local.s3 import app, bodies
from tests.cluster import eventually
from tests.infra.local.s3.helpers import parsed, signed

MANY = 200


def head(endpoint, method, path, body=b"", length=None, **headers):
    """The head of a signed request."""
    given = signed(method, path, endpoint, body=body, headers=headers)
    given["content-length"] = str(len(body) if length is None else length)
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def dripped(endpoint, data, pause_s):
    """Send `data` byte by byte until the server has had enough; what it answers, and how much was sent."""
    with socket.create_connection(endpoint.address, timeout=20) as connection:
        sent, answer = 0, b""
        with selectors.DefaultSelector() as selector, contextlib.suppress(ConnectionError):
            selector.register(connection, selectors.EVENT_READ)
            while sent < len(data) and not selector.select(pause_s):
                connection.sendall(data[sent : sent + 1])
                sent += 1
            while block := connection.recv(65536):
                answer += block
        return answer, sent


@pytest.fixture
def meanwhile(endpoint, s3, bucket):
    """Others put and get while a `with` goes on; what they have done is counted."""

    @contextlib.contextmanager
    def going_on():
        done, over = [], threading.Event()

        def others():
            while not over.is_set():
                s3.put_object(Bucket=bucket, Key="others", Body=b"x")
                done.append(s3.get_object(Bucket=bucket, Key="others")["Body"].read())

        thread = threading.Thread(target=others)
        thread.start()
        try:
            yield done
        finally:
            over.set()
            thread.join()

    return going_on


def test_a_body_that_drips_is_cut_off(endpoint, bucket, meanwhile, monkeypatch):
    monkeypatch.setattr(bodies, "TIMEOUT_S", 0.5)
    request = head(endpoint, "PUT", f"/{bucket}/drip", b"x" * 100_000)
    with meanwhile() as done, socket.create_connection(endpoint.address, timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        with selectors.DefaultSelector() as selector, contextlib.suppress(ConnectionError):
            selector.register(connection, selectors.EVENT_READ)
            while not selector.select(0.02):
                connection.sendall(b"x")
            while block := connection.recv(65536):
                answer += block
    assert answer.startswith(b"HTTP/1.1 400 ") and b"<Code>RequestTimeout</Code>" in answer
    assert done and set(done) == {b"x"}
    assert endpoint.call(endpoint.store.get, bucket, "drip") is None


def test_a_slow_body_that_keeps_the_pace_is_waited_for(endpoint, bucket, monkeypatch):
    monkeypatch.setattr(bodies, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(bodies, "PACE", 1000)
    body = b"x" * 25_000
    with socket.create_connection(endpoint.address, timeout=20) as connection:
        connection.sendall(head(endpoint, "PUT", f"/{bucket}/slow", body))
        began = time.monotonic()
        for start in range(0, len(body), 1000):
            connection.sendall(body[start : start + 1000])
            time.sleep(0.05)
        assert time.monotonic() - began > 1
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_head_that_drips_is_cut_off(endpoint, bucket, meanwhile, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    request = head(endpoint, "GET", f"/{bucket}")
    with meanwhile() as done:
        answer, sent = dripped(endpoint, request, 0.02)
    assert answer == b"" and 0 < sent < len(request)
    assert done


def test_who_connects_and_says_nothing_is_cut_off(endpoint, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    with socket.create_connection(endpoint.address, timeout=20) as connection:
        assert connection.recv(1) == b""


def test_a_reader_who_takes_nothing_is_cut_off(endpoint, s3, bucket, meanwhile, monkeypatch):
    monkeypatch.setattr(app, "TIMEOUT_S", 0.3)
    s3.put_object(Bucket=bucket, Key="large", Body=bytes(64 << 20))
    with meanwhile() as done, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(20)
        connection.connect(endpoint.address)
        ours = connection.getsockname()
        connection.sendall(head(endpoint, "GET", f"/{bucket}/large"))
        eventually(lambda: ours in clients(endpoint), 10, "the connection")
        eventually(lambda: ours not in clients(endpoint), 10, "the end of the connection")
    assert done


def clients(endpoint):
    """The addresses of everybody who is connected."""
    return endpoint.call(lambda: {one.client for one in endpoint.server.server_state.connections})


def test_two_hundred_at_once(endpoint, s3, bucket):
    """Each has sent its head and half of its body before the first sends the rest."""
    body = bytes(range(256)) * 8
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(endpoint.address, timeout=60)) for _ in range(MANY)]
        for number, client in enumerate(clients):
            client.sendall(head(endpoint, "PUT", f"/{bucket}/{number:03}", body) + body[:1000])
        for client in clients:
            client.sendall(body[1000:])
        assert {client.recv(65536)[:13] for client in clients} == {b"HTTP/1.1 200 "}
        for number, client in enumerate(clients):
            client.sendall(head(endpoint, "GET", f"/{bucket}/{number:03}"))
        for client in clients:
            answer = b""
            while not answer.endswith(body):
                block = client.recv(65536)
                assert block, answer
                answer += block
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == MANY


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_nothing_is_upgraded(endpoint, body):
    """Who asks for a web socket is answered as anybody is."""
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    request = f"GET /b HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection(endpoint.address, timeout=20) as connection:
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 ")


def test_unicode_is_taken_as_it_is_sent(s3, minio, bucket):
    """What looks the same in two normal forms is two keys."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    s3.put_object(Bucket=bucket, Key=composed, Body=b"composed")
    s3.put_object(Bucket=bucket, Key=decomposed, Body=b"decomposed")
    assert s3.get_object(Bucket=bucket, Key=composed)["Body"].read() == b"composed"
    assert {one.object_name for one in minio.list_objects(bucket)} == {composed, decomposed}
    s3.delete_object(Bucket=bucket, Key=decomposed)
    assert s3.get_object(Bucket=bucket, Key=composed)["Body"].read() == b"composed"


@pytest.mark.parametrize("size, status", [(1023, 200), (1024, 200), (1025, 400)])
@pytest.mark.parametrize("letter", ["x", "é", "🙂"])
def test_a_key_has_a_thousand_and_twenty_four_bytes_at_most(endpoint, s3, bucket, size, status, letter):
    from botocore.exceptions import ClientError

    many, rest = divmod(size, len(letter.encode()))
    key = letter * many + "x" * rest
    assert len(key.encode()) == size
    if status == 200:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
        return
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert caught.value.response["Error"]["Code"] == "KeyTooLongError"


LOL = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMBS = {
    "a billion laughs": f'<!DOCTYPE x [<!ENTITY l0 "lol">{LOL}]><Delete><Object><Key>&l9;</Key></Object></Delete>',
    "one long entity, often": (
        f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]><Delete><Object><Key>{"&a;" * 10_000}</Key></Object></Delete>'
    ),
    "a file": '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&f;</Key></Object></Delete>',
    "a parameter entity": '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:1/">%p;]><Delete/>',
    "too deep": "<Delete>" * 200_000,
    "deep and closed": "<Delete>" * 100_000 + "</Delete>" * 100_000,
    "too many attributes": "<Delete " + " ".join(f"a{n}='1'" for n in range(100_000)) + "/>",
    "too many objects": f"<Delete>{'<Object><Key>k</Key></Object>' * 1001}</Delete>",
    "too long": f"<Delete>{' ' * (5 << 20)}</Delete>",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_document_that_would_explode(endpoint, s3, bucket, name):
    import http.client

    body = BOMBS[name].encode()
    headers = signed("POST", f"/{bucket}", endpoint, query="delete=", body=body)
    connection = http.client.HTTPConnection(*endpoint.address, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", f"/{bucket}?delete=", body=body, headers=headers)
        response = connection.getresponse()
        answer = response.read()
    wanted = "MaxMessageLengthExceeded" if name == "too long" else "MalformedXML"
    assert (response.status, parsed(answer)["Code"]) == (400, wanted)
    assert len(answer) < 2000
    s3.head_bucket(Bucket=bucket)
