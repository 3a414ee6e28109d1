"""Multipart uploads over HTTP."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from infra.local.multipart import PARTS, Attributes, Joined, NoSuchUpload, Upload, joined_etag
from infra.local.s3 import checksums
from infra.local.s3.attributes import describe
from infra.local.s3.conditions import check_write
from infra.local.s3.copying import find_source, parse_source, source_range
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3, owner
from infra.local.s3.payload import Payload
from infra.local.s3.refusals import refusal
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import DECLARATION, XmlError, children, document, element, moment, tag, text, url_encoded
from infra.local.stored import StoredObject

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LIMIT = 1000
WORDLESS_S = 5.0
"""A client that waits so long for an upload to be put together is sent a blank: boto3 gives up after a minute."""
LAST_ID = chr(0x10FFFF)
"""Greater than any upload's id: a key marker without one stands for all uploads of its key."""


async def create_upload(s3: S3, request: Request) -> Response:
    """Begin an upload."""
    described = describe(request.headers)
    algorithm = request.headers.get("x-amz-checksum-algorithm", "").upper()
    whole = algorithm == "CRC64NVME" or request.headers.get("x-amz-checksum-type", "").upper() == "FULL_OBJECT"
    attributes = Attributes(
        described.content_type,
        described.metadata,
        described.headers,
        described.tags,
        checksums.known(algorithm) if algorithm else "",
        whole,
    )
    upload = await s3.uploads.create(request.bucket, request.key, attributes, request.origin.principal)
    response = xml_response(
        document(
            "InitiateMultipartUploadResult",
            tag("Bucket", upload.bucket),
            tag("Key", upload.key),
            tag("UploadId", upload.id),
        )
    )
    if algorithm:
        response.headers["x-amz-checksum-algorithm"] = attributes.checksum
        response.headers["x-amz-checksum-type"] = "FULL_OBJECT" if whole else "COMPOSITE"
    return response


async def upload_part(s3: S3, request: Request) -> Response:
    """Keep a part: the body, or a range of another object."""
    upload = _upload(s3, request)
    number = request.number("partNumber", 0, 1, PARTS + 1)
    if not 0 < number <= PARTS:
        raise S3Error("InvalidArgument", f"Part number must be an integer between 1 and {PARTS}, inclusive")
    if "x-amz-copy-source" in request.headers:
        return await _copy_part(s3, request, upload, number)
    blob, verified = await Payload(request).into_blob(s3.store.blobs)
    try:
        part = await s3.uploads.add(upload, number, blob, verified)
    except Exception:
        s3.store.blobs.discard(blob)
        raise
    return Response(200, {"etag": f'"{part.etag}"', **checksums.as_headers(verified)})


async def list_parts(s3: S3, request: Request) -> Response:
    """The parts that have arrived."""
    upload = _upload(s3, request)
    after = request.number("part-number-marker", 0, 0, PARTS)
    limit = request.number("max-parts", LIMIT, 0, LIMIT)
    found = s3.uploads.parts(upload, after, limit + 1)
    shown = found[:limit]
    return xml_response(
        document(
            "ListPartsResult",
            tag("Bucket", upload.bucket),
            tag("Key", url_encoded(upload.key, request.query.get("encoding-type", ""))),
            tag("UploadId", upload.id),
            owner("Initiator"),
            owner(),
            tag("StorageClass", "STANDARD"),
            tag("PartNumberMarker", after),
            tag("NextPartNumberMarker", shown[-1].number if shown else 0),
            tag("MaxParts", limit),
            tag("IsTruncated", bool(shown) and len(found) > limit),
            *(
                element(
                    "Part",
                    tag("PartNumber", part.number),
                    tag("LastModified", moment(part.modified)),
                    tag("ETag", f'"{part.etag}"'),
                    tag("Size", part.blob.size),
                    *(tag(f"Checksum{name}", value) for name, value in part.checksums.items()),
                )
                for part in shown
            ),
        )
    )


async def list_uploads(s3: S3, request: Request) -> Response:
    """The uploads under way in a bucket."""
    query = request.query
    encoding = query.get("encoding-type", "")
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit = request.number("max-uploads", LIMIT, 0, LIMIT)
    key_marker = query.get("key-marker", "")
    id_marker = query.get("upload-id-marker", "") if key_marker else ""
    after = (key_marker, id_marker or (LAST_ID if key_marker else ""))
    page = s3.uploads.list(request.bucket, prefix, delimiter, after, limit)
    next_key, next_id = page.next or ("", "")
    return xml_response(
        document(
            "ListMultipartUploadsResult",
            tag("Bucket", request.bucket),
            tag("KeyMarker", url_encoded(key_marker, encoding)),
            tag("UploadIdMarker", id_marker),
            tag("NextKeyMarker", url_encoded(next_key, encoding)) if page.next else "",
            tag("NextUploadIdMarker", next_id) if page.next else "",
            tag("Prefix", url_encoded(prefix, encoding)),
            tag("Delimiter", url_encoded(delimiter, encoding)) if delimiter else "",
            tag("EncodingType", encoding) if encoding else "",
            tag("MaxUploads", limit),
            tag("IsTruncated", page.next is not None),
            *(
                element(
                    "Upload",
                    tag("Key", url_encoded(upload.key, encoding)),
                    tag("UploadId", upload.id),
                    owner("Initiator"),
                    owner(),
                    tag("StorageClass", "STANDARD"),
                    tag("Initiated", moment(upload.initiated)),
                )
                for upload in page.entries
                if not isinstance(upload, str)
            ),
            *(
                element("CommonPrefixes", tag("Prefix", url_encoded(group, encoding)))
                for group in page.entries
                if isinstance(group, str)
            ),
        )
    )


async def complete_upload(s3: S3, request: Request) -> Response:
    """Put the parts together; asked again after it was done, the answer is the same.

    Where that takes long, the answer begins before its end is known, as in S3: an error may follow a status of 200.
    """
    root = await Payload(request).document("CompleteMultipartUpload")
    try:
        wanted = [_wanted(part) for part in children(root, "Part")]
    except (XmlError, ValueError) as error:
        raise S3Error("MalformedXML", str(error)) from None
    if not 0 < len(wanted) <= PARTS:
        raise S3Error("MalformedXML", f"An upload is completed with 1 to {PARTS} parts.")
    work = asyncio.ensure_future(_completed(s3, request, wanted))
    await asyncio.wait([work], timeout=WORDLESS_S)
    if work.done():
        return xml_response(work.result())
    return Response(200, {"content-type": "application/xml"}, stream=_told_later(work, request))


async def abort_upload(s3: S3, request: Request) -> Response:
    """End an upload and remove its parts."""
    await s3.uploads.abort(_upload(s3, request))
    return Response(204)


async def _told_later(work: "asyncio.Future[bytes]", request: Request) -> AsyncGenerator[bytes, None]:
    """The document that `work` will give, or that of its error; until then, blanks."""
    work.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever asked may have gone by then
    yield DECLARATION
    while not (await asyncio.wait([work], timeout=WORDLESS_S))[0]:
        yield b" "
    try:
        body = work.result()
    except Exception as error:
        body = refusal(error, request)[1]
    yield body.removeprefix(DECLARATION)


async def _completed(s3: S3, request: Request, wanted: list[tuple[int, str]]) -> bytes:
    """The document about the object that the upload has become."""
    try:
        stored = await _complete(s3, request, wanted)
    except NoSuchUpload:
        found = _done(s3, request, wanted)
        if found is None:
            raise
        stored = found
    return document(
        "CompleteMultipartUploadResult",
        tag("Location", f"http://{request.headers.get('host', '')}/{stored.bucket}/{stored.key}"),
        tag("Bucket", stored.bucket),
        tag("Key", stored.key),
        tag("ETag", f'"{stored.etag}"'),
        *(tag(f"Checksum{name}", value) for name, value in stored.checksums.items()),
    )


async def _complete(s3: S3, request: Request, wanted: list[tuple[int, str]]) -> StoredObject:
    upload = _upload(s3, request)
    check_write(request.headers, s3.store.get(upload.bucket, upload.key))
    algorithm = upload.attributes.checksum
    digest = checksums.ALGORITHMS[algorithm]() if algorithm and upload.attributes.whole else None
    joined = await s3.uploads.join(upload, wanted, digest)
    found: dict[str, str] = {}
    if digest is not None:
        found = {algorithm: checksums.encoded(digest)}
    elif algorithm:
        by_number = {part.number: part.checksums.get(algorithm) for part in s3.uploads.parts(upload)}
        values = [by_number.get(number) for number, _ in wanted]
        if all(values):
            found = {algorithm: checksums.combined(algorithm, [value for value in values if value])}
    joined = Joined(joined.blob, joined.etag, found, joined.fresh)
    given = request.headers.get(f"{checksums.PREFIX}{algorithm.lower()}") if algorithm else None
    if given is not None and found.get(algorithm) not in (None, given):
        if joined.fresh:
            s3.store.blobs.discard(joined.blob)
        raise S3Error("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
    return await asyncio.shield(
        s3.uploads.complete(
            upload, joined, wanted, lambda current: check_write(request.headers, current), request.origin
        )
    )


def _done(s3: S3, request: Request, wanted: list[tuple[int, str]]) -> StoredObject | None:
    """The object that this very completion has made, if its first answer did not reach the client."""
    stored = s3.store.get(request.bucket, request.key)
    try:
        etag = joined_etag([etag for _, etag in wanted])
    except ValueError:
        return None
    return stored if stored is not None and stored.etag == etag else None


async def _copy_part(s3: S3, request: Request, upload: Upload, number: int) -> Response:
    source = parse_source(request)

    def find(connection: sqlite3.Connection) -> StoredObject:
        found = find_source(s3, connection, request, source)
        s3.store.pin(connection, found.id, request.id)
        return found

    found = await s3.store.database.write(find)
    try:
        start, end = source_range(request, found.size)
        algorithm = upload.attributes.checksum
        digests = [checksums.ALGORITHMS[algorithm]()] if algorithm else []
        blob = await s3.store.slice(found, start, end, digests)
        verified = {algorithm: checksums.encoded(digests[0])} if digests else {}
        part = await s3.uploads.add(upload, number, blob, verified)
    finally:
        await s3.store.database.write(lambda connection: s3.store.unpin(connection, request.id))
    return xml_response(
        document(
            "CopyPartResult",
            tag("LastModified", moment(part.modified)),
            tag("ETag", f'"{part.etag}"'),
            *(tag(f"Checksum{name}", value) for name, value in verified.items()),
        )
    )


def _upload(s3: S3, request: Request) -> Upload:
    return s3.uploads.get(request.bucket, request.key, request.query.get("uploadId", ""))


def _wanted(part: "Element") -> tuple[int, str]:
    return int(text(part, "PartNumber").strip()), text(part, "ETag").strip().strip('"')
