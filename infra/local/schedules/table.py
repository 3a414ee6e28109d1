"""Schedules as rows: what they say, when each is due, what it did last, and what has arrived for it since."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from events.gather import Arrived
from events.schedules import Schedule, ScheduleError, read_one

SCHEMA = """
CREATE TABLE IF NOT EXISTS schedules (
    name TEXT PRIMARY KEY,
    document TEXT NOT NULL,
    paused INTEGER NOT NULL,
    created REAL NOT NULL,
    due REAL,
    last REAL,
    job TEXT NOT NULL DEFAULT '',
    request TEXT NOT NULL DEFAULT '',
    number INTEGER NOT NULL DEFAULT 0,
    scanned INTEGER NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS arrivals (
    schedule TEXT NOT NULL REFERENCES schedules (name) ON DELETE CASCADE,
    object INTEGER NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified REAL NOT NULL,
    PRIMARY KEY (schedule, object)
) WITHOUT ROWID;
"""
MOST = 1000
"""Schedules of a cluster."""
_COLUMNS = "name, document, paused, created, due, last, job, request, number, scanned, note"


@dataclass(frozen=True)
class Entry:
    """A schedule and how it is; times in Unix seconds.

    `due` is when it runs next (None: not by the clock, or not again), `last` the time for which it ran last, `job` and
    `request` what it made then, `number` how many requests it has written, `scanned` the number of the last object that
    was looked at, `note` what a person should know.
    """

    schedule: Schedule
    document: str
    paused: bool
    created: float
    due: float | None
    last: float | None
    job: str
    request: str
    number: int
    scanned: int
    note: str

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.schedule.name


def every(connection: sqlite3.Connection) -> list[Entry]:
    """All schedules, by name."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM schedules ORDER BY name").fetchall()  # noqa: S608
    return [_entry(row) for row in rows]


def get(connection: sqlite3.Connection, name: str) -> Entry | None:
    """The schedule of that name."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM schedules WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return None if row is None else _entry(row)


def add(connection: sqlite3.Connection, name: str, document: str, **facts: Any) -> None:
    """A schedule that was not there."""
    connection.execute(
        f"INSERT INTO schedules (name, document, {', '.join(facts)}) VALUES (?, ?{', ?' * len(facts)})",  # noqa: S608
        (name, document, *facts.values()),
    )


def change(connection: sqlite3.Connection, name: str, **facts: Any) -> None:
    """Other values of some columns."""
    connection.execute(
        f"UPDATE schedules SET {', '.join(f'{column} = ?' for column in facts)} WHERE name = ?",  # noqa: S608
        (*facts.values(), name),
    )


def delete(connection: sqlite3.Connection, name: str) -> bool:
    """Forget a schedule and what has arrived for it; whether it was there."""
    return bool(connection.execute("DELETE FROM schedules WHERE name = ?", (name,)).rowcount)


def last_job(connection: sqlite3.Connection, entry: Entry) -> tuple[str, str]:
    """The id and the state of the job that the schedule made last; both empty where there is none any more."""
    row = None
    if entry.job:
        row = connection.execute("SELECT id, state FROM jobs WHERE id = ?", (entry.job,)).fetchone()
    elif entry.request:
        row = connection.execute(
            "SELECT id, state FROM jobs INDEXED BY jobs_of_key WHERE key = ? AND service = ? ORDER BY seq DESC LIMIT 1",
            (entry.request, entry.schedule.service),
        ).fetchone()
    return ("", "") if row is None else (row[0], row[1])


# What has arrived


def newest(connection: sqlite3.Connection) -> int:
    """The number of the newest version of any object."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM objects").fetchone()[0])


def since(connection: sqlite3.Connection, bucket: int, prefix: str, after: int, upto: int) -> list[sqlite3.Row]:
    """The current objects of a bucket with numbers in a span: a walk along the rows, which needs no index."""
    return connection.execute(
        "SELECT id, key, size, modified FROM objects NOT INDEXED"
        " WHERE id > ? AND id <= ? AND bucket = ? AND current = 1 AND substr(key, 1, ?) = ?",
        (after, upto, bucket, len(prefix), prefix),
    ).fetchall()


def keep(connection: sqlite3.Connection, name: str, rows: Iterable[sqlite3.Row], scanned: int) -> None:
    """Remember what has arrived for a schedule, and up to where was looked."""
    connection.executemany(
        "INSERT OR IGNORE INTO arrivals VALUES (?, ?, ?, ?, ?)",
        [(name, row["id"], row["key"], row["size"], row["modified"]) for row in rows],
    )
    change(connection, name, scanned=scanned)


def kept(connection: sqlite3.Connection, name: str) -> list[sqlite3.Row]:
    """What has arrived for a schedule, as it was then."""
    return connection.execute("SELECT key, size, modified FROM arrivals WHERE schedule = ?", (name,)).fetchall()


def arrivals(connection: sqlite3.Connection, name: str) -> list[Arrived]:
    """What has arrived for a schedule and is still there as it was, in that order."""
    rows = connection.execute(
        "SELECT o.id, o.key, o.size, o.modified, o.sha256 FROM arrivals a JOIN objects o ON o.id = a.object"
        " WHERE a.schedule = ? AND o.current = 1 ORDER BY a.object",
        (name,),
    ).fetchall()
    return [Arrived(row["key"], row["size"], row["modified"], row["sha256"], str(row["id"])) for row in rows]


def are_current(connection: sqlite3.Connection, objects: Iterable[Arrived]) -> bool:
    """Whether all of these are still what their keys name."""
    return all(
        connection.execute("SELECT 1 FROM objects WHERE id = ? AND current = 1", (int(one.mark),)).fetchone()
        for one in objects
    )


def forget(connection: sqlite3.Connection, name: str, objects: Iterable[Arrived] | None = None) -> None:
    """These (all, without) are done with; so is what is no longer there."""
    if objects is None:
        connection.execute("DELETE FROM arrivals WHERE schedule = ?", (name,))
        return
    connection.executemany(
        "DELETE FROM arrivals WHERE schedule = ? AND object = ?", [(name, int(one.mark)) for one in objects]
    )
    connection.execute(
        "DELETE FROM arrivals WHERE schedule = ?"
        " AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.id = arrivals.object AND o.current = 1)",
        (name,),
    )


def _entry(row: sqlite3.Row) -> Entry:
    values = dict(row)
    name, document = values.pop("name"), values["document"]
    try:
        schedule = _schedule(name, document)
    except ScheduleError as error:  # a time zone that is no longer known, or a document of another version
        schedule = Schedule(name, str(json.loads(document).get("service")))
        values |= {"paused": 1, "note": f"cannot be read: {error}"}
    return Entry(**{**values, "schedule": schedule, "paused": bool(values["paused"])})


@lru_cache(maxsize=MOST)
def _schedule(name: str, document: str) -> Schedule:
    return read_one(name, json.loads(document))
