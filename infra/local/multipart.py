"""Uploads in parts: each part is a blob, and completing is one copy inside the kernel and one transaction.

Parts are durable when they are acknowledged, so an upload that a restart interrupted can be completed after it.
"""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5
from typing import TYPE_CHECKING

from infra.local import buckets
from infra.local.blobs import Blob
from infra.local.contents import Digest
from infra.local.listing import common_prefix, successor
from infra.local.stored import Origin, StoredObject, StoreError, check_key, dump, load

if TYPE_CHECKING:
    from infra.local.objects import ObjectStore

LEAST_PART = 5 << 20
PARTS = 10_000
COMPLETED = "s3:ObjectCreated:CompleteMultipartUpload"

SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY,
    bucket INTEGER NOT NULL,
    key TEXT NOT NULL,
    initiated REAL NOT NULL,
    principal TEXT NOT NULL,
    attributes TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uploads_key ON uploads (bucket, key, id);
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL,
    number INTEGER NOT NULL,
    blob INTEGER NOT NULL REFERENCES blobs (id),
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    checksums TEXT NOT NULL,
    modified REAL NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parts_blob ON parts (blob);
"""

_BEYOND = chr(0x10FFFF) * 257
"""Greater than any key: one has 256 characters of four bytes at most."""
_UPLOAD = "SELECT u.*, b.name AS bucket_name FROM uploads u JOIN buckets b ON b.id = u.bucket AND b.deleted = 0"


class NoSuchUpload(StoreError):  # noqa: N818
    """The upload was completed, aborted, or never was."""

    code = "NoSuchUpload"

    def __init__(self) -> None:
        super().__init__("there is no such upload; it may have been completed or aborted")


class InvalidPart(StoreError):  # noqa: N818
    """A part that is to be put together is not there, or is another one."""

    code = "InvalidPart"


class InvalidPartOrder(StoreError):  # noqa: N818
    """Parts are to be named in rising order."""

    code = "InvalidPartOrder"


class PartTooSmall(StoreError):  # noqa: N818
    """Every part but the last has a least size."""

    code = "EntityTooSmall"


@dataclass(frozen=True)
class Attributes:
    """What the object of an upload will have beside its contents."""

    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksum: str = ""
    whole: bool = False
    """Whether the checksum is that of the whole object, not one over those of its parts."""


@dataclass(frozen=True)
class Upload:
    """An upload under way; `initiated` in seconds since 1970."""

    id: str
    bucket: str
    key: str
    initiated: float
    principal: str
    attributes: Attributes


@dataclass(frozen=True)
class Part:
    """One part that has arrived."""

    number: int
    blob: Blob
    etag: str
    checksums: Mapping[str, str]
    modified: float


@dataclass(frozen=True)
class Joined:
    """What becomes an object; `fresh` if its contents are a copy made for it, not those of its only part."""

    blob: Blob
    etag: str
    checksums: Mapping[str, str]
    fresh: bool


@dataclass(frozen=True)
class UploadPage:
    """Uploads and common prefixes (plain strings) in order; `next` is the key and upload that it goes on after."""

    entries: "tuple[Upload | str, ...]"
    next: tuple[str, str] | None


Condition = Callable[[StoredObject | None], None]


class Uploads:
    """The multipart uploads of a store."""

    def __init__(self, store: "ObjectStore") -> None:
        self._store = store
        self._database = store.database

    async def create(self, bucket: str, key: str, attributes: Attributes, principal: str) -> Upload:
        """Begin an upload."""
        check_key(key)
        now = self._store.clock()
        upload = Upload(f"{int(now * 1000):012x}{secrets.token_hex(10)}", bucket, key, now, principal, attributes)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)",
                (upload.id, buckets.number(connection, bucket), key, now, principal, json.dumps(vars(attributes))),
            )

        await self._database.write(work)
        return upload

    def get(self, bucket: str, key: str, number: str) -> Upload:
        """The upload, which must be of that bucket and key."""
        row = self._database.read.execute(f"{_UPLOAD} WHERE u.id = ?", (number,)).fetchone()
        if row is None or (row["bucket_name"], row["key"]) != (bucket, key):
            buckets.number(self._database.read, bucket)
            raise NoSuchUpload
        return _upload(row)

    def list(self, bucket: str, prefix: str, delimiter: str, after: tuple[str, str], limit: int) -> "UploadPage":
        """Up to `limit` uploads under way and common prefixes, by key and age, that come after a key and upload."""
        number = buckets.number(self._database.read, bucket)
        entries: list[Upload | str] = []
        last = ("", "")
        if limit > 0:
            for entry in self._entries(number, prefix, delimiter, after, limit + 1):
                if len(entries) == limit:
                    return UploadPage(tuple(entries), last)
                entries.append(entry)
                last = (entry, "") if isinstance(entry, str) else (entry.key, entry.id)
        return UploadPage(tuple(entries), None)

    def _entries(
        self, bucket: int, prefix: str, delimiter: str, after: tuple[str, str], limit: int
    ) -> Iterator[Upload | str]:
        """Uploads, and common prefixes as plain strings; after the first of a group goes on beyond the group."""
        end = successor(prefix) or _BEYOND
        group = common_prefix(after[0], prefix, delimiter)
        low: tuple[str, str] | None = (successor(group) or _BEYOND, "") if group else max(after, (prefix, ""))
        while low is not None:
            rows = self._database.read.execute(
                f"{_UPLOAD} WHERE u.bucket = ? AND (u.key, u.id) > (?, ?) AND u.key < ? ORDER BY u.key, u.id LIMIT ?",
                (bucket, *low, end, limit),
            ).fetchall()
            low = None
            for row in rows:
                group = common_prefix(row["key"], prefix, delimiter)
                if group:
                    yield group
                    low = (successor(group) or _BEYOND, "")
                    break
                yield _upload(row)

    def parts(self, upload: Upload, after: int = 0, limit: int = PARTS) -> Sequence[Part]:
        """The parts that have arrived, by number."""
        rows = self._database.read.execute(
            "SELECT * FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?", (upload.id, after, limit)
        )
        return [_part(row) for row in rows.fetchall()]

    async def add(self, upload: Upload, number: int, blob: Blob, checksums: Mapping[str, str]) -> Part:
        """Keep a part, in the place of one of the same number."""
        part = Part(number, blob, blob.md5, checksums, self._store.clock())

        def work(connection: sqlite3.Connection) -> None:
            _check_open(connection, upload)
            self._store.blobs.insert(connection, blob)
            before = connection.execute(
                "DELETE FROM parts WHERE upload = ? AND number = ? RETURNING blob", (upload.id, number)
            ).fetchall()
            connection.execute(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (upload.id, number, blob.id, blob.size, part.etag, blob.sha256, dump(checksums), part.modified),
            )
            self._store.garbage.release(connection, [row["blob"] for row in before])

        await self._database.write(work)
        return part

    async def join(self, upload: Upload, wanted: Sequence[tuple[int, str]], digest: Digest | None = None) -> Joined:
        """Put the parts together that are named by number and entity tag; `digest` is fed with the whole.

        Raises:
            InvalidPart, InvalidPartOrder, PartTooSmall: the upload stays as it is.
        """
        chosen = _choose(self.parts(upload), wanted)
        etag = joined_etag([part.etag for part in chosen])
        if len(chosen) == 1 and digest is None:
            return Joined(chosen[0].blob, etag, {}, fresh=False)
        try:
            return Joined(await self._store.blobs.concatenate([part.blob for part in chosen], digest), etag, {}, True)
        except FileNotFoundError:
            raise NoSuchUpload from None

    async def complete(
        self,
        upload: Upload,
        joined: Joined,
        wanted: Sequence[tuple[int, str]],
        condition: Condition,
        origin: Origin,
    ) -> StoredObject:
        """Make the object, and end the upload, in one transaction; `condition` may refuse by raising."""
        attributes = upload.attributes

        def work(connection: sqlite3.Connection) -> StoredObject:
            _check_open(connection, upload)
            rows = connection.execute("SELECT * FROM parts WHERE upload = ? ORDER BY number", (upload.id,)).fetchall()
            chosen = _choose([_part(row) for row in rows], wanted)
            condition(self._store.find(connection, upload.bucket, upload.key))
            stored = self._store.insert(
                connection,
                upload.bucket,
                upload.key,
                joined.blob,
                content_type=attributes.content_type,
                metadata=attributes.metadata,
                headers=attributes.headers,
                tags=attributes.tags,
                checksums=joined.checksums,
                etag=joined.etag,
                parts=[part.blob.size for part in chosen],
                event=COMPLETED,
                origin=origin,
            )
            self._store.garbage.abort(connection, [upload.id])
            return stored

        try:
            return await self._database.write(work)
        except Exception:
            if joined.fresh:
                self._store.blobs.discard(joined.blob)
            raise

    async def abort(self, upload: Upload) -> None:
        """End an upload and remove its parts."""
        await self._database.write(partial(self._store.garbage.abort, uploads=[upload.id]), frees=True)


def joined_etag(etags: Sequence[str]) -> str:
    """The entity tag that S3 gives an object of several parts: the MD5 of their MD5s, and their number.

    >>> joined_etag(["5d41402abc4b2a76b9719d911017c592"])
    '62109206880d38a4010a98e11243924a-1'
    """
    joined = md5(b"".join(bytes.fromhex(etag) for etag in etags), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(etags)}"


def _choose(present: Sequence[Part], wanted: Sequence[tuple[int, str]]) -> list[Part]:
    numbers = [number for number, _ in wanted]
    if numbers != sorted(set(numbers)):
        raise InvalidPartOrder("the list of parts is not in ascending order of part numbers")
    by_number = {part.number: part for part in present}
    chosen: list[Part] = []
    for number, etag in wanted:
        part = by_number.get(number)
        if part is None or part.etag != etag:
            raise InvalidPart(f"part {number} was not uploaded, or not with the entity tag {etag}")
        chosen.append(part)
    for part in chosen[:-1]:
        if part.blob.size < LEAST_PART:
            raise PartTooSmall(f"part {part.number} has {part.blob.size} bytes; all but the last need {LEAST_PART}")
    return chosen


def _check_open(connection: sqlite3.Connection, upload: Upload) -> None:
    if connection.execute("SELECT 1 FROM uploads WHERE id = ?", (upload.id,)).fetchone() is None:
        raise NoSuchUpload


def _upload(row: sqlite3.Row) -> Upload:
    attributes = Attributes(**json.loads(row["attributes"]))
    return Upload(row["id"], row["bucket_name"], row["key"], row["initiated"], row["principal"], attributes)


def _part(row: sqlite3.Row) -> Part:
    blob = Blob(row["blob"], row["size"], row["etag"], row["sha256"])
    return Part(row["number"], blob, row["etag"], load(row["checksums"]), row["modified"])
