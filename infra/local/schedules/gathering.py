"""Schedules by what arrives, in a cluster with its own store: counted from the objects' rows, beside their way.

Storing an object costs nothing more for being watched. Now and then the rows that have been added since are walked
through once, and those that count are remembered; when they are enough, the request that names them, its job and the
record that they were gathered are one transaction.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from events.gather import Arrived, Batch, enough, request
from events.schedules import Gather
from infra.local import buckets
from infra.local.database import Database
from infra.local.engine import Engine
from infra.local.schedules import table
from infra.local.schedules.starting import Hindered, by_request, hindrance
from infra.local.schedules.table import Entry

WALK = 20_000
"""Numbers of objects that are walked through at a time, so that others get their turn."""
WALKS = 50
"""Walks in a row; the next look goes on."""
REMEMBER = 100_000
"""Numbers after which is noted down how far the walk has come where nothing has arrived."""
REQUESTS = 100


@dataclass
class Totals:
    """What has arrived for a schedule; it may count what has been overwritten since."""

    objects: int = 0
    bytes: int = 0
    oldest: float = float("inf")
    word: bool = False

    def add(self, gather: Gather, rows: Iterable[sqlite3.Row]) -> None:
        """Count these, too."""
        for row in rows:
            if gather.is_word(row["key"]):
                self.word = True
                continue
            self.objects += 1
            self.bytes += row["size"]
            self.oldest = min(self.oldest, row["modified"])

    def may_be_enough(self, gather: Gather, now: float) -> bool:
        """Whether it is worth while to look exactly."""
        return bool(
            self.word
            or (gather.objects and self.objects >= gather.objects)
            or (gather.bytes and self.bytes >= gather.bytes)
            or (gather.age_s and self.objects and now - self.oldest >= gather.age_s)
        )


class Gathering:
    """What arrives for the schedules of one cluster; belongs to its event loop."""

    def __init__(self, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine
        self._totals: dict[str, tuple[str, Totals]] = {}
        self._scanned: dict[str, int] = {}

    def totals(self, entry: Entry, gather: Gather) -> Totals:
        """What has arrived for a schedule so far."""
        known = self._totals.get(entry.name)
        if known is None or known[0] != entry.document:
            known = (entry.document, Totals())
            known[1].add(gather, table.kept(self._database.read, entry.name))
            self._totals[entry.name] = known
            self._scanned.pop(entry.name, None)
        return known[1]

    def forget(self, name: str) -> None:
        """A schedule has been changed, or is gone."""
        self._totals.pop(name, None)
        self._scanned.pop(name, None)

    async def look(self, entry: Entry, gather: Gather, now: float, *, everything: bool = False) -> list[str]:
        """Count what has arrived, and start the service where that is enough; the jobs' ids. Raises Hindered."""
        totals = self.totals(entry, gather)
        await self._walk(entry, gather, totals)
        made: list[str] = []
        for _ in range(REQUESTS):
            if not everything and not totals.may_be_enough(gather, now):
                break
            there = table.arrivals(self._database.read, entry.name)
            batch = enough(gather, there, now, everything=everything)
            if batch is None:
                await self._forget(entry, ())
                self.forget(entry.name)
                break
            job = await self._gather(entry, batch, now)
            self.forget(entry.name)
            if job:
                made.append(job)
            found = table.get(self._database.read, entry.name)
            if job is None or found is None or found.document != entry.document:
                break
            entry, totals = found, self.totals(found, gather)
            if job and (everything or not entry.schedule.overlap):
                break
        return made

    def _named(self, entry: Entry, objects: Sequence[Arrived]) -> Sequence[Arrived]:
        """The objects as the request names them: by their contents, too, where the job gets exactly these versions.

        A pod on an interLink node reads what a key holds when its turn comes; a new version is no reason to give up
        all the others, and is gathered itself.
        """
        deployed = self._engine.services.get(entry.schedule.service)
        if deployed is None or not deployed.service.interlink_node_name:
            return objects
        return [replace(one, sha256="") for one in objects]

    async def _forget(self, entry: Entry, done: Sequence[Arrived]) -> None:
        await self._database.write(lambda connection: table.forget(connection, entry.name, done))

    async def _walk(self, entry: Entry, gather: Gather, totals: Totals) -> None:
        row = self._database.read.execute(
            "SELECT id FROM buckets WHERE name = ? AND deleted = 0", (gather.bucket,)
        ).fetchone()
        scanned = max(entry.scanned, self._scanned.get(entry.name, 0))
        last = table.newest(self._database.read)
        if row is None:
            self._scanned[entry.name] = last
            return
        for _ in range(WALKS):
            if scanned >= last:
                break
            upto = min(scanned + WALK, last)
            rows = table.since(self._database.read, row["id"], gather.prefix, scanned, upto)
            rows = [row for row in rows if gather.takes(row["key"]) or gather.is_word(row["key"])]
            if rows or upto - entry.scanned >= REMEMBER:
                await self._database.write(
                    lambda connection, rows=rows, upto=upto: self._keep(connection, entry, rows, upto)  # type: ignore[misc]
                )
                totals.add(gather, rows)
            scanned = self._scanned[entry.name] = upto
            await asyncio.sleep(0)

    def _keep(self, connection: sqlite3.Connection, entry: Entry, rows: list[sqlite3.Row], upto: int) -> None:
        found = table.get(connection, entry.name)
        if found is not None and found.document == entry.document:
            table.keep(connection, entry.name, rows, upto)

    async def _gather(self, entry: Entry, batch: Batch, now: float) -> str | None:
        """The job that a batch became; empty where there was nothing but a word, None where it has changed."""
        if not batch.objects:
            await self._forget(entry, batch.done)
            return ""
        reason = hindrance(self._database.read, self._engine, entry)
        if reason:
            raise Hindered(reason)
        made = request(entry.schedule, entry.number + 1, self._named(entry, batch.objects))
        blobs = self._engine.store.blobs
        content = await blobs.ingest_bytes(made.body)

        def work(connection: sqlite3.Connection) -> str | None:
            found = table.get(connection, entry.name)
            if found is None or (found.number, found.document) != (entry.number, entry.document):
                return None
            if not table.are_current(connection, batch.objects):
                return None
            buckets.number(connection, made.bucket)
            job = by_request(connection, self._engine, found, made, content, batch.objects)
            table.forget(connection, entry.name, batch.done)
            number = found.number + 1
            table.change(connection, entry.name, number=number, job=job.id, request=made.key, last=now, note="")
            return job.id

        job: str | None = None
        try:
            job = await self._database.write(work)
        finally:
            if job is None:
                blobs.discard(content)
        return job
