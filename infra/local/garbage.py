"""Versions that nobody sees or holds any more: found and removed in small transactions, off every hot path."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial

from infra.local.blobs import Blobs
from infra.local.database import Database, DatabaseError

log = logging.getLogger(__name__)

DELAY_S = 0.2
ROWS = 200
"""Versions looked at by one transaction."""
UPLOAD_AGE_S = 7 * 24 * 3600.0
"""A multipart upload that nobody has completed for so long is given up."""
ROUND_S = 6 * 3600.0


class Collector:
    """Cleans up some time after it is told that there may be something to clean."""

    def __init__(self, database: Database, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._database = database
        self._blobs = blobs
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = False

    def start(self) -> None:
        """Take up, in the background, what an interrupted process left, and go round now and then."""
        self._run(self._clean())
        self._run(self._go_round())

    async def stop(self) -> None:
        """End what runs in the background; the next start goes on."""
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def soon(self) -> None:
        """From within a transaction: there is something to clean once it is committed."""
        self._database.after_commit(self._schedule)

    async def collect(self) -> int:
        """Remove all that can be removed now; returns how many versions were looked at."""
        removed = 0
        while count := await self._database.write(self._some, frees=True):
            removed += count
        return removed

    def release(self, connection: sqlite3.Connection, blobs: Iterable[int]) -> None:
        """Take those of these blobs out of the store that nothing refers to."""
        self._blobs.drop(connection, [blob for blob in dict.fromkeys(blobs) if not _is_used(connection, blob)])

    def abort(self, connection: sqlite3.Connection, uploads: Iterable[str]) -> None:
        """Remove unfinished multipart uploads with their parts."""
        for upload in uploads:
            parts = connection.execute("DELETE FROM parts WHERE upload = ? RETURNING blob", (upload,)).fetchall()
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload,))
            self.release(connection, [part["blob"] for part in parts])

    async def expire(self) -> int:
        """Give up multipart uploads that are too old; returns how many."""
        before = self._clock() - UPLOAD_AGE_S
        count = 0
        for row in self._database.read.execute("SELECT id FROM uploads WHERE initiated < ?", (before,)).fetchall():
            await self._database.write(partial(self.abort, uploads=[row["id"]]), frees=True)
            count += 1
        return count

    def _some(self, connection: sqlite3.Connection) -> int:
        """One small transaction's worth; what is pinned comes up again when it is let go."""
        found = connection.execute(
            "SELECT g.object, o.blob, EXISTS (SELECT 1 FROM pins WHERE pins.object = g.object) AS pinned"
            " FROM garbage g LEFT JOIN objects o ON o.id = g.object LIMIT ?",
            (ROWS,),
        ).fetchall()
        free = [row for row in found if not row["pinned"]]
        connection.executemany("DELETE FROM garbage WHERE object = ?", [(row["object"],) for row in found])
        connection.executemany("DELETE FROM objects WHERE id = ?", [(row["object"],) for row in free])
        self.release(connection, [row["blob"] for row in free if row["blob"] is not None])
        return len(found) or self._empty(connection)

    def _empty(self, connection: sqlite3.Connection) -> int:
        """Some of what deleted buckets still hold; when nothing is left, the bucket itself."""
        for row in connection.execute("SELECT id FROM buckets WHERE deleted = 1").fetchall():
            bucket = row["id"]
            count = connection.execute(
                "UPDATE objects SET current = 0 WHERE id IN"
                " (SELECT id FROM objects WHERE bucket = ? AND current = 1 LIMIT ?)",
                (bucket, ROWS),
            ).rowcount
            if count:
                return count
            uploads = connection.execute("SELECT id FROM uploads WHERE bucket = ?", (bucket,)).fetchall()
            self.abort(connection, [upload["id"] for upload in uploads])
            held = connection.execute("SELECT 1 FROM objects WHERE current = 0 AND bucket = ? LIMIT 1", (bucket,))
            if held.fetchone() is None:
                connection.execute("DELETE FROM buckets WHERE id = ?", (bucket,))
        return 0

    def _schedule(self) -> None:
        if self._waiting:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # changed from outside an event loop: the next change, or the next start, cleans up
        self._waiting = True
        loop.call_later(DELAY_S, self._run_later)

    def _run_later(self) -> None:
        self._run(self._collect())

    async def _collect(self) -> None:
        self._waiting = False
        with suppress(DatabaseError):  # a full or closed database: what is left is found again
            await self.collect()

    async def _clean(self) -> None:
        removed = await self._blobs.sweep()
        if removed:
            log.info("removed %d files of unfinished uploads", removed)
        await self._collect()

    async def _go_round(self) -> None:
        while True:
            with suppress(DatabaseError):
                if count := await self.expire():
                    log.info("gave up %d multipart uploads that were older than a week", count)
            await asyncio.sleep(ROUND_S)

    def _run(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_used(connection: sqlite3.Connection, blob: int) -> bool:
    used = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM objects WHERE blob = ?1) OR EXISTS (SELECT 1 FROM parts WHERE blob = ?1)", (blob,)
    )
    return bool(used.fetchone()[0])
