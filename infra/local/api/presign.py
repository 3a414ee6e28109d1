"""`/system/buckets/{bucket}/presign`: a URL that lets its bearer put or get one object for a while."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from fdl.parts import Part
from infra.local.api import bodies
from infra.local.api.replies import json_reply, text_reply
from infra.local.engine import Engine
from infra.local.settings import StoreAddress
from infra.local.stored import StoreError, check_key
from infra.local.users import policy
from layers.objects import sigv4

DEFAULT_S = 900
LONGEST_S = 7 * 24 * 3600
OPERATIONS = {"upload": "PUT", "download": "GET"}
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""What the name of a header is made of (RFC 9110)."""


class PresignRequest(Part):
    """What the URL is to be good for; `expires` is what oscar-python calls `expires_in`."""

    object_key: str = ""
    operation: str = ""
    expires_in: int = 0
    expires: int = 0
    content_type: str = ""
    extra_headers: dict[str, str] = Field(default_factory=dict)


class PresignRoutes:
    """Signs with the cluster's own keys, for who may use the bucket."""

    def __init__(
        self, engine: Engine, keys: sigv4.Credentials, address: StoreAddress, *, elsewhere: bool = False
    ) -> None:
        self._store = engine.store
        self._keys = keys
        self._address = address
        self._elsewhere = elsewhere
        self._clock: Callable[[], float] = time.time

    async def presign(self, request: Request) -> Response:
        """200 with method, URL and headers to send."""
        try:
            wanted = await bodies.read(request, PresignRequest)
            for field in ("object_key", "operation"):
                if not getattr(wanted, field):
                    raise bodies.BodyError(f"{field}: is missing; add it")
            headers = _headers(wanted)
        except bodies.BodyError as error:
            return text_reply(f"Invalid presign request: {error}", 400)
        key = wanted.object_key.strip().strip("/")
        if not key:
            return text_reply("Object key cannot be empty", 400)
        operation = wanted.operation.strip().lower()
        if operation not in OPERATIONS:
            return text_reply(
                f"Unsupported operation '{wanted.operation}'. Allowed values are 'upload' or 'download'", 400
            )
        expires_s = wanted.expires_in or wanted.expires or DEFAULT_S
        if not 1 <= expires_s <= LONGEST_S:
            return text_reply(f"Invalid expiration requested: {expires_s}. Allowed range is 1-{LONGEST_S} seconds", 400)
        try:
            check_key(key)
        except StoreError as error:
            return text_reply(f"Invalid presign request: object_key: {error}", 400)
        if refused := self._refused(request):
            return refused
        now = self._clock()
        method = OPERATIONS[operation]
        answer = {
            "object_key": key,
            "operation": operation,
            "method": method,
            "url": self._url(method, f"/{request.path_params['bucket']}/{key}", headers, wanted, now, expires_s),
            "expires_at": datetime.fromtimestamp(now + expires_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return json_reply({**answer, **({"headers": headers} if headers else {})})

    def _refused(self, request: Request) -> Response | None:
        """The answer to who may not use the bucket, or names one that is not there."""
        user, name = request.state.user, request.path_params["bucket"]
        if self._elsewhere:
            return None if user.is_admin else text_reply("only the administrator may use the other store", 403)
        bucket = self._store.bucket(name)
        if bucket is None:
            return text_reply(f"Bucket '{name}' not found", 404)
        if not policy.writes_bucket(user, bucket):
            sentence = f"User '{user.uid}' is not authorised to generate presigned URLs for bucket '{name}'"
            return text_reply(sentence, 403)
        return None

    def _url(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        wanted: PresignRequest,
        now: float,
        expires_s: int,
    ) -> str:
        endpoint = urlsplit(self._address.endpoint)
        quoted = sigv4.quote_path(path)
        download = method == "GET" and wanted.content_type
        query = sigv4.presign(
            method,
            quoted,
            [("response-content-type", wanted.content_type)] if download else [],
            endpoint.netloc,
            credentials=self._keys,
            region=self._address.region,
            now=datetime.fromtimestamp(now, UTC),
            expires_s=expires_s,
            headers=headers,
        )
        return f"{self._address.endpoint}{quoted}?{query}"


def _headers(wanted: PresignRequest) -> dict[str, str]:
    """The headers that the bearer must send, spelled as Go spells them. Raises BodyError."""
    headers = {"Content-Type": wanted.content_type} if wanted.operation == "upload" and wanted.content_type else {}
    for name, value in wanted.extra_headers.items():
        if not name or not TOKEN.issuperset(name) or name.lower() == "host":
            raise bodies.BodyError(f"extra_headers: {name[:100]!a} is no header's name")
        headers["-".join(part.capitalize() for part in name.split("-"))] = value
    if any(not value.isprintable() or not value.isascii() for value in headers.values()):
        raise bodies.BodyError("extra_headers: has a value that no header can have")
    return headers
