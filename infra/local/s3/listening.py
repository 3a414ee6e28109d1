"""MinIO's live stream of events: one JSON document a line, for as long as the client listens.

It tells what happens while somebody listens, and no more: what must not be missed is a bucket notification.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from events.notifications import build
from infra.local.announcing import notification_of
from infra.local.s3.buckets import find
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3
from infra.local.s3.request import Request, Response
from infra.local.stored import Notification, Origin, StoredObject

ALIVE_S = 1.0
"""A blank is sent so often, which is also how soon it is seen that a listener has gone."""
WAITING = 10_000
"""Events that a listener may be behind; one who is further behind is cut off rather than told half of it."""


@dataclass(eq=False)
class _Listener:
    """Somebody who listens to some events of one bucket, or (no bucket) of all."""

    bucket: str
    filter: Notification
    loop: asyncio.AbstractEventLoop
    lines: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(WAITING))

    def tell(self, line: bytes | None) -> None:
        """Add a line, from any thread."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._add, line)

    def _add(self, line: bytes | None) -> None:
        if self.lines.qsize() >= WAITING - 1:
            line = None
        with suppress(asyncio.QueueFull):
            self.lines.put_nowait(line)


class Listening:
    """Everybody who listens."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._listeners: set[_Listener] = set()

    def on_event(self, s3: S3, connection: sqlite3.Connection, stored: StoredObject, name: str, origin: Origin) -> None:
        """In the transaction of an event: tell of it once it is durable."""
        for one in tuple(self._listeners):
            if one.bucket in ("", stored.bucket) and one.filter.matches(stored.key, name):
                records = build(notification_of(stored, name, origin, self._region))["Records"]
                records[0]["s3"]["object"]["key"] = stored.key  # who listens gets it as it is, a webhook escaped
                line = json.dumps({"Records": records})
                s3.store.database.after_commit(partial(one.tell, f"{line}\n".encode()))

    async def listen(self, s3: S3, request: Request) -> Response:
        """Stream the events that the query asks for."""
        if request.bucket:
            find(s3, request)
        events = tuple(value for name, value in request.parameters if name == "events")
        query = request.query
        wanted = Notification("", "", events, query.get("prefix", ""), query.get("suffix", ""))
        if not all(event.startswith("s3:") for event in events):
            raise S3Error("InvalidArgument", "A specified event is not supported for notifications.")
        listener = _Listener(request.bucket, wanted, asyncio.get_running_loop())
        self._listeners.add(listener)
        return Response(200, {"content-type": "text/event-stream"}, stream=self._lines(listener))

    def close(self) -> None:
        """End every stream."""
        for one in tuple(self._listeners):
            one.tell(None)

    async def _lines(self, listener: _Listener) -> AsyncGenerator[bytes, None]:
        try:
            yield b" "
            while True:
                try:
                    async with asyncio.timeout(ALIVE_S):
                        line = await listener.lines.get()
                except TimeoutError:
                    line = b" "
                if line is None:
                    return
                yield line
        finally:
            self._listeners.discard(listener)
