"""Functions that do what functions should not, in a process of their own and on a warm worker: the cluster goes on."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.executors.limits import LOG_MOST
from tests.cluster import COMMAND, eventually
from tests.infra.local.faults.world import TWIN, Broken, broken, processes

GRACE = "infra.local.executors.process:GRACE_S=0.3,infra.local.executors.warm:GRACE_S=0.3"
BOTH = pytest.mark.parametrize("executor", ["process", "warm"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """A cluster that has little patience with a run which does not end when it is told to."""
    with broken(tmp_path_factory.mktemp("workers") / "data", FAULT_SET=GRACE) as running:
        yield running


def harmed(cluster: Broken, how: str, executor: str, *, memory: str = "256Mi", timeout_s: int = 60) -> dict[str, Any]:
    """The end of a job whose function does harm; the next one of the same service, and other services, are well."""
    name = f"{how}-{executor}"
    cluster.deploy(
        name,
        variables={"DIOSCAR_FUNCTION": "faults.harm", "PYTHONPATH": str(TWIN)},
        annotations={"dioscar/executor": executor, "dioscar/retries": "0", "dioscar/timeout": str(timeout_s)},
        memory=memory,
    )
    assert cluster.acknowledged("PUT", f"/{name}/in/harm", how.encode())
    job = cluster.ended(name)[0]
    assert cluster.acknowledged("PUT", f"/{name}/in/next", b"fine")
    following = next(job for job in cluster.ended(name, 2) if job["key"] == "in/next")
    assert following["state"] == "Succeeded", following["reason"]
    assert cluster.read(name, "out/done.txt") == b"fine"
    assert "Traceback" not in job["reason"] and "\n" not in job["reason"]
    if job["state"] != "Succeeded":
        assert [found.key for found in cluster.s3.list(name, "out/_runs/harm")] == []
    return job


def only_idle_workers(cluster: Broken) -> None:
    """Of all that ran, nothing is left but workers that wait."""

    def look() -> bool:
        return set(processes(cluster.data)) == {
            worker["pid"] for worker in cluster.get("/dioscar/v1/status")["workers"]
        }

    eventually(look, 20, "the end of what was left running")


@BOTH
@pytest.mark.parametrize(
    "how, said",
    [
        ("exit", {"process": "status 7", "warm": "died (status 7)"}),
        ("segfault", {"process": "signal 11", "warm": "died (signal SIGSEGV)"}),
    ],
)
def test_a_function_that_dies_is_a_failure(cluster: Broken, how: str, said: dict[str, str], executor: str):
    job = harmed(cluster, how, executor)
    assert job["state"] == "Dead" and said[executor] in job["reason"]


@BOTH
@pytest.mark.parametrize("how", ["hang", "stubborn"])
def test_a_function_that_hangs_is_stopped_in_time(cluster: Broken, how: str, executor: str):
    job = harmed(cluster, how, executor, timeout_s=2)
    assert job["reason"] == "Timeout: took longer than 2 s and was stopped; raise the annotation dioscar/timeout"
    only_idle_workers(cluster)


@BOTH
def test_a_function_that_hangs_while_it_is_imported_is_stopped_in_time(cluster: Broken, executor: str):
    name = f"asleep-{executor}"
    variables = {"DIOSCAR_FUNCTION": "faults.asleep", "PYTHONPATH": str(TWIN)}
    annotations = {"dioscar/executor": executor, "dioscar/retries": "0", "dioscar/timeout": "1"}
    cluster.deploy(name, variables=variables, annotations=annotations)
    assert cluster.acknowledged("PUT", f"/{name}/in/a", b"x")
    reason = cluster.ended(name)[0]["reason"]
    assert reason == "Timeout: took longer than 1 s and was stopped; raise the annotation dioscar/timeout"
    only_idle_workers(cluster)


@BOTH
@pytest.mark.parametrize("how", ["child", "daemon", "daemon-and-exit"])
def test_what_a_function_leaves_running_is_ended(cluster: Broken, how: str, executor: str):
    job = harmed(cluster, how, executor)
    assert job["state"] == ("Dead" if how == "daemon-and-exit" else "Succeeded"), job["reason"]
    only_idle_workers(cluster)


@BOTH
def test_a_gibibyte_of_output_is_cut_and_says_so(cluster: Broken, executor: str):
    job = harmed(cluster, "print", executor)
    assert job["state"] == "Succeeded", job["reason"]
    log = cluster.data / "logs" / job["service"] / f"{job['id']}.log"
    assert log.stat().st_size <= LOG_MOST
    text = log.read_bytes()
    assert b"left out here: a log holds 64 MiB]" in text
    assert b"the last line" in text[-2000:]


def test_a_hundred_thousand_files_are_refused(cluster: Broken):
    job = harmed(cluster, "files", "warm")
    assert (job["state"], job["outputs"]) == ("Dead", [])
    assert job["reason"] == "InputError: left more than 10000 files; write one archive (HDF5, tar) instead"


@BOTH
def test_a_function_that_deletes_its_folders_is_one_sentence(cluster: Broken, executor: str):
    job = harmed(cluster, "delete", executor)
    assert job["state"] == "Dead"
    assert "there is no folder" in job["reason"] or "No such file" in job["reason"]


@BOTH
def test_a_function_may_go_elsewhere(cluster: Broken, executor: str):
    assert harmed(cluster, "chdir", executor)["state"] == "Succeeded"


def test_a_function_that_closes_everything_is_no_riddle(cluster: Broken):
    assert harmed(cluster, "close", "process")["state"] == "Dead"
    job = harmed(cluster, "close", "warm")
    assert job["reason"] == "WorkerError: the process of the function died (status 1)"
    began = time.monotonic()
    job = harmed(cluster, "close-and-hang", "warm")
    assert "the function closed its worker's connection to the cluster; leave it open" in job["reason"]
    assert time.monotonic() - began < 30
    only_idle_workers(cluster)


@BOTH
@pytest.mark.parametrize("how", ["memory", "memory-of-children"])
def test_a_function_that_takes_too_much_memory_is_told_so(cluster: Broken, how: str, executor: str):
    job = harmed(cluster, how, executor, memory="128Mi")
    assert (job["state"], job["exit_code"]) == ("Dead", 137)
    said = r"OutOfMemory: used [0-9.]+ [MG]iB, more than its 128 MiB \(memory in the FDL\); give it more"
    assert re.fullmatch(said, job["reason"])
    only_idle_workers(cluster)


@BOTH
def test_a_file_that_is_mapped_is_not_memory(cluster: Broken, executor: str):
    job = harmed(cluster, "map", executor, memory="128Mi")
    assert job["state"] == "Succeeded", job["reason"]


def test_limits_can_be_switched_off(tmp_path: Path):
    script = "exec python3 -c 'import time; kept = b\"x\" * (100 << 20); time.sleep(1)'"
    with broken(tmp_path / "data", DIOSCAR_LIMITS="off") as cluster:
        cluster.deploy("large", script=script, memory="64Mi")
        assert cluster.acknowledged("PUT", "/large/in/a", b"x")
        assert cluster.ended("large")[0]["state"] == "Succeeded"
        cluster.stop()
        cluster.command, cluster.environ = COMMAND, {}
        cluster.start()
        assert cluster.acknowledged("PUT", "/large/in/b", b"x")
        eventually(lambda: any("OutOfMemory" in job["reason"] for job in cluster.jobs(service="large")))
