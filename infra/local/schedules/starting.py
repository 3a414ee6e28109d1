"""How a schedule starts its service: a call, or a request in its mailbox; always inside somebody's transaction."""

import sqlite3
from collections.abc import Sequence

from events.gather import Arrived, Request
from infra.local import jobs
from infra.local.blobs import Blob
from infra.local.engine import Engine
from infra.local.jobs import OPEN, Job
from infra.local.objects import PUT, Origin
from infra.local.schedules import table
from infra.local.schedules.table import Entry
from infra.local.services import Deployed

MADE_BY = "dioscar-schedule"
"""Metadata of a request: the schedule that wrote it."""


class Hindered(Exception):  # noqa: N818 - a state, not a defect
    """The service cannot be started now; the message says why. Nothing was changed."""


def hindrance(connection: sqlite3.Connection, engine: Engine, entry: Entry) -> str:
    """Why the schedule's service cannot be started now; empty where it can."""
    schedule = entry.schedule
    if engine.services.get(schedule.service) is None:
        return f"there is no service {schedule.service}; deploy it"
    job, state = table.last_job(connection, entry)
    if state in OPEN and not schedule.overlap:
        return f"its last job ({job}) is still {state}"
    return ""


def by_call(connection: sqlite3.Connection, engine: Engine, entry: Entry) -> Job:
    """Queue a call of the service with the schedule's payload. Raises Hindered."""
    deployed = _deployed(connection, engine, entry)
    attempts = 1 + deployed.settings.retries
    job = jobs.add(connection, deployed.name, entry.schedule.call, max_attempts=attempts, tenant=deployed.tenant)
    _tell_why(connection, entry, job)
    engine.wake(deployed.name)
    return job


def by_request(
    connection: sqlite3.Connection,
    engine: Engine,
    entry: Entry,
    request: Request,
    content: Blob,
    objects: Sequence[Arrived] = (),
) -> Job:
    """Store a request in the service's mailbox; its job reads exactly these versions. Raises Hindered, StoreError."""
    deployed = _deployed(connection, engine, entry)
    if deployed not in engine.listening(connection, request.bucket, request.key):
        place = "/".join(entry.schedule.inbox)
        raise Hindered(f"{entry.schedule.service} does not listen to {place}; name its input as the schedule's mailbox")
    engine.store.insert(
        connection,
        request.bucket,
        request.key,
        content,
        content_type="application/json",
        metadata={MADE_BY: entry.name},
        event=PUT,
        origin=Origin(principal=MADE_BY),
    )
    made = _newest(connection, deployed, request)
    _tell_why(connection, entry, made)
    if objects and entry.schedule.gather is not None:
        bucket = entry.schedule.gather.bucket
        pinned = [{"id": one.mark, "bucket": bucket, "key": one.key, "sha256": one.sha256} for one in objects]
        jobs.pin(connection, made, pinned)
        for one in objects:
            engine.store.pin(connection, int(one.mark), made.id)
    return made


def _tell_why(connection: sqlite3.Connection, entry: Entry, job: Job) -> None:
    """Write into the job's history which schedule made it."""
    said = f"by the schedule {entry.name}"
    connection.execute("UPDATE transitions SET detail = ? WHERE job = ? AND state = 'Pending'", (said, job.seq))


def _deployed(connection: sqlite3.Connection, engine: Engine, entry: Entry) -> Deployed:
    reason = hindrance(connection, engine, entry)
    deployed = engine.services.get(entry.schedule.service)
    if reason or deployed is None:
        raise Hindered(reason)
    return deployed


def _newest(connection: sqlite3.Connection, deployed: Deployed, request: Request) -> Job:
    row = connection.execute(
        f"SELECT {jobs.COLUMNS} FROM jobs INDEXED BY jobs_open_of_key"  # noqa: S608
        " WHERE service = ? AND bucket = ? AND key = ? AND state IN ('Pending', 'Running', 'Retrying')"
        " ORDER BY seq DESC LIMIT 1",
        (deployed.name, request.bucket, request.key),
    ).fetchone()
    return jobs.job_of(row)
