"""Every way in which the cluster hears of an object in the other store leads here: one job for each version.

A webhook, a listing and the cluster's own uploads are hints. What counts is what the store answers when it is asked
(HEAD), and what the cluster has on record: the version and its jobs are one transaction, so that a hint that comes
twice, late, or again after a crash changes nothing.
"""

import asyncio
import logging
import sqlite3

from infra.local import jobs
from infra.local.database import DatabaseError
from infra.local.engine import Engine
from infra.local.external.remote import Remote
from infra.local.external.store import MADE_BY, ExternalStore
from infra.local.jobs import COLUMNS, job_of
from infra.local.objects import PUT, Origin, StoredObject
from layers.objects.client import ObjectInfo
from layers.objects.errors import ObjectError, StoreUnavailable

log = logging.getLogger("dioscar.store")

LOCKS = 256
REMEMBERED = 10_000
OVERWRITTEN = "overwritten meanwhile; the newer version has a job of its own"


class Intake:
    """Makes jobs of what is in the other store; belongs to one event loop."""

    def __init__(self, engine: Engine, store: ExternalStore, remote: Remote) -> None:
        self._engine = engine
        self._store = store
        self._remote = remote
        self._locks = [asyncio.Lock() for _ in range(LOCKS)]
        self._soon: set[asyncio.Task[None]] = set()
        self._refused: set[tuple[str, str]] = set()
        store.on_stored = self.soon
        store.on_overwritten = self.notice

    async def notice(self, bucket: str, key: str, event_name: str = PUT, origin: Origin = Origin()) -> int:  # noqa: B008
        """There may be a new version: the jobs that it has not had yet; returns how many were made.

        An object that the store refuses to show is said once, and asked for again by each listing.

        Raises StoreUnavailable where the store cannot be asked, DatabaseError where nothing can be written.
        """
        try:
            made = await self._notice(bucket, key, event_name, origin)
        except StoreUnavailable:
            raise
        except ObjectError as error:  # of this object alone: others must not wait for it
            if (bucket, key) not in self._refused:
                log.warning("%s; it has no job until this is mended", error)
            if len(self._refused) < REMEMBERED:
                self._refused.add((bucket, key))
            return 0
        self._refused.discard((bucket, key))
        return made

    async def _notice(self, bucket: str, key: str, event_name: str, origin: Origin) -> int:
        if not self._triggers(bucket, key, event_name):
            return 0
        async with self._locks[hash((bucket, key)) % LOCKS]:  # so that what was asked first is recorded first
            info = await self._remote.head(bucket, key)
            if info is None:
                return 0
            return await self._engine.database.write(
                lambda connection: self._take(connection, info, event_name, origin)
            )

    async def gone(self, bucket: str, key: str) -> None:
        """An object may have been deleted: its record is dropped if it is. Raises as `notice`."""
        async with self._locks[hash((bucket, key)) % LOCKS]:
            if await self._remote.head(bucket, key) is None:
                await self._engine.database.write(lambda connection: self._store.delete(connection, bucket, key))

    def soon(self, bucket: str, key: str) -> None:
        """Notice in the background; what fails is found by the next listing."""
        if not self._triggers(bucket, key):
            return
        task = asyncio.get_running_loop().create_task(self._quietly(bucket, key))
        self._soon.add(task)
        task.add_done_callback(self._soon.discard)

    async def stop(self) -> None:
        """Notice nothing more; the next start does."""
        for task in self._soon:
            task.cancel()
        await asyncio.gather(*self._soon, return_exceptions=True)

    def _triggers(self, bucket: str, key: str, event_name: str = PUT) -> bool:
        """Whether there is a service that an object of this name is for."""
        read = self._engine.database.read
        known = not key.endswith("/") and self._store.has_bucket(read, bucket)
        return known and bool(self._engine.listening(read, bucket, key, event_name))

    async def _quietly(self, bucket: str, key: str) -> None:
        try:
            await self.notice(bucket, key)
        except (StoreUnavailable, DatabaseError) as error:
            log.warning("%s/%s: its jobs wait for the next listing: %s", bucket, key, error)

    def _take(self, connection: sqlite3.Connection, info: ObjectInfo, event_name: str, origin: Origin) -> int:
        before = self._store.find(connection, info.bucket, info.key)
        stored = self._store.record(connection, info)
        made = 0
        for deployed in self._engine.listening(connection, info.bucket, info.key, event_name):
            if jobs.is_handled(connection, deployed.name, stored.id):
                continue
            if before is not None and before.id != stored.id:
                self._give_up(connection, deployed.name, before)
            parent = info.metadata.get(MADE_BY, "")
            self._engine.queue(connection, deployed, stored, event_name, origin, parent=parent)
            made += 1
        return made

    def _give_up(self, connection: sqlite3.Connection, service: str, before: StoredObject) -> None:
        """End the jobs that wait for a version which nobody can read any more."""
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM jobs WHERE service = ? AND bucket = ? AND key = ? AND object = ?"  # noqa: S608
            " AND state IN ('Pending', 'Retrying')",
            (service, before.bucket, before.key, before.id),
        ).fetchall()
        for job in map(job_of, rows):
            jobs.cancel(connection, job, OVERWRITTEN)
            self._store.unpin(connection, job.id)
