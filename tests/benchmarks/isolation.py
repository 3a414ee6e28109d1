"""What walls cost at the start of a job: bare, in bubblewrap, in a container, beside `podman run` in the same run."""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks.latency import _children_cpu
from tests.benchmarks.report import cpu_seconds, quantile, show
from tests.cluster import SANDBOX, Cluster

SCRIPT = 'date +%s.%N > "$TMP_OUTPUT_DIR/time"'
RUNS = 30
PODMAN = (
    "podman",
    "run",
    "--rm",
    "--pull=never",
    "--network=none",
    "--ulimit=nofile=4096:4096",
    "--ulimit=nproc=4096:4096",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in turns, so that a busy machine is as busy for all, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="jobs of each kind")
    parser.add_argument("--quick", action="store_true", help="5 jobs")
    parser.add_argument(
        "--image", default="ghcr.io/dioscar/dioscar-runtime:0.1.0", help="an image that is on this machine"
    )
    arguments = parser.parse_args(argv)
    runs = 5 if arguments.quick else arguments.runs
    image = arguments.image if _has(arguments.image) else ""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        kinds: dict[str, Callable[[int], tuple[float, float]]] = {}
        kinds["process, bare"] = _job(stack, Path(folder, "bare"), {SANDBOX: "off"}, "process", image)
        if shutil.which("bwrap"):
            kinds["process, bubblewrap"] = _job(stack, Path(folder, "walled"), {SANDBOX: "require"}, "process", image)
        if image:
            kinds["container, podman"] = _job(stack, Path(folder, "contained"), {}, "container", image)
            kinds["podman run alone"] = lambda _: _alone(image)
            kinds["podman run with the same limits alone"] = lambda _: _alone(image, LIMITS)
        else:
            print(f"{arguments.image} is not here (infra/cluster/images/build.sh makes it): no containers are measured")
        taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for index in range(runs + 1):
            for kind, once in kinds.items():
                measured = once(index)
                if index:  # the first one warms the file cache
                    taken[kind].append(measured)
    show("a job that writes one line: from POST /run to its answer", [_row(kind, taken) for kind in kinds])
    return 0


LIMITS = (
    *("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=256m", "--memory-swap=256m"),
    *("--pids-limit=512", "--cpus=1", "--tmpfs=/tmp", "--user=1000:1000", "--log-driver=none"),
)


def _has(image: str) -> bool:
    found = shutil.which("podman") is not None
    return found and subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0


def _job(
    stack: ExitStack, data: Path, environ: dict[str, str], executor: str, image: str
) -> Callable[[int], tuple[float, float]]:
    """Runs a job on a cluster of its own: the seconds it took, and those of processor time."""
    cluster = Cluster(data)
    cluster.environ = environ
    cluster.start()
    stack.callback(cluster.stop)
    cluster.deploy(
        "starts", script=SCRIPT, image=image or "none", memory="256Mi", annotations={"dioscar/executor": executor}
    )
    token = cluster.token("starts")
    assert cluster.process is not None
    pid = cluster.process.pid

    def once(_: int) -> tuple[float, float]:
        before, began = cpu_seconds(pid), time.perf_counter()
        answer = cluster.invoke("run", "starts", b"", token)
        took = time.perf_counter() - began
        assert answer.status_code == 200, answer.text
        return took, cpu_seconds(pid) - before

    return once


def _alone(image: str, limits: Sequence[str] = ()) -> tuple[float, float]:
    before, began = _children_cpu(), time.perf_counter()
    command = [*PODMAN, *limits, "--entrypoint=/bin/sh", image, "-c", "date +%s.%N"]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began, _children_cpu() - before


def _row(kind: str, taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    times, cpu = zip(*taken[kind], strict=True)
    median = statistics.median(times)

    def beside(other: str) -> float | str:
        return median / statistics.median(t for t, _ in taken[other]) if other in taken else "-"

    bare = statistics.median(t for t, _ in taken["process, bare"])
    return {
        "what": kind,
        "jobs": len(times),
        "median_ms": 1000 * median,
        "p90_ms": 1000 * quantile(times, 0.9),
        "more_than_bare_ms": 1000 * (median - bare),
        "times_podman_alone": beside("podman run alone"),
        "times_podman_with_limits": beside("podman run with the same limits alone"),
        "cpu_ms": 1000 * statistics.median(cpu),
    }


if __name__ == "__main__":
    sys.exit(main())
