"""One writer, many writers' promises."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from infra.local.database import Database, DatabaseError, DiskFull

pytestmark = pytest.mark.anyio

TABLE = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT UNIQUE);"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def database(tmp_path):
    with closing(Database(tmp_path / "state" / "dioscar.db")) as database:
        database.add_schema(TABLE)
        yield database


def note(text):
    return lambda connection: connection.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid


def texts(database):
    return [row["text"] for row in database.read.execute("SELECT text FROM notes ORDER BY id").fetchall()]


async def hold(database):
    """Keep the writer busy until the event is set, so that what follows is queued together."""
    started, release = threading.Event(), threading.Event()
    task = asyncio.create_task(database.write(lambda _: (started.set(), release.wait(5))))
    await asyncio.to_thread(started.wait, 5)
    return task, release


async def test_a_write_is_seen_by_reads_as_soon_as_it_is_answered(database):
    assert await database.write(note("a")) == 1
    assert texts(database) == ["a"]


async def test_a_failing_work_undoes_itself_and_nobody_else(database):
    task, release = await hold(database)

    def fail(connection):
        note("half")(connection)
        raise ValueError("no")

    works = [asyncio.create_task(database.write(work)) for work in (note("a"), fail, note("a"), note("b"))]
    await asyncio.sleep(0)
    release.set()
    results = await asyncio.gather(*works, return_exceptions=True)
    await task

    assert results[0] == 1
    assert isinstance(results[1], ValueError)
    assert isinstance(results[2], sqlite3.IntegrityError)
    assert texts(database) == ["a", "b"]


async def test_what_is_queued_together_is_committed_together(database, monkeypatch):
    commits = []
    database._writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    task, release = await hold(database)
    works = [asyncio.create_task(database.write(note(str(n)))) for n in range(100)]
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(task, *works)

    assert len(commits) == 2
    assert len(texts(database)) == 100


async def test_a_hook_runs_after_the_commit_and_never_for_what_was_undone(database):
    seen = []

    def work(name, error=None):
        def run(connection):
            note(name)(connection)
            database.after_commit(lambda: seen.append((name, texts(database), threading.current_thread().name)))
            if error:
                raise error

        return run

    await database.write(work("a"))
    with pytest.raises(ValueError):
        await database.write(work("b", ValueError("no")))

    assert seen == [("a", ["a"], threading.current_thread().name)]


async def test_a_cancelled_write_still_happens_and_harms_nobody(database):
    task, release = await hold(database)
    cancelled = asyncio.create_task(database.write(note("a")))
    await asyncio.sleep(0)
    cancelled.cancel()
    release.set()
    await task
    await database.write(note("b"))

    assert texts(database) == ["a", "b"]


async def test_reads_cannot_write(database):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.read.execute("DELETE FROM notes")


async def test_a_full_disk_is_said_and_loses_nothing(database):
    await database.write(note("before"))
    pages = database.read.execute("PRAGMA page_count").fetchone()[0]
    database.write_blocking(lambda c: c.execute("SELECT 1"))
    database._writer.execute(f"PRAGMA max_page_count = {pages + 1}")
    task, release = await hold(database)
    works = [asyncio.create_task(database.write(note(text))) for text in ("small", "x" * 100_000)]
    await asyncio.sleep(0)
    release.set()
    _, second = await asyncio.gather(*works, return_exceptions=True)
    await asyncio.gather(task, return_exceptions=True)
    assert isinstance(second, DiskFull) and "no space left" in str(second)

    database._writer.execute("PRAGMA max_page_count = 1000000")
    await database.write(note("after"))
    assert texts(database)[0] == "before" and texts(database)[-1] == "after"


async def test_a_closed_database_says_so(tmp_path):
    database = Database(tmp_path / "db")
    database.add_schema(TABLE)
    pending = asyncio.create_task(database.write(note("a")))
    await asyncio.sleep(0)
    database.close()
    database.close()
    await pending

    with pytest.raises(DatabaseError, match="closed"):
        await database.write(note("b"))


def test_a_second_owner_is_refused(tmp_path, database):
    with pytest.raises(DatabaseError, match="in use by another process"):
        Database(database.path)


def test_a_newer_schema_is_refused_in_one_sentence(tmp_path):
    Database(tmp_path / "db").close()
    with closing(sqlite3.connect(tmp_path / "db")) as connection, connection:
        connection.execute("UPDATE meta SET value = '99'")

    with pytest.raises(DatabaseError, match=r"newer DiOSCAR \(its schema is 99, this one knows \d+\); use that one"):
        Database(tmp_path / "db")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "db").write_bytes(b"not a database at all" * 100)

    with pytest.raises(DatabaseError, match="cannot be opened as a database"):
        Database(tmp_path / "db")


KILLED = """
import asyncio, sys
from pathlib import Path
from infra.local.database import Database

async def main():
    database = Database(Path(sys.argv[1]))
    database.add_schema("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT UNIQUE);")
    async def one(worker):
        for number in range(10**6):
            name = f"{worker}-{number}"
            await database.write(lambda c: c.execute("INSERT INTO notes (text) VALUES (?)", (name,)))
            print(name, flush=True)
    await asyncio.gather(*(one(worker) for worker in range(8)))

asyncio.run(main())
"""


def test_what_was_answered_survives_kill_9(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "db"], stdout=subprocess.PIPE, text=True)
    with process:
        answered = [process.stdout.readline().strip() for _ in range(500)]
        os.kill(process.pid, signal.SIGKILL)
        answered += [line.strip() for line in process.stdout if line.endswith("\n")]

    with closing(Database(tmp_path / "db")) as database:
        assert set(answered) <= set(texts(database))
