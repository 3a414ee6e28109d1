"""uvicorn's HTTP connections, with a limit to how long a request's head takes, and large bodies copied less."""

import sys
from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 60.0
"""From a connection, or from a request's first byte, to the end of its headers, however slowly they drip."""

ABORT = "dioscar.abort"
"""Where a request's ASGI `state` has what cuts its connection off; closing it would wait for what nobody takes."""


UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._impatience: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as in uvicorn
        """A client connects: its first request is waited for, and what serves it may cut the connection off."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: transport.abort}
        self._wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """A request's head is there; its body is its reader's business."""
        self._wait_no_more()
        super().on_headers_complete()
        # what comes after a chunked body is no header of the request, which may not even have been looked at yet
        self.headers = self.headers.copy() if self.parser.should_upgrade() else []

    def on_body(self, body: bytes) -> None:
        """Some of a body; where none waits before it, it is handed on as it is, which spares two copies of it all."""
        if self.cycle is None or self.cycle.body or self.cycle.response_complete:
            super().on_body(body)
            return
        self.cycle.body = body  # type: ignore[assignment] # it is only read, and replaced, from here on
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up: because of what came, or because there was no memory left for it."""
        error = sys.exc_info()[1]
        if isinstance(error and (error.__cause__ or error.__context__), MemoryError):
            self.transport.write(UNAVAILABLE)
            self.transport.close()
        else:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was cut off."""
        self._wait_no_more()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing has come for too long; what is still to be sent is not taken either."""
        self.transport.abort()

    def _wait(self) -> None:
        if self._impatience is None:
            self._impatience = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)

    def _wait_no_more(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
