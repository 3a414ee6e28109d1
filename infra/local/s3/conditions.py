"""Preconditions and ranges (RFC 9110, sections 13 and 14), as S3 applies them."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from infra.local.s3.errors import S3Error
from infra.local.stored import StoredObject

WRITE = ("if-match", "if-none-match")


def is_conditional(headers: Mapping[str, str]) -> bool:
    """Whether a write depends on what is there."""
    return any(name in headers for name in WRITE)


def check_write(headers: Mapping[str, str], current: StoredObject | None) -> None:
    """Raise unless `current` is what a write expects: nothing (`If-None-Match: *`) or a given version (`If-Match`)."""
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if wanted is not None:
        if current is None:
            raise S3Error("NoSuchKey")
        if not _matches(wanted, current.etag):
            raise S3Error("PreconditionFailed")
    if unwanted is not None and current is not None and _matches(unwanted, current.etag):
        raise S3Error("PreconditionFailed")


def check_read(headers: Mapping[str, str], stored: StoredObject, prefix: str = "") -> None:
    """Raise unless a reader wants this version; a copy asks with `prefix`, and never hears "not modified"."""
    wanted, unwanted = headers.get(f"{prefix}if-match"), headers.get(f"{prefix}if-none-match")
    since, until = headers.get(f"{prefix}if-modified-since"), headers.get(f"{prefix}if-unmodified-since")
    modified = int(stored.modified)
    if wanted is not None:
        if not _matches(wanted, stored.etag):
            raise S3Error("PreconditionFailed")
    elif until is not None and modified > _seconds(until, modified):
        raise S3Error("PreconditionFailed")
    if unwanted is not None:
        fresh = not _matches(unwanted, stored.etag)
    else:
        fresh = since is None or modified > _seconds(since, modified - 1)
    if not fresh:
        raise S3Error("PreconditionFailed" if prefix else "NotModified", ETag=f'"{stored.etag}"')


def byte_range(value: str, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last of a `Range`; None where there is none, or none that S3 honours.

    >>> byte_range("bytes=2-3", 10), byte_range("bytes=-4", 10), byte_range("bytes=8-99", 10), byte_range("x", 10)
    ((2, 4), (6, 10), (8, 10), None)

    Raises:
        S3Error: it lies beyond the object.
    """
    unit, _, span = value.partition("=")
    first, dash, last = span.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not (first or last):
        return None
    if not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in (first, last) if part):
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end or start >= size:
        raise S3Error("InvalidRange", Content_Range=f"bytes */{size}")
    return start, end


def _matches(value: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in value.split(",")]
    return "*" in tags or etag in tags


def _seconds(value: str, otherwise: int) -> float:
    """A date's seconds since 1970; what is no date has no say."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except ValueError:
        return otherwise
