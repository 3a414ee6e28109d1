"""A load client that is not itself the bottleneck: requests are signed and laid out beforehand, answers barely read."""

import asyncio
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

import uvloop

from layers.objects import sigv4
from tests.benchmarks.report import quantile

RECEIVE = 4 << 20


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
    return head(url, method, path, len(body), headers) + body


def head(url: str, method: str, path: str, length: int, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """All of a request but its body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode()


def signed_head(
    url: str, keys: sigv4.Credentials, method: str, path: str, length: int = 0, *, query: str = "", payload: str = ""
) -> bytes:
    """All of a request of S3 but its body, whose SHA-256 (or `UNSIGNED-PAYLOAD`) is `payload`."""
    headers = sigv4.sign(
        method,
        path,
        query,
        {"host": urlsplit(url).netloc},
        payload=payload or sigv4.EMPTY_SHA256,
        credentials=keys,
        region="us-east-1",
        now=datetime.now(UTC),
    )
    given = [(name, value) for name, value in headers.items() if name.lower() != "host"]
    return head(url, method, f"{path}?{query}" if query else path, length, given)


def signed_put(url: str, access_key: str, secret_key: str, bucket: str, key: str, body: bytes) -> bytes:
    """A PutObject as an S3 client would send it, its payload's SHA-256 included."""
    keys, path = sigv4.Credentials(access_key, secret_key), quote(f"/{bucket}/{key}")
    return signed_head(url, keys, "PUT", path, len(body), payload=sha256(body).hexdigest()) + body


def run(url: str, requests: Sequence[bytes], connections: int = 8) -> Load:
    """Send `requests` over so many connections, each as fast as its answers come."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(url, requests, connections))


def exchange(url: str, request: bytes, body: Iterable[bytes] = ()) -> tuple[float, int]:
    """Send one request and read its answer to the last byte: the seconds that took, and the answer's length.

    Raises RuntimeError where the answer is no success.
    """
    parts = urlsplit(url)
    buffer = bytearray(RECEIVE)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        began = time.perf_counter()
        connection.sendall(request)
        for block in body:
            connection.sendall(block)
        received = b""
        while b"\r\n\r\n" not in received:
            block = connection.recv(65536)
            if not block:
                raise RuntimeError(f"the server hangs up after {received!r}")
            received += block
        top, _, rest = received.partition(b"\r\n\r\n")
        if not top.startswith(b"HTTP/1.") or top[9:10] != b"2":
            raise RuntimeError(received.decode(errors="replace"))
        length = _length(top.lower())
        left = (length or 0) - len(rest)
        while left > 0:
            count = connection.recv_into(buffer)
            if not count:
                raise RuntimeError(f"the server hangs up {left} bytes before the end")
            left -= count
        return time.perf_counter() - began, length or 0


def repeated(block: bytes, times: int) -> Iterator[bytes]:
    """A long body that is never in memory as a whole."""
    for _ in range(times):
        yield block


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
            status, stays = await _answer(reader)
            latencies.append(time.perf_counter() - began)
            failed += not 200 <= status < 300
            if not stays:
                writer.close()
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.close()
        await writer.wait_closed()

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(serve() for _ in range(connections)))
    seconds = time.perf_counter() - began
    return Load(len(latencies), seconds, latencies, failed, time.process_time() - cpu)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status, and whether the connection can be used again."""
    top = (await reader.readuntil(b"\r\n\r\n")).lower()
    stays = top.startswith(b"http/1.1") and b"connection: close" not in top
    length = _length(top)
    if length is not None:
        await reader.readexactly(length)
    elif b"transfer-encoding: chunked" in top:
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(top[9:12]), stays


def _length(top: bytes) -> int | None:
    """What a head in lower case says of its body's length."""
    at = top.find(b"content-length:")
    return None if at < 0 else int(top[at + 15 :].split(b"\r\n", 1)[0])
