"""Schedules by the age of the model that serves."""

import sqlite3

from events.gather import promotions, request, serving
from events.schedules import ModelAge
from infra.local.database import Database
from infra.local.engine import Engine
from infra.local.objects import ObjectStore
from infra.local.schedules import table
from infra.local.schedules.starting import Hindered, by_request, hindrance
from infra.local.schedules.table import Entry
from infra.local.schedules.timing import DAY_S


async def renew(
    database: Database, engine: Engine, entry: Entry, model: ModelAge, now: float, *, everything: bool = False
) -> list[str]:
    """Start the service where the model is too old, or note when it will be; the job's id. Raises Hindered."""
    asked = entry.last if entry.last is not None and entry.last <= now + DAY_S else 0.0  # else the clock was wrong then
    due = max(_born(engine.store, model) or min(entry.created, now), asked) + model.older_s
    if due > now and not everything:
        if due != entry.due or entry.note:
            await database.write(lambda connection: _note(connection, entry, due))
        return []
    reason = hindrance(database.read, engine, entry)
    if reason:
        raise Hindered(reason)
    made = request(entry.schedule, entry.number + 1)
    content = await engine.store.ingest_bytes(made.body)

    def work(connection: sqlite3.Connection) -> str | None:
        found = table.get(connection, entry.name)
        if found is None or (found.number, found.document) != (entry.number, entry.document):
            return None
        job = by_request(connection, engine, found, made, content)
        facts = {"number": found.number + 1, "job": job.id, "request": made.key, "last": now}
        table.change(connection, entry.name, **facts, due=now + model.older_s, note="")
        return job.id

    job: str | None = None
    try:
        job = await database.write(work)
    finally:
        if job is None:
            engine.store.blobs.discard(content)
    return [job] if job else []


def _born(store: ObjectStore, model: ModelAge) -> float | None:
    """When the version that serves was stored; None where nothing was promoted."""
    if store.bucket(model.registry) is None:
        return None
    latest = serving(model, store.keys(model.registry, promotions(model)))
    if latest is None:
        return None
    promotion, key = latest
    found = store.get(model.registry, key) or store.get(model.registry, promotion)
    return found.modified if found else None


def _note(connection: sqlite3.Connection, entry: Entry, due: float) -> None:
    found = table.get(connection, entry.name)
    if found is not None and found.document == entry.document:
        table.change(connection, entry.name, due=due, note="")
