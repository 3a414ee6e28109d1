"""Sustained rates of the embedded cluster: puts, synchronous calls, events through a warm function."""

import argparse
import base64
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.load import Load, plain, run, signed_put
from tests.benchmarks.report import cpu_seconds, show
from tests.cluster import Cluster, eventually, running_cluster
from tests.ports import free_port

BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def answer(request):
    await request.body()
    return PlainTextResponse("eA==")

app = Starlette(routes=[Route("/{any:path}", answer, methods=["GET", "PUT", "POST"])])
options = {"http": "httptools", "loop": "uvloop", "log_level": "error", "access_log": False}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), **options)
"""
LEAST = "import sys; from tests.benchmarks.least import serve; serve(int(sys.argv[1]))"
KIB = os.urandom(1024)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="400 requests")
    arguments = parser.parse_args(argv)
    count = 400 if arguments.quick else arguments.requests
    with (
        tempfile.TemporaryDirectory() as folder,
        running_cluster(Path(folder) / "data") as cluster,
        _server("-c", BARE) as (url, pid),
        _server("-P", "-c", LEAST) as (least, least_pid),
    ):
        call = plain(least, "POST", "/run/least", base64.b64encode(KIB))
        rows = [
            _measured("bare Starlette, 1 KiB PUT", pid, lambda: run(url, [plain(url, "PUT", "/x", KIB)] * count)),
            _measured("the least a call can be (least.py)", least_pid, lambda: run(least, [call] * count)),
            _puts(cluster, count, arguments.connections),
            _calls(cluster, count, arguments.connections),
            _events(cluster, count, arguments.connections),
        ]
    reference = rows[0]["per_s"]
    for row in rows:
        row["of_bare"] = row["per_s"] / reference
    show(f"sustained rates, {arguments.connections} connections", rows)
    return 0


def _puts(cluster: Cluster, count: int, connections: int) -> dict[str, Any]:
    _bucket(cluster, "plain-puts")
    requests = _put_requests(cluster, "plain-puts", "", count)
    return _measured("durable 1 KiB put", _pid(cluster), lambda: run(cluster.facts["s3"], requests, connections))


def _calls(cluster: Cluster, count: int, connections: int) -> dict[str, Any]:
    cluster.deploy("rate-run", variables={"DIOSCAR_FUNCTION": "contract.clock"})
    bearer = ("Authorization", f"Bearer {cluster.token('rate-run')}")
    url = cluster.facts["api"]
    request = plain(url, "POST", "/run/rate-run", base64.b64encode(KIB), [bearer])
    run(url, [request] * 4 * connections, connections)
    return _measured("POST /run of a warm no-op", _pid(cluster), lambda: run(url, [request] * count, connections))


def _events(cluster: Cluster, count: int, connections: int) -> dict[str, Any]:
    """Puts into a mailbox, until the last job they trigger has ended."""
    cluster.deploy("rate-events", variables={"DIOSCAR_FUNCTION": "contract.clock"})
    requests = _put_requests(cluster, "rate-events", "in/", count)

    def through() -> Load:
        began = time.perf_counter()
        load = run(cluster.facts["s3"], requests, connections)
        eventually(lambda: cluster.get("/dioscar/v1/status")["jobs"].get("Succeeded", 0) >= count, 600, "every event")
        return Load(count, time.perf_counter() - began, load.latencies_s, load.failed, load.client_cpu_s)

    return _measured("put -> warm function done", _pid(cluster), through)


def _put_requests(cluster: Cluster, bucket: str, folder: str, count: int) -> list[bytes]:
    facts = cluster.facts
    keys = (facts["s3"], facts["minio_access_key"], facts["minio_secret_key"])
    return [signed_put(*keys, bucket, f"{folder}{index:07d}", KIB) for index in range(count)]


def _measured(what: str, pid: int, work: Callable[[], Load]) -> dict[str, Any]:
    before = cpu_seconds(pid)
    load = work()
    assert load.failed == 0, f"{what}: {load.failed} requests failed"
    return {
        "what": what,
        "requests": load.requests,
        "per_s": load.rate,
        "median_ms": load.median_ms,
        "p99_ms": load.p99_ms,
        "server_cpu_ms": 1000 * (cpu_seconds(pid) - before) / load.requests,
        "client_cpu_ms": 1000 * load.client_cpu_s / load.requests,
    }


def _bucket(cluster: Cluster, name: str) -> None:
    from tests.contract.callers import boto

    client = boto(cluster)
    client.create_bucket(Bucket=name)
    client.close()


def _pid(cluster: Cluster) -> int:
    assert cluster.process is not None
    return cluster.process.pid


@contextmanager
def _server(*arguments: str) -> Iterator[tuple[str, int]]:
    """A server beside the cluster: the same uvicorn around nothing, or around the least that a call can be."""
    port = free_port()
    process = subprocess.Popen([sys.executable, *arguments, str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _answers(url), what="the bare server")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    import socket

    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), 1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
