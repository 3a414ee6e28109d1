"""The client's temper: what it does when the other side is odd. That it speaks S3 is tested with the S3 endpoint."""

import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from layers.objects import client as module
from layers.objects.client import S3Client
from layers.objects.errors import AccessRefused, NoSuchObject, ObjectError, ObjectExists, StoreUnavailable

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"


class Store(ThreadingHTTPServer):
    """Plays back `answers`, one per request: (status, headers, body), or None to hang up without a word."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = [], []

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = headers.get("Connection") == "close"

    do_GET = do_PUT = do_DELETE = do_HEAD = do  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def store():
    server = Store()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(store, monkeypatch):
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0, 0.0))
    with S3Client(f"http://127.0.0.1:{store.server_port}", "key", "secret") as client:
        yield client


def test_a_file_goes_up_with_its_hash_type_and_metadata(client, store, tmp_path):
    (tmp_path / "a").write_bytes(b"hello")
    store.answers = [(200, {"ETag": '"5d41"'}, b"")]

    info = client.put("b", "in/ü .txt", tmp_path / "a", content_type="text/plain", metadata={"hop": "1"})

    _, path, headers, body = store.requests[0]
    assert path == "/b/in/%C3%BC%20.txt" and body == b"hello"
    assert headers["x-amz-content-sha256"] == sha256(b"hello").hexdigest()
    assert headers["x-amz-meta-hop"] == "1" and headers["content-type"] == "text/plain"
    assert (info.size, info.etag, info.metadata) == (5, "5d41", {"hop": "1"})


def test_a_store_that_hangs_up_or_stumbles_is_asked_again(client, store, tmp_path):
    (tmp_path / "a").write_bytes(b"hello")
    store.answers = [None, (503, {}, b""), (200, {"ETag": '"e"'}, b"")]

    client.put("b", "k", tmp_path / "a")

    assert [body for *_, body in store.requests] == [b"hello"] * 3


def test_a_store_that_never_answers_is_named(client, store, tmp_path):
    store.answers = [None] * 4

    with pytest.raises(StoreUnavailable, match=r"b/k: no answer from http://127\.0\.0\.1:\d+"):
        client.get("b", "k", tmp_path / "t")
    assert len(store.requests) == 4


def test_a_short_answer_is_fetched_again_and_leaves_no_part(client, store, tmp_path):
    short = (200, {"Content-Length": "10", "Connection": "close"}, b"half")
    store.answers = [short, (200, {}, b"whole")]
    client.get("b", "k", tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == b"whole"

    store.answers = [short] * 4
    with pytest.raises(StoreUnavailable):
        client.get("b", "k", tmp_path / "u")
    assert not (tmp_path / "u").exists()


@pytest.mark.parametrize(
    "status, code, family",
    [(404, "NoSuchKey", NoSuchObject), (403, "SignatureDoesNotMatch", AccessRefused), (409, "Odd", ObjectError)],
)
def test_a_refusal_carries_the_stores_words_and_is_not_repeated(client, store, tmp_path, status, code, family):
    store.answers = [(status, {}, ERROR.format(code, "said so").encode())]

    with pytest.raises(family, match=rf"b/k: http://127\.0\.0\.1:\d+ answered {status} {code}: said so") as caught:
        client.get("b", "k", tmp_path / "t")
    assert (caught.value.status, caught.value.code) == (status, code)
    assert len(store.requests) == 1


def test_an_xml_bomb_as_error_document_does_no_harm(client, store):
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Error><Code>&b;</Code></Error>'
    store.answers = [(400, {}, bomb)]

    with pytest.raises(ObjectError, match="400"):
        client.delete("b", "k")


def test_a_connection_is_used_again_and_a_closed_one_replaced(client, store):
    store.answers = [(204, {}, b""), (204, {"Connection": "close"}, b""), (204, {}, b"")]
    for _ in range(3):
        client.delete("b", "k")
    assert store.answers == []


def test_another_thread_may_take_the_last_idle_connection(client, store):
    class Raced(list):
        """What another thread has just emptied, after somebody saw that there was something in it."""

        def __bool__(self):
            return True

        def __len__(self):
            return 1

    client._idle = Raced()
    store.answers = [(204, {"Connection": "close"}, b"")]
    client.delete("b", "k")
    assert store.answers == []


def test_what_cannot_be_an_endpoint_is_refused():
    with pytest.raises(ObjectError, match='endpoint "localhost:9000" is no S3 endpoint'):
        S3Client("localhost:9000", "", "")


def test_metadata_that_headers_cannot_carry_is_refused(client, tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(ObjectError, match='metadata "name"'):
        client.put("b", "k", tmp_path / "a", metadata={"name": "ü"})


def test_bytes_go_up_only_where_nothing_is_if_so_asked(client, store):
    store.answers = [(200, {"ETag": '"e"'}, b""), (412, {}, ERROR.format("PreconditionFailed", "is there").encode())]

    client.put("b", "k", b"hello", if_absent=True)
    with pytest.raises(ObjectExists, match="412 PreconditionFailed"):
        client.put("b", "k", b"hello", if_absent=True)

    _, _, headers, body = store.requests[0]
    assert {name.lower(): value for name, value in headers.items()}["if-none-match"] == "*" and body == b"hello"
    assert "if-none-match" in headers["authorization"], "it is signed"


def test_a_small_object_comes_as_bytes_and_a_large_one_not(client, store):
    store.answers = [(200, {}, b"hello"), (200, {}, b"hello")]

    assert client.read("b", "k", 5) == b"hello"
    with pytest.raises(ObjectError, match="has 5 bytes, more than 4"):
        client.read("b", "k", 4)
