"""Buckets and the notifications set on them: rows, and what may be done with them inside a transaction.

A bucket deleted with its contents keeps its row, marked, until the objects are collected; its name is free at once.
"""

import functools
import json
import sqlite3
from collections.abc import Callable, Iterable

from infra.local.stored import (
    Bucket,
    BucketExists,
    BucketNotEmpty,
    NoSuchBucket,
    Notification,
    UnknownTarget,
    check_bucket_name,
    dump,
    load,
)
from infra.local.users import policy
from infra.local.users.identity import User

SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    created REAL NOT NULL,
    owner TEXT NOT NULL,
    service TEXT,
    tags TEXT NOT NULL DEFAULT '{}',
    objects INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    visibility TEXT NOT NULL DEFAULT '',
    allowed_users TEXT NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX IF NOT EXISTS buckets_name ON buckets (name) WHERE deleted = 0;
CREATE TABLE IF NOT EXISTS notifications (
    bucket INTEGER NOT NULL REFERENCES buckets (id),
    position INTEGER NOT NULL,
    id TEXT NOT NULL,
    arn TEXT NOT NULL,
    events TEXT NOT NULL,
    prefix TEXT NOT NULL,
    suffix TEXT NOT NULL,
    PRIMARY KEY (bucket, position)
) WITHOUT ROWID;
"""


def number(connection: sqlite3.Connection, name: str) -> int:
    """The row number of a bucket."""
    row = connection.execute("SELECT id FROM buckets WHERE name = ? AND deleted = 0", (name,)).fetchone()
    if row is None:
        raise NoSuchBucket(name)
    found: int = row["id"]
    return found


def get(connection: sqlite3.Connection, name: str) -> Bucket | None:
    """The bucket of that name."""
    row = connection.execute("SELECT * FROM buckets WHERE name = ? AND deleted = 0", (name,)).fetchone()
    return None if row is None else _bucket(row)


def every(connection: sqlite3.Connection) -> list[Bucket]:
    """All buckets, by name."""
    return [_bucket(row) for row in connection.execute("SELECT * FROM buckets WHERE deleted = 0 ORDER BY name")]


def create(
    connection: sqlite3.Connection, name: str, created: float, *, owner: str, service: str | None, exist_ok: bool
) -> None:
    """Make a bucket; with `exist_ok`, one that is there already stays as it is."""
    check_bucket_name(name)
    done = connection.execute(
        "INSERT INTO buckets (name, created, owner, service) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (name, created, owner, service),
    )
    if not done.rowcount and not exist_ok:
        raise BucketExists(f'bucket "{name}" exists already')


def delete(connection: sqlite3.Connection, name: str, *, force: bool) -> None:
    """Mark a bucket as deleted; what is left in it is collected later."""
    bucket = number(connection, name)
    if not force and not is_empty(connection, bucket):
        raise BucketNotEmpty(f'bucket "{name}" is not empty')
    connection.execute("DELETE FROM notifications WHERE bucket = ?", (bucket,))
    connection.execute("UPDATE buckets SET deleted = 1 WHERE id = ?", (bucket,))


def is_empty(connection: sqlite3.Connection, bucket: int) -> bool:
    """Whether no object can be seen in it."""
    found = connection.execute("SELECT 1 FROM objects WHERE bucket = ? AND current = 1 LIMIT 1", (bucket,))
    return found.fetchone() is None


def is_seen(connection: sqlite3.Connection, name: str, uid: str) -> bool:
    """Whether a bucket is there and that user may read and write in it."""
    bucket = get(connection, name)
    return bucket is not None and policy.sees_bucket(User(uid, is_admin=False), bucket)


def set_tags(connection: sqlite3.Connection, name: str, tags: dict[str, str]) -> None:
    """Replace a bucket's tags."""
    connection.execute("UPDATE buckets SET tags = ? WHERE id = ?", (dump(tags), number(connection, name)))


def share(connection: sqlite3.Connection, name: str, visibility: str, allowed_users: Iterable[str]) -> None:
    """Say who may see a bucket beside its owner: `private`, `restricted` (to `allowed_users`) or `public`."""
    connection.execute(
        "UPDATE buckets SET visibility = ?, allowed_users = ? WHERE id = ?",
        (visibility, json.dumps(list(allowed_users)), number(connection, name)),
    )


def notifications(connection: sqlite3.Connection, name: str) -> list[Notification]:
    """What is set on a bucket, in the order it was given."""
    rows = connection.execute(
        "SELECT * FROM notifications WHERE bucket = ? ORDER BY position", (number(connection, name),)
    )
    return [_notification(row) for row in rows.fetchall()]


def set_notifications(
    connection: sqlite3.Connection,
    name: str,
    wanted: Iterable[Notification],
    known_target: Callable[[str], bool],
) -> None:
    """Replace what is set on a bucket; a target that is neither known nor set already is refused, and nothing changes.

    One that is set and has gone may stay: a service must not fail to come or go for what others have left there.
    """
    bucket = number(connection, name)
    before = {row["arn"] for row in connection.execute("SELECT arn FROM notifications WHERE bucket = ?", (bucket,))}
    connection.execute("DELETE FROM notifications WHERE bucket = ?", (bucket,))
    for position, one in enumerate(wanted):
        if one.arn not in before and not known_target(one.arn):
            raise UnknownTarget
        connection.execute(
            "INSERT INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?)",
            (bucket, position, one.id, one.arn, json.dumps(one.events), one.prefix, one.suffix),
        )


def _bucket(row: sqlite3.Row) -> Bucket:
    counts = row["objects"], row["bytes"]
    shared = row["visibility"], tuple(json.loads(row["allowed_users"]))
    return Bucket(row["name"], row["created"], row["owner"], row["service"], load(row["tags"]), *counts, *shared)


def _notification(row: sqlite3.Row) -> Notification:
    return Notification(row["id"], row["arn"], _events(row["events"]), row["prefix"], row["suffix"])


@functools.lru_cache(maxsize=1024)
def _events(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
