"""What interLink costs before a real Slurm: a start through cluster and plugin beside sbatch, polls beside squeue."""

import argparse
import json
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
from functools import partial
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.benchmarks.report import cpu_seconds, quantile, show
from tests.cluster import Cluster
from tests.infra.hpc.lab import MISSING, Lab, running_lab

POLL_S = 5.0
"""As the virtual kubelet does: each pod is asked for once in this time, in a request of its own."""
LATER = "--begin=now+1days"
"""Of jobs that are to wait."""
SERVICE = "starts"
JOB, CREATE, SBATCH = "POST /job, then the script", "create, then the container", "sbatch alone"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8, help="starts of each kind")
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 100, 1000], help="how many jobs wait")
    parser.add_argument("--ended", type=int, default=100, help="jobs among them that have ended")
    parser.add_argument("--quick", action="store_true", help="3 starts, 1 and 20 jobs, 5 that have ended")
    arguments = parser.parse_args(argv)
    if MISSING:
        print(f"{MISSING[0]} is not on this machine; infra/slurm-env.sh installs it", file=sys.stderr)
        return 69
    runs = 3 if arguments.quick else arguments.runs
    counts = [1, 20] if arguments.quick else arguments.jobs
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder, "slurm")) as lab:
        with _plugin(Path(folder, "starts"), lab, poll_s=0.5) as plugin, _cluster(Path(folder), plugin) as cluster:
            _starts(cluster, plugin, lab, Path(folder), runs)
        with _plugin(Path(folder, "polls"), lab, poll_s=POLL_S) as plugin:
            _polls(plugin, lab, counts, 5 if arguments.quick else arguments.ended)
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
def _plugin(folder: Path, lab: Lab, poll_s: float) -> Iterator[_Plugin]:
    folder.mkdir()
    values = {
        "root": str(folder / "root"),
        "listen": "127.0.0.1:0",
        "runtime": "process",
        "poll": poll_s,
    }
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


@contextmanager
def _cluster(folder: Path, plugin: _Plugin) -> Iterator[Cluster]:
    """An embedded cluster whose node is the plugin, with a service that writes the time at once."""
    cluster = Cluster(folder / "cluster")
    cluster.environ = {"DIOSCAR_INTERLINK_NODES": json.dumps({"slurm": {"url": plugin.url}})}
    cluster.start()
    try:
        once = {"dioscar/retries": "0"}
        cluster.deploy(SERVICE, script=_line(folder), interlink_node_name="slurm", memory="64Mi", annotations=once)
        yield cluster
    finally:
        cluster.stop()


def _line(folder: Path) -> str:
    """A script whose first line says when it began."""
    return f"date +%s.%N > {folder}/first-line.part; mv {folder}/first-line.part {folder}/first-line"


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


def _starts(cluster: Cluster, plugin: _Plugin, lab: Lab, folder: Path, runs: int) -> None:
    """From the request to the first line of what is to run, by turns."""
    first = folder / "first-line"
    token = cluster.token(SERVICE)
    assert cluster.process
    pids = {JOB: [cluster.process.pid, plugin.pid], CREATE: [plugin.pid], SBATCH: []}

    def by_the_cluster() -> None:
        reply = cluster.invoke("job", SERVICE, b"{}", token)
        assert reply.status_code == 201, reply.text

    def bare() -> None:
        # an environment that is handed over, as the plugin does: with NONE, Slurm logs in on the node
        lab.run("sbatch", "--export=ALL", "--mem=64", f"--output={folder}/out", f"--wrap={_line(folder)}")

    kinds: dict[str, Callable[[], None]] = {
        JOB: by_the_cluster,
        CREATE: lambda: plugin.create(_pod(_line(folder))),
        SBATCH: bare,
    }
    taken: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in kinds}
    for index in range(runs + 1):
        for kind, begin in kinds.items():
            first.unlink(missing_ok=True)
            time.sleep(index * 0.618 % 1)  # Slurm looks at its queue once a second: no kind is to meet that on time
            cpu, began = _cpu(pids[kind]), time.time()
            begin()
            answered = time.time() - began
            _until(first.exists)
            to_first = _cpu(pids[kind]) - cpu
            _until(lambda: not lab.run("squeue", "-h"), pause_s=0.1)
            if kind == JOB:
                _until(partial(_has_succeeded, cluster, index + 1), pause_s=0.1)
            if index:  # the first one warms the file cache
                measured = (float(first.read_text()) - began, answered, to_first, _cpu(pids[kind]) - cpu)
                taken[kind].append(measured)
    rows = []
    alone = [statistics.median(column) for column in zip(*taken[SBATCH], strict=True)]
    for kind, all_measured in taken.items():
        walls, answers, firsts, wholes = zip(*all_measured, strict=True)
        rows.append(
            {
                "what": kind,
                "median_s": statistics.median(walls),
                "p90_s": quantile(walls, 0.9),
                "times sbatch alone": statistics.median(walls) / alone[0],
                "s more than it": statistics.median(walls) - alone[0],
                "answer_ms": 1000 * statistics.median(answers),
                "its times sbatch alone": statistics.median(answers) / alone[1],
                "cpu_ms": 1000 * statistics.mean(firsts) if pids[kind] else "",
                "cpu_ms until its end": 1000 * statistics.mean(wholes) if pids[kind] else "",
            }
        )
    show(f"from the request to the first line of what runs, {runs} each; CPU time of cluster and plugin", rows)


def _has_succeeded(cluster: Cluster, count: int) -> bool:
    states = [job["state"] for job in cluster.jobs(service=SERVICE)]
    assert not {"Dead", "Cancelled"} & set(states), [cluster.job_log(job) for job in cluster.jobs(service=SERVICE)]
    return states.count("Succeeded") == count


def _cpu(pids: Sequence[int]) -> float:
    return sum(map(cpu_seconds, pids))


def _polls(plugin: _Plugin, lab: Lab, counts: Sequence[int], ended: int) -> None:
    """Each pod is asked for in a request of its own, as the virtual kubelet does; beside one bare squeue.

    Some have ended and are not deleted yet, as those of a virtual kubelet that was away; they are asked for, too.
    """
    over = [_pod("true") for _ in range(ended)]
    _create(plugin, over)
    _until(lambda: all(_is_over(plugin.status(pod)) for pod in over), pause_s=0.5)
    pods: list[dict[str, Any]] = []
    rows = []
    for count in sorted(counts):
        fresh = [_pod("true", LATER) for _ in range(count - len(pods))]
        began = time.perf_counter()
        _create(plugin, fresh)
        created_s = time.perf_counter() - began
        pods += fresh
        asked_for = pods + over[: count // 2]  # of few, few have ended
        for pod in asked_for:  # what is new is read once
            plugin.status(pod)
        walls: list[float] = []
        cpu, began = cpu_seconds(plugin.pid), time.perf_counter()
        while time.perf_counter() - began < 2 * POLL_S + 1 or len(walls) < 200:
            for pod in asked_for:
                asked = time.perf_counter()
                plugin.status(pod)
                walls.append(time.perf_counter() - asked)
            time.sleep(0 if len(asked_for) > 10 else 0.02)
        elapsed, cpu = time.perf_counter() - began, cpu_seconds(plugin.pid) - cpu
        squeue_s, squeue_cpu = _squeue(lab)
        rows.append(
            {
                "wait": len(pods),
                "ended": len(asked_for) - len(pods),
                "median_ms": 1000 * statistics.median(walls),
                "p99_ms": 1000 * quantile(walls, 0.99),
                "cpu_ms": 1000 * cpu / len(walls),
                "squeue_ms": 1000 * squeue_s,
                "squeue_cpu_ms": 1000 * squeue_cpu,
                "median / squeue": statistics.median(walls) / squeue_s,
                "cpu / squeue's cpu": cpu / len(walls) / squeue_cpu,
                "requests_per_s": len(walls) / elapsed,
                "core_percent_at_vk_rate": 100 * cpu / len(walls) * len(asked_for) / POLL_S,
                "creates_per_s": len(fresh) / created_s if fresh else "",
            }
        )
    show(f"GET /status for one pod, the batch system asked once in {POLL_S:g} s; beside one squeue of all jobs", rows)
    with ThreadPoolExecutor(8) as deleters:
        list(deleters.map(plugin.delete, pods + over))
    _until(lambda: not lab.run("squeue", "-h"), pause_s=0.1)


def _create(plugin: _Plugin, pods: Sequence[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(8) as creators:
        list(creators.map(plugin.create, pods))


def _is_over(status: dict[str, Any]) -> bool:
    return all("terminated" in container["state"] for container in status["containers"])


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


def _until(found: Callable[[], object], deadline_s: float = 300.0, pause_s: float = 0.005) -> None:
    end = time.monotonic() + deadline_s
    while not found():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(pause_s)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
