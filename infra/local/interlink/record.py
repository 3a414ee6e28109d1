"""The pods that a cluster has sent, and has not seen the end of: on record before a plugin hears of them.

A pod is `ended` once its end has been taken over, or nobody wants it any more; `deleted` once its plugin knows. What
is in between is deleted there, as often as it takes.
"""

import sqlite3
import time
from dataclasses import dataclass

from infra.local.interlink.pod import PodName

SCHEMA = """
CREATE TABLE IF NOT EXISTS pods (
    uid TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    submission INTEGER NOT NULL,
    node TEXT NOT NULL,
    name TEXT NOT NULL,
    namespace TEXT NOT NULL,
    log_start INTEGER NOT NULL,
    created REAL NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pods_of_job ON pods (job, submission);
CREATE INDEX IF NOT EXISTS pods_left ON pods (node, created) WHERE ended = 1 AND deleted = 0;
CREATE TRIGGER IF NOT EXISTS jobs_ended_pods AFTER UPDATE OF state ON jobs
WHEN NEW.state IN ('Succeeded', 'Dead', 'Cancelled')
BEGIN
    UPDATE pods SET ended = 1 WHERE job = NEW.id AND ended = 0;
END;
CREATE TRIGGER IF NOT EXISTS jobs_gone_pods AFTER DELETE ON jobs
BEGIN
    DELETE FROM pods WHERE job = OLD.id AND deleted = 1;
    UPDATE pods SET ended = 1 WHERE job = OLD.id;
END;
"""


@dataclass(frozen=True)
class Sent:
    """A pod on record; `log_start` is how long the job's log was before the pod printed anything."""

    pod: PodName
    job: str
    submission: int
    log_start: int


def add(connection: sqlite3.Connection, sent: Sent) -> None:
    """Put a pod on record, before its plugin hears of it."""
    pod = sent.pod
    connection.execute(
        "INSERT INTO pods (uid, job, submission, node, name, namespace, log_start, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (pod.uid, sent.job, sent.submission, pod.node, pod.name, pod.namespace, sent.log_start, time.time()),
    )


def current(connection: sqlite3.Connection, job_id: str) -> Sent | None:
    """The pod of a job whose end has not been taken over."""
    row = connection.execute(
        "SELECT * FROM pods WHERE job = ? AND ended = 0 ORDER BY submission DESC LIMIT 1", (job_id,)
    ).fetchone()
    return _sent(row) if row else None


def submissions(connection: sqlite3.Connection, job_id: str) -> int:
    """How many pods a job has had."""
    row = connection.execute("SELECT coalesce(max(submission), 0) FROM pods WHERE job = ?", (job_id,)).fetchone()
    return int(row[0])


def node_of(connection: sqlite3.Connection, job_id: str) -> str:
    """The node that a job's last pod was sent to; empty where it had none."""
    query = "SELECT node FROM pods WHERE job = ? ORDER BY submission DESC LIMIT 1"
    row = connection.execute(query, (job_id,)).fetchone()
    return str(row[0]) if row else ""


def jobs_with_pods(connection: sqlite3.Connection) -> set[str]:
    """The jobs whose pods may still be at work."""
    return {str(row[0]) for row in connection.execute("SELECT job FROM pods WHERE ended = 0").fetchall()}


def end(connection: sqlite3.Connection, job_id: str) -> None:
    """The end of a job's pod has been taken over; its plugin may forget it."""
    connection.execute("UPDATE pods SET ended = 1 WHERE job = ? AND ended = 0", (job_id,))


def left(connection: sqlite3.Connection, limit: int = 100) -> list[Sent]:
    """Pods that have ended, or that nobody wants, of which their plugins have not been told."""
    rows = connection.execute(
        "SELECT * FROM pods WHERE ended = 1 AND deleted = 0 ORDER BY created LIMIT ?", (limit,)
    ).fetchall()
    return [_sent(row) for row in rows]


def forget(connection: sqlite3.Connection, uid: str) -> None:
    """A plugin has been told; the record stays as long as its job, which counts its pods by it."""
    connection.execute("UPDATE pods SET deleted = 1 WHERE uid = ?", (uid,))
    connection.execute("DELETE FROM pods WHERE uid = ? AND job NOT IN (SELECT id FROM jobs)", (uid,))


def _sent(row: sqlite3.Row) -> Sent:
    pod = PodName(row["uid"], row["name"], row["namespace"], row["node"])
    return Sent(pod, row["job"], row["submission"], row["log_start"])
