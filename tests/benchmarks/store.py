"""The object store beside MinIO's code base, moto and a server that does nothing: small, large, listed, and full."""

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from layers.objects.sigv4 import UNSIGNED_PAYLOAD, Credentials, canonical_query
from tests.benchmarks import rows
from tests.benchmarks.load import exchange, repeated, run
from tests.benchmarks.report import calibration, cpu_seconds, quantile, show
from tests.benchmarks.servers import NOTHING, SERVERS, STORE, NotInstalled, Server, serving
from tests.cluster import Cluster, eventually, running_cluster

MIB = 1 << 20
CONNECTIONS = 8
LISTED = 1_000_000
HELD = (1_000, 30_000, 1_000_000)
"""Events that the store has seen before the cost of one more is measured."""
TABLES = ("small", "large", "listing", "events")
ROUNDS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", choices=TABLES, action="append", help="this table (again for another)")
    parser.add_argument("--large", action="store_true", help="upload 5 GiB, too: in one stream and in parts, as boto3")
    arguments = parser.parse_args(argv)
    share = 10 if arguments.quick else 1
    tables: dict[str, Callable[[Path], None]] = {
        "small": lambda folder: _show_small(folder, 8000 // share),
        "large": lambda folder: _show_large(folder, 256 // share),
        "listing": lambda folder: _show_listing(folder, LISTED // share),
        "events": lambda folder: _show_events(folder, [count // share for count in HELD], 1500 // share),
    }
    wanted = arguments.only or ([] if arguments.large else TABLES)
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            tables[name](Path(folder))
    if arguments.large:
        with tempfile.TemporaryDirectory() as folder:
            _show_huge(Path(folder), (5 << 10) // share)
    return 0


def _show_small(folder: Path, count: int) -> None:
    body = os.urandom(1024)
    digest = sha256(body).hexdigest()

    def measured(server: Server) -> list[dict[str, Any]]:
        some = count if server.name in (NOTHING, STORE) else count // 4
        found = []
        for method, sent, payload in (("PUT", body, digest), ("GET", b"", "")):
            requests = [
                server.head(method, f"/bench/small/{number:06}", len(sent), payload=payload) + sent
                for number in range(some)
            ]
            cpu = cpu_seconds(server.pid)
            load = run(server.url, requests, CONNECTIONS)
            if load.failed:
                raise RuntimeError(f"{server.name}: {load.failed} of {some} requests failed")
            found.append(
                {
                    "server": server.name,
                    "call": f"{method} 1 KiB",
                    "per_s": load.rate,
                    "median_ms": load.median_ms,
                    "p99_ms": load.p99_ms,
                    "server_cpu_ms": 1000 * (cpu_seconds(server.pid) - cpu) / some,
                    "calibration_s": calibration(),
                }
            )
        return found

    found = _each(folder, measured)
    _compare(found, "per_s", "call")
    show(f"puts and gets of 1 KiB over {CONNECTIONS} connections, signed", found)


def _show_large(folder: Path, mebibytes: int) -> None:
    block = os.urandom(MIB)
    digest = sha256()
    for part in repeated(block, mebibytes):
        digest.update(part)

    def measured(server: Server) -> list[dict[str, Any]]:
        put = server.head("PUT", "/bench/large", mebibytes * MIB, payload=digest.hexdigest())
        found = []
        for what, request in (("PUT", put), ("GET", server.head("GET", "/bench/large"))):
            exchange(server.url, server.head("GET", "/bench"))  # awake, and what that takes is not what is measured
            before, cpu, times = _memory(server.pid, reset=True), cpu_seconds(server.pid), []
            for _ in range(ROUNDS):
                took, length = exchange(server.url, request, repeated(block, mebibytes) if what == "PUT" else ())
                if what == "GET" and length != mebibytes * MIB:
                    raise RuntimeError(f"{server.name}: {length} bytes came back")
                times.append(took)
            found.append(
                {
                    "server": server.name,
                    "call": f"{what} {mebibytes} MiB",
                    "MiB_s": mebibytes / quantile(times, 0.5),
                    "best_MiB_s": mebibytes / min(times),
                    "server_cpu_s": (cpu_seconds(server.pid) - cpu) / ROUNDS,
                    "memory_grew_MiB": _memory(server.pid) - before,
                    "calibration_s": calibration(),
                }
            )
        return found

    found = _each(folder, measured)
    _compare(found, "MiB_s", "call")
    show(f"one client, {mebibytes} MiB, the median of {ROUNDS}; a put is signed with its SHA-256", found)


def _show_listing(folder: Path, count: int) -> None:
    data = folder / "store"
    with running_cluster(data) as cluster:
        _bucket(cluster, "many")
    took = rows.add_objects(data / "dioscar.db", "many", count)
    middle = f"run{count // 2000:04}"
    queries = {
        "all": [("list-type", "2")],
        "prefix of one folder": [("list-type", "2"), ("prefix", f"{middle}/")],
        "folders (delimiter)": [("list-type", "2"), ("delimiter", "/")],
        "after a key in the middle": [("list-type", "2"), ("start-after", f"{middle}/frame0500.h5")],
    }
    found: list[dict[str, Any]] = []
    with serving(STORE, folder) as server:
        for name, query in queries.items():
            request = server.head("GET", "/many", query=canonical_query(query))
            cpu = cpu_seconds(server.pid)
            times = [exchange(server.url, request)[0] for _ in range(20)]
            found.append(
                {
                    "listing": name,
                    "first_ms": 1000 * times[0],
                    "median_ms": 1000 * quantile(times, 0.5),
                    "server_cpu_ms": 1000 * (cpu_seconds(server.pid) - cpu) / 20,
                    "server_MiB": _memory(server.pid),
                }
            )
    show(f"first page (1000 entries) of a listing among {count:,} objects, loaded in {took:.0f} s", found)


def _show_events(folder: Path, held: Sequence[int], count: int) -> None:
    """The cost of an event in a store that has seen few, many and a million of them."""
    data, service = folder / "store", "held"
    with running_cluster(data) as cluster:
        cluster.deploy(service, variables={"DIOSCAR_FUNCTION": "contract.clock"})
    found: list[dict[str, Any]] = []
    before = 0
    for number in held:
        took = rows.add_events(data / "dioscar.db", service, before, number)
        before = number
        with running_cluster(data) as cluster:
            _through(cluster, service, f"warm{number}", count // 5)
            pid = _pid(cluster)
            cpu, engine, began = cpu_seconds(pid), cpu_seconds(pid, children=False), calibration()
            rate, median = _through(cluster, service, f"run{number}", count)
            found.append(
                {
                    "events in the store": f"{number:,}",
                    "per_s": rate,
                    "put_median_ms": median,
                    "cpu_ms": 1000 * (cpu_seconds(pid) - cpu) / count,
                    "engine_cpu_ms": 1000 * (cpu_seconds(pid, children=False) - engine) / count,
                    "database_MiB": (data / "dioscar.db").stat().st_size / MIB,
                    "loaded_in_s": took,
                    "calibration_s": began,
                }
            )
    for row in found:
        row["of_first"] = row["cpu_ms"] / found[0]["cpu_ms"]
    show(f"{count} puts of 1 KiB by {CONNECTIONS} clients, each through a warm function", found)


def _show_huge(folder: Path, mebibytes: int) -> None:
    """More than any memory should hold, from a client that makes it as it sends."""
    free, needed = shutil.disk_usage(folder).free, 3 * mebibytes * MIB
    if free < needed:
        print(f"--large needs {needed >> 30} GiB in {folder.parent} and there are {free >> 30}; set TMPDIR to another")
        return
    block = os.urandom(MIB)
    found: list[dict[str, Any]] = []
    with serving(STORE, folder) as server:
        put = server.head("PUT", "/bench/huge", mebibytes * MIB, payload=UNSIGNED_PAYLOAD)
        for what, send in (
            ("in one stream", lambda: exchange(server.url, put, repeated(block, mebibytes))[0]),
            ("in parts, as boto3 does it", lambda: _in_parts(server, block, mebibytes)),
        ):
            before, cpu = _memory(server.pid, reset=True), cpu_seconds(server.pid)
            took: float = send()  # type: ignore[no-untyped-call]
            found.append(
                {
                    "upload": what,
                    "MiB": mebibytes,
                    "MiB_s": mebibytes / took,
                    "server_cpu_s": cpu_seconds(server.pid) - cpu,
                    "memory_grew_MiB": _memory(server.pid) - before,
                    "calibration_s": calibration(),
                }
            )
            exchange(server.url, server.head("DELETE", "/bench/huge"))
    show(f"an upload of {mebibytes} MiB", found)


def _in_parts(server: Server, block: bytes, mebibytes: int) -> float:
    import boto3
    from botocore.config import Config

    class Stream:
        """As a pipe: what has been read is gone."""

        left = mebibytes * MIB

        def read(self, size: int = -1) -> bytes:
            count = min(self.left, size if size >= 0 else self.left)
            self.left -= count
            return (block * (count // MIB + 1))[:count]

    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=server.keys.access_key,
        aws_secret_access_key=server.keys.secret_key,
        region_name="us-east-1",
        config=Config(read_timeout=600, retries={"max_attempts": 1}),
    )
    with closing(client):
        began = time.perf_counter()
        client.upload_fileobj(Stream(), "bench", "huge")
        return time.perf_counter() - began


def _each(folder: Path, measure: Callable[[Server], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of every server; one that is not here says so."""
    found: list[dict[str, Any]] = []
    for name in SERVERS:
        try:
            with serving(name, folder) as server:
                found += measure(server)
        except NotInstalled:
            found.append({"server": name, "call": "not installed"})
    names = {name: None for row in found for name in row}
    return [{name: row.get(name, "") for name in names} for row in found]


def _compare(found: Sequence[dict[str, Any]], rate: str, call: str) -> None:
    """How many times as much the store does as each of the others."""
    ours = {row[call]: row[rate] for row in found if row["server"] == STORE}
    for row in found:
        row["DiOSCAR_to_it"] = ours[row[call]] / row[rate] if row[rate] else ""


def _through(cluster: Cluster, service: str, folder: str, count: int) -> tuple[float, float]:
    """Put, and wait until the last job has ended: events a second, and the median of a put in milliseconds."""
    facts, body = cluster.facts, os.urandom(1024)
    server = Server(STORE, facts["s3"], _pid(cluster), _keys(cluster))
    digest = sha256(body).hexdigest()
    requests = [
        server.head("PUT", f"/{service}/in/{folder}-{number:06}", len(body), payload=digest) + body
        for number in range(count)
    ]
    began = time.perf_counter()
    load = run(server.url, requests, CONNECTIONS)
    if load.failed:
        raise RuntimeError(f"{load.failed} puts failed")
    with closing(sqlite3.connect(f"file:{cluster.data}/dioscar.db?mode=ro", uri=True)) as database:
        eventually(lambda: rows.open_jobs(database, service) == 0, 600, "the end of every job")
    return count / (time.perf_counter() - began), load.median_ms


def _keys(cluster: Cluster) -> Credentials:
    return Credentials(cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"])


def _bucket(cluster: Cluster, name: str) -> None:
    server = Server(STORE, cluster.facts["s3"], _pid(cluster), _keys(cluster))
    exchange(server.url, server.head("PUT", f"/{name}"))


def _pid(cluster: Cluster) -> int:
    assert cluster.process is not None
    return cluster.process.pid


def _memory(pid: int, *, reset: bool = False) -> float:
    """The most memory, in MiB, that the process had at once since the last `reset`; after it, what it has now."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    sys.exit(main())
