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
    """aiohttp's sessions, with a connection for each request.

    No connection serves two requests, so whatever a request does to its own can never reach the next one.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._loading = asyncio.Lock()

    async def session(self, path: str = "") -> "aiohttp.ClientSession":
        """The session for the socket at `path`, or for those with a port; the first call loads aiohttp, in a thread."""
        async with self._loading:
            if path not in self._sessions:
                await asyncio.to_thread(importlib.import_module, "aiohttp")
                import aiohttp

                connector: aiohttp.BaseConnector
                if path:
                    connector = aiohttp.UnixConnector(path, limit=0, force_close=True)
                else:
                    connector = aiohttp.TCPConnector(limit=0, force_close=True)
                stay = aiohttp.TraceConfig()
                stay.on_request_redirect.append(_stay)
                self._sessions[path] = aiohttp.ClientSession(
                    connector=connector,
                    trace_configs=[stay],
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                    skip_auto_headers=AUTOMATIC,
                    max_line_size=LONGEST_LINE,
                    max_field_size=LONGEST_LINE,
                    trust_env=False,
                )
            return self._sessions[path]

    async def forget(self, path: str) -> None:
        """Nothing is behind the socket at `path` any more."""
        if session := self._sessions.pop(path, None):
            await session.close()

    async def close(self) -> None:
        """Close what is open."""
        for path in list(self._sessions):
            await self.forget(path)


class Elsewhere(Exception):  # noqa: N818 - what was answered
    """The service sends its client elsewhere: where that is, nobody asks in the cluster's name."""


async def _stay(_session: object, _context: object, answered: "aiohttp.TraceRequestRedirectParams") -> None:
    """aiohttp would follow when it opens a websocket, and has no word against it."""
    answered.response.close()
    raise Elsewhere
