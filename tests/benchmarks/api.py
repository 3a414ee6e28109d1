"""First pages of OSCAR's API: 500 services, 100,000 jobs of one of them, beside `GET /health` in the same run."""

import argparse
import http.client
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.benchmarks import rows
from tests.benchmarks.report import calibration, cpu_seconds, quantile, show
from tests.cluster import FUNCTION_SCRIPT, Cluster, running_cluster

SERVICE = "held"
TRIVIAL = "GET /health"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=500, help="services deployed")
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs of one service")
    parser.add_argument("--requests", type=int, default=50, help="requests of each kind")
    parser.add_argument("--quick", action="store_true", help="50 services, 5,000 jobs, 10 requests")
    arguments = parser.parse_args(argv)
    services, jobs, count = arguments.services, arguments.jobs, arguments.requests
    if arguments.quick:
        services, jobs, count = 50, 5_000, 10
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running_cluster(data) as cluster:
            deployed_s = _deploy(cluster, services)
        loaded_s = rows.add_events(data / "dioscar.db", SERVICE, 0, jobs)
        with running_cluster(data) as cluster:
            found = [_measured(cluster, path, count) for path in _paths(cluster)]
    trivial = next(row["median_ms"] for row in found if row["request"] == TRIVIAL)
    for row in found:
        row["to_trivial"] = row["median_ms"] / trivial
    title = f"{services} services (deployed in {deployed_s:.1f} s), {jobs:,} jobs of one (loaded in {loaded_s:.1f} s)"
    show(title, found)
    return 0


def _deploy(cluster: Cluster, services: int) -> float:
    """The services, each as large as one of ours; returns the seconds it took."""
    began = time.perf_counter()
    for number in range(services):
        cluster.deploy(SERVICE if not number else f"service-{number:04}", script=FUNCTION_SCRIPT)
    return time.perf_counter() - began


def _paths(cluster: Cluster) -> list[str]:
    response = requests.get(
        cluster.url(f"/system/logs/{SERVICE}"), auth=cluster.http.auth, timeout=60
    )  # so that the store of pages is as it is after a first look at anything
    page = int(response.json()["next_page"]) // 2
    return [
        "/health",
        "/system/services",
        f"/system/services/{SERVICE}",
        "/system/services?include=deployment",
        f"/system/logs/{SERVICE}",
        f"/system/logs/{SERVICE}?page={page}",
        "/system/buckets",
        f"/system/buckets/{SERVICE}",
        "/system/metrics",
    ]


def _measured(cluster: Cluster, path: str, count: int) -> dict[str, Any]:
    """The first request, as a client meets it, and the median of those after it, over one connection."""
    assert cluster.process is not None
    pid = cluster.process.pid
    headers = dict(requests.Request("GET", "http://x", auth=cluster.http.auth).prepare().headers)
    connection = http.client.HTTPConnection(urlsplit(cluster.url("")).netloc, timeout=60)
    times, size = [], 0
    with closing(connection):
        connection.connect()
        before = calibration()
        cpu = cpu_seconds(pid)
        for _ in range(count + 1):
            began = time.perf_counter()
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            size = len(response.read())
            times.append(time.perf_counter() - began)
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status}")
        cpu = cpu_seconds(pid) - cpu
    return {
        "request": f"GET {path}",
        "first_ms": 1000 * times[0],
        "median_ms": 1000 * quantile(times[1:], 0.5),
        "p99_ms": 1000 * quantile(times[1:], 0.99),
        "server_cpu_ms": 1000 * cpu / (count + 1),
        "KiB": size / 1024,
        "calibration_s": before,
    }


if __name__ == "__main__":
    sys.exit(main())
