"""Tags of objects and buckets."""

import sqlite3
from collections.abc import Mapping
from functools import partial

from infra.local import buckets
from infra.local.s3.attributes import checked_tags
from infra.local.s3.buckets import find as find_bucket
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3
from infra.local.s3.objects import check_version, find
from infra.local.s3.payload import Payload
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import XmlError, children, document, element, tag, text

BUCKET_TAGS = 50


async def get_object_tags(s3: S3, request: Request) -> Response:
    """An object's tags."""
    return xml_response(_document(find(s3, request).tags))


async def put_object_tags(s3: S3, request: Request) -> Response:
    """Replace an object's tags."""
    return await _set(s3, request, await _read(request), 200)


async def delete_object_tags(s3: S3, request: Request) -> Response:
    """Remove an object's tags."""
    return await _set(s3, request, {}, 204)


async def get_bucket_tags(s3: S3, request: Request) -> Response:
    """A bucket's tags; none are an error, as in S3."""
    bucket = find_bucket(s3, request)
    if not bucket.tags:
        raise S3Error("NoSuchTagSet")
    return xml_response(_document(bucket.tags))


async def put_bucket_tags(s3: S3, request: Request) -> Response:
    """Replace a bucket's tags."""
    tags = await _read(request, BUCKET_TAGS)
    await s3.store.database.write(partial(buckets.set_tags, name=request.bucket, tags=tags))
    return Response(204)


async def delete_bucket_tags(s3: S3, request: Request) -> Response:
    """Remove a bucket's tags."""
    await s3.store.database.write(partial(buckets.set_tags, name=request.bucket, tags={}))
    return Response(204)


async def _set(s3: S3, request: Request, tags: Mapping[str, str], status: int) -> Response:
    check_version(request)

    def work(connection: sqlite3.Connection) -> None:
        stored = s3.store.find(connection, request.bucket, request.key)
        if stored is None:
            buckets.number(connection, request.bucket)
            raise S3Error("NoSuchKey")
        s3.store.set_tags(connection, stored, tags)

    await s3.store.database.write(work)
    return Response(status)


async def _read(request: Request, most: int = 10) -> dict[str, str]:
    root = await Payload(request).document("Tagging")
    try:
        pairs = [
            (text(one, "Key"), text(one, "Value")) for tags in children(root, "TagSet") for one in children(tags, "Tag")
        ]
    except XmlError as error:
        raise S3Error("MalformedXML", str(error)) from None
    return checked_tags(pairs, most)


def _document(tags: Mapping[str, str]) -> bytes:
    found = (element("Tag", tag("Key", name), tag("Value", value)) for name, value in tags.items())
    return document("Tagging", element("TagSet", *found))
