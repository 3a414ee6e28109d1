"""A backup of a running cluster is a cluster."""

import threading
from pathlib import Path

import pytest

from tests.cluster import Cluster, running_cluster

BIG = b"x" * 300_000


def back_up(cluster: Cluster, to: object) -> tuple[int, dict[str, object]]:
    response = cluster.http.post(cluster.url("/dioscar/v1/backup"), json={"to": to})
    return response.status_code, response.json()


def test_a_backup_made_while_uploads_go_on_can_be_served(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("backed-up", script='cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"')
        cluster.put("backed-up", "in/small", b"small")
        cluster.put("backed-up", "in/big", BIG)
        cluster.ended("backed-up", 2)
        stop, churning = threading.Event(), threading.Event()

        def churn() -> None:  # contents come and go while the copy is made
            while not stop.is_set():
                cluster.put("backed-up", "elsewhere/churn", BIG)
                churning.set()

        thread = threading.Thread(target=churn)
        thread.start()
        assert churning.wait(30)
        status, made = back_up(cluster, str(tmp_path / "copy"))
        stop.set()
        thread.join()
        assert status == 200, made
        token = cluster.token("backed-up")
    with running_cluster(tmp_path / "copy") as copy:
        assert copy.token("backed-up") == token
        assert copy.objects("backed-up", "out/") == {"out/big": BIG, "out/small": b"small"}
        assert copy.read("backed-up", "elsewhere/churn") == BIG
        copy.put("backed-up", "in/new", b"goes on")
        copy.ended("backed-up", 3)
        jobs = {job["key"]: job for job in copy.jobs(service="backed-up")}
        assert copy.job_log(jobs["in/small"]) == ""
        assert copy.read("backed-up", "out/new") == b"goes on"


def test_what_goes_while_a_backup_is_made_is_gone_afterwards(cluster: Cluster, tmp_path: Path):
    cluster.deploy("backup-gone", script="true")
    cluster.put("backup-gone", "elsewhere/a", BIG)
    assert back_up(cluster, str(tmp_path / "copy"))[0] == 200
    cluster.s3.delete("backup-gone", "elsewhere/a")
    assert (tmp_path / "copy" / "dioscar.db").is_file()
    assert sum(path.stat().st_size for path in (tmp_path / "copy" / "blobs").rglob("*")) >= len(BIG)


@pytest.mark.parametrize("to", ["relative", 3, None, "/proc/nowhere"])
def test_a_folder_that_cannot_be_is_refused(cluster: Cluster, to: object):
    status, answer = back_up(cluster, to)
    assert status == 400
    assert answer["error"]


def test_a_backup_never_overwrites(cluster: Cluster, tmp_path: Path):
    status, answer = back_up(cluster, str(tmp_path))
    assert status == 400
    assert "is there already; name a new folder" in str(answer)
    assert list(tmp_path.iterdir()) == []
