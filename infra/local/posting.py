"""One POST after the other to one URL, over one connection that is kept: what a webhook needs of HTTP, and no more."""

import asyncio
import ssl
from urllib.parse import SplitResult

import httptools

CONNECT_S = 10.0
ANSWER_S = 30.0
"""From the first byte sent to the end of the answer, however slowly it drips."""
BLOCK = 64 * 1024
MOST_ANSWER = 1 << 20
"""Of a longer answer, the rest is not waited for, and the connection is given up."""


class PostFailed(Exception):  # noqa: N818 - what happened
    """The receiver did not take it; the message says how."""


class Poster:
    """A URL, and the connection to it while there is one; used by one task at a time."""

    def __init__(self, url: SplitResult, authorization: str = "") -> None:
        secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if secure else 80)
        self._tls = ssl.create_default_context() if secure else None
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        fields = {
            "Host": url.netloc,
            "User-Agent": "DiOSCAR",
            "Content-Type": "application/json",
            **({"Authorization": authorization} if authorization else {}),
        }
        self._head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> None:
        """Deliver `body`. Raises PostFailed unless the answer is 2xx; a redirection is not followed."""
        reused = self._streams is not None
        try:
            status = await self._exchange(body)
        except _Unanswered:
            if not reused:
                raise
            status = await self._exchange(body)  # a connection that was idle may have been closed meanwhile
        if not 200 <= status <= 299:
            raise PostFailed(f"it answers {status}")

    def close(self) -> None:
        """Give up the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, body: bytes) -> int:
        answer = _Answer()
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await self._connect()
            async with asyncio.timeout(ANSWER_S):
                writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
                while not answer.complete:
                    data = await reader.read(BLOCK)
                    if not data:
                        break
                    answer.feed(data)
        except TimeoutError:
            self.close()
            if not answer.status:
                raise PostFailed("it does not answer in time") from None
        except httptools.HttpParserError:
            self.close()
            if not answer.status:
                raise PostFailed("what it answers is no HTTP") from None
        except (OSError, UnicodeError) as error:  # a host name can be none
            self.close()
            if not answer.status:
                raise _Unanswered(_reason(error)) from None
        except BaseException:
            self.close()
            raise
        if not answer.keeps:
            self.close()
        if not answer.status:
            raise _Unanswered("it closes the connection without an answer")
        return answer.status

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=BLOCK)
        return self._streams


class _Unanswered(PostFailed):
    """The connection failed before there was an answer."""


class _Answer:
    """An answer as it arrives; `status` is 0 until its headers are there."""

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.keeps = False
        self._left = MOST_ANSWER
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._left -= len(data)
        self._parser.feed_data(data)
        if self._left < 0:
            if not self.status:
                raise httptools.HttpParserError("endless headers")
            self.complete, self.keeps = True, False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # before it, "100 Continue" and its like may come
            self.status = status

    def on_message_complete(self) -> None:
        if self.status:
            self.complete, self.keeps = True, self._parser.should_keep_alive()


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS with it fails ({error.reason or error})"
    return f"it cannot be reached ({getattr(error, 'strerror', None) or error})"
