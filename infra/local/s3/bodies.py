"""The body of a request, block by block: never more of it in memory than one block, never waited for without end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol

from infra.local.s3.errors import S3Error

Receive = Callable[[], Awaitable[Any]]

TIMEOUT_S = 60.0
"""A client that is waited for so long, and sends less than `PACE` meanwhile, is told so and cut off."""
PACE = 64 * 1024
DRAIN = 256 * 1024
DRAIN_S = 2.0


class ClientGone(Exception):  # noqa: N818
    """The client hung up: there is nobody to answer."""


class Decoder(Protocol):
    """Takes the framing off a body."""

    def feed(self, data: bytes) -> list[bytes]:
        """The payload in the next bytes of the body."""

    def finish(self) -> None:
        """The body is complete; raise if the payload is not."""


class Body:
    """What the client sends after the headers, read once."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._patience_s = TIMEOUT_S
        self._received = 0
        self.complete = False
        self.started = False
        self.decoder: Decoder | None = None

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """The payload, without the framing that `decoder` knows.

        Raises:
            ClientGone: the client hung up before it had sent everything.
        """
        while not self.complete:
            data = await self._next()
            if self.decoder is None:
                if data:
                    yield data
            else:
                for block in self.decoder.feed(data):
                    yield block
        if self.decoder is not None:
            self.decoder.finish()

    async def read(self, limit: int) -> bytes:
        """A small body as a whole."""
        parts: list[bytes] = []
        size = 0
        async for block in self.blocks():
            size += len(block)
            if size > limit:
                raise S3Error("MaxMessageLengthExceeded")
            parts.append(block)
        return b"".join(parts)

    async def drain(self) -> bool:
        """Read what is left of a refused body, if it is little; whether the connection can be used again."""
        size = 0
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self.complete and size <= DRAIN:
                    size += len(await self._next())
        except (TimeoutError, S3Error):
            return False
        return self.complete

    async def gone(self) -> None:
        """Wait, without end, for the client to hang up."""
        while (await self._receive())["type"] == "http.request":
            self.complete = True

    async def _next(self) -> bytes:
        self.started = True
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._patience_s):
                message = await self._receive()
        except TimeoutError:
            raise S3Error("RequestTimeout") from None
        if message["type"] != "http.request":
            raise ClientGone
        self.complete = not message.get("more_body", False)
        data: bytes = message.get("body", b"")
        self._received += len(data)
        self._patience_s -= clock() - began
        if self._received >= PACE:
            self._patience_s, self._received = TIMEOUT_S, 0
        return data
