"""Uploads by HTML form (POST Object): whoever holds a signed policy may upload what the policy allows."""

import hmac
import json
import sqlite3
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.local.blobs import Blob, Blobs
from infra.local.objects import POST
from infra.local.s3.attributes import describe
from infra.local.s3.authentication import Secrets, credential, secret_of
from infra.local.s3.errors import S3Error
from infra.local.s3.forms import Form, read_form
from infra.local.s3.handlers import S3
from infra.local.s3.request import Request, Response, Signed, xml_response
from infra.local.s3.xml import document, tag
from infra.local.stored import NoSuchBucket, StoredObject, check_key
from layers.objects import sigv4
from layers.objects.sigv4 import UNSIGNED_PAYLOAD, Scope

UNBOUND = ("policy", "x-amz-signature", "signature", "awsaccesskeyid", "file")
"""Fields that no condition needs to cover."""


@dataclass(frozen=True)
class Limits:
    """How large a policy lets the file be."""

    least: int = 0
    most: int = 5 << 40


def is_form(request: Request) -> bool:
    """Whether a request brings its authorization in a form."""
    content_type = request.headers.get("content-type", "").lower()
    return (
        request.method == "POST"
        and bool(request.bucket)
        and not request.key
        and not request.query
        and "authorization" not in request.headers
        and content_type.startswith("multipart/form-data")
    )


async def post_object(s3: S3, request: Request, secrets: Secrets, now: datetime) -> Response:
    """Store the file of a form, if its policy is signed and allows it."""
    form = await read_form(request.headers["content-type"], request.body.blocks())
    fields = form.fields
    request.signed = _signed(fields, secrets)
    if s3.guard is not None:
        s3.guard.check(request)
    limits = _allowed(fields, request.bucket, now)
    key = fields.get("key", "").replace("${filename}", form.filename)
    check_key(key)
    if s3.store.bucket(request.bucket) is None:
        raise NoSuchBucket(request.bucket)
    described = describe(fields)
    blob = await _into_blob(s3.store.blobs, form.file, limits)

    def work(connection: sqlite3.Connection) -> StoredObject:
        return s3.store.insert(
            connection,
            request.bucket,
            key,
            blob,
            content_type=described.content_type,
            metadata=described.metadata,
            headers=described.headers,
            tags=described.tags,
            event=POST,
            origin=request.origin,
        )

    try:
        stored = await s3.store.database.write(work)
    except Exception:
        s3.store.blobs.discard(blob)
        raise
    return _answer(form, stored)


async def _into_blob(blobs: Blobs, file: AsyncIterator[bytes], limits: Limits) -> Blob:
    async with blobs.writer() as writer:
        async for block in file:
            await writer.write(block)
            if writer.size > limits.most:
                raise S3Error("EntityTooLarge")
        if writer.size < limits.least:
            raise S3Error("EntityTooSmall")
        return await writer.finish()


def _signed(fields: dict[str, str], secrets: Secrets) -> Signed:
    """The signature of the policy, of the fourth or (boto3's default) the second version."""
    policy = fields.get("policy", "")
    if fields.get("x-amz-algorithm") == sigv4.ALGORITHM:
        access_key, scope = credential(fields.get("x-amz-credential", ""), "InvalidArgument")
        secret = secret_of(secrets, access_key)
        expected, given = sigv4.signature(secret, scope, policy), fields.get("x-amz-signature", "")
    elif "awsaccesskeyid" in fields:
        access_key, scope = fields["awsaccesskeyid"], Scope("", "")
        secret = secret_of(secrets, access_key)
        digest = hmac.digest(secret.encode(), policy.encode("utf-8", "replace"), "sha1")
        expected, given = b64encode(digest).decode(), fields.get("signature", "")
    else:
        raise S3Error("AccessDenied")
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
        raise S3Error("SignatureDoesNotMatch")
    return Signed(access_key, secret, scope, "", "", UNSIGNED_PAYLOAD)


def _allowed(fields: dict[str, str], bucket: str, now: datetime) -> Limits:
    """What the policy allows; every field must be covered by one of its conditions.

    Raises:
        S3Error: it has expired, or does not allow this.
    """
    try:
        policy = json.loads(b64decode(fields["policy"], validate=True))
        expiration = datetime.fromisoformat(policy["expiration"])
        conditions = [one for condition in policy["conditions"] for one in _conditions(condition)]
    except (Base64Error, ValueError, KeyError, TypeError, AttributeError):
        raise S3Error("InvalidPolicyDocument") from None
    if now > (expiration if expiration.tzinfo else expiration.replace(tzinfo=UTC)):
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    present = {**fields, "bucket": bucket}
    limits = Limits()
    covered = set()
    for kind, name, value in conditions:
        if kind == "content-length-range":
            limits = Limits(int(name), int(value))
            continue
        covered.add(name)
        found = present.get(name, "")
        if not (found == value if kind == "eq" else found.startswith(value)):
            raise S3Error(
                "AccessDenied", f'Invalid according to Policy: Policy Condition failed: ["{kind}", "${name}"]'
            )
    for name in fields:
        if name not in covered and name not in UNBOUND and not name.startswith("x-ignore-"):
            raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {name}")
    return limits


def _conditions(condition: Any) -> list[tuple[str, str, str]]:
    """A condition in one form: kind, name, value."""
    if isinstance(condition, dict):
        return [("eq", str(name).lower(), str(value)) for name, value in condition.items()]
    kind, name, value = (str(part) for part in condition)
    kind = kind.lower()
    if kind == "content-length-range":
        return [(kind, str(int(name)), str(int(value)))]
    if kind not in ("eq", "starts-with") or not name.startswith("$"):
        raise ValueError(kind)
    return [(kind, name[1:].lower(), value)]


def _answer(form: Form, stored: StoredObject) -> Response:
    etag = f'"{stored.etag}"'
    status = form.fields.get("success_action_status", "")
    if status == "201":
        body = document(
            "PostResponse", tag("Bucket", stored.bucket), tag("Key", stored.key), tag("ETag", etag), namespace=""
        )
        response = xml_response(body, 201)
        response.headers["etag"] = etag
        return response
    return Response(200 if status == "200" else 204, {"etag": etag})
