"""The queue: what is to run, in which state it is, and everything that ever happened to it.

A job is made in the transaction that stores its object. Each change of state is a row in `transitions`. Jobs of one
service and one key run in the order of their events: one that comes while another is open is `queued` until it is its
turn, so that looking for work costs the same however many wait behind each other.
"""

import json
import random
import sqlite3
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    bucket TEXT NOT NULL DEFAULT '',
    key TEXT NOT NULL DEFAULT '',
    object INTEGER,
    body BLOB NOT NULL,
    parent TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    queued INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    run_key TEXT NOT NULL DEFAULT '',
    pinned TEXT,
    printed TEXT NOT NULL DEFAULT '',
    tenant TEXT NOT NULL DEFAULT '',
    caller TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (service, seq) WHERE state IN ('Pending', 'Running', 'Retrying');
CREATE INDEX IF NOT EXISTS jobs_ready ON jobs (service, seq)
    WHERE state IN ('Pending', 'Running', 'Retrying') AND not_before = 0 AND queued = 0;
CREATE INDEX IF NOT EXISTS jobs_delayed ON jobs (service, not_before) WHERE not_before > 0;
CREATE INDEX IF NOT EXISTS jobs_open_of_key ON jobs (service, bucket, key, seq)
    WHERE state IN ('Pending', 'Running', 'Retrying');
CREATE INDEX IF NOT EXISTS jobs_of_service ON jobs (service, seq);
CREATE INDEX IF NOT EXISTS jobs_of_state ON jobs (state, seq);
CREATE INDEX IF NOT EXISTS jobs_of_key ON jobs (key, seq);
CREATE INDEX IF NOT EXISTS jobs_of_bucket ON jobs (bucket, seq);
CREATE INDEX IF NOT EXISTS jobs_of_parent ON jobs (parent) WHERE parent != '';
CREATE INDEX IF NOT EXISTS jobs_of_tenant ON jobs (tenant, seq) WHERE tenant != '';
CREATE INDEX IF NOT EXISTS jobs_of_caller ON jobs (caller, seq) WHERE caller != '';
CREATE INDEX IF NOT EXISTS jobs_of_tenant_and_service ON jobs (service, tenant, seq) WHERE tenant != '';
CREATE INDEX IF NOT EXISTS jobs_of_caller_and_service ON jobs (service, caller, seq) WHERE caller != '';
CREATE TABLE IF NOT EXISTS transitions (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    time REAL NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS transitions_of_job ON transitions (job);
CREATE TABLE IF NOT EXISTS job_outputs (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS job_outputs_of_job ON job_outputs (job);
CREATE TABLE IF NOT EXISTS handled (
    object INTEGER NOT NULL,
    service TEXT NOT NULL,
    PRIMARY KEY (object, service)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS objects_handled AFTER DELETE ON objects
BEGIN
    DELETE FROM handled WHERE object = OLD.id;
END;
"""

BACKOFF_S = 1.0
BACKOFF_MOST_S = 300.0
JITTER = 0.25
LATEST_S = BACKOFF_MOST_S * (1 + JITTER)
"""The longest pause there is: who is to wait for longer was told so by a clock that has since gone back."""
AGAIN_S = 1.0


class State(StrEnum):
    """Where a job is. `Failed` ends an attempt and shows in the transitions only; `Dead` is the dead-letter list."""

    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DEAD = "Dead"
    CANCELLED = "Cancelled"


OPEN = (State.PENDING, State.RUNNING, State.RETRYING)
OSCAR_PHASES = {
    State.PENDING: "Pending",
    State.RETRYING: "Pending",
    State.RUNNING: "Running",
    State.SUCCEEDED: "Succeeded",
    State.FAILED: "Failed",
    State.DEAD: "Failed",
    State.CANCELLED: "Failed",
}


@dataclass(frozen=True)
class Job:
    """A row of the queue; times in Unix seconds.

    `tenant` is the user who owned the service, `caller` the one who had it run, where that is another; both are empty
    for the administrator.
    """

    seq: int
    id: str
    service: str
    bucket: str
    key: str
    object: int | None
    state: State
    attempt: int
    max_attempts: int
    not_before: float
    created: float
    started: float | None
    finished: float | None
    exit_code: int | None
    reason: str
    run_key: str
    pinned: str | None
    tenant: str = ""
    caller: str = ""


@dataclass(frozen=True)
class OutputRow:
    """An object that a job made."""

    bucket: str
    key: str
    size: int
    sha256: str


COLUMNS = ", ".join(Job.__dataclass_fields__)


def add(
    connection: sqlite3.Connection,
    service: str,
    body: bytes,
    *,
    max_attempts: int,
    bucket: str = "",
    key: str = "",
    object_id: int | None = None,
    parent: str = "",
    tenant: str = "",
    caller: str = "",
) -> Job:
    """Queue an invocation of `service` with the event or payload `body`; `caller` may be its `tenant` too."""
    caller = "" if caller == tenant else caller
    now = time.time()
    name = service if len(service) < 25 else service[:16]  # OSCAR's rule: the name must fit a Kubernetes label
    job_id = f"{name}-{uuid.uuid4()}"
    queued = object_id is not None and _first_open(connection, service, bucket, key) is not None
    done = connection.execute(
        "INSERT INTO jobs"
        " (id, service, bucket, key, object, body, parent, state, max_attempts, queued, created, tenant, caller)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job_id,
            service,
            bucket,
            key,
            object_id,
            body,
            parent,
            State.PENDING,
            max_attempts,
            queued,
            now,
            tenant,
            caller,
        ),
    )
    seq = done.lastrowid or 0
    _note(connection, seq, State.PENDING, 0, now=now)
    return Job(
        seq,
        job_id,
        service,
        bucket,
        key,
        object_id,
        State.PENDING,
        attempt=0,
        max_attempts=max_attempts,
        not_before=0.0,
        created=now,
        started=None,
        finished=None,
        exit_code=None,
        reason="",
        run_key="",
        pinned=None,
        tenant=tenant,
        caller=caller,
    )


def start(connection: sqlite3.Connection, job: Job, began: float | None = None, reason: str | None = None) -> None:
    """An attempt begins, or began, unless the job has been cancelled meanwhile; what is said of it may change."""
    now = began or time.time()
    begun = connection.execute(
        "UPDATE jobs SET state = ?, attempt = attempt + 1, started = ?, not_before = 0, reason = coalesce(?, reason)"
        " WHERE seq = ? AND state IN ('Pending', 'Running', 'Retrying')",
        (State.RUNNING, now, reason, job.seq),
    )
    if begun.rowcount:
        _note(connection, job.seq, State.RUNNING, job.attempt + 1, now=now)


def succeed(
    connection: sqlite3.Connection,
    job: Job,
    outputs: Iterable[OutputRow],
    run_key: str,
    *,
    printed: str = "",
    began: float | None = None,
) -> None:
    """The end of a job, in the transaction that stores its outputs.

    `printed` is what has no log file; `began` tells when the attempt did, where that has not been recorded.
    """
    now = time.time()
    attempt = job.attempt + 1
    connection.execute(
        "UPDATE jobs SET state = ?, attempt = ?, started = coalesce(?, started), finished = ?, not_before = 0,"
        " exit_code = 0, reason = '', run_key = ?, printed = printed || ? WHERE seq = ?",
        (State.SUCCEEDED, attempt, began, now, run_key, printed, job.seq),
    )
    connection.executemany(
        "INSERT INTO job_outputs VALUES (?, ?, ?, ?, ?)",
        [(job.seq, out.bucket, out.key, out.size, out.sha256) for out in outputs],
    )
    if began is not None:
        _note(connection, job.seq, State.RUNNING, attempt, now=began)
    _note(connection, job.seq, State.SUCCEEDED, attempt, now=now)
    _let_next(connection, job)


def again(connection: sqlite3.Connection, job: Job, exit_code: int, reason: str, pause_s: float = AGAIN_S) -> None:
    """The attempt is not counted: it checkpointed and goes on from there, or it was the cluster that failed."""
    now = time.time()
    connection.execute(
        "UPDATE jobs SET state = ?, attempt = ?, not_before = ?, exit_code = ?, reason = ? WHERE seq = ?",
        (State.PENDING, job.attempt, now + pause_s, exit_code, reason, job.seq),
    )
    _note(connection, job.seq, State.PENDING, job.attempt, reason, now=now)


def waits(connection: sqlite3.Connection, job: Job, reason: str) -> None:
    """What is to run the job has it, and does not run it yet, or no longer does; its attempt has not begun."""
    before = connection.execute(
        "SELECT state FROM jobs WHERE seq = ? AND state IN ('Pending', 'Running', 'Retrying')", (job.seq,)
    ).fetchone()
    if before is None:
        return
    connection.execute(
        "UPDATE jobs SET state = ?, attempt = ?, not_before = 0, reason = ? WHERE seq = ?",
        (State.PENDING, job.attempt, reason, job.seq),
    )
    if before["state"] != State.PENDING:
        _note(connection, job.seq, State.PENDING, job.attempt, reason)


def interrupted(connection: sqlite3.Connection) -> int:
    """After a crash: what was running is pending again, its attempt not counted; returns how many there were."""
    rows = connection.execute(
        "UPDATE jobs SET state = ?, attempt = max(attempt - 1, 0) WHERE state = ? RETURNING seq, attempt",
        (State.PENDING, State.RUNNING),
    ).fetchall()
    for seq, attempt in rows:
        _note(connection, seq, State.PENDING, attempt, "the cluster stopped while it ran")
    return len(rows)


def fail(connection: sqlite3.Connection, job: Job, exit_code: int, reason: str, *, final: bool) -> State:
    """The attempt failed: another one after a pause (exponential, jittered), or the dead-letter list."""
    now = time.time()
    attempt = job.attempt + 1
    _note(connection, job.seq, State.FAILED, attempt, reason, now=now)
    if final or attempt >= job.max_attempts:
        connection.execute("UPDATE jobs SET attempt = ? WHERE seq = ?", (attempt, job.seq))  # it may not have started
        _end(connection, job, State.DEAD, exit_code, reason)
        return State.DEAD
    pause = min(BACKOFF_S * 2 ** (attempt - 1), BACKOFF_MOST_S) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    connection.execute(
        "UPDATE jobs SET state = ?, attempt = ?, not_before = ?, exit_code = ?, reason = ? WHERE seq = ?",
        (State.RETRYING, attempt, now + pause, exit_code, reason, job.seq),
    )
    _note(connection, job.seq, State.RETRYING, attempt, f"in {pause:.1f} s", now=now)
    return State.RETRYING


def pin(connection: sqlite3.Connection, job: Job, pinned: list[dict[str, str]]) -> None:
    """What the request's inputs were found to be, for this attempt and those after it."""
    connection.execute("UPDATE jobs SET pinned = ? WHERE seq = ?", (json.dumps(pinned), job.seq))


def is_open(connection: sqlite3.Connection, job: Job) -> bool:
    """Whether the job has not ended meanwhile."""
    row = connection.execute("SELECT state FROM jobs WHERE seq = ?", (job.seq,)).fetchone()
    return row is not None and row[0] in OPEN


def cancel(connection: sqlite3.Connection, job: Job, reason: str = "cancelled") -> bool:
    """End an open job; whether it was open."""
    if not is_open(connection, job):
        return False
    _end(connection, job, State.CANCELLED, None, reason)
    return True


def get(connection: sqlite3.Connection, job_id: str) -> Job | None:
    """The job of that id."""
    row = connection.execute(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
    return job_of(row) if row else None


def body(connection: sqlite3.Connection, job: Job) -> bytes:
    """The event, or the payload of a direct call."""
    return bytes(connection.execute("SELECT body FROM jobs WHERE seq = ?", (job.seq,)).fetchone()[0])


def printed(connection: sqlite3.Connection, job: Job) -> str:
    """What a job printed that has no log file; what the file holds came after it."""
    row = connection.execute("SELECT printed FROM jobs WHERE seq = ?", (job.seq,)).fetchone()
    return str(row[0]) if row else ""


def revive(connection: sqlite3.Connection, job: Job, object_id: int | None, pinned: str | None) -> bool:
    """Put a job that has ended back into the queue, its attempts counted anew; whether it had ended."""
    queued = object_id is not None and _first_open(connection, job.service, job.bucket, job.key) is not None
    rows = connection.execute(
        "UPDATE jobs SET state = ?, attempt = 0, not_before = 0, queued = ?, object = ?, pinned = ?, exit_code = NULL,"
        " reason = '', finished = NULL WHERE seq = ? AND state IN ('Succeeded', 'Dead', 'Cancelled') RETURNING seq",
        (State.PENDING, queued, object_id, pinned, job.seq),
    ).fetchall()
    if not rows:
        return False
    connection.execute("DELETE FROM job_outputs WHERE job = ?", (job.seq,))
    _note(connection, job.seq, State.PENDING, 0, "replayed")
    return True


def handle(connection: sqlite3.Connection, service: str, object_id: int) -> None:
    """Remember that this version of an object has had a job of the service, for as long as the version is there."""
    connection.execute("INSERT OR IGNORE INTO handled VALUES (?, ?)", (object_id, service))


def is_handled(connection: sqlite3.Connection, service: str, object_id: int) -> bool:
    """Whether this version of an object has ever had a job of the service."""
    row = connection.execute("SELECT 1 FROM handled WHERE object = ? AND service = ?", (object_id, service)).fetchone()
    return row is not None


def delete(connection: sqlite3.Connection, job_id: str) -> bool:
    """Forget a finished job; whether there was one."""
    rows = connection.execute(
        "DELETE FROM jobs WHERE id = ? AND state NOT IN ('Pending', 'Running', 'Retrying') RETURNING seq", (job_id,)
    )
    return bool(rows.fetchall())


def delete_finished(
    connection: sqlite3.Connection, service: str, *, everything: bool, limit: int, user: str = ""
) -> list[str]:
    """Forget some jobs of a service (a user's, if one is named) that succeeded, or that ended; returns their ids."""
    states = (State.SUCCEEDED, State.DEAD, State.CANCELLED) if everything else (State.SUCCEEDED,)
    marks = ", ".join("?" * len(states))
    of_user = " AND (tenant = ? OR caller = ?)" if user else ""
    rows = connection.execute(
        "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE service = ?"  # noqa: S608
        f" AND state IN ({marks}){of_user} ORDER BY seq LIMIT ?) RETURNING id",
        (service, *states, *([user, user] if user else []), limit),
    )
    return [row[0] for row in rows.fetchall()]


def cancel_open(connection: sqlite3.Connection, service: str, reason: str) -> None:
    """End every open job of a service that is going away."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM jobs INDEXED BY jobs_open"  # noqa: S608
        " WHERE service = ? AND state IN ('Pending', 'Running', 'Retrying')",
        (service,),
    ).fetchall()
    for row in rows:
        _end(connection, job_of(row), State.CANCELLED, None, reason)


def _first_open(connection: sqlite3.Connection, service: str, bucket: str, key: str) -> int | None:
    row = connection.execute(
        "SELECT seq FROM jobs INDEXED BY jobs_open_of_key WHERE service = ? AND bucket = ? AND key = ?"
        " AND state IN ('Pending', 'Running', 'Retrying') ORDER BY seq LIMIT 1",
        (service, bucket, key),
    ).fetchone()
    return None if row is None else int(row[0])


def _let_next(connection: sqlite3.Connection, job: Job) -> None:
    """A job has ended: it is the turn of the one behind it."""
    if job.object is not None:
        following = _first_open(connection, job.service, job.bucket, job.key)
        if following is not None:
            connection.execute("UPDATE jobs SET queued = 0 WHERE seq = ?", (following,))


def _end(connection: sqlite3.Connection, job: Job, state: State, exit_code: int | None, reason: str) -> None:
    now = time.time()
    row = connection.execute(
        "UPDATE jobs SET state = ?, finished = ?, not_before = 0, queued = 0, exit_code = ?, reason = ? WHERE seq = ?"
        " RETURNING attempt",  # as `start` has counted: `job` may be older than its attempt, or not
        (state, now, exit_code, reason, job.seq),
    ).fetchone()
    _note(connection, job.seq, state, row["attempt"] if row else job.attempt, reason, now=now)
    _let_next(connection, job)


def _note(
    connection: sqlite3.Connection, seq: int, state: State, attempt: int, detail: str = "", *, now: float | None = None
) -> None:
    connection.execute(
        "INSERT INTO transitions VALUES (?, ?, ?, ?, ?)", (seq, now or time.time(), state, attempt, detail)
    )


def job_of(row: sqlite3.Row) -> Job:
    """A row that was selected by `COLUMNS`."""
    values = dict(row)
    return Job(**{**values, "state": State(values["state"])})
