"""The S3 endpoint as an ASGI application: from a request to its handler, and from what comes of it to an answer."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

from infra.local.blobs import Content, blocks
from infra.local.connections import ABORT
from infra.local.multipart import Uploads
from infra.local.objects import ObjectStore
from infra.local.s3 import (
    buckets,
    configuration,
    cors,
    deletion,
    listing,
    multipart,
    notifications,
    objects,
    posting,
    tagging,
)
from infra.local.s3.authentication import Secrets, authenticate
from infra.local.s3.bodies import TIMEOUT_S, Body, ClientGone, Receive
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3, Handler
from infra.local.s3.listening import Listening
from infra.local.s3.permission import Guard
from infra.local.s3.refusals import refusal
from infra.local.s3.request import Request, Response, make_request, raw

Send = Callable[[Any], Awaitable[None]]

SERVICE: Mapping[tuple[str, str], Handler] = {("GET", ""): buckets.list_buckets}
LISTEN = "events"

BUCKET: Mapping[tuple[str, str], Handler] = {
    ("GET", ""): listing.list_objects,
    ("GET", "list-type"): listing.list_objects_2,
    ("GET", "versions"): listing.list_versions,
    ("GET", "uploads"): multipart.list_uploads,
    ("GET", "location"): buckets.get_location,
    ("GET", "notification"): notifications.get_notifications,
    ("GET", "tagging"): tagging.get_bucket_tags,
    ("GET", "acl"): configuration.get_bucket_acl,
    **{("GET", name): configuration.absent(name) for name in configuration.ABSENT},
    **{("GET", name): configuration.empty(name) for name in configuration.EMPTY},
    ("HEAD", ""): buckets.head_bucket,
    ("PUT", ""): buckets.create_bucket,
    ("PUT", "notification"): notifications.put_notifications,
    ("PUT", "tagging"): tagging.put_bucket_tags,
    ("PUT", "acl"): configuration.put_acl,
    ("PUT", "versioning"): configuration.put_versioning,
    ("POST", "delete"): deletion.delete_objects,
    ("DELETE", ""): buckets.delete_bucket,
    ("DELETE", "tagging"): tagging.delete_bucket_tags,
    **{("DELETE", name): configuration.remove_nothing for name in configuration.ABSENT},
}

OBJECT: Mapping[tuple[str, str], Handler] = {
    ("GET", ""): objects.get_object,
    ("GET", "uploadId"): multipart.list_parts,
    ("GET", "tagging"): tagging.get_object_tags,
    ("GET", "acl"): configuration.get_object_acl,
    ("GET", "attributes"): objects.get_attributes,
    ("HEAD", ""): objects.head_object,
    ("PUT", ""): objects.put_object,
    ("PUT", "uploadId"): multipart.upload_part,
    ("PUT", "tagging"): tagging.put_object_tags,
    ("PUT", "acl"): configuration.put_acl,
    ("POST", "uploads"): multipart.create_upload,
    ("POST", "uploadId"): multipart.complete_upload,
    ("DELETE", ""): objects.delete_object,
    ("DELETE", "uploadId"): multipart.abort_upload,
    ("DELETE", "tagging"): tagging.delete_object_tags,
}

UNKNOWN = [
    "analytics",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "metrics",
    "ownershipControls",
    "publicAccessBlock",
    "restore",
    "retention",
    "select",
    "torrent",
]
SUBRESOURCES = [*dict.fromkeys(name for table in (BUCKET, OBJECT) for _, name in table if name), *UNKNOWN]


class S3App:
    """The endpoint of one store; `secrets` maps an access key to its secret, `domains` are for virtual-host style.

    `guard` says what users' keys may do; without it, every key may do everything.
    """

    def __init__(
        self,
        store: ObjectStore,
        secrets: Secrets,
        region: str = "us-east-1",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        domains: Sequence[str] = ("localhost",),
        guard: Guard | None = None,
    ) -> None:
        self._s3 = S3(store, Uploads(store), region, guard)
        self._listening = Listening(region)
        store.listeners.append(partial(self._listening.on_event, self._s3))
        self._secrets = secrets
        self._clock = clock
        self._domains = domains

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        body = Body(receive)
        request: Request | None = None
        try:
            request = make_request(scope, body, self._domains)
            response = await self._respond(request)
        except ClientGone:
            return
        except Exception as error:
            response = _refusal(error, request)
        if not await _settle(body, scope):
            response.headers["connection"] = "close"
        response.headers |= {"x-amz-request-id": request.id if request else "", "server": "DiOSCAR"}
        response.headers |= cors.allowed(request.headers if request else {})
        try:
            await _answer(response, body, send, head=scope["method"] == "HEAD")
        except TimeoutError:  # the client takes nothing any more
            abort = scope.get("state", {}).get(ABORT)
            if abort is not None:
                abort()
                await body.gone()

    def close(self) -> None:
        """End what would go on for ever: the streams of those who listen to events."""
        self._listening.close()

    async def _respond(self, request: Request) -> Response:
        if cors.is_preflight(request.method, request.headers):
            return cors.preflight(request.headers)
        if posting.is_form(request):
            return await posting.post_object(self._s3, request, self._secrets, self._clock())
        listens = request.method == "GET" and not request.key and LISTEN in request.query
        handler = self._listening.listen if listens else _handler(request)
        authenticate(request, self._secrets, self._clock())
        if self._s3.guard is not None:
            self._s3.guard.check(request)
        return await handler(self._s3, request)


def _handler(request: Request) -> Handler:
    table = OBJECT if request.key else BUCKET if request.bucket else SERVICE
    name = next((name for name in SUBRESOURCES if name in request.query), "")
    handler = table.get((request.method, name))
    if handler is not None:
        return handler
    if (request.method, "") in table and name:
        return _not_here
    return _not_allowed


async def _not_here(_: S3, __: Request) -> Response:
    raise S3Error("NotImplemented")


async def _not_allowed(_: S3, __: Request) -> Response:
    raise S3Error("MethodNotAllowed")


def _refusal(error: Exception, request: Request | None) -> Response:
    refused, body = refusal(error, request)
    if refused.status == 304:
        return Response(304, dict(refused.headers))
    return Response(refused.status, {"content-type": "application/xml", **refused.headers}, body)


async def _settle(body: Body, scope: Mapping[str, Any]) -> bool:
    """Whether the connection can serve another request: not if a body is still to come."""
    if body.complete:
        return True
    headers = dict(scope["headers"])
    if b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0":
        return True
    if not body.started and headers.get(b"expect", b"").lower() == b"100-continue":
        return False
    try:
        return await body.drain()
    except ClientGone:
        return False


async def _answer(response: Response, body: Body, send: Send, *, head: bool) -> None:
    stream = response.stream
    if response.content is not None:
        stream = _contents(response, response.content)
    elif stream is None and response.status != 204:
        response.headers.setdefault("content-length", str(len(response.body)))
    headers = [(name.encode("latin-1"), raw(value)) for name, value in response.headers.items()]
    start = {"type": "http.response.start", "status": response.status, "headers": headers}
    if stream is None:
        await send(start)
        await send({"type": "http.response.body", "body": b"" if head else response.body})
        return
    await send(start)
    gone = asyncio.ensure_future(body.gone())
    try:
        async with aclosing(stream) as open_stream, asyncio.timeout(None) as patience:
            async for block in open_stream:
                patience.reschedule(asyncio.get_running_loop().time() + TIMEOUT_S)
                await send({"type": "http.response.body", "body": block, "more_body": True})
                patience.reschedule(None)
                if gone.done():
                    return
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _contents(response: Response, content: Content) -> AsyncGenerator[bytes | bytearray, None]:
    with content:
        async with aclosing(blocks(content, response.start, response.end)) as found:
            async for block in found:
                yield block


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
