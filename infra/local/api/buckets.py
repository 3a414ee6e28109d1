"""`/system/buckets`: buckets as OSCAR sees them, with who may use them and what is in them."""

import sqlite3
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import UTC, datetime
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from fdl.errors import printable
from fdl.names import check_bucket_name
from fdl.parts import Part
from infra.local import buckets
from infra.local.api import bodies
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.engine import Engine
from infra.local.listing import Entry
from infra.local.objects import Blob
from infra.local.quotas import QuotaExceeded, Quotas, size_text
from infra.local.stored import Bucket, NoSuchBucket, StoreError, check_key
from infra.local.users import policy

PAGE = 70
VISIBILITIES = ("private", "restricted", "public")
FROM_SERVICE = "Forbidden action: A bucket from a service can't be modified\n"


class BucketRequest(Part):
    """What makes or changes a bucket; its name may go on with a folder."""

    bucket_name: str = ""
    visibility: str = ""
    allowed_users: list[str] = Field(default_factory=list)


class BucketRoutes:
    """OSCAR's CRUD of buckets over the built-in store; `elsewhere` is the other store's address, where there is one."""

    def __init__(self, engine: Engine, quotas: Quotas, elsewhere: str = "") -> None:
        self._store = engine.store
        self._database = engine.database
        self._quotas = quotas
        self._elsewhere = elsewhere

    async def every(self, request: Request) -> Response:
        """The buckets that the caller may see; `null` for an administrator without any, as in OSCAR."""
        if self._elsewhere:
            return self._not_here()
        user = request.state.user
        found = [self._shown(bucket) for bucket in self._store.buckets() if policy.sees_bucket(user, bucket)]
        return json_reply(found or (None if user.is_admin else []))

    async def create(self, request: Request) -> Response:
        """201 with nothing."""
        try:
            wanted = await bodies.read(request, BucketRequest)
            visibility = _visibility(wanted)
        except bodies.BodyError as error:
            return text_reply(f"The Bucket specification is not valid: {error}", 400)
        if self._elsewhere:
            return self._not_here()
        user = request.state.user
        name, _, folder = wanted.bucket_name.strip(" /").partition("/")
        try:
            check_bucket_name(name)
        except ValueError as error:
            return text_reply(f"Error creating bucket with name '{printable(name)[:100]}': {error}", 400)
        marker = await self._store.ingest_bytes(b"") if folder else None

        def work(connection: sqlite3.Connection) -> None:
            self._quotas.check_buckets(connection, user.uid, {name})
            self._store.create_bucket(connection, name, owner=user.uid)
            buckets.share(connection, name, visibility, wanted.allowed_users)
            if isinstance(marker, Blob):
                self._store.insert(connection, name, f"{folder.strip('/')}/", marker)

        try:
            if folder:
                check_key(f"{folder.strip('/')}/")
            await self._database.write(work)
        except QuotaExceeded as error:
            return text_reply(str(error), 403)
        except StoreError as error:
            return text_reply(f"Error creating bucket with name '{name}': {error}", 400)
        return empty(201)

    async def update(self, request: Request) -> Response:
        """Say who may use a bucket; one that a service made follows its service."""
        try:
            wanted = await bodies.read(request, BucketRequest)
            visibility = _visibility(wanted)
        except bodies.BodyError as error:
            return text_reply(f"The Bucket specification is not valid: {error}", 400)
        if self._elsewhere:
            return self._not_here()
        user = request.state.user

        def work(connection: sqlite3.Connection) -> Response:
            bucket = buckets.get(connection, wanted.bucket_name)
            if bucket is None:
                return _missing(wanted.bucket_name)
            if not policy.changes_bucket(user, bucket):
                return text_reply(f"User '{user.uid}' is not authorised", 403)
            if bucket.service:
                return text_reply(FROM_SERVICE, 403)
            buckets.share(connection, bucket.name, visibility, wanted.allowed_users)
            return empty(204)

        return await self._database.write(work)

    async def read(self, request: Request) -> Response:
        """A bucket with a page of its objects."""
        if self._elsewhere:
            return self._not_here()
        user, name = request.state.user, request.path_params["bucket"]
        bucket = self._store.bucket(name)
        if bucket is None:
            return _missing(name)
        if not policy.sees_bucket(user, bucket):
            return text_reply(f"User '{user.uid}' is not authorised", 403)
        token = request.query_params.get("page", "")
        try:
            after = _from_token(token)
        except ValueError:
            return text_reply(f"page {token[:100]!a} is not one of ours; take next_page of the page before", 400)
        page = self._store.list(name, after=after, limit=PAGE)
        shown = self._shown(bucket, [_object(entry) for entry in page.objects], with_owner=True)
        more = {"next_page": _as_token(page.next)} if page.next is not None else {}
        return json_reply({**shown, **more, "is_truncated": page.next is not None, "returned_items": len(page.objects)})

    async def delete(self, request: Request) -> Response:
        """204; with everything in it, as in OSCAR."""
        if self._elsewhere:
            return self._not_here()
        user, name = request.state.user, request.path_params["bucket"]

        def work(connection: sqlite3.Connection) -> Response:
            bucket = buckets.get(connection, name)
            if bucket is None:
                return _missing(name)
            if not policy.changes_bucket(user, bucket):
                return text_reply(f"User '{user.uid}' is not authorised", 403)
            self._store.delete_bucket(connection, name, force=True)
            return empty(204)

        try:
            return await self._database.write(work, frees=True)
        except NoSuchBucket:
            return _missing(name)

    def _shown(
        self, bucket: Bucket, objects: list[dict[str, Any]] | None = None, *, with_owner: bool = False
    ) -> dict[str, Any]:
        tags = {**bucket.tags, **({"owner": bucket.owner} if with_owner and bucket.owner else {})}
        limit = self._quotas.of(bucket.owner).storage_per_bucket or "0"
        usage = {"used": size_text(bucket.bytes), "used_bytes": bucket.bytes}
        return {
            "bucket_name": bucket.name,
            "visibility": bucket.visibility,
            "allowed_users": list(bucket.allowed_users) if bucket.visibility == "restricted" else None,
            "owner": bucket.owner,
            "metadata": {**tags, **({"from_service": bucket.service} if bucket.service else {})},
            **({"objects": objects} if objects else {}),
            "storage_quota": {"max": limit, "source": "default" if limit == "0" else "bucket"},
            "storage_usage": {**usage, **({"objects": bucket.objects} if bucket.objects else {})},
            "attribution": "complete",
        }

    def _not_here(self) -> Response:
        return text_reply(f"the buckets of this cluster are in {self._elsewhere}; ask that store", 503)


def _visibility(wanted: BucketRequest) -> str:
    visibility = wanted.visibility.lower() or VISIBILITIES[0]
    if visibility not in VISIBILITIES:
        raise bodies.BodyError(f'visibility: "{wanted.visibility}" is none of {", ".join(VISIBILITIES)}')
    return visibility


def _missing(name: str) -> Response:
    return text_reply(f"The bucket '{printable(name)[:100]}' does not exist", 404)


def _object(entry: Entry) -> dict[str, Any]:
    """As Go prints a time."""
    when = datetime.fromtimestamp(entry.modified, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
    return {"object_name": entry.key, "size_bytes": entry.size, "last_modified": when}


def _as_token(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode()


def _from_token(token: str) -> str:
    """Raises ValueError where it is none."""
    try:
        return b64decode(token.encode(), b"-_", validate=True).decode()
    except (Base64Error, UnicodeError) as error:
        raise ValueError(token) from error
