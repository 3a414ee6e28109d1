"""Immutable contents: files named by a number, never by what a client says; small ones stand in the database itself.

A blob is written first and becomes part of the store when a transaction inserts its row; until then its file is an
orphan, which the next start removes. The file and its name are on disk before that transaction begins. Nothing ever
changes a file once it is whole, so whoever has it open may go on reading while its row goes.
"""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from infra.local.beneath import open_file
from infra.local.contents import BLOCK, INLINE, Blob, Content, Digest, Folder, Spill
from infra.local.database import Database, DiskFull

__all__ = ["Blob", "BlobWriter", "Blobs", "Content"]

T = TypeVar("T")

THREADS = 4
FLUSH = 512 * 1024
"""Bytes of an upload that are hashed and written at a time; an upload holds some three times as much in memory."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    md5 TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    data BLOB
);
"""


class Blobs:
    """The contents below one folder, with their rows in `database`."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")
        database.add_schema(SCHEMA)
        newest = database.read.execute("SELECT max(id) FROM blobs").fetchone()[0] or 0
        self._folder = Folder(root, newest)
        self._holders = 0
        self._late: list[int] = []

    def writer(self, digests: Sequence[Digest] = ()) -> "BlobWriter":
        """A stream into a new blob; `digests` are fed with everything that goes through."""
        return BlobWriter(Spill(self._folder, digests), self._pool)

    async def ingest(self, path: Path, within: Path | None = None) -> Blob:
        """Copy a finished file into a new blob, durable when this returns; no link is followed below `within`."""
        if path.lstat().st_size <= INLINE:
            return self._ingest(path, within)  # it stays in memory: a thread would cost more than the work
        return await self._in_thread(partial(self._ingest, path, within))

    async def ingest_bytes(self, data: bytes) -> Blob:
        """A new blob of these bytes, durable when this returns or (small ones) with the row."""
        if len(data) <= INLINE:
            with Spill(self._folder) as spill:
                spill.absorb(data)
                return spill.finish()
        async with self.writer() as writer:
            await writer.write(data)
            return await writer.finish()

    async def concatenate(self, blobs: Sequence[Blob], digest: Digest | None = None) -> Blob:
        """A new blob of the contents of `blobs`, one after the other; without an MD5, which nobody asks of it."""
        return await self._in_thread(partial(self._concatenate, blobs, digest))

    async def slice(self, blob: Blob, start: int, end: int, digests: Sequence[Digest] = ()) -> Blob:
        """A new blob of the bytes from `start` up to `end`."""
        with self.open(blob) as source:
            async with self.writer(digests) as writer:
                async for block in blocks(source, start, end):
                    await writer.write(bytes(block))
                return await writer.finish()

    async def materialise(self, blob: Blob, target: Path) -> None:
        """Write the contents to a new file: a copy, so that nothing its reader does can damage the store."""

        def copy(source: Content) -> None:
            with source, target.open("xb", buffering=0) as file:
                source.copy_to(file.fileno())

        if blob.size <= INLINE:
            copy(self.open(blob))
        else:
            await self._in_thread(partial(copy, self.open(blob)))

    def open(self, blob: Blob) -> Content:
        """The contents, readable for as long as they are open whatever becomes of the blob.

        Raises:
            FileNotFoundError: the blob is gone.
        """
        if blob.data is not None:
            return Content(blob.size, blob.data, self._pool)
        return self._opened(blob, self._database.read)

    def insert(self, connection: sqlite3.Connection, blob: Blob) -> None:
        """Make a new blob part of the store; one that is part of it already stays as it is."""
        connection.execute(
            "INSERT INTO blobs (id, size, md5, sha256, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (blob.id, blob.size, blob.md5, blob.sha256, blob.data),
        )

    def drop(self, connection: sqlite3.Connection, ids: Iterable[int]) -> None:
        """Take blobs out of the store; their files go after the commit."""
        for number in ids:
            found = connection.execute("DELETE FROM blobs WHERE id = ? RETURNING data IS NULL", (number,)).fetchone()
            if found is not None and found[0]:
                self._database.after_commit(partial(self._remove, number))

    def discard(self, blob: Blob) -> None:
        """Remove the file of a blob that no transaction has taken."""
        if blob.data is None:
            self._remove(blob.id)

    async def sweep(self) -> int:
        """Remove what an interrupted process left: files from before this start that have no row. Returns how many."""
        removed = 0
        for shard in range(256):
            numbers = await self._in_thread(partial(self._folder.numbers, shard))
            old = [number for number in numbers if number <= self._folder.first]
            for start in range(0, len(old), 500):
                some = old[start : start + 500]
                query = f"SELECT id FROM blobs WHERE id IN ({','.join('?' * len(some))})"  # noqa: S608 - marks only
                known = {row["id"] for row in self._database.read.execute(query, some).fetchall()}
                for number in some:
                    if number not in known:
                        removed += 1
                        self._remove(number)
        return removed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within a `with`, no file is removed; what has to go goes afterwards."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                late, self._late = self._late, []
                for number in late:
                    self._remove(number)

    def close(self) -> None:
        """Finish what the threads are doing."""
        self._pool.shutdown()

    def _opened(self, blob: Blob, connection: sqlite3.Connection) -> Content:
        row = connection.execute("SELECT data FROM blobs WHERE id = ?", (blob.id,)).fetchone()
        if row is None:
            raise FileNotFoundError(errno.ENOENT, "the blob is gone", str(self._folder.path(blob.id)))
        return Content(blob.size, self._folder.path(blob.id) if row["data"] is None else row["data"], self._pool)

    def _ingest(self, path: Path, within: Path | None) -> Blob:
        with os.fdopen(open_file(path, within), "rb", buffering=0) as file, Spill(self._folder) as spill:
            while block := file.read(BLOCK):
                spill.absorb(block)
            return spill.finish()

    def _concatenate(self, blobs: Sequence[Blob], extra: Digest | None) -> Blob:
        number, descriptor = self._folder.create()
        try:
            for blob in blobs:
                with self._database.write_blocking(partial(self._opened, blob)) as source:
                    source.copy_to(descriptor)
            digest, size = sha256(), 0
            while block := os.pread(descriptor, BLOCK, size):
                digest.update(block)
                if extra is not None:
                    extra.update(block)
                size += len(block)
            self._folder.seal(number, descriptor)
        except BaseException:
            self._folder.path(number).unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return Blob(number, size, "", digest.hexdigest())

    def _remove(self, number: int) -> None:
        if self._holders:
            self._late.append(number)
            return
        with suppress(RuntimeError):  # closing: the next start removes it
            self._pool.submit(self._folder.path(number).unlink, missing_ok=True)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await _outcome(self._pool.submit(function))


class BlobWriter:
    """A `Spill` for the event loop: one block is hashed and written by two threads while the next one arrives."""

    def __init__(self, spill: Spill, pool: ThreadPoolExecutor) -> None:
        self._spill = spill
        self._pool = pool
        self._pending: list[bytes] = []
        self._held = 0
        self._running: list[Future[None]] = []
        self.size = 0

    async def write(self, data: bytes) -> None:
        """Take in more bytes; waits while two blocks are on their way to the disk."""
        self.size += len(data)
        if self.size <= INLINE:
            self._spill.absorb(data)
            return
        self._pending.append(data)
        self._held += len(data)
        if self._held >= FLUSH:
            await self._flush()

    async def finish(self) -> Blob:
        """The blob, durable but for its row."""
        await self._flush()
        await self._settle()
        if self._spill.in_memory:
            return self._spill.finish()
        return await _outcome(self._pool.submit(self._spill.finish))

    async def __aenter__(self) -> "BlobWriter":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing of a blob that was not finished."""
        if not self._running and self._spill.in_memory:
            return

        def abandon(running: list[Future[None]]) -> None:
            wait(running)  # the pool is first in, first out: they are under way
            self._spill.abandon()

        self._pool.submit(abandon, self._running)

    async def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending, self._held = self._pending, [], 0
        await self._settle()
        self._running = [self._pool.submit(step) for step in self._spill.steps(pending)]

    async def _settle(self) -> None:
        while self._running:
            await _outcome(self._running[-1])
            self._running.pop()


async def blocks(content: Content, start: int, end: int) -> AsyncGenerator[bytes | bytearray, None]:
    """The bytes from `start` up to `end`, a block at a time; a thread is asked only for what is not in memory."""
    position = start
    while position < end:
        count = min(BLOCK, end - position)
        block = content.ready(position, count) or await content.read(position, count)
        if not block:
            raise OSError(errno.EIO, "a blob is shorter than its row says")
        position += len(block)
        yield block
        if position < end:
            await asyncio.sleep(0)  # nothing above may have waited, and others have their turn


async def _outcome(future: "Future[T]") -> T:
    try:
        return await asyncio.wrap_future(future)
    except OSError as error:
        if error.errno in FULL:
            reason = os.strerror(error.errno or 0)
            raise DiskFull(f"no space left for contents ({reason}); nothing was changed") from error
        raise
