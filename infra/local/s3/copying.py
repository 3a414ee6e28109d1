"""Copies inside the store: a new row on the same contents, so that a copy costs the same whatever its size."""

import sqlite3
from dataclasses import dataclass
from urllib.parse import unquote

from infra.local import buckets
from infra.local.objects import COPY
from infra.local.s3.attributes import Described, describe
from infra.local.s3.conditions import byte_range, check_read, check_write, is_conditional
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import document, moment, tag
from infra.local.stored import StoredObject, check_key

SOURCE_IF = "x-amz-copy-source-"


@dataclass(frozen=True)
class Source:
    """The object that a copy is made of."""

    bucket: str
    key: str


async def copy_object(s3: S3, request: Request) -> Response:
    """Copy one object to another key, with its attributes or with new ones."""
    check_key(request.key)
    source = parse_source(request)
    described = describe(request.headers)
    replaces = _replaces(request, "x-amz-metadata-directive")
    tags = described.tags if _replaces(request, "x-amz-tagging-directive") else None
    if not replaces and (source.bucket, source.key) == (request.bucket, request.key):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes.",
        )

    def work(connection: sqlite3.Connection) -> StoredObject:
        found = find_source(s3, connection, request, source)
        if is_conditional(request.headers):
            check_write(request.headers, s3.store.find(connection, request.bucket, request.key))
        kept = described if replaces else Described(found.content_type, found.metadata, found.headers, {})
        return s3.store.insert(
            connection,
            request.bucket,
            request.key,
            found,
            content_type=kept.content_type,
            metadata=kept.metadata,
            headers=kept.headers,
            tags=found.tags if tags is None else tags,
            checksums=found.checksums,
            parts=found.parts,
            event=COPY,
            origin=request.origin,
        )

    stored = await s3.store.database.write(work)
    return xml_response(
        document(
            "CopyObjectResult",
            tag("LastModified", moment(stored.modified)),
            tag("ETag", f'"{stored.etag}"'),
            *(tag(f"Checksum{name}", value) for name, value in stored.checksums.items()),
        )
    )


def parse_source(request: Request) -> Source:
    """The object that `x-amz-copy-source` names."""
    value, _, version = request.headers["x-amz-copy-source"].partition("?versionId=")
    try:
        bucket, _, key = unquote(value, errors="strict").removeprefix("/").partition("/")
    except UnicodeDecodeError:
        bucket = key = ""
    if not bucket or not key:
        raise S3Error("InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
    if version not in ("", "null"):
        raise S3Error("NoSuchVersion")
    return Source(bucket, key)


def find_source(s3: S3, connection: sqlite3.Connection, request: Request, source: Source) -> StoredObject:
    """The source as it is now, if it is what the request expects."""
    found = s3.store.find(connection, source.bucket, source.key)
    if found is None:
        buckets.number(connection, source.bucket)
        raise S3Error("NoSuchKey")
    check_read(request.headers, found, SOURCE_IF)
    return found


def source_range(request: Request, size: int) -> tuple[int, int]:
    """The bytes of the source that make a part; a range must be whole and inside."""
    value = request.headers.get("x-amz-copy-source-range")
    if value is None:
        return 0, size
    span = byte_range(value, size)
    if span is None or value != f"bytes={span[0]}-{span[1] - 1}":
        raise S3Error("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last.")
    return span


def _replaces(request: Request, name: str) -> bool:
    value = request.headers.get(name, "COPY").upper()
    if value not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", f"Unknown {name}.")
    return value == "REPLACE"
