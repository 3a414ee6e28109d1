"""Calls of `/run` and `/job` are put on record as they are answered."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.local.api.invocation import CALLER
from infra.local.calls import ASYNC, SYNC, Calls

KINDS = {"/run/": SYNC, "/job/": ASYNC}
NOBODY = "oscar"
"""OSCAR's name for who bears a service's token."""


class Recording:
    """An application whose calls are recorded."""

    def __init__(self, app: ASGIApp, calls: Calls) -> None:
        self._app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope.get("path", "")
        kind = KINDS.get(path[:5])
        if kind is None or scope.get("method") != "POST" or "/" in path[5:]:
            await self._app(scope, receive, send)
            return
        began = time.time()

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                client = scope.get("client") or ("",)
                user = scope.get(CALLER) or NOBODY
                self._calls.record(path[5:], kind, path, message["status"], began, client[0], user)
            await send(message)

        await self._app(scope, receive, recorded)
