"""A training on an interLink node: through our plugin and a real Slurm, with its checkpoints in the bucket alone."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import FUNCTION_SCRIPT, Cluster, eventually
from tests.functions.pulsar.attempts import ended, start
from tests.infra.hpc.lab import Lab, slurm_lab
from tests.infra.local.interlink.test_slurm import SlurmPlugin
from tests.ports import free_port

__all__ = ["slurm_lab"]
pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
pytestmark = pytest.mark.slow

SERVICE = "pulsar-train"
REQUEST = {"frames": 400, "epochs": 1, "validation_frames": 18, "batch": 4, "other_bands": 0.0, "seed": 3}
CHUNKS = 100
SETTINGS = {"CHUNK": "4", "THREADS": "1"}
LONG_S = 200.0


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory, slurm_lab: Lab) -> Iterator[SlurmPlugin]:
    plugin = SlurmPlugin(tmp_path_factory.mktemp("plugin"), slurm_lab)
    plugin.start()
    yield plugin
    plugin.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, plugin: SlurmPlugin) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "data", "--s3", f"127.0.0.1:{free_port()}")
    cluster.environ = {"DIOSCAR_INTERLINK_NODES": json.dumps({"slurm": {"url": plugin.url}})}
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "request.json").write_text(json.dumps(REQUEST))
    assert ended(start(folder, settings=SETTINGS)) == 0, (folder / "log").read_text()
    return (folder / "out" / "request.json.onnx").read_bytes()


def train(cluster: Cluster, flags: str = "--time=10 --mem=1000", **annotations: str) -> dict[str, Any]:
    variables = {"DIOSCAR_FUNCTION": "pulsar.train", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **SETTINGS}
    cluster.deploy(
        SERVICE,
        script=FUNCTION_SCRIPT,
        variables=variables,
        annotations={"slurm-job.vk.io/flags": flags, "dioscar/retries": "1", **annotations},
        interlink_node_name="slurm",
    )
    before = {job["id"] for job in cluster.jobs(service=SERVICE)}
    cluster.put(SERVICE, "in/request.json", json.dumps(REQUEST).encode())
    return eventually(lambda: [job for job in cluster.jobs(service=SERVICE) if job["id"] not in before])[0]


def chunks(cluster: Cluster, job: dict[str, Any]) -> list[int]:
    log = cluster.job_log(job)
    return [int(number) for number in re.findall(r"epoch 1 of 1, chunk (\d+) of", log)]


def succeeded(cluster: Cluster, job: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        now = cluster.job(job["id"])
        return now if now["state"] in ("Succeeded", "Dead", "Cancelled") else None

    found = eventually(look, LONG_S, "the job's end")
    assert found["state"] == "Succeeded", found["reason"] + cluster.job_log(job)
    return found


def slurm_job(lab: Lab) -> str:
    (job,) = lab.run("squeue", "-h", "-t", "R", "-o", "%i").split()
    return job


def checkpoints(cluster: Cluster) -> list[str]:
    return [found.key for found in cluster.s3.list(SERVICE, "checkpoints/")]


def test_a_time_limit_costs_nothing_but_a_start(cluster: Cluster, slurm_lab: Lab, whole: bytes) -> None:
    job = train(cluster)
    eventually(lambda: len(chunks(cluster, job)) >= 10, LONG_S, "the tenth chunk")
    assert checkpoints(cluster)
    slurm_lab.run("scancel", "--batch", "--signal=TERM", slurm_job(slurm_lab))  # what `--signal=B:TERM@60` does
    found = succeeded(cluster, job)
    assert "stopped after" in cluster.job_log(job)
    assert found["attempt"] == 1, (found["transitions"], cluster.job_log(job)[-3000:])
    assert chunks(cluster, job) == list(range(1, CHUNKS + 1)), "and nothing is repeated"
    assert cluster.read(SERVICE, "out/request.json.onnx") == whole
    assert checkpoints(cluster) == []
    assert not [output for output in found["outputs"] if "checkpoints/" in output["key"]]


def test_a_node_that_fails_costs_a_chunk(cluster: Cluster, slurm_lab: Lab, whole: bytes) -> None:
    job = train(cluster)
    eventually(lambda: len(chunks(cluster, job)) >= 10, LONG_S, "the tenth chunk")
    number = slurm_job(slurm_lab)
    node = slurm_lab.run("squeue", "-h", "-j", number, "-o", "%N")
    os.kill(slurm_lab.pid(f"slurmd-{node}"), signal.SIGKILL)
    held = [pid for stepd in stepds(slurm_lab) for pid in (stepd, *descendants(stepd))]
    for pid in held:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    slurm_lab.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        slurm_lab.hasten(number, LONG_S)
        succeeded(cluster, job)
    finally:
        slurm_lab.start()
        slurm_lab.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)  # it may be back by itself
    learned = chunks(cluster, job)
    assert set(learned) == set(range(1, CHUNKS + 1)) and len(learned) <= CHUNKS + 1, learned
    assert cluster.read(SERVICE, "out/request.json.onnx") == whole


def stepds(lab: Lab) -> list[int]:
    """The processes that hold jobs of this lab."""
    mark = f"SLURM_CONF={lab.folder}/".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            holds = (folder / "comm").read_text().strip() == "slurmstepd"
            if holds and any(entry.startswith(mark) for entry in (folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)


def test_two_nodes_that_are_told_to_stop_go_on_together(cluster: Cluster, slurm_lab: Lab, whole: bytes) -> None:
    job = train(cluster, **{"dioscar/nodes": "2"})
    eventually(lambda: len(chunks(cluster, job)) >= 10, LONG_S, "the tenth chunk")
    assert len(checkpoints(cluster)) >= 2
    slurm_lab.run("scancel", "--batch", "--signal=TERM", slurm_job(slurm_lab))
    found = succeeded(cluster, job)
    assert chunks(cluster, job) == list(range(1, CHUNKS + 1)), "the lines are those of rank 0"
    (record,) = [output["key"] for output in found["outputs"] if "/_runs/" in output["key"]]
    assert json.loads(cluster.read(SERVICE, record))["ranks"] == 2
    assert cluster.read(SERVICE, "out/request.json.onnx") != whole
    assert not [key for key in checkpoints(cluster) if record.rpartition("/")[2].removesuffix(".json") in key]


@pytest.fixture(autouse=True)
def _no_leftovers(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    yield
    for job in cluster.jobs(service=SERVICE):
        if job["state"] not in ("Succeeded", "Dead", "Cancelled"):
            cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel"))
