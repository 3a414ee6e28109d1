"""A full store: rows of objects and jobs, and of what was done, loaded in bulk where nobody has the database open."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from events.notifications import Notification, build

NUMBERS = "WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :last)"
"""Rows from `first` up to `last`."""
OBJECT = (
    "INSERT INTO objects (bucket, key, blob, size, etag, sha256, modified, content_type, metadata, headers, tags,"
    " checksums, parts)"
)
DESCRIBED = "'text/plain', '{}', '{}', '{}', '{}', '[]' FROM numbers"


def add_objects(path: Path, bucket: str, count: int) -> float:
    """So many objects in a thousandth as many folders; returns the seconds it took."""

    def load(connection: sqlite3.Connection) -> None:
        values = {"first": 0, "last": count, "bucket": _bucket(connection, bucket), "now": time.time()}
        connection.execute("INSERT INTO blobs VALUES (1, 1, '', '', x'78')")
        connection.execute(
            f"{NUMBERS} {OBJECT} SELECT :bucket, printf('run%04d/frame%04d.h5', n / 1000, n % 1000), 1, 1,"
            f" printf('%032x', n), printf('%064x', n), :now, {DESCRIBED}",
            values,
        )

    return _loaded(path, load)


def add_events(path: Path, service: str, first: int, last: int) -> float:
    """Objects in a service's mailbox with all that was done for each: its blob, its job, every step, its output.

    Returns the seconds it took.
    """
    example = Notification(
        service, "in/frame000000", size=1024, etag="0" * 32, source_ip="127.0.0.1", region="us-east-1"
    )
    body = json.dumps(build(example)).encode()

    def load(connection: sqlite3.Connection) -> None:
        base = connection.execute("SELECT coalesce(max(id), 0) FROM objects").fetchone()[0] + 1 - first
        blob = connection.execute("SELECT coalesce(max(id), 0) FROM blobs").fetchone()[0] + 1 - first
        job = connection.execute("SELECT coalesce(max(seq), 0) FROM jobs").fetchone()[0] + 1 - first
        values = {
            "first": first,
            "last": last,
            "bucket": _bucket(connection, service),
            "service": service,
            "body": body,
            "object": base,
            "blob": blob,
            "job": job,
            "now": time.time(),
        }
        for statement in (
            (
                "INSERT INTO blobs (id, size, md5, sha256, data)"
                " SELECT :blob + n, 1024, printf('%032x', n), printf('%064x', n), randomblob(1024) FROM numbers"
            ),
            (
                f"{OBJECT} SELECT :bucket, printf('in/frame%07d', n), :blob + n, 1024, printf('%032x', n),"
                f" printf('%064x', n), :now, {DESCRIBED}"
            ),
            (
                "INSERT INTO jobs (id, service, bucket, key, object, body, state, attempt, max_attempts, created,"
                " started, finished, exit_code, run_key)"
                " SELECT :service || '-' || lower(hex(randomblob(16))), :service, :service,"
                " printf('in/frame%07d', n), :object + n, :body, 'Succeeded', 1, 4, :now, :now, :now, 0,"
                " printf('%064x', n) FROM numbers"
            ),
            *(
                "INSERT INTO transitions (job, time, state, attempt)"
                f" SELECT :job + n, :now, '{state}', {attempt} FROM numbers"
                for state, attempt in (("Pending", 0), ("Running", 1), ("Succeeded", 1))
            ),
            (
                "INSERT INTO job_outputs SELECT :job + n, :service, printf('out/frame%07d.txt', n), 20,"
                " printf('%064x', n) FROM numbers"
            ),
            "INSERT INTO handled SELECT :object + n, :service FROM numbers",
        ):
            connection.execute(f"{NUMBERS} {statement}", values)

    return _loaded(path, load)


def open_jobs(connection: sqlite3.Connection, service: str) -> int:
    """How many jobs of a service have not ended."""
    row = connection.execute(
        "SELECT count(*) FROM jobs INDEXED BY jobs_open"
        " WHERE service = ? AND state IN ('Pending', 'Running', 'Retrying')",
        (service,),
    ).fetchone()
    return int(row[0])


def _loaded(path: Path, load: Callable[[sqlite3.Connection], None]) -> float:
    """Run `load` without the indexes, which are made anew afterwards: sorting is quicker than inserting."""
    began = time.perf_counter()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in (
            "journal_mode = OFF",
            "synchronous = OFF",
            "cache_size = -2000000",
            "foreign_keys = OFF",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
            " AND tbl_name IN ('objects', 'jobs', 'transitions', 'job_outputs')"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        load(connection)
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("COMMIT")
    return time.perf_counter() - began


def _bucket(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute("SELECT id FROM buckets WHERE name = ? AND deleted = 0", (name,)).fetchone()[0])
