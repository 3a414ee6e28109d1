"""Broken on purpose: scripts that do what scripts should not; the cluster goes on and says what it was."""

import contextlib
import os
from pathlib import Path

import pytest

from tests.cluster import Cluster, eventually, running_cluster

ONCE = {"dioscar/retries": "0"}


def run(cluster: Cluster, name: str, script: str, **annotations: str) -> dict[str, object]:
    """The end of a job that ran `script`."""
    cluster.deploy(name, script=script, annotations={**ONCE, **{f"dioscar/{k}": v for k, v in annotations.items()}})
    cluster.put(name, "in/a", b"x")
    return cluster.ended(name, patience_s=120)[0]


def is_well(cluster: Cluster) -> bool:
    """Whether the cluster still takes work."""
    cluster.deploy("fault-after", script='cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"')
    return cluster.run("fault-after", b"fine").status_code == 200


def test_a_script_that_deletes_its_own_folders_has_no_output(cluster: Cluster):
    job = run(cluster, "fault-delete", 'rm -rf "$TMP_OUTPUT_DIR" "$TMP_INPUT_DIR" "$PWD"')
    assert (job["state"], job["outputs"]) == ("Succeeded", [])
    assert is_well(cluster)


def test_too_many_files_are_refused_in_a_sentence(cluster: Cluster):
    job = run(cluster, "fault-files", 'cd "$TMP_OUTPUT_DIR" && seq 20000 | xargs touch')
    assert job["state"] == "Dead"
    assert "left 20000 files, more than 10000; write one archive" in str(job["reason"])
    assert cluster.objects("fault-files", "out/") == {}
    assert is_well(cluster)


def test_a_thousand_files_are_stored(cluster: Cluster):
    assert run(cluster, "fault-many", 'cd "$TMP_OUTPUT_DIR" && seq 1000 | xargs touch')["state"] == "Succeeded"
    assert len(list(cluster.s3.list("fault-many", "out/"))) == 1000


def test_a_script_may_print_a_lot(cluster: Cluster):
    job = run(cluster, "fault-print", "head -c 20000000 /dev/zero")
    assert len(cluster.job_log(job)) == 20_000_000
    assert is_well(cluster)


def test_what_a_script_leaves_running_is_ended_with_it(cluster: Cluster, tmp_path: Path):
    pid_file = tmp_path / "pid"
    run(cluster, "fault-fork", f"sleep 300 & echo $! > {pid_file}")
    eventually(lambda: not alive(int(pid_file.read_text())), what="the end of what was left running")


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.mark.parametrize("name", ["pipe", "directory-link"])
def test_what_is_no_file_is_no_output(cluster: Cluster, name: str):
    make = {"pipe": "mkfifo pipe", "directory-link": "ln -s /etc all-of-etc"}[name]
    job = run(cluster, f"fault-{name}", f'cd "$TMP_OUTPUT_DIR" && {make}')
    assert (job["state"], job["outputs"]) == ("Succeeded", [])
    assert is_well(cluster)


def test_a_link_out_of_the_run_is_no_output_either_and_said(cluster: Cluster):
    job = run(cluster, "fault-device", 'cd "$TMP_OUTPUT_DIR" && ln -s /dev/zero endless')
    assert (job["state"], job["outputs"]) == ("Dead", [])
    assert "endless" in job["reason"]
    assert is_well(cluster)


@pytest.mark.parametrize("key", ["in/../../etc/passwd", "in/..", "in/a/../b", "in//x", "in/./y", "in/%2e%2e/z"])
def test_a_key_never_leaves_the_runs_folder(cluster: Cluster, key: str):
    cluster.deploy("fault-path", script='ls -d "$INPUT_FILE_PATH"', annotations=ONCE)
    before = len(cluster.jobs(service="fault-path"))
    cluster.put("fault-path", key, b"x")
    job = cluster.ended("fault-path", before + 1)[0]
    if job["state"] == "Succeeded":
        path = Path(cluster.job_log(job).strip())
        assert ".." not in path.parts
        assert path.parent.name == "input"
    else:
        assert "upload a file" in job["reason"]


def test_a_script_that_outlives_a_killed_cluster_is_ended_by_the_next(tmp_path: Path):
    pid_file = tmp_path / "pid"
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy(
            "orphan", script=f"echo $$ >> {pid_file}; [ $(wc -l < {pid_file}) -gt 1 ] || sleep 60", annotations=ONCE
        )
        cluster.put("orphan", "in/a", b"x")
        first = int(eventually(lambda: pid_file.exists() and pid_file.read_text().split())[0])
        cluster.kill()
        assert alive(first)
        cluster.start()
        eventually(lambda: not alive(first), what="the orphan's end")
        assert cluster.ended("orphan")[0]["state"] == "Succeeded"
    assert len(pid_file.read_text().split()) == 2
