"""Putting, getting and deleting one object."""

import sqlite3
from collections.abc import Mapping

from infra.local.s3 import checksums
from infra.local.s3.attributes import KEPT, as_headers, checksum_headers, describe
from infra.local.s3.conditions import byte_range, check_read, check_write, is_conditional
from infra.local.s3.copying import copy_object
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3
from infra.local.s3.payload import Payload
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import document, element, tag
from infra.local.stored import NoSuchBucket, NoSuchKey, StoredObject, check_key


async def put_object(s3: S3, request: Request) -> Response:
    """Store the body, whole and verified, in one transaction with everything that follows from it."""
    if "x-amz-copy-source" in request.headers:
        return await copy_object(s3, request)
    check_key(request.key)
    described = describe(request.headers)
    conditional = is_conditional(request.headers)
    if s3.store.bucket(request.bucket) is None:
        raise NoSuchBucket(request.bucket)
    if conditional:  # known to fail is known before the body is sent; what counts is asked again below
        check_write(request.headers, s3.store.get(request.bucket, request.key))
    blob, verified = await Payload(request).into_blob(s3.store.blobs)

    def work(connection: sqlite3.Connection) -> StoredObject:
        if conditional:
            check_write(request.headers, s3.store.find(connection, request.bucket, request.key))
        return s3.store.insert(
            connection,
            request.bucket,
            request.key,
            blob,
            content_type=described.content_type,
            metadata=described.metadata,
            headers=described.headers,
            tags=described.tags,
            checksums=verified,
            origin=request.origin,
        )

    try:
        stored = await s3.store.database.write(work)
    except Exception:
        s3.store.blobs.discard(blob)
        raise
    return Response(200, {"etag": f'"{stored.etag}"', **checksums.as_headers(stored.checksums)})


async def get_object(s3: S3, request: Request) -> Response:
    """The contents, or a range or part of them."""
    stored, headers, span = _selected(s3, request)
    status = 200 if span is None else 206
    start, end = span or (0, stored.size)
    try:
        content = s3.store.open(stored)
    except NoSuchKey:  # overwritten and collected since it was looked up
        stored, headers, span = _selected(s3, request)
        start, end = span or (0, stored.size)
        content = s3.store.open(stored)
    return Response(status, headers, content=content, start=start, end=end)


async def head_object(s3: S3, request: Request) -> Response:
    """What `get_object` would say, without the contents."""
    _, headers, span = _selected(s3, request)
    return Response(200 if span is None else 206, headers)


async def delete_object(s3: S3, request: Request) -> Response:
    """Remove the object; one that is not there is no error."""
    check_version(request)

    def work(connection: sqlite3.Connection) -> None:
        if is_conditional(request.headers):
            check_write(request.headers, s3.store.find(connection, request.bucket, request.key))
        s3.store.delete(connection, request.bucket, request.key, origin=request.origin)

    await s3.store.database.write(work, frees=True)
    return Response(204)


async def get_attributes(s3: S3, request: Request) -> Response:
    """Those of an object's attributes that the request names."""
    stored = find(s3, request)
    wanted = {name.strip() for name in request.headers.get("x-amz-object-attributes", "").split(",")}
    found = {
        "ETag": tag("ETag", stored.etag),
        "Checksum": element("Checksum", *(tag(f"Checksum{name}", value) for name, value in stored.checksums.items())),
        "ObjectParts": element("ObjectParts", tag("TotalPartsCount", len(stored.parts))) if stored.parts else "",
        "StorageClass": tag("StorageClass", "STANDARD"),
        "ObjectSize": tag("ObjectSize", stored.size),
    }
    body = document("GetObjectAttributesResponse", *(text for name, text in found.items() if name in wanted))
    response = xml_response(body)
    response.headers["last-modified"] = as_headers(stored)["last-modified"]
    return response


def find(s3: S3, request: Request) -> StoredObject:
    """The object that a request names."""
    check_version(request)
    stored = s3.store.get(request.bucket, request.key)
    if stored is None:
        if s3.store.bucket(request.bucket) is None:
            raise NoSuchBucket(request.bucket)
        raise S3Error("NoSuchKey")
    return stored


def check_version(request: Request) -> None:
    """Buckets are not versioned: the one version there is has no name."""
    if request.query.get("versionId", "null") not in ("null", ""):
        raise S3Error("NoSuchVersion")


def _selected(s3: S3, request: Request) -> tuple[StoredObject, dict[str, str], tuple[int, int] | None]:
    """The object, the headers of the answer, and the range of its bytes if that is not all of them."""
    stored = find(s3, request)
    check_read(request.headers, stored)
    headers = {**as_headers(stored), **_overrides(request.query)}
    span = _part(request, stored, headers)
    if span is None and "range" in request.headers and _range_holds(request.headers, stored):
        span = byte_range(request.headers["range"], stored.size)
    if span is None:
        headers |= checksum_headers(request.headers, stored)
        headers["content-length"] = str(stored.size)
    else:
        headers["content-length"] = str(span[1] - span[0])
        headers["content-range"] = f"bytes {span[0]}-{span[1] - 1}/{stored.size}"
    return stored, headers, span


def _part(request: Request, stored: StoredObject, headers: dict[str, str]) -> tuple[int, int] | None:
    """The range of the part that a request asks for by number."""
    number = request.number("partNumber", 0, 1, 10_000)
    if not number:
        return None
    sizes = stored.parts or (stored.size,)
    if number > len(sizes):
        raise S3Error("InvalidPartNumber")
    if stored.parts:
        headers["x-amz-mp-parts-count"] = str(len(sizes))
    start = sum(sizes[: number - 1])
    return (start, start + sizes[number - 1]) if stored.size else None


def _range_holds(headers: Mapping[str, str], stored: StoredObject) -> bool:
    expected = headers.get("if-range", "").strip('"')
    return not expected or expected == stored.etag


def _overrides(query: Mapping[str, str]) -> dict[str, str]:
    """Headers of the answer that the (signed) query asks for."""
    names = ("content-type", *KEPT)
    found = {name: query[f"response-{name}"] for name in names if f"response-{name}" in query}
    if not all(value.isprintable() for value in found.values()):
        raise S3Error("InvalidArgument", "A response- parameter has characters that no header can carry.")
    return found
