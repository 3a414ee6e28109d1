"""The client that asks exposed services. aiohttp is loaded when the first of them is started, and not before."""

import asyncio
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 10.0
LONGEST_LINE = 64 << 10
"""Bytes of a header that a service may answer with."""
AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What the client would add by itself: a service is to see what was sent, and nothing else."""


class Upstream:
    """One aiohttp session, with a connection for each request.

    No connection serves two requests, so whatever a request does to its own can never reach the next one.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._loading = asyncio.Lock()

    async def session(self) -> "aiohttp.ClientSession":
        """The session; the first call takes the time to load it, off the event loop."""
        async with self._loading:
            if self._session is None:
                await asyncio.to_thread(importlib.import_module, "aiohttp")
                import aiohttp

                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, force_close=True),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                    skip_auto_headers=AUTOMATIC,
                    max_line_size=LONGEST_LINE,
                    max_field_size=LONGEST_LINE,
                    trust_env=False,
                )
            return self._session

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
