"""`replay`, `cancel`, `backup`: what failed runs again, what runs can be ended, what is there can be kept."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import Cluster, eventually
from tests.infra.cli.conftest import Dioscar

Fdl = Callable[..., Path]


@pytest.fixture
def failing(on: Dioscar, fdl_file: Fdl, request: pytest.FixtureRequest) -> str:
    """A service of the test's own whose function fails as its input says."""
    name = f"mend-{zlib.crc32(request.node.name.encode())}"
    path = fdl_file(name, "fail")
    path.write_text(path.read_text() + '        annotations: {dioscar/retries: "0"}\n')
    assert on("apply", path).status == 0
    return name


def start(on: Dioscar, service: str, text: str, tmp_path: Path) -> str:
    (tmp_path / "a.txt").write_text(text)
    return str(on("invoke", service, tmp_path / "a.txt", "--async", "--json").json["job"])


def test_a_dead_job_runs_again(on: Dioscar, failing: str, tmp_path: Path) -> None:
    job = start(on, failing, "error", tmp_path)
    on("logs", "-f", job)
    assert on("replay", job).out == "1 job put into the queue\n"
    on("logs", "-f", job)
    states = [step["state"] for step in on("jobs", job, "--json").json["transitions"]]
    assert states.count("Dead") == 2


def test_all_dead_jobs_of_a_service_run_again(on: Dioscar, failing: str, tmp_path: Path) -> None:
    for _ in range(2):
        on("logs", "-f", start(on, failing, "error", tmp_path))
    assert on("replay", "--service", failing, "--json").json == {"replayed": 2}
    assert on("replay", "--service", failing, "--state", "Succeeded").out == "0 jobs put into the queue\n"


def test_objects_below_a_prefix_get_new_jobs(on: Dioscar, fdl_file: Fdl, cluster: Cluster, tmp_path: Path) -> None:
    assert on("apply", fdl_file("mend-copy")).status == 0
    (tmp_path / "a.txt").write_text("a")
    on("put", tmp_path / "a.txt", "mend-copy/in")
    cluster.ended("mend-copy", 1)
    assert on("replay", "--objects", "mend-copy/in/", "--missing").out == "0 jobs put into the queue\n"
    assert on("replay", "--objects", "mend-copy/in/").out == "1 job put into the queue\n"
    cluster.ended("mend-copy", 2)
    assert on("replay", "--objects", "no-such-bucket/in/").status == 66


def test_a_running_job_is_cancelled(on: Dioscar, failing: str, cluster: Cluster, tmp_path: Path) -> None:
    job = start(on, failing, "hang", tmp_path)
    eventually(lambda: cluster.job(job)["state"] == "Running")
    assert on("cancel", job).out == f"{job} cancelled\n"
    eventually(lambda: cluster.job(job)["state"] == "Cancelled")
    assert on("cancel", job).out == f"{job} had ended before\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--state", "Dead"],
        ["job", "--service", "x"],
        ["--service", "x", "--objects", "b/in"],
        ["--state", "Running"],
    ],
)
def test_a_replay_of_nothing_in_particular_is_misspelt(on: Dioscar, arguments: list[str]) -> None:
    assert on("replay", *arguments).status == 2


def test_what_cannot_be_done_is_said_in_the_clusters_words(on: Dioscar, cluster: Cluster, tmp_path: Path) -> None:
    assert on("replay", "no-such-job").status == 66
    assert on("cancel", "no-such-job").status == 66
    refused = on("backup", cluster.data)
    assert refused.status == 1
    assert str(cluster.data) in refused.err


def test_a_running_cluster_is_copied(on: Dioscar, tmp_path: Path) -> None:
    assert on("backup", tmp_path / "copy").out == f"{tmp_path}/copy holds the cluster as it was just now\n"
    assert (tmp_path / "copy/dioscar.db").is_file()
