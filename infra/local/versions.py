"""Versions of objects as rows: which one is current, and what the next one will be called."""

import json
import sqlite3
from dataclasses import replace

from infra.local.stored import StoredObject, dump, object_of

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket INTEGER NOT NULL,
    key TEXT NOT NULL,
    current INTEGER NOT NULL DEFAULT 1,
    blob INTEGER NOT NULL REFERENCES blobs (id),
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    modified REAL NOT NULL,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    headers TEXT NOT NULL,
    tags TEXT NOT NULL,
    checksums TEXT NOT NULL,
    parts TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS objects_current ON objects (bucket, key) WHERE current = 1;
CREATE INDEX IF NOT EXISTS objects_past ON objects (id) WHERE current = 0;
CREATE INDEX IF NOT EXISTS objects_blob ON objects (blob);
CREATE TRIGGER IF NOT EXISTS objects_added AFTER INSERT ON objects WHEN new.current = 1
    BEGIN UPDATE buckets SET objects = objects + 1, bytes = bytes + new.size WHERE id = new.bucket; END;
CREATE TABLE IF NOT EXISTS garbage (object INTEGER PRIMARY KEY);
CREATE TRIGGER IF NOT EXISTS objects_gone AFTER UPDATE OF current ON objects WHEN old.current = 1 AND new.current = 0
    BEGIN
        UPDATE buckets SET objects = objects - 1, bytes = bytes - old.size WHERE id = old.bucket;
        INSERT INTO garbage VALUES (old.id);
    END;
CREATE TABLE IF NOT EXISTS pins (
    holder TEXT NOT NULL,
    object INTEGER NOT NULL,
    PRIMARY KEY (holder, object)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_object ON pins (object);
"""

SELECT = "SELECT o.*, b.name AS bucket_name FROM objects o JOIN buckets b ON b.id = o.bucket"
CURRENT = f"{SELECT} WHERE b.name = ? AND b.deleted = 0 AND o.key = ? AND o.current = 1"


def find(connection: sqlite3.Connection, bucket: str, key: str) -> StoredObject | None:
    """The current version of an object."""
    row = connection.execute(CURRENT, (bucket, key)).fetchone()
    return None if row is None else object_of(row)


def by_number(connection: sqlite3.Connection, number: int) -> StoredObject | None:
    """One version, whether it is the current one or not."""
    row = connection.execute(f"{SELECT} WHERE o.id = ?", (number,)).fetchone()
    return None if row is None else object_of(row)


def supersede(connection: sqlite3.Connection, bucket: int, key: str) -> bool:
    """Make the current version of a key a past one; whether there was one."""
    done = connection.execute(
        "UPDATE objects SET current = 0 WHERE bucket = ? AND key = ? AND current = 1", (bucket, key)
    )
    return bool(done.rowcount)


def next_number(connection: sqlite3.Connection) -> int:
    """The number that the next version would have had; it will have the one after it."""
    row = connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'objects' RETURNING seq").fetchone()
    return int(row[0])


def add_row(connection: sqlite3.Connection, bucket: int, stored: StoredObject) -> StoredObject:
    """Make the row of a version, current from now on, in the bucket of that number."""
    done = connection.execute(
        "INSERT INTO objects (bucket, key, blob, size, etag, sha256, modified, content_type, metadata, headers, tags,"
        " checksums, parts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            bucket,
            stored.key,
            stored.blob,
            stored.size,
            stored.etag,
            stored.sha256,
            stored.modified,
            stored.content_type,
            dump(stored.metadata),
            dump(stored.headers),
            dump(stored.tags),
            dump(stored.checksums),
            json.dumps(stored.parts),
        ),
    )
    return replace(stored, id=done.lastrowid or 0)
