"""Deleting many objects with one request, in one transaction."""

import sqlite3
from dataclasses import dataclass
from functools import partial

from infra.local import buckets
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3
from infra.local.s3.payload import Payload
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import XmlError, children, document, element, tag, text

MOST = 1000


@dataclass(frozen=True)
class _Asked:
    """One object that is to go."""

    key: str
    version: str


async def delete_objects(s3: S3, request: Request) -> Response:
    """Delete up to a thousand objects; each is answered for by itself."""
    root = await Payload(request).document("Delete")
    try:
        asked = [_Asked(text(one, "Key"), text(one, "VersionId", "")) for one in children(root, "Object")]
    except XmlError as error:
        raise S3Error("MalformedXML", str(error)) from None
    if not 0 < len(asked) <= MOST:
        raise S3Error("MalformedXML", f"A request deletes 1 to {MOST} objects.")
    gone = [one for one in asked if one.version in ("", "null")]
    await s3.store.database.write(partial(_delete, s3=s3, request=request, asked=gone), frees=True)
    quiet = text(root, "Quiet", "false").strip().lower() == "true"
    deleted = (element("Deleted", tag("Key", one.key)) for one in ([] if quiet else gone))
    refused = (
        element(
            "Error",
            tag("Key", one.key),
            tag("VersionId", one.version),
            tag("Code", "NoSuchVersion"),
            tag("Message", "The specified version does not exist."),
        )
        for one in asked
        if one not in gone
    )
    return xml_response(document("DeleteResult", *deleted, *refused))


def _delete(connection: sqlite3.Connection, s3: S3, request: Request, asked: list[_Asked]) -> None:
    buckets.number(connection, request.bucket)
    for one in asked:
        s3.store.delete(connection, request.bucket, one.key, origin=request.origin)
