"""What the interLink plugin costs before a real Slurm: its polling beside squeue, a start through it beside sbatch."""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.benchmarks.report import cpu_seconds, quantile, show
from tests.infra.hpc.lab import MISSING, Lab, running_lab

POLL_S = 5.0
"""As the virtual kubelet does: each pod is asked for once in this time, in a request of its own."""
LATER = "--begin=now+1days"
"""Of jobs that are to wait."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="starts of each kind")
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 100, 1000], help="how many jobs wait")
    parser.add_argument("--quick", action="store_true", help="3 starts, 1 and 20 jobs")
    arguments = parser.parse_args(argv)
    if MISSING:
        print(f"{MISSING[0]} is not on this machine; infra/slurm-env.sh installs it", file=sys.stderr)
        return 69
    runs = 3 if arguments.quick else arguments.runs
    counts = [1, 20] if arguments.quick else arguments.jobs
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder, "slurm")) as lab:
        with _plugin(Path(folder, "starts"), lab) as plugin:
            _starts(plugin, lab, Path(folder), runs)
        with _plugin(Path(folder, "polls"), lab) as plugin:
            _polls(plugin, lab, counts)
    return 0


class _Plugin:
    """A plugin in a process of its own."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self.session = requests.Session()

    def create(self, pod: dict[str, Any]) -> None:
        reply = requests.post(f"{self.url}/create", json={"pod": pod, "container": None}, timeout=150)
        assert reply.status_code == 200, reply.text

    def status(self, pod: dict[str, Any]) -> dict[str, Any]:
        reply = self.session.request("GET", f"{self.url}/status", json=[pod], timeout=60)
        assert reply.status_code == 200, reply.text
        return dict(reply.json()[0])

    def delete(self, pod: dict[str, Any]) -> None:
        assert self.session.post(f"{self.url}/delete", json=pod, timeout=60).status_code == 200


@contextmanager
def _plugin(folder: Path, lab: Lab) -> Iterator[_Plugin]:
    folder.mkdir()
    values = {"root": str(folder / "root"), "listen": "127.0.0.1:0", "runtime": "process", "poll": POLL_S}
    (folder / "hpc.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-P", "-m", "infra.hpc", "--config", str(folder / "hpc.yaml")]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, env=lab.environ, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout
            yield _Plugin(process.stdout.readline().split()[-1], process.pid)
        finally:
            process.terminate()


def _pod(command: str, flags: str = "") -> dict[str, Any]:
    uid = str(uuid.uuid4())
    annotations = {"slurm-job.vk.io/flags": flags} if flags else {}
    limits = {"cpu": "1", "memory": "64Mi"}
    container = {
        "name": "main",
        "image": "none",
        "command": ["/bin/sh", "-c", command],
        "resources": {"limits": limits},
    }
    metadata = {"name": f"bench-{uid[:8]}", "namespace": "bench", "uid": uid, "annotations": annotations}
    return {"metadata": metadata, "spec": {"containers": [container]}}


def _starts(plugin: _Plugin, lab: Lab, folder: Path, runs: int) -> None:
    """From the request to the first line of what is to run, by turns."""
    first = folder / "first-line"
    line = f"date +%s.%N > {first}.part; mv {first}.part {first}"

    def through_the_plugin() -> None:
        plugin.create(_pod(line))

    def bare() -> None:
        lab.run("sbatch", "--export=NONE", "--mem=64", f"--output={folder}/out", f"--wrap={line}")

    kinds: dict[str, Callable[[], None]] = {"create, then the container": through_the_plugin, "sbatch alone": bare}
    taken: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in kinds}
    for index in range(runs + 1):
        for kind, begin in kinds.items():
            _until(lambda: not lab.run("squeue", "-h"))
            first.unlink(missing_ok=True)
            time.sleep(index * 0.618 % 1)  # Slurm looks at its queue once a second: no kind is to meet that on time
            cpu, began = cpu_seconds(plugin.pid), time.time()
            begin()
            answered = time.time() - began
            _until(first.exists)
            if index:  # the first one warms the file cache
                taken[kind].append((float(first.read_text()) - began, answered, cpu_seconds(plugin.pid) - cpu))
    rows = []
    alone = [statistics.median(column) for column in zip(*taken["sbatch alone"], strict=True)]
    for kind, measured in taken.items():
        walls, answers, cpus = zip(*measured, strict=True)
        rows.append(
            {
                "what": kind,
                "median_s": statistics.median(walls),
                "p90_s": quantile(walls, 0.9),
                "times sbatch alone": statistics.median(walls) / alone[0],
                "answer_ms": 1000 * statistics.median(answers),
                "its times sbatch alone": statistics.median(answers) / alone[1],
                "plugin_cpu_ms": 1000 * statistics.mean(cpus) if kind != "sbatch alone" else "",
            }
        )
    show(f"from the request to the first line of what runs, {runs} each", rows)


def _polls(plugin: _Plugin, lab: Lab, counts: Sequence[int]) -> None:
    """Each pod is asked for in a request of its own, as the virtual kubelet does; beside one bare squeue."""
    pods: list[dict[str, Any]] = []
    rows = []
    for count in sorted(counts):
        fresh = [_pod("true", LATER) for _ in range(count - len(pods))]
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as creators:
            list(creators.map(plugin.create, fresh))
        created_s = time.perf_counter() - began
        pods += fresh
        for pod in pods:  # what is new is read once
            plugin.status(pod)
        requests_made, walls = 0, []
        cpu, began = cpu_seconds(plugin.pid), time.perf_counter()
        while time.perf_counter() - began < 2 * POLL_S + 1 or requests_made < 200:
            for pod in pods:
                asked = time.perf_counter()
                plugin.status(pod)
                walls.append(time.perf_counter() - asked)
                requests_made += 1
            time.sleep(0 if len(pods) > 10 else 0.02)
        elapsed, cpu = time.perf_counter() - began, cpu_seconds(plugin.pid) - cpu
        squeue_s, squeue_cpu = _squeue(lab)
        rows.append(
            {
                "jobs": count,
                "median_ms": 1000 * statistics.median(walls),
                "p99_ms": 1000 * quantile(walls, 0.99),
                "cpu_ms": 1000 * cpu / requests_made,
                "squeue_ms": 1000 * squeue_s,
                "squeue_cpu_ms": 1000 * squeue_cpu,
                "median / squeue": statistics.median(walls) / squeue_s,
                "cpu / squeue's cpu": cpu / requests_made / squeue_cpu,
                "requests_per_s": requests_made / elapsed,
                "core_percent_at_vk_rate": 100 * cpu / requests_made * count / POLL_S,
                "creates_per_s": len(fresh) / created_s if fresh else "",
            }
        )
    show(f"GET /status for one pod, the batch system asked once in {POLL_S:g} s; beside one squeue of all jobs", rows)
    for pod in pods:
        plugin.delete(pod)
    _until(lambda: not lab.run("squeue", "-h"))


def _squeue(lab: Lab, runs: int = 10) -> tuple[float, float]:
    """Seconds of one squeue of all jobs, and of processor time."""
    walls = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(["squeue", "-h", "-a", "--states=all"], env=lab.environ, stdout=subprocess.DEVNULL, check=True)
        walls.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return statistics.median(walls), cpu / runs


def _until(found: Callable[[], object], deadline_s: float = 300.0) -> None:
    end = time.monotonic() + deadline_s
    while not found():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.005)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
