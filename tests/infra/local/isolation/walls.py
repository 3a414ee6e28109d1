"""What the tests of isolation share: a cluster with its walls up, and what stands behind them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import SANDBOX, Cluster

TWIN = Path(__file__).parent / "twin"
ONCE = {"dioscar/retries": "0"}


def has_bubblewrap() -> bool:
    """Whether a sandbox can be made here."""
    if shutil.which("bwrap") is None:
        return False
    command = ["bwrap", "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def walled(data: Path, **environ: str) -> Iterator[Cluster]:
    """A cluster that must have its sandbox."""
    cluster = Cluster(data)
    cluster.environ = {SANDBOX: "require", "PYTHONPATH": str(TWIN), **environ}
    cluster.start()
    try:
        yield cluster
    finally:
        if cluster.process is not None and cluster.process.poll() is None:
            cluster.stop()


def outcome(cluster: Cluster, name: str, data: bytes = b"x", key: str = "in/a") -> tuple[dict[str, Any], str]:
    """The end of a job, and what it printed."""
    cluster.put(name, key, data)

    job = next(job for job in cluster.ended(name, len(cluster.jobs(service=name)), 120) if job["key"] == key)
    return job, cluster.job_log(job)


def ran(cluster: Cluster, name: str, script: str, **more: Any) -> tuple[dict[str, Any], str]:
    """The end of a job that ran `script`, and what it printed."""
    annotations = {**ONCE, **more.pop("annotations", {})}
    cluster.deploy(name, script=script, annotations=annotations, **more)
    return outcome(cluster, name)


def tried(cluster: Cluster, name: str, *attempts: str, **annotations: str) -> dict[str, str]:
    """What a warm function says of its attempts."""
    cluster.deploy(name, variables={"DIOSCAR_FUNCTION": "isolation.trespass"}, annotations={**ONCE, **annotations})
    job, log = outcome(cluster, name, "\n".join(attempts).encode())
    assert job["state"] == "Succeeded", log
    said = cluster.read(name, "out/said.txt").decode()
    return {attempt: said.split(f"{attempt}: ", 1)[1].splitlines()[0] for attempt in attempts}
