"""Which jobs of a service may start now, and when the next that waits for its time may."""

import sqlite3
from collections.abc import Collection

from infra.local.jobs import COLUMNS, LATEST_S, Job, job_of


def ready(
    connection: sqlite3.Connection, service: str, now: float, *, limit: int, taken: Collection[int] = ()
) -> list[Job]:
    """The first jobs of a service that may start, but for those that are `taken` (by `seq`)."""
    at_once = connection.execute(
        f"SELECT {COLUMNS} FROM jobs INDEXED BY jobs_ready"  # noqa: S608
        " WHERE service = ? AND state IN ('Pending', 'Running', 'Retrying') AND not_before = 0 AND queued = 0"
        " ORDER BY seq LIMIT ?",
        (service, limit + len(taken)),
    ).fetchall()
    delayed = connection.execute(
        f"SELECT {COLUMNS} FROM jobs INDEXED BY jobs_delayed"  # noqa: S608
        " WHERE service = ? AND not_before > 0 AND not_before <= ? AND state IN ('Pending', 'Retrying') AND queued = 0"
        " ORDER BY not_before LIMIT ?",
        (service, now, limit + len(taken)),
    ).fetchall()
    rows = sorted((row for row in at_once + delayed if row[0] not in taken), key=lambda row: int(row[0]))
    return [job_of(row) for row in rows[:limit]]


def next_due(connection: sqlite3.Connection, service: str, now: float) -> float | None:
    """When the next job of a service that waits for its time may start."""
    row = connection.execute(
        "SELECT not_before FROM jobs INDEXED BY jobs_delayed"
        " WHERE service = ? AND not_before > 0 AND not_before > ? AND state IN ('Pending', 'Retrying') AND queued = 0"
        " ORDER BY not_before LIMIT 1",
        (service, now),
    ).fetchone()
    return None if row is None else float(row[0])


def set_back(connection: sqlite3.Connection, service: str, now: float) -> None:
    """The clock was set back: what a job of the service still has to wait is unknown, so it waits no longer."""
    connection.execute(
        "UPDATE jobs INDEXED BY jobs_delayed SET not_before = ?"
        " WHERE service = ? AND not_before > 0 AND not_before > ? AND state IN ('Pending', 'Retrying')",
        (now, service, now + LATEST_S),
    )
