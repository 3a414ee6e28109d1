"""The object store: versions of objects on immutable blobs, in the database of events and jobs.

What happens to an object is one transaction with everything that follows from it: `listeners` run inside the
transaction that stores it, and `insert`, `delete` and whatever else takes a connection may be called inside anybody's
own. A version that somebody has pinned stays readable by its id after it has been overwritten or deleted.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from infra.local import buckets, listing, multipart, versions
from infra.local.blobs import Blob, Blobs, Content
from infra.local.contents import INLINE, Digest
from infra.local.database import Database
from infra.local.garbage import Collector
from infra.local.jobs import Job
from infra.local.listing import Page
from infra.local.stored import (
    Bucket,
    BucketExists,
    BucketForbidden,
    BucketNotEmpty,
    InvalidKey,
    NoSuchBucket,
    NoSuchKey,
    Notification,
    Origin,
    StoredObject,
    StoreError,
    UnknownTarget,
    check_key,
    dump,
)

__all__ = [
    "Blob",
    "Bucket",
    "BucketExists",
    "BucketNotEmpty",
    "InvalidKey",
    "Listener",
    "NoSuchBucket",
    "NoSuchKey",
    "Notification",
    "ObjectStore",
    "Origin",
    "Page",
    "StoreError",
    "StoredObject",
    "UnknownTarget",
]

PUT = "s3:ObjectCreated:Put"
POST = "s3:ObjectCreated:Post"
COPY = "s3:ObjectCreated:Copy"
COMPLETED = "s3:ObjectCreated:CompleteMultipartUpload"
REMOVED = "s3:ObjectRemoved:Delete"

Listener = Callable[[sqlite3.Connection, StoredObject, str, Origin], None]
Target = tuple[str, str, str, Mapping[str, str]]
"""A file of a run, the bucket and key that it becomes, and its metadata."""


class ObjectStore:
    """Buckets and objects; reads belong to the event loop's thread, `connection` is always the writer's."""

    def __init__(self, database: Database, blobs: Blobs, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.blobs = blobs
        self.clock = clock
        self.listeners: list[Listener] = []
        self.targets: list[Callable[[str], bool]] = []
        database.add_schema(buckets.SCHEMA)
        database.add_schema(versions.SCHEMA)
        database.add_schema(multipart.SCHEMA)
        self.garbage = Collector(database, blobs, clock)

    async def start(self) -> None:
        """Clean up, in the background, what an interrupted process left."""
        self.garbage.start()

    async def stop(self) -> None:
        """End what runs in the background."""
        await self.garbage.stop()

    # Reads

    def get(self, bucket: str, key: str) -> StoredObject | None:
        """The object as it is now."""
        return self.find(self.database.read, bucket, key)

    def by_id(self, number: int) -> StoredObject | None:
        """One version, whether it is the current one or not."""
        return self.version(self.database.read, number)

    def list(self, bucket: str, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000) -> Page:
        """A page of what comes after `after` in the order of keys."""
        read = self.database.read
        return listing.page(read, buckets.number(read, bucket), prefix, delimiter, after, limit)

    def keys(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, page by page."""
        after: str | None = ""
        while after is not None:
            page = self.list(bucket, prefix, after=after)
            yield from (entry.key for entry in page.objects)
            after = page.next

    def bucket(self, name: str) -> Bucket | None:
        """The bucket of that name."""
        return buckets.get(self.database.read, name)

    def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        return buckets.every(self.database.read)

    def totals(self) -> tuple[int, int]:
        """How many objects there are, and their bytes."""
        row = self.database.read.execute(
            "SELECT coalesce(sum(objects), 0), coalesce(sum(bytes), 0) FROM buckets WHERE deleted = 0"
        ).fetchone()
        return row[0], row[1]

    def notifications(self, bucket: str) -> Sequence[Notification]:
        """What is set on a bucket."""
        return buckets.notifications(self.database.read, bucket)

    def open(self, stored: StoredObject) -> Content:
        """The object's contents.

        Raises:
            NoSuchKey: this version is gone.
        """
        try:
            return self.blobs.open(blob_of(stored))
        except FileNotFoundError:
            raise NoSuchKey(f"{stored.bucket}/{stored.key} is gone") from None

    def small(self, stored: StoredObject) -> bytes | None:
        """The object's bytes where they are so few that the database holds them; None: ask for the contents.

        Raises:
            NoSuchKey: this version is gone.
        """
        if stored.size > INLINE:
            return None
        with self.open(stored) as content:
            return content.data

    async def look(self, bucket: str, key: str) -> StoredObject | None:
        """The object as it is now, wherever its contents are."""
        return self.get(bucket, key)

    async def names(self, bucket: str, prefix: str) -> Iterable[str]:
        """The keys that start with `prefix`, wherever the objects are."""
        return self.keys(bucket, prefix)

    async def materialise(self, stored: StoredObject, target: Path) -> str:
        """Write the object to a new file, a copy of its own; returns its SHA-256."""
        try:
            await self.blobs.materialise(blob_of(stored), target)
        except FileNotFoundError:
            if target.parent.is_dir():
                raise NoSuchKey(f"{stored.bucket}/{stored.key} is gone") from None
            raise
        return stored.sha256

    async def ensure_bucket(self, name: str, owner: str) -> None:
        """Make a bucket where it is missing."""
        await self.database.write(lambda connection: self.create_bucket(connection, name, owner=owner, exist_ok=True))

    async def slice(self, stored: StoredObject, start: int, end: int, digests: Sequence[Digest] = ()) -> Blob:
        """Take a copy of some of an object's bytes for a later `insert`."""
        return await self.blobs.slice(blob_of(stored), start, end, digests)

    async def ingest(self, path: Path, within: Path | None = None) -> Blob:
        """Take a copy of a finished file into the store, durable, for a later `insert`; no link is followed."""
        return await self.blobs.ingest(path, within)

    async def ingest_bytes(self, data: bytes) -> Blob:
        """Take these bytes into the store for a later `insert`."""
        return await self.blobs.ingest_bytes(data)

    async def publish(
        self, job: Job, targets: Sequence[Target], blobs: Mapping[str, Blob], trace: Mapping[str, str]
    ) -> None:
        """What must happen to a run's outputs before its end is committed: nothing, where that commit stores them."""

    # Inside a transaction

    def find(self, connection: sqlite3.Connection, bucket: str, key: str) -> StoredObject | None:
        """The object as this transaction sees it."""
        return versions.find(connection, bucket, key)

    def version(self, connection: sqlite3.Connection, number: int) -> StoredObject | None:
        """One version as this transaction sees it, whether it is the current one or not."""
        return versions.by_number(connection, number)

    def insert(
        self,
        connection: sqlite3.Connection,
        bucket: str,
        key: str,
        content: Blob | StoredObject,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        event: str = PUT,
        origin: Origin = Origin(),  # noqa: B008 - it is frozen
        headers: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        checksums: Mapping[str, str] | None = None,
        etag: str = "",
        parts: Sequence[int] = (),
    ) -> StoredObject:
        """Store an object on a new blob, or on the one that another object has, and tell the listeners.

        Raises:
            NoSuchBucket, InvalidKey, BucketForbidden: nothing was stored.
            NoSuchKey: the other object, given as contents, is gone.
        """
        check_key(key)
        _check_writes(connection, bucket, origin)
        number = buckets.number(connection, bucket)
        if isinstance(content, Blob):
            self.blobs.insert(connection, content)
            blob, etag = content.id, etag or content.md5
        else:
            blob, etag = content.blob, etag or content.etag
            if connection.execute("SELECT 1 FROM blobs WHERE id = ?", (blob,)).fetchone() is None:
                raise NoSuchKey(f"{content.bucket}/{content.key} is gone")
        stored = StoredObject(
            0,
            bucket,
            key,
            content.size,
            etag,
            content.sha256,
            content_type,
            metadata or {},
            self.clock(),
            blob,
            headers or {},
            tags or {},
            checksums or {},
            tuple(parts),
        )
        self._supersede(connection, number, key)
        stored = versions.add_row(connection, number, stored)
        for listener in self.listeners:
            listener(connection, stored, event, origin)
        return stored

    def delete(
        self, connection: sqlite3.Connection, bucket: str, key: str, *, origin: Origin | None = None
    ) -> StoredObject | None:
        """Remove an object, which is returned; with an `origin`, the listeners are told.

        They are given it with a number and a time of the removal's own: whoever orders the events of a key by
        either finds a removal after what it removed and before what is stored next.
        """
        if origin is not None:
            _check_writes(connection, bucket, origin)
        found = self.find(connection, bucket, key)
        if found is None:
            buckets.number(connection, bucket)
            return None
        self._supersede(connection, buckets.number(connection, bucket), key)
        if origin is not None:
            removal = replace(found, id=versions.next_number(connection), modified=self.clock())
            for listener in self.listeners:
                listener(connection, removal, REMOVED, origin)
        return found

    def set_tags(self, connection: sqlite3.Connection, stored: StoredObject, tags: Mapping[str, str]) -> None:
        """Replace an object's tags; nothing else about it changes."""
        connection.execute("UPDATE objects SET tags = ? WHERE id = ?", (dump(tags), stored.id))

    def create_bucket(
        self,
        connection: sqlite3.Connection,
        name: str,
        *,
        owner: str = "",
        service: str | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Make a bucket.

        Raises:
            BucketExists, InvalidBucketName: nothing was made.
        """
        buckets.create(connection, name, self.clock(), owner=owner, service=service, exist_ok=exist_ok)

    def delete_bucket(self, connection: sqlite3.Connection, name: str, *, force: bool = False) -> None:
        """Remove a bucket; by force, with everything in it, for which no event is sent.

        Raises:
            NoSuchBucket, BucketNotEmpty: nothing was removed.
        """
        buckets.delete(connection, name, force=force)
        self.garbage.soon()

    def delete_bucket_if_empty(self, connection: sqlite3.Connection, name: str, *, service: str | None = None) -> bool:
        """Remove a bucket that is there, empty, and (if `service` is given) was made for that service."""
        found = buckets.get(connection, name)
        if found is None or (service is not None and found.service != service):
            return False
        try:
            self.delete_bucket(connection, name)
        except BucketNotEmpty:
            return False
        return True

    def has_bucket(self, connection: sqlite3.Connection, name: str) -> bool:
        """Whether there is such a bucket, as this transaction sees it."""
        return buckets.get(connection, name) is not None

    def pin(self, connection: sqlite3.Connection, object_id: int, holder: str) -> None:
        """Keep a version readable until `holder` lets go, whatever becomes of its key."""
        connection.execute(
            "INSERT INTO pins (holder, object) VALUES (?, ?) ON CONFLICT DO NOTHING", (holder, object_id)
        )

    def unpin(self, connection: sqlite3.Connection, holder: str) -> None:
        """Let go of every version that `holder` keeps."""
        past = connection.execute(
            "INSERT OR IGNORE INTO garbage SELECT o.id FROM pins p JOIN objects o ON o.id = p.object"
            " WHERE p.holder = ? AND o.current = 0",
            (holder,),
        )
        connection.execute("DELETE FROM pins WHERE holder = ?", (holder,))
        if past.rowcount:
            self.garbage.soon()

    def notifications_in(self, connection: sqlite3.Connection, bucket: str) -> Sequence[Notification]:
        """What is set on a bucket, as this transaction sees it."""
        return buckets.notifications(connection, bucket)

    def set_notifications(
        self, connection: sqlite3.Connection, bucket: str, notifications: Iterable[Notification]
    ) -> None:
        """Replace what is set on a bucket.

        Raises:
            UnknownTarget: none of `targets` knows an ARN that was not set before; nothing was changed.
        """
        buckets.set_notifications(
            connection, bucket, notifications, lambda arn: any(knows(arn) for knows in self.targets)
        )

    def matching(self, connection: sqlite3.Connection, bucket: str, key: str, event_name: str) -> Sequence[str]:
        """The targets that an event on a key goes to, each once, in the order they were set."""
        found = (one.arn for one in buckets.notifications(connection, bucket) if one.matches(key, event_name))
        return [*dict.fromkeys(found)]

    def _supersede(self, connection: sqlite3.Connection, bucket: int, key: str) -> None:
        if versions.supersede(connection, bucket, key):
            self.garbage.soon()


def _check_writes(connection: sqlite3.Connection, bucket: str, origin: Origin) -> None:
    """Raises BucketForbidden where a user may not, or may no longer, write: an upload takes its time."""
    if origin.user and not buckets.is_seen(connection, bucket, origin.user):
        raise BucketForbidden(f'the bucket "{bucket}" is not shared with {origin.user}')


def blob_of(stored: StoredObject) -> Blob:
    """The contents of an object; whether they stand in a file is the blobs' own business."""
    return Blob(stored.blob, stored.size, "", stored.sha256)
