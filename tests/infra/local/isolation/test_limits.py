"""What a run may take, held by the kernel where control groups can be written."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.executors.cgroups import cgroups_for
from infra.local.executors.limits import MOST_PROCESSES, TOO_MANY
from tests.cluster import Cluster, eventually, running_cluster
from tests.infra.local.faults.world import processes
from tests.infra.local.isolation.walls import has_bubblewrap, ran, tried, walled


def has_cgroups() -> bool:
    """Whether control groups can be made here: tried under a name of our own, for each process of the tests asks."""
    found = cgroups_for(Path(f"/trial-{os.getpid()}"))
    if found is not None:
        found.close()
    return found is not None


needs_cgroups = pytest.mark.skipif(
    not (has_cgroups() and has_bubblewrap()), reason="control groups cannot be written, or there is no bubblewrap"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with walled(tmp_path_factory.mktemp("limits") / "data") as running:
        yield running


@needs_cgroups
def test_a_fork_bomb_ends_at_once_and_alone(cluster: Cluster):
    job, log = ran(
        cluster, "bomb", "bomb() { bomb | bomb & }; bomb; sleep 5; exit 1", annotations={"dioscar/timeout": "20"}
    )
    assert job["state"] == "Dead" and "fork" in log.lower()
    assert job["reason"] == f"TooManyProcesses: {TOO_MANY}"
    eventually(lambda: not processes(cluster.data), what="the end of the bomb")
    said = tried(cluster, "warm-bomb", "fork ")
    assert said["fork "] == "BlockingIOError"


@needs_cgroups
def test_memory_is_the_fdl_s_to_the_page(cluster: Cluster):
    script = "exec python3 -c 'kept = b\"x\" * (300 << 20); print(len(kept))'"
    job, log = ran(cluster, "memory", script, memory="128Mi")
    assert (job["exit_code"], log) == (137, "")
    assert job["reason"].startswith("OutOfMemory: used") and job["reason"].endswith("(memory in the FDL); give it more")
    assert ran(cluster, "memory-enough", script, memory="512Mi")[1].strip() == str(300 << 20)


@needs_cgroups
def test_a_file_in_memory_counts_and_is_bounded(cluster: Cluster):
    job, log = ran(cluster, "shm", "head -c 200000000 /dev/zero > /dev/shm/x; ls -s /dev/shm", memory="128Mi")
    assert "No space left on device" in log or job["exit_code"] == 137, (job, log)


@needs_cgroups
def test_processor_time_is_the_fdl_s(cluster: Cluster):
    code = """import time; began = time.process_time(), time.monotonic()
while time.process_time() - began[0] < 0.6: pass
print((time.process_time() - began[0]) / (time.monotonic() - began[1]))"""
    script = f"exec python3 -c '{code}'"
    share = float(ran(cluster, "cpu", script, cpu="0.3")[1])
    assert share < 0.5  # of a core: a busy machine gives less


@needs_cgroups
def test_groups_go_with_their_runs_and_with_the_cluster(tmp_path: Path):
    with walled(tmp_path / "data") as cluster:
        ran(cluster, "goes", "true")
        cluster.deploy("stays", script="sleep 600")
        cluster.put("stays", "in/a", b"x")
        eventually(lambda: cluster.jobs(service="stays", state="Running"))
        cluster.kill()
        eventually(lambda: not processes(cluster.data), what="the end of its runs")
        groups = cgroups_for(cluster.data)
        assert groups is not None
        left = [entry for parent in groups.parents for entry in parent.iterdir() if entry.is_dir()]
        assert left == []
        groups.close()
        assert not any(parent.exists() for parent in groups.parents)


def test_processes_are_counted_where_the_kernel_does_not(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        script = "n=0; while [ $n -lt 1500 ]; do n=$((n+1)); sleep 60 & done; wait"
        job, _ = ran(cluster, "crowd", script)
        assert job["reason"] == f"TooManyProcesses: {TOO_MANY}"
        eventually(lambda: not processes(cluster.data), what="the end of the crowd")


def test_version_2_is_written_as_the_kernel_wants_it(tmp_path: Path):
    """In a folder that stands for the kernel's, where there is none to be had: the files and their contents."""
    own = tmp_path / "cgroup" / "user.slice" / "dioscar.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    membership = tmp_path / "membership"
    membership.write_text("0::/user.slice/dioscar.service\n")
    groups = cgroups_for(tmp_path, tmp_path / "cgroup", membership)
    assert groups is not None
    group = groups.group("run", memory=1 << 28, cpu=0.5)
    assert group is not None
    (folder,) = set(group.folders.values())
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written == {
        "memory.max": str(1 << 28),
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "pids.max": str(MOST_PROCESSES),
    }
    assert group.doors == [str(folder / "cgroup.procs")]
    assert (own / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert (folder.parent / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    (leaf,) = [path for path in own.iterdir() if path.name.endswith("-cluster")]
    assert (leaf / "cgroup.procs").read_text() == str(os.getpid())
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n")
    (folder / "pids.events").write_text("max 3\n")
    assert group.out_of_memory() == "used up its 256 MiB (memory in the FDL); give it more"
    assert group.too_many() == TOO_MANY


@pytest.mark.parametrize("controllers", ["cpu memory", "", None])
def test_version_2_is_left_alone_where_it_is_not_ours(tmp_path: Path, controllers: str | None):
    own = tmp_path / "cgroup" / "session"
    own.mkdir(parents=True)
    if controllers is not None:
        (own / "cgroup.controllers").write_text(controllers)
    membership = tmp_path / "membership"
    membership.write_text("0::/session\n")
    assert cgroups_for(tmp_path, tmp_path / "cgroup", membership) is None
    assert [path.name for path in own.iterdir()] == (["cgroup.controllers"] if controllers is not None else [])
