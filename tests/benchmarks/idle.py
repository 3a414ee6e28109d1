"""What the embedded cluster costs while nothing happens: time to its first answer, memory, and processor time."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from tests.benchmarks.report import cpu_seconds, show
from tests.cluster import Cluster

STARTED = "import asyncio, sqlite3, ssl; import uvicorn, starlette.applications, pydantic"
"""What any server of this kind imports: the yardstick of the start."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to watch")
    parser.add_argument("--quick", action="store_true", help="3 seconds")
    arguments = parser.parse_args(argv)
    seconds = 3.0 if arguments.quick else arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        _start(Path(folder) / "warm-up").stop()
        began = time.perf_counter()
        cluster = _start(Path(folder) / "data")
        start_s = time.perf_counter() - began
        assert cluster.process is not None
        pid = cluster.process.pid
        start_cpu_s = cpu_seconds(pid)
        time.sleep(seconds)
        row: dict[str, Any] = {
            "what": "embedded cluster",
            "start_s": start_s,
            "start_cpu_s": start_cpu_s,
            "memory_mib": _resident_mib(pid),
            "core_percent": 100 * (cpu_seconds(pid) - start_cpu_s) / seconds,
        }
        cluster.stop()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", STARTED], check=True)
    imports_s = time.perf_counter() - began
    bare = {"what": "importing its libraries alone", "start_s": imports_s}
    show(f"an idle cluster, watched for {seconds:g} s", [row, {**dict.fromkeys(row, ""), **bare}])
    return 0


def _start(data: Path) -> Cluster:
    """A cluster that has answered."""
    cluster = Cluster(data)
    cluster.start()
    assert requests.get(cluster.url("/health"), timeout=10).text == "Ok"
    return cluster


def _resident_mib(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
