"""The object store: small puts and gets, a large one, and listing among a million, beside a server that does nothing.

The load comes from raw sockets with requests that were signed beforehand, so that the client is not what is measured.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from infra.local import buckets
from infra.local.blobs import Blobs
from infra.local.database import Database
from infra.local.objects import ObjectStore
from infra.local.s3.app import S3App
from layers.objects import sigv4
from tests.benchmarks.report import cpu_seconds, quantile, show

KEYS = sigv4.Credentials("bench", "bench-secret")
CONNECTIONS = 8
MIB = 1 << 20
LISTED = 1_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--serve", metavar="WHAT", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve:
        uvloop.run(_serve(arguments.serve, arguments.data))
        return 0
    share = 10 if arguments.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        listed = LISTED // share
        took = _fill(data, listed)
        show(
            f"puts and gets of 1 KiB over {CONNECTIONS} connections, {listed:,} objects in the store",
            [row for what in ("nothing", "store") for row in _small(what, data, 10_000 // share)],
        )
        show(
            "one put and one get of a large object", [_large(what, data, 256 // share) for what in ("nothing", "store")]
        )
        show(f"first page of a listing among {listed:,} objects (loaded in {took:.0f} s)", _listing(data, listed))
    return 0


def _fill(data: Path, count: int) -> float:
    """Rows of objects, loaded in bulk: a thousand folders of a thousand."""
    began = time.perf_counter()
    database = Database(data / "dioscar.db")
    blobs = Blobs(database, data / "blobs")
    store = ObjectStore(database, blobs)

    def work(connection: Any) -> None:
        for name in ("bench", "many"):
            store.create_bucket(connection, name)
        number = buckets.number(connection, "many")
        connection.execute("INSERT INTO blobs VALUES (1, 1, '', '', x'78')")
        connection.executemany(
            "INSERT INTO objects (bucket, key, blob, size, etag, sha256, modified, content_type, metadata, headers,"
            " tags, checksums, parts) VALUES (?, ?, 1, 1, ?, ?, ?, 'text/plain', '{}', '{}', '{}', '{}', '[]')",
            (
                (number, f"run{n // 1000:04}/frame{n % 1000:04}.h5", "0" * 32, "0" * 64, time.time())
                for n in range(count)
            ),
        )

    database.write_blocking(work)
    blobs.close()
    database.close()
    return time.perf_counter() - began


def _small(what: str, data: Path, count: int) -> Iterator[dict[str, Any]]:
    body = os.urandom(1024)
    with _server(what, data) as (pid, port):
        for method in ("PUT", "GET"):
            requests = [
                _request(method, f"/bench/small/{n:06}", body if method == "PUT" else b"") for n in range(count)
            ]
            cpu, began = cpu_seconds(pid), time.perf_counter()
            latencies = uvloop.run(_load(port, requests))
            took = time.perf_counter() - began
            yield {
                "server": what,
                "call": f"{method} 1 KiB",
                "per_second": count / took,
                "median_ms": 1e3 * quantile(latencies, 0.5),
                "p99_ms": 1e3 * quantile(latencies, 0.99),
                "server_cpu_ms": 1e3 * (cpu_seconds(pid) - cpu) / count,
            }


def _large(what: str, data: Path, mebibytes: int) -> dict[str, Any]:
    body = os.urandom(MIB) * mebibytes
    with _server(what, data) as (pid, port):
        before = _memory(pid, "VmRSS")
        cpu = cpu_seconds(pid)
        put = _timed(port, _request("PUT", "/bench/large", body))
        put_cpu = cpu_seconds(pid) - cpu
        get = _timed(port, _request("GET", "/bench/large", b""))
        return {
            "server": what,
            "MiB": mebibytes,
            "put_MiB_s": mebibytes / put,
            "get_MiB_s": mebibytes / get if what == "store" else "",
            "put_cpu_s": put_cpu,
            "get_cpu_s": cpu_seconds(pid) - cpu - put_cpu,
            "memory_growth_MiB": (_memory(pid, "VmHWM") - before) / 1024,
        }


def _listing(data: Path, count: int) -> list[dict[str, Any]]:
    middle = f"run{count // 2000:04}"
    queries = {
        "all": [("list-type", "2")],
        "prefix of one folder": [("list-type", "2"), ("prefix", f"{middle}/")],
        "folders (delimiter)": [("list-type", "2"), ("delimiter", "/")],
        "after a key in the middle": [("list-type", "2"), ("start-after", f"{middle}/frame0500.h5")],
    }
    rows = []
    with _server("store", data) as (pid, port):
        for name, query in queries.items():
            request = _request("GET", "/many", b"", sigv4.canonical_query(query))
            cpu = cpu_seconds(pid)
            times = sorted(_timed(port, request) for _ in range(20))
            rows.append(
                {
                    "listing": name,
                    "median_ms": 1e3 * quantile(times, 0.5),
                    "slowest_ms": 1e3 * times[-1],
                    "server_cpu_ms": 1e3 * (cpu_seconds(pid) - cpu) / 20,
                }
            )
        rows.append({"listing": "memory of the server, MiB", "median_ms": _memory(pid, "VmRSS") / 1024})
    return [{**dict.fromkeys(rows[0], ""), **row} for row in rows]


def _request(method: str, path: str, body: bytes, query: str = "") -> bytes:
    headers = sigv4.sign(
        method,
        path,
        query,
        {"host": "127.0.0.1"},
        payload=sha256(body).hexdigest(),
        credentials=KEYS,
        region="us-east-1",
        now=datetime.now(UTC),
    )
    headers["content-length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path}?{query} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _load(port: int, requests: list[bytes]) -> list[float]:
    """Send every request over a few connections, one at a time on each."""
    latencies: list[float] = []
    waiting = iter(requests)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
            latencies.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return latencies


def _timed(port: int, request: bytes) -> float:
    """Seconds until one request is answered to its last byte."""
    buffer = bytearray(4 * MIB)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began = time.perf_counter()
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, rest = received.partition(b"\r\n\r\n")
        left = _length(head) - len(rest)
        while left > 0:
            left -= connection.recv_into(buffer)
        return time.perf_counter() - began


def _length(head: bytes) -> int:
    if not head.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(head.decode(errors="replace"))
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def _memory(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@contextmanager
def _server(what: str, data: Path) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "tests.benchmarks.store", "--serve", what, "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


async def _serve(what: str, data: Path) -> None:
    app: Callable[..., Any] = _nothing
    if what == "store":
        database = Database(data / "dioscar.db")
        store = ObjectStore(database, Blobs(database, data / "blobs"))
        await store.start()
        app = S3App(store, {KEYS.access_key: KEYS.secret_key}.get)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, http="httptools", lifespan="off", access_log=False, log_config=None)
        await uvicorn.Server(config).serve(sockets=[listener])


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body and says that all is well."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


if __name__ == "__main__":
    sys.exit(main())
