"""A disk that is full, for real: a small file system that only the cluster sees. Nothing is lost, and work goes on."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster import eventually
from tests.infra.local.faults.world import COPY, COUNT, Broken, is_clean

SIZE = 32 << 20
UNSHARE = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
MOUNT = f'mount -t tmpfs -o size={SIZE} small "$0" && exec "$@"'
PAUSE = "infra.local.finishing:CLUSTER_PAUSE_S=0.3,infra.local.engine:RECORD_S=0.1"


def mounts() -> bool:
    """Whether a file system can be mounted here."""
    if shutil.which("unshare") is None or sys.platform != "linux":
        return False
    return (
        subprocess.run([*UNSHARE, "sh", "-c", MOUNT, "/mnt", "true"], check=False, capture_output=True).returncode == 0
    )


pytestmark = pytest.mark.skipif(not mounts(), reason="no file system can be mounted here")


class OnSmallDisk(Broken):
    """A cluster whose data folder is a file system of its own, of 32 MiB; `data` is how we see it from outside."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, FAULT_SET=PAUSE)
        self.folder = folder
        self.command = [*UNSHARE, "sh", "-c", MOUNT, str(folder), *self.command]

    def seen(self) -> Path:
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{self.folder}")

    def _read_facts(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return dict(json.loads((self.seen() / "cluster.json").read_text()))
        except FileNotFoundError:
            return None

    def fill(self, leaving: int = 0) -> None:
        """Take all the room there is, but for so many bytes."""
        free = os.statvfs(self.seen())
        ballast = os.open(self.seen() / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with suppress(OSError):
            for _ in range(0, free.f_bavail * free.f_frsize - leaving, 4096):
                os.write(ballast, b"x" * 4096)
        os.close(ballast)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Asked of a copy: SQLite follows the way to the file to where it is not."""
        for name in ("dioscar.db", "dioscar.db-wal"):
            shutil.copyfile(self.seen() / name, self.data / name)
        with closing(sqlite3.connect(self.data / "dioscar.db")) as connection:
            return connection.execute(query).fetchall()

    def make_room(self) -> None:
        (self.seen() / "ballast").unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[OnSmallDisk]:
    folder.mkdir()
    cluster = OnSmallDisk(folder)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def code(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.text.partition("<Code>")[2].partition("<")[0]


FULL = (507, "XMinioStorageFull")


def test_what_finds_no_room_is_refused_and_what_was_there_stays(tmp_path: Path):
    with small_disk(tmp_path / "data") as cluster:
        cluster.deploy("kept", script="true")
        kept: dict[str, bytes] = {}
        while True:
            key, data = f"/kept/large/{len(kept)}", os.urandom(1 << 20)
            answer = cluster.ask("PUT", key, data)
            if answer.status_code != 200:
                break
            kept[key] = data
        assert code(answer) == FULL and len(kept) > 10
        cluster.fill()
        small = 0
        while (answer := cluster.ask("PUT", f"/kept/small/{small}", b"s" * 1000)).status_code == 200:
            kept[f"/kept/small/{small}"] = b"s" * 1000
            small += 1
        assert code(answer) == FULL
        bearer = {"Authorization": f"Bearer {cluster.token('kept')}"}
        status, asked = 201, 0
        while status == 201 and asked < 1000:  # a job is smaller than an object: the last few may still fit
            status = requests.post(f"{cluster.facts['api']}/job/kept", headers=bearer, timeout=30).status_code
            asked += 1
        assert status == 507
        listed = cluster.ask("GET", "/kept", query="list-type=2&max-keys=1000").text
        assert listed.count("<Key>") == len(kept)
        for key, data in kept.items():
            assert cluster.ask("GET", key).content == data
        for key in list(kept)[:3]:  # as it says: delete a few objects to proceed
            assert cluster.ask("DELETE", key).status_code == 204
            del kept[key]
        eventually(lambda: cluster.ask("PUT", "/kept/again", b"a" * 1_000_000).status_code == 200, what="room again")
        for key, data in kept.items():
            assert cluster.ask("GET", key).content == data
        is_clean(cluster, [])


def test_jobs_wait_for_room_and_go_on(tmp_path: Path):
    with small_disk(tmp_path / "data") as cluster:
        cluster.deploy("waits", script=COUNT + 'cat "$INPUT_FILE_PATH" "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/twice"\n')
        data = os.urandom(3 << 20)
        cluster.fill(leaving=4 << 20)
        assert cluster.ask("PUT", "/waits/in/a", data).status_code == 200
        waiting = eventually(lambda: [job for job in cluster.jobs(service="waits") if job["reason"]])
        assert "No space left on device" in waiting[0]["reason"]
        for _ in range(5):  # longer than all its retries would take, were they counted
            seen = cluster.job(waiting[0]["id"])
            assert (seen["state"] in ("Pending", "Running"), seen["max_attempts"]) == (True, 4)
            eventually(lambda seen=seen: len(cluster.job(seen["id"])["transitions"]) > len(seen["transitions"]))
        cluster.make_room()
        job = cluster.ended("waits")[0]
        assert (job["state"], job["attempt"]) == ("Succeeded", 1)
        assert cluster.ask("GET", "/waits/out/twice").content == data * 2
        is_clean(cluster, [])


def test_a_job_that_ends_on_a_full_disk_ends_when_there_is_room(tmp_path: Path):
    with small_disk(tmp_path / "data") as cluster:
        (cluster.seen() / "home" / "wait").touch()
        cluster.deploy("ends", script='while [ -e "$HOME/wait" ]; do sleep 0.05; done\n' + COPY)
        cluster.deploy(
            "fails",
            script='while [ -e "$HOME/wait" ]; do sleep 0.05; done; exit 3',
            annotations={"dioscar/retries": "0"},
        )
        for name in ("ends", "fails"):
            assert cluster.ask("PUT", f"/{name}/in/a", b"x" * 200_000).status_code == 200
            eventually(lambda name=name: cluster.jobs(service=name, state="Running"))
        cluster.fill()
        (cluster.seen() / "home" / "wait").unlink()
        eventually(lambda: "cannot be recorded" in cluster.log, what="a job that cannot end")
        cluster.make_room()
        assert cluster.ended("ends")[0]["state"] == "Succeeded"
        assert cluster.ended("fails")[0]["state"] == "Dead"
        assert cluster.ask("GET", "/ends/out/a").content == b"x" * 200_000
        is_clean(cluster, [])
