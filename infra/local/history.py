"""What the queue can be asked: jobs by what they were about, what became of them, and how many there are."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from infra.local.jobs import COLUMNS, Job, OutputRow, job_of


def find(
    connection: sqlite3.Connection, where: Mapping[str, str], *, limit: int, before: int | None = None, user: str = ""
) -> list[Job]:
    """The newest jobs by any of `service`, `state`, `bucket` and `key`; `before` is the `seq` to go on from.

    Where a user is named, only those of the user's services, and those that the user had others' services do.
    """
    if not user:
        return _find(connection, where, limit, before)
    found = [
        job
        for side in ("tenant", "caller")
        for job in _find(connection, {**where, side: user}, limit, before, f" AND {side} != ''")
    ]
    return sorted(found, key=lambda job: -job.seq)[:limit]


def _find(
    connection: sqlite3.Connection, where: Mapping[str, str], limit: int, before: int | None, known: str = ""
) -> list[Job]:
    """The newest jobs; `known` tells SQLite what it cannot know of a parameter, and an index of some rows needs."""
    terms = [f"{name} = ?" for name in where]
    values: list[Any] = list(where.values())
    if before is not None:
        terms.append("seq < ?")
        values.append(before)
    condition = f"WHERE {' AND '.join(terms)}{known}" if terms else ""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM jobs {condition} ORDER BY seq DESC LIMIT ?",  # noqa: S608
        (*values, limit),
    )
    return [job_of(row) for row in rows.fetchall()]


def outputs(connection: sqlite3.Connection, job: Job) -> list[OutputRow]:
    """The objects that a job made."""
    rows = connection.execute("SELECT bucket, key, size, sha256 FROM job_outputs WHERE job = ?", (job.seq,))
    return [OutputRow(*row) for row in rows.fetchall()]


def transitions(connection: sqlite3.Connection, job: Job) -> list[dict[str, Any]]:
    """Everything that happened to a job, oldest first."""
    rows = connection.execute(
        "SELECT time, state, attempt, detail FROM transitions WHERE job = ? ORDER BY rowid", (job.seq,)
    )
    return [dict(row) for row in rows.fetchall()]


def triggered(connection: sqlite3.Connection, job: Job) -> list[str]:
    """The jobs that this one's outputs started."""
    rows = connection.execute("SELECT id FROM jobs WHERE parent = ? ORDER BY seq", (job.id,))
    return [row[0] for row in rows.fetchall()]


def ended_between(
    connection: sqlite3.Connection, where: Mapping[str, str], since: float, until: float, *, after: int, limit: int
) -> list[Job]:
    """Jobs that have ended, made in a span of time, by `service` or `state`; oldest first, from those after `after`."""
    terms = "".join(f" AND {name} = ?" for name in where)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM jobs WHERE seq > ? AND created >= ? AND created <= ?"  # noqa: S608
        f" AND state IN ('Succeeded', 'Dead', 'Cancelled'){terms} ORDER BY seq LIMIT ?",
        (after, since, until, *where.values(), limit),
    )
    return [job_of(row) for row in rows.fetchall()]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    rows = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
    return {str(state): int(number) for state, number in rows}


def open_counts(connection: sqlite3.Connection) -> list[tuple[str, str, int]]:
    """How many jobs of each service are open, by state."""
    rows = connection.execute(
        "SELECT service, state, count(*) FROM jobs INDEXED BY jobs_open"
        " WHERE state IN ('Pending', 'Running', 'Retrying') GROUP BY service, state"
    )
    return [(str(service), str(state), int(count)) for service, state, count in rows.fetchall()]
