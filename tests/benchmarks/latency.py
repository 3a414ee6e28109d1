"""From `PutObject` to the function's first line, and to its output: warm, process, and OSCAR's own supervisor."""

import argparse
import base64
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from events.notifications import Notification, build
from tests.benchmarks.report import cpu_seconds, quantile, show
from tests.cluster import FUNCTION_SCRIPT, TWIN, Cluster, running_cluster
from tests.contract.callers import REAL_SUPERVISOR

FUNCTION = "contract.clock"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="uploads per executor")
    parser.add_argument("--quick", action="store_true", help="20 uploads")
    arguments = parser.parse_args(argv)
    runs = 20 if arguments.quick else arguments.runs
    with tempfile.TemporaryDirectory() as folder, running_cluster(Path(folder) / "data") as cluster:
        rows = [_embedded(cluster, executor, runs) for executor in ("warm", "process")]
        rows.append(_supervisor(cluster, max(5, runs // 10)))
    reference = rows[-1]["start_median_ms"]
    for row in rows:
        row["times_faster"] = reference / row["start_median_ms"]
    show("from PutObject (1 KiB) to the function's first line and to its output object", rows)
    return 0


def _embedded(cluster: Cluster, executor: str, runs: int) -> dict[str, Any]:
    name = f"latency-{executor}"
    cluster.deploy(name, variables={"DIOSCAR_FUNCTION": FUNCTION}, annotations={"dioscar/executor": executor})
    source = cluster.data / "kib"
    source.write_bytes(os.urandom(1024))
    _once(cluster, name, source, "warm-up")
    assert cluster.process is not None
    cpu = cpu_seconds(cluster.process.pid)
    measured: list[tuple[float, float]] = []
    for index in range(runs):
        pause_s = 0.9 * measured[-1][1] if measured else 0.0
        measured.append(_once(cluster, name, source, f"{index:04d}", pause_s))
    cpu = cpu_seconds(cluster.process.pid) - cpu
    return _row(f"embedded, {executor}", [m[0] for m in measured], [m[1] for m in measured], cpu)


def _once(cluster: Cluster, name: str, source: Path, key: str, pause_s: float = 0.0) -> tuple[float, float]:
    """Seconds from before the put to the function's own clock, and to the output's row; asks only after `pause_s`."""
    began = time.time()
    cluster.s3.put(name, f"in/{key}", source)
    time.sleep(pause_s)
    while not (jobs := cluster.jobs(service=name, key=f"in/{key}", limit="1")) or jobs[0]["state"] != "Succeeded":
        assert not jobs or jobs[0]["state"] in ("Pending", "Running"), jobs
        time.sleep(0.005)
    return float(cluster.read(name, f"out/{key}.time")) - began, jobs[0]["finished"] - began


def _supervisor(cluster: Cluster, runs: int) -> dict[str, Any]:
    """OSCAR's supervisor, a process per event, on the same function and store; without Kubernetes' pod before it."""
    name = "latency-oscar"
    cluster.deploy(name, script="true")
    facts = cluster.facts
    store = {
        "endpoint": facts["s3"],
        "verify": False,
        "access_key": facts["minio_access_key"],
        "secret_key": facts["minio_secret_key"],
        "region": "us-east-1",
    }
    config = {
        "name": name,
        "log_level": "CRITICAL",
        "input": [{"storage_provider": "minio.default", "path": f"{name}/in"}],
        "output": [{"storage_provider": "minio.default", "path": f"{name}/out"}],
        "storage_providers": {"minio": {"default": store}},
    }
    script = FUNCTION_SCRIPT.replace("exec", f"export PYTHONPATH='{TWIN}'\nexec", 1)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(cluster.data),
        "FUNCTION_CONFIG": base64.b64encode(yaml.safe_dump(config).encode()).decode(),
        "SCRIPT": base64.b64encode(script.encode()).decode(),
        "DIOSCAR_FUNCTION": FUNCTION,
        "OSCAR_SERVICE_NAME": name,
        "JOB_UUID": "benchmark",
    }
    starts, ends = [], []
    cpu = _children_cpu()
    for index in range(runs + 1):
        key = f"in/{index:04d}"
        began = time.time()
        cluster.put(name, key, os.urandom(1024))
        event = json.dumps(build(Notification(name, key))).encode()
        subprocess.run(
            [str(REAL_SUPERVISOR), "-W", "ignore", "-m", "faassupervisor.supervisor"],
            input=event,
            env=environ,
            check=True,
            capture_output=True,
        )
        if index:  # the first one warms the file cache
            ends.append(time.time() - began)
            starts.append(float(cluster.read(name, f"out/{index:04d}.time")) - began)
        else:
            cpu = _children_cpu()
    return _row("faas-supervisor 1.5.8, a process per event", starts, ends, _children_cpu() - cpu)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _row(what: str, starts: list[float], ends: list[float], cpu_s: float) -> dict[str, Any]:
    return {
        "what": what,
        "runs": len(starts),
        "start_median_ms": 1000 * quantile(starts, 0.5),
        "start_p99_ms": 1000 * quantile(starts, 0.99),
        "output_median_ms": 1000 * quantile(ends, 0.5),
        "output_p99_ms": 1000 * quantile(ends, 0.99),
        "cpu_ms_per_event": 1000 * cpu_s / len(starts),
    }


if __name__ == "__main__":
    sys.exit(main())
