"""Pages of a bucket's keys, in the order of their UTF-8 bytes, with S3's rolling up of what a delimiter groups.

A group of a million keys costs one seek in the index, not a million steps: after its first key the scan goes on at the
first string beyond it.
"""

import sqlite3
from collections.abc import Generator, Iterator
from dataclasses import dataclass

_COLUMNS = "SELECT key, size, etag, modified FROM objects WHERE bucket = ? AND current = 1"
_FROM = f"{_COLUMNS} AND key >= ? ORDER BY key LIMIT ?"
_AFTER = f"{_COLUMNS} AND key > ? ORDER BY key LIMIT ?"
_FROM_UPTO = f"{_COLUMNS} AND key >= ? AND key < ? ORDER BY key LIMIT ?"
_AFTER_UPTO = f"{_COLUMNS} AND key > ? AND key < ? ORDER BY key LIMIT ?"


@dataclass(frozen=True)
class Entry:
    """One object of a page, as a listing tells it."""

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True)
class Page:
    """Objects and common prefixes, each in order; `next` is where the following page goes on, None on the last."""

    objects: tuple[Entry, ...]
    prefixes: tuple[str, ...]
    next: str | None


def page(connection: sqlite3.Connection, bucket: int, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """Up to `limit` objects and common prefixes that come after `after`.

    A common prefix counts as one entry, and stands after `after` if it is greater.
    """
    objects: list[Entry] = []
    prefixes: list[str] = []
    last = ""
    if limit > 0:
        for entry in _entries(connection, bucket, prefix, delimiter, after, limit + 1):
            if len(objects) + len(prefixes) == limit:
                return Page(tuple(objects), tuple(prefixes), last)
            if isinstance(entry, str):
                prefixes.append(entry)
                last = entry
            else:
                objects.append(entry)
                last = entry.key
    return Page(tuple(objects), tuple(prefixes), None)


def successor(text: str) -> str | None:
    """The least string greater than every string that starts with `text`; None if there is none.

    >>> successor("in/"), successor("a\\U0010ffff"), successor("")
    ('in0', 'b', None)
    """
    while text:
        point = ord(text[-1])
        if point < 0x10FFFF:
            return text[:-1] + chr(0xE000 if point == 0xD7FF else point + 1)
        text = text[:-1]
    return None


def _entries(
    connection: sqlite3.Connection, bucket: int, prefix: str, delimiter: str, after: str, limit: int
) -> Iterator[Entry | str]:
    """Objects, and common prefixes as plain strings."""
    end = successor(prefix)
    low: str | None = prefix
    inclusive = True
    if after >= prefix and after:
        group = common_prefix(after, prefix, delimiter)
        low, inclusive = (successor(group), True) if group else (after, False)
    while low is not None and (end is None or low < end):
        low = yield from _run(connection, bucket, prefix, delimiter, (low, inclusive, end), limit)
        inclusive = True


def _run(
    connection: sqlite3.Connection,
    bucket: int,
    prefix: str,
    delimiter: str,
    span: tuple[str, bool, str | None],
    limit: int,
) -> Generator[Entry | str, None, str | None]:
    """One scan, up to the end or through the next common prefix; returns where to go on."""
    low, inclusive, end = span
    if end is None:
        rows = connection.execute(_FROM if inclusive else _AFTER, (bucket, low, limit))
    else:
        rows = connection.execute(_FROM_UPTO if inclusive else _AFTER_UPTO, (bucket, low, end, limit))
    try:
        for key, size, etag, modified in rows:
            group = common_prefix(key, prefix, delimiter)
            if group:
                yield group
                return successor(group)
            yield Entry(key, size, etag, modified)
    finally:
        rows.close()
    return None


def common_prefix(key: str, prefix: str, delimiter: str) -> str:
    """The common prefix that `key` is rolled up into, or nothing."""
    if not delimiter or not key.startswith(prefix):
        return ""
    found = key.find(delimiter, len(prefix))
    return "" if found < 0 else key[: found + len(delimiter)]
