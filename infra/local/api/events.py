"""`/dioscar/v1/events`: what another store's webhook posts, when the cluster's objects are there."""

import asyncio
import hmac
import json

from starlette.requests import Request
from starlette.responses import Response

from events.notifications import Notification, NotificationError, parse
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.database import DatabaseError
from infra.local.external.link import Link
from infra.local.stored import Origin
from layers.objects.errors import StoreUnavailable

LARGEST = 4 << 20
"""Bytes of a notification; MinIO's have one object, and its metadata."""


class EventRoutes:
    """The webhook's door, for who bears the token of the cluster."""

    def __init__(self, link: Link, token: str) -> None:
        self._link = link
        self._token = token

    async def receive(self, request: Request) -> Response:
        """204 once every job that the notification asks for is on disk; 503 where the store cannot be asked now."""
        words = request.headers.get("authorization", "").split()
        token = words[1] if len(words) == 2 and words[0].lower() == "bearer" else ""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return text_reply("this is not the token of this cluster's events (DIOSCAR_EVENTS_TOKEN)", 401)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST:
                return text_reply(f"the notification is larger than {LARGEST >> 20} MiB", 413)
        if not body.strip():
            return empty(204)  # some senders try the address with nothing
        try:
            notifications = parse(json.loads(body))
        except (NotificationError, ValueError, RecursionError) as error:
            return text_reply(f"the body is no bucket notification ({error})", 400)
        try:
            await asyncio.gather(*map(self._notice, notifications))
        except (StoreUnavailable, DatabaseError) as error:
            return text_reply(f"{error}; send it again, or wait for the next listing", 503)
        return empty(204)

    async def health(self, request: Request) -> Response:
        """How the store is, and what its listings have found."""
        return json_reply(self._link.health())

    async def _notice(self, told: Notification) -> None:
        name = told.event_name.removeprefix("s3:")  # AWS leaves it out
        if name.startswith("ObjectCreated:"):
            origin = Origin(told.principal, told.source_ip, told.user_agent)
            await self._link.intake.notice(told.bucket, told.key, f"s3:{name}", origin)
