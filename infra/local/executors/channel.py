"""The engine's end of the socket to a warm worker."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from layers.runtime.wire import Assembler, Frame, pack


class Channel(asyncio.Protocol):
    """The engine's end of the socket to a worker: one question at a time."""

    def __init__(self) -> None:
        self._frames = Assembler()
        self._waiting: asyncio.Future[Frame | None] | None = None
        self._come: Frame | None = None
        self._lost = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._frames.feed(data)
        except ValueError:  # not our worker any more: something wrote to its socket
            self.close()
            return
        for frame in frames:
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(frame)
            else:
                self._come = frame

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def ask(self, header: Mapping[str, Any], body: bytes = b"") -> "asyncio.Future[Frame | None]":
        """Send a request; the future is its answer, or None where the worker dies of it."""
        answer = self.answer()
        if self._transport is not None and not self._lost:
            self._transport.write(pack(header, body))
        return answer

    def answer(self) -> "asyncio.Future[Frame | None]":
        """The next frame."""
        self._waiting = asyncio.get_running_loop().create_future()
        come, self._come = self._come, None
        if come is not None or self._lost:
            self._waiting.set_result(come)
        return self._waiting

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()
