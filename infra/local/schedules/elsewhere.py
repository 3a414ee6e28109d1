"""Schedules by what arrives, where the objects are in another store: a checker's look, as on any cluster.

What was gathered stands there, beside the data (events/gather.py); here it is noted what came of it.
"""

import sqlite3

from events.gather import Request, check
from infra.local.database import Database
from infra.local.engine import Engine
from infra.local.external.link import Link
from infra.local.schedules import table
from infra.local.schedules.starting import Hindered, hindrance
from infra.local.schedules.table import Entry
from layers.objects.client import S3Client
from layers.objects.errors import ObjectError


async def look(
    database: Database, engine: Engine, link: Link, entry: Entry, now: float, *, everything: bool = False
) -> list[str]:
    """Write the requests that are due there; their jobs' ids, as far as they are heard of yet. Raises Hindered."""
    reason = hindrance(database.read, engine, entry)
    if reason:
        raise Hindered(reason)
    written: list[Request] = []

    def ask(client: S3Client) -> None:
        written.extend(check(client, entry.schedule, now, everything=everything))

    try:
        await link.remote.each([ask])
    except ObjectError as error:
        raise Hindered(str(error)) from None
    for made in written:
        await link.intake.notice(made.bucket, made.key)
        await database.write(lambda connection, made=made: _note(connection, entry, made, now))  # type: ignore[misc]
    found = [table.last_job(database.read, one) for one in [table.get(database.read, entry.name)] if one and written]
    return [job for job, _ in found if job]


def _note(connection: sqlite3.Connection, entry: Entry, made: Request, now: float) -> None:
    found = table.get(connection, entry.name)
    if found is not None:
        table.change(connection, entry.name, number=found.number + 1, job="", request=made.key, last=now, note="")
