"""The database of an earlier version is brought up to this one, all of the way or not at all."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from infra.local.blobs import Blobs
from infra.local.database import Database, DatabaseError
from infra.local.engine import Engine
from infra.local.holdings import Holdings
from infra.local.migrations import MIGRATIONS, copy_of, newest
from infra.local.objects import ObjectStore
from infra.local.schedules.scheduler import Scheduler
from infra.local.services import Services
from infra.local.webhooks import Webhooks
from tests.cluster import COMMAND, Cluster, eventually, running_cluster
from tests.infra.local.data_folder import LARGE, SCHEMAS, file_of, restore, schema_of
from tests.infra.local.next_version import annotate

VERSION = newest(MIGRATIONS)
VERSIONS = sorted(int(path.stem) for path in SCHEMAS.glob("*.sql"))


def opened_schema(folder: Path) -> dict[str, object]:
    """The schema of a data folder once everybody who keeps something in it has opened it."""
    with closing(Database(folder / "dioscar.db")) as database:
        blobs = Blobs(database, folder / "blobs")
        store = ObjectStore(database, blobs)
        services = Services(database, store, "us-east-1")
        Scheduler(database, Engine(folder, database, store, services, "us-east-1"))
        Holdings.of(folder, database, store, services)
        Webhooks(database, store, [], "us-east-1")
        blobs.close()
    return schema_of(folder / "dioscar.db")


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0])


def works(cluster: Cluster) -> None:
    """What `data_folder.fill` has left is there, what was open goes on, and new work is done."""
    assert {key: data for key, data in cluster.objects("copies").items() if not key.startswith("out/new")} == {
        "in/large": LARGE,
        "in/small": b"small",
        "out/large": LARGE,
        "out/small": b"small",
    }
    assert cluster.s3.head("events", "a").metadata == {"run": "7"}
    assert {job["state"] for job in cluster.ended("runs")} == {"Succeeded"}, "it ran when its cluster was killed"
    assert cluster.objects("runs", "out/") == {"out/a": b"goes on"}
    dead = cluster.jobs(service="fails", state="Dead")
    assert [job["reason"] for job in dead] == ["the script ended with status 3: no"] * 2
    for job in dead:
        assert cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/replay")).status_code == 200
    cluster.ended("fails", 2)
    assert cluster.get("/system/config")["allowed_image_repositories"] == ["ghcr.io"]
    assert cluster.get("/system/quotas/user/somebody")["minio"]["buckets"] == {"max": 3, "used": 0}
    assert [volume["name"] for volume in cluster.get("/system/volumes")] == ["kept"]
    cluster.put("copies", "in/new", b"new")
    eventually(lambda: cluster.jobs(service="copies", key="in/new", state="Succeeded"))
    assert cluster.read("copies", "out/new") == b"new"


def test_todays_schema_is_the_one_that_is_recorded(tmp_path: Path):
    assert file_of(VERSION).is_file(), "record it: .venv/bin/python -P -m tests.infra.local.data_folder"
    (tmp_path / "new").mkdir()
    (tmp_path / "recorded").mkdir()
    assert opened_schema(tmp_path / "new") == schema_of(restore(VERSION, tmp_path / "recorded")), (
        "the schema has changed; if this version has been released, write a migration (infra/local/migrations.py), "
        "then record it: .venv/bin/python -P -m tests.infra.local.data_folder"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_an_earlier_database_becomes_like_a_new_one(tmp_path: Path, version: int):
    (tmp_path / "new").mkdir()
    path = restore(version, tmp_path / "earlier")
    assert opened_schema(tmp_path / "earlier") == opened_schema(tmp_path / "new")
    assert version_of(path) == VERSION
    assert copy_of(path, version).exists() == (version < VERSION)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_earlier_data_folder_can_be_served(tmp_path: Path, version: int):
    restore(version, tmp_path)
    with running_cluster(tmp_path) as cluster:
        works(cluster)


def test_a_later_version_takes_over_and_its_data_folder_is_refused_until_the_copy_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = restore(VERSION, tmp_path)
    kept = copy_of(path, VERSION)
    with monkeypatch.context() as later:
        later.setattr("tests.cluster.COMMAND", (sys.executable, "-P", "-m", "tests.infra.local.next_version"))
        with running_cluster(tmp_path) as cluster:
            works(cluster)
            assert f"is brought from schema {VERSION} to {VERSION + 1}; as it was, it is kept in {kept}" in cluster.log
        kept_at = kept.stat().st_mtime_ns
        with running_cluster(tmp_path) as cluster:
            assert cluster.read("copies", "out/new") == b"new"
        assert kept.stat().st_mtime_ns == kept_at, "there was nothing to migrate at the second start"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT note FROM jobs WHERE service = 'runs'").fetchall() == [("runs had in/a",)]

    command = [*COMMAND, "--data", str(tmp_path), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"dioscar: {tmp_path}: this data folder was written by a newer DiOSCAR (its schema is {VERSION + 1}, this one "
        f"knows {VERSION}); use that one, or restore a backup\n"
    )
    shutil.copy(kept, path)
    with running_cluster(tmp_path) as cluster:
        works(cluster)


def test_a_process_killed_in_the_middle_of_a_migration_leaves_the_old_state(tmp_path: Path):
    path = restore(VERSION, tmp_path)
    before = schema_of(path)
    program = f"""
import os, signal
from pathlib import Path
from infra.local.database import Database
from infra.local.migrations import MIGRATIONS
from tests.infra.local.next_version import annotate

def die(connection):
    connection.execute("PRAGMA cache_size = 1")  # what it changes goes to the disk at once
    annotate(connection)
    os.kill(os.getpid(), signal.SIGKILL)

Database(Path({str(path)!r}), (*MIGRATIONS, die))
"""
    killed = subprocess.run([sys.executable, "-P", "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert version_of(copy_of(path, VERSION)) == VERSION
    assert (schema_of(path), version_of(path)) == (before, VERSION)
    Database(path, (*MIGRATIONS, annotate)).close()
    assert version_of(path) == VERSION + 1


def spoil(connection: sqlite3.Connection) -> None:
    annotate(connection)
    connection.execute("UPDATE objects SET blob = -1")


def fail(connection: sqlite3.Connection) -> None:
    annotate(connection)
    connection.execute("SELECT * FROM nowhere")


@pytest.mark.parametrize(
    "migration, reason", [(fail, "no such table: nowhere"), (spoil, "a row of objects refers to one of blobs")]
)
def test_a_migration_that_fails_changes_nothing(tmp_path: Path, migration, reason: str):
    path = restore(VERSION, tmp_path)
    before = schema_of(path)
    with pytest.raises(DatabaseError, match=f"from schema {VERSION} to {VERSION + 1} .{reason}.*it is as it was"):
        Database(path, (*MIGRATIONS, migration))
    assert (schema_of(path), version_of(path)) == (before, VERSION)
    Database(path).close()


def test_without_a_copy_there_is_no_migration(tmp_path: Path):
    path = restore(VERSION, tmp_path)
    copy_of(path, VERSION).mkdir()
    with pytest.raises(DatabaseError, match="it is as it was"):
        Database(path, (*MIGRATIONS, annotate))
    assert version_of(path) == VERSION


def test_migrations_run_in_order_and_each_once(tmp_path: Path):
    done: list[int] = []

    def step(number: int):
        return lambda connection: done.append(number)

    path = tmp_path / "dioscar.db"
    Database(path, [step(2)]).close()
    assert done == [], "a new database is of the newest version at once"
    Database(path, [step(n) for n in (2, 3, 4)]).close()
    Database(path, [step(n) for n in (2, 3, 4)]).close()
    assert done == [3, 4]
    assert version_of(path) == 4


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "dioscar.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(DatabaseError, match="is the database of another program; choose another data folder"):
        Database(path)
    assert list(schema_of(path)) == ["table songs"]


def test_the_copy_is_its_owners_alone(tmp_path: Path):
    path = restore(VERSION, tmp_path)
    Database(path, (*MIGRATIONS, annotate)).close()
    assert copy_of(path, VERSION).stat().st_mode & 0o077 == 0
