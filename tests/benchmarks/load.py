"""A load client that is not itself the bottleneck: requests are signed and laid out beforehand, answers barely read."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

import uvloop

from layers.objects import sigv4
from tests.benchmarks.report import quantile


@dataclass(frozen=True)
class Load:
    """What a load came to: requests a second, and the time of one."""

    requests: int
    seconds: float
    latencies_s: Sequence[float]
    failed: int
    client_cpu_s: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def median_ms(self) -> float:
        return 1000 * quantile(self.latencies_s, 0.5)

    @property
    def p99_ms(self) -> float:
        return 1000 * quantile(self.latencies_s, 0.99)


def plain(url: str, method: str, path: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A request on a connection that stays open."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def signed_put(url: str, access_key: str, secret_key: str, bucket: str, key: str, body: bytes) -> bytes:
    """A PutObject as an S3 client would send it, its payload's SHA-256 included."""
    path = quote(f"/{bucket}/{key}")
    headers = sigv4.sign(
        "PUT",
        path,
        "",
        {"host": urlsplit(url).netloc},
        payload=sha256(body).hexdigest(),
        credentials=sigv4.Credentials(access_key, secret_key),
        region="us-east-1",
        now=datetime.now(UTC),
    )
    return plain(url, "PUT", path, body, [(n, v) for n, v in headers.items() if n.lower() != "host"])


def run(url: str, requests: Sequence[bytes], connections: int = 8) -> Load:
    """Send `requests` over so many connections, each as fast as its answers come."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(url, requests, connections))


async def _run(url: str, requests: Sequence[bytes], connections: int) -> Load:
    parts = urlsplit(url)
    queue = iter(requests)
    latencies: list[float] = []
    failed = 0

    async def serve() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for request in queue:
            began = time.perf_counter()
            writer.write(request)
            status = await _answer(reader)
            latencies.append(time.perf_counter() - began)
            failed += not 200 <= status < 300
        writer.close()
        await writer.wait_closed()

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(serve() for _ in range(connections)))
    seconds = time.perf_counter() - began
    return Load(len(latencies), seconds, latencies, failed, time.process_time() - cpu)


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(head[at + 15 : head.index(b"\r\n", at)]))
    elif b"transfer-encoding: chunked" in head:
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(head[9:12])
