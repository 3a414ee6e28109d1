"""A small HTTPS server that is dCache's WebDAV door and Onedata's CDMI, for what supervisors ask of them."""

import base64
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

LOGIN, PASSWORD, TOKEN = "door", "a word", "onedata-token"
OPENSSL = shutil.which("openssl")
CDMI = "/cdmi"
MULTISTATUS = """<?xml version="1.0"?><d:multistatus xmlns:d="DAV:"><d:response><d:href>{path}</d:href><d:propstat>
<d:prop><d:resourcetype>{kind}</d:resourcetype></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
</d:multistatus>"""


class Store(ThreadingHTTPServer):
    """Files and folders (whose paths end with a slash) by path; `failing` is answered instead of anything else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {"/": b"", f"{CDMI}/": b""}
        self.failing = 0
        self.certificate = folder / "store.pem"
        key = folder / "store.key"
        name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command = [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
        subprocess.run([*command, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.host = f"localhost:{self.server_address[1]}"

    def add(self, path: str, data: bytes) -> None:
        """A file with the folders above it."""
        parts = path.split("/")[1:-1]
        for number in range(len(parts)):
            self.files["/" + "/".join(parts[: number + 1]) + "/"] = b""
        self.files[path] = data

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_GET(self) -> None:
        path = self._path()
        self._answer(*((200, self.server.files[path]) if path in self.server.files else (404, b"")))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PROPFIND(self) -> None:
        path = self._path()
        folder = path.rstrip("/") + "/" in self.server.files
        if not folder and path not in self.server.files:
            self._answer(404, b"")
            return
        kind = "<d:collection/>" if folder else ""
        self._answer(207, MULTISTATUS.format(path=quote(self._path()), kind=kind).encode())

    def do_PUT(self) -> None:
        path = self._path()
        data = self.rfile.read(int(self.headers["content-length"] or 0))
        if path.rstrip("/").rpartition("/")[0] + "/" not in self.server.files:
            self._answer(409, b"")
            return
        self.server.files[path] = data
        self._answer(201, b"")

    def do_MKCOL(self) -> None:
        path = self._path().rstrip("/") + "/"
        there = path in self.server.files
        above = path[:-1].rpartition("/")[0] + "/"
        if not there and above in self.server.files:
            self.server.files[path] = b""
        self._answer(405 if there else 201 if above in self.server.files else 409, b"")

    def _path(self) -> str:
        return re.sub("/+", "/", unquote(self.path))

    def _answer(self, status: int, body: bytes) -> None:
        basic = "Basic " + base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
        known = (
            self.headers["x-auth-token"] == TOKEN
            if self.path.startswith(CDMI)
            else self.headers["authorization"] == basic
        )
        if not known or self.server.failing:
            status, body = self.server.failing or 401, b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    """A store for the length of a `with`."""
    server = Store(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
