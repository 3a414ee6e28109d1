"""FDL files in a folder of their own, and a small OSCAR that keeps services, names of buckets, and nothing else."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fdl.apply import Endpoint
from fdl.document import Document, read_file
from fdl.model import service_from_json

PASSWORD = "secret"


@pytest.fixture
def fdl_file(tmp_path: Path) -> Callable[..., Path]:
    """Write an FDL file from a YAML text (beside a script `function.sh`) or from services as dictionaries."""

    def write(content: str | list[dict[str, Any]]) -> Path:
        (tmp_path / "function.sh").write_text("#!/bin/sh\ntrue\n")
        if not isinstance(content, str):
            content = json.dumps({"functions": {"oscar": [{"dioscar": service} for service in content]}})
        path = tmp_path / "twin.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


@pytest.fixture
def document(fdl_file: Callable[..., Path]) -> Callable[..., Document]:
    """The document of some services."""
    return lambda *services: read_file(fdl_file(list(services)))


def service(name: str, **fields: Any) -> dict[str, Any]:
    """A valid service of an FDL file."""
    return {
        "name": name,
        "image": f"ghcr.io/dioscar/dioscar-{name}:0.1.0",
        "script": "function.sh",
        "input": [{"storage_provider": "minio.default", "path": f"{name}/in"}],
        "output": [{"storage_provider": "minio.default", "path": f"{name}/out"}],
        **fields,
    }


class SmallOscar(ThreadingHTTPServer):
    """A real HTTP server with OSCAR's calls for services and buckets; it notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.services: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.refused: dict[str, str] = {}
        self.buckets: list[str] = []

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("dioscar", f"http://127.0.0.1:{self.server_port}", user="oscar", password=PASSWORD)


class _Handler(BaseHTTPRequestHandler):
    server: SmallOscar

    def do_GET(self) -> None:
        if not self._allowed():
            return
        if self.path == "/system/services":
            self._answer(200, list(self.server.services.values()))
        elif self.path == "/system/buckets":  # where there is none, the real one answers null
            self._answer(200, [{"bucket_name": name} for name in self.server.buckets] or "null")
        else:
            found = self.server.services.get(self.path.rpartition("/")[2])
            self._answer(200 if found else 404, found)

    def do_POST(self) -> None:
        if self._allowed():
            self._store(201)

    def do_PUT(self) -> None:
        if self._allowed():
            self._store(204)

    def do_DELETE(self) -> None:
        if self._allowed():
            found = self.server.services.pop(self.path.rpartition("/")[2], None)
            self._answer(204 if found else 404, None)

    def _store(self, status: int) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/system/buckets":
            refusal = self.server.refused.get(body["bucket_name"])
            if refusal is None:
                self.server.buckets.append(body["bucket_name"])
            self._answer(400 if refusal else 201, refusal)
            return
        self.server.calls.append((self.command, body["name"]))
        if body["name"] in self.server.refused:
            self._answer(400, self.server.refused[body["name"]])
            return
        # as the real one does: defaults filled in, its own store, its own labels, its own token
        body = service_from_json(body).to_json()
        body["storage_providers"] = {"minio": {"default": {"endpoint": "http://minio", "access_key": "hidden"}}}
        body["labels"] = {**body["labels"], "oscar_service": body["name"], "oscar.grycap/user-service": "true"}
        body |= {"token": "0" * 64, "owner": "cluster_admin", "namespace": "oscar-svc"}
        self.server.services[body["name"]] = body
        self._answer(status, None)

    def _allowed(self) -> bool:
        expected = "Basic " + base64.b64encode(f"oscar:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] == expected:
            return True
        self._answer(401, None)
        return False

    def _answer(self, status: int, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value) if value is not None else ""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def small_oscar() -> Iterator[SmallOscar]:
    server = SmallOscar()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def oscar() -> Iterator[SmallOscar]:
    with small_oscar() as server:
        yield server
