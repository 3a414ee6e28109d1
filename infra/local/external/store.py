"""The cluster's objects where their contents are in another store: the same rows, without the bytes.

A row of `objects` stands for a version that has been seen there: its key, entity tag and time. Jobs, pins and the
record of what was handled hang on it as they do in the built-in store; only what touches contents is done over there.
"""

import asyncio
import errno
import mimetypes
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from infra.local import buckets, jobs
from infra.local.blobs import Blob, Blobs, Content
from infra.local.database import Database
from infra.local.external.remote import Remote
from infra.local.jobs import Job
from infra.local.objects import ObjectStore, Target
from infra.local.stored import NoSuchKey, StoredObject
from infra.local.versions import add_row
from layers.objects.client import ObjectInfo, S3Client
from layers.objects.errors import NoSuchObject, ObjectError
from layers.runtime.contract import InputError
from layers.runtime.forward import RECORDS

ELSEWHERE = Blob(0, 0, "", "", b"")
"""What every version refers to whose contents are in the other store."""
MADE_BY = "dioscar-job"
"""Metadata of what a job makes: the job."""


class StoreTrouble(OSError):  # noqa: N818 - a state of the other side
    """The other store cannot be used now: the machine's trouble, not the job's, so the attempt is not counted."""

    def __init__(self, error: ObjectError) -> None:
        super().__init__(errno.EAGAIN, str(error))

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True)
class Outgoing(Blob):
    """An output on its way; where it is small, `data` has it, else the file does."""

    file: Path | None = field(default=None, repr=False)


class ExternalStore(ObjectStore):
    """What engine, stager and finisher ask of an `ObjectStore`.

    `on_stored` is told of what jobs have made, `on_overwritten` of what is no longer what it was: bucket and key.
    """

    def __init__(self, database: Database, blobs: Blobs, remote: Remote) -> None:
        super().__init__(database, blobs)
        self._remote = remote
        self.on_stored: Callable[[str, str], object]
        self.on_overwritten: Callable[[str, str], Awaitable[object]]

    async def look(self, bucket: str, key: str) -> StoredObject | None:
        """The object as it is there now, with a row of its own."""
        try:
            info = await self._remote.head(bucket, key)
        except ObjectError as error:
            raise StoreTrouble(error) from error
        if info is None:
            return None
        return await self.database.write(lambda connection: self.record(connection, info))

    async def names(self, bucket: str, prefix: str) -> Iterable[str]:
        """The keys that start with `prefix` there."""
        try:
            return [info.key async for page in self._remote.pages(bucket, prefix) for info in page]
        except NoSuchObject:
            raise InputError(f"{bucket}: there is no such bucket in {self._remote.endpoint}; correct it") from None
        except ObjectError as error:
            raise StoreTrouble(error) from error

    def open(self, stored: StoredObject) -> Content:
        """The contents of what was stored here."""
        if stored.blob == ELSEWHERE.id:
            raise NoSuchKey(f"{stored.bucket}/{stored.key} is in {self._remote.endpoint}")
        return super().open(stored)

    def small(self, stored: StoredObject) -> bytes | None:
        """Nothing of the other store is at hand."""
        return None if stored.blob == ELSEWHERE.id else super().small(stored)

    async def materialise(self, stored: StoredObject, target: Path) -> str:
        """Download exactly this version; returns its SHA-256.

        Raises InputError where it is gone or overwritten, StoreTrouble where the store cannot be used.
        """
        if stored.blob != ELSEWHERE.id:
            return await super().materialise(stored, target)
        name = f"{stored.bucket}/{stored.key}"
        try:
            info = await self._remote.get(stored.bucket, stored.key, target)
            same = (info.etag, info.size) == (stored.etag, stored.size)
            if not same:
                await self.on_overwritten(stored.bucket, stored.key)
        except NoSuchObject:
            raise InputError(f"{name}: is gone from {self._remote.endpoint}; upload it again") from None
        except ObjectError as error:
            raise StoreTrouble(error) from error
        if not same:
            target.unlink()
            raise InputError(f"{name}: has been overwritten since it was asked for; the newer one has its own event")
        return await asyncio.to_thread(_sha256, target)

    async def ensure_bucket(self, name: str, owner: str) -> None:
        """Make a bucket there where it is missing."""
        try:
            await self._remote.make_buckets([name])
        except ObjectError as error:
            raise StoreTrouble(error) from error

    async def ingest(self, path: Path, within: Path | None = None) -> Blob:
        """Take note of a finished file, which must stay until it is published."""
        size = path.lstat().st_size
        return Outgoing(0, size, "", await asyncio.to_thread(_sha256, path), b"", file=path)

    async def ingest_bytes(self, data: bytes) -> Blob:
        """Take note of these bytes, to be published."""
        return Outgoing(0, len(data), "", sha256(data).hexdigest(), data)

    async def publish(
        self, job: Job, targets: Sequence[Target], blobs: Mapping[str, Blob], trace: Mapping[str, str]
    ) -> None:
        """Upload a run's outputs: the records of runs after all the others, for they say that those are there.

        Raises InputError where a bucket is not there, StoreTrouble where the store cannot be used.
        """
        if not jobs.is_open(self.database.read, job):
            return
        extra = {**trace, MADE_BY: job.id}
        works: list[list[Callable[[S3Client], object]]] = [[], []]
        for path, bucket, key, metadata in targets:
            work = partial(_upload, blob=blobs[path], bucket=bucket, key=key, path=path, metadata={**metadata, **extra})
            works[path.startswith(f"{RECORDS}/")].append(work)
        try:
            for some in works:
                await self._remote.each(some)
        except NoSuchObject as error:
            raise InputError(f"{error}; correct the FDL's output or FORWARD, or create the bucket") from None
        except ObjectError as error:
            raise StoreTrouble(error) from error

    def insert(
        self, connection: sqlite3.Connection, bucket: str, key: str, content: Blob | StoredObject, **more: Any
    ) -> StoredObject:
        """What has been published is there already: only tell of it, once the transaction is through."""
        if not isinstance(content, Outgoing):
            return super().insert(connection, bucket, key, content, **more)
        self.database.after_commit(lambda: self.on_stored(bucket, key))
        return StoredObject(0, bucket, key, content.size, "", content.sha256, "", {}, self.clock(), ELSEWHERE.id)

    def delete_bucket_if_empty(self, connection: sqlite3.Connection, name: str, *, service: str | None = None) -> bool:
        """A bucket stays on record: it stays there, too, and other services may have their mailboxes in it."""
        return False

    def record(self, connection: sqlite3.Connection, info: ObjectInfo) -> StoredObject:
        """The row of a version that is there now; a new one where this version has not been seen before."""
        found = self.find(connection, info.bucket, info.key)
        if found is not None and version_of(info) == (found.etag, int(found.modified)):
            return found
        self.create_bucket(connection, info.bucket, exist_ok=True)
        self.blobs.insert(connection, ELSEWHERE)
        number = buckets.number(connection, info.bucket)
        self._supersede(connection, number, info.key)
        return add_row(
            connection,
            number,
            StoredObject(
                0,
                info.bucket,
                info.key,
                info.size,
                info.etag,
                "",
                info.content_type,
                info.metadata,
                info.modified.timestamp(),
                ELSEWHERE.id,
            ),
        )


def version_of(info: ObjectInfo) -> tuple[str, int]:
    """What tells one version of an object from another: its entity tag, and when it was written, in whole seconds.

    A listing has milliseconds, an answer to HEAD has not.
    """
    return info.etag, int(info.modified.timestamp())


def _upload(client: S3Client, *, blob: Blob, bucket: str, key: str, path: str, metadata: Mapping[str, str]) -> None:
    content_type = mimetypes.guess_type(path)[0]
    if isinstance(blob, Outgoing) and blob.file is not None:
        client.put(bucket, key, blob.file, content_type=content_type, metadata=metadata)
        return
    with tempfile.NamedTemporaryFile(prefix="dioscar-output-") as file:
        file.write(blob.data or b"")
        file.flush()
        client.put(bucket, key, Path(file.name), content_type=content_type, metadata=metadata)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
