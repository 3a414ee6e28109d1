"""What comes back from a URL that something is posted to, in all the ways in which servers answer."""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from infra.local import posting
from infra.local.posting import Poster, PostFailed

OK = b"HTTP/1.1 200 OK\r\n"


def post(*answers: bytes, times: int = 1, ends: bool = True) -> list[str]:
    """What becomes of some posts to a server that answers each connection with the next of these, and then waits."""

    async def run() -> list[str]:
        waiting = list(answers)
        done = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(waiting.pop(0))
            await writer.drain()
            if not ends:
                await done.wait()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        poster = Poster(urlsplit(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        results = [await _result(poster.post, b"{}") for _ in range(times)]
        poster.close()
        done.set()
        server.close()
        await server.wait_closed()
        return results

    return asyncio.run(run())


async def _result(function: Callable[[bytes], Awaitable[None]], body: bytes) -> str:
    try:
        await function(body)
    except PostFailed as error:
        return str(error)
    return "delivered"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"\r\nuntil it closes",
        OK + b"Content-Length: 100\r\n\r\nless than it said",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 202 Accepted\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nno number\r\n",
        OK + b"Content-Length: 3000000\r\n\r\n" + b"x" * 2_000_000,
    ],
)
def test_an_answer_of_2xx_is_a_delivery_whatever_follows(answer: bytes) -> None:
    assert post(answer) == ["delivered"]


@pytest.mark.parametrize(
    "answer, reason",
    [
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "it answers 301"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "it answers 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what it answers is no HTTP"),
        (b"", "it closes the connection without an answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "it closes the connection without an answer"),
        (OK + b"X: " + b"x" * 2_000_000, "what it answers is no HTTP"),
    ],
)
def test_everything_else_is_none(answer: bytes, reason: str) -> None:
    assert post(answer) == [reason]


def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    answer = OK + b"Content-Length: 0\r\n\r\n"
    assert post(answer, answer, times=2) == ["delivered", "delivered"]


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "ANSWER_S", 0.1)
    assert post(b"HTTP/1.1", ends=False) == ["it does not answer in time"]
    assert post(OK + b"Content-Length: 9\r\n\r\n", ends=False) == ["delivered"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-host.invalid/", "http://a..b/"])
def test_who_cannot_be_reached(url: str) -> None:
    assert asyncio.run(_result(Poster(urlsplit(url)).post, b"")).startswith("it cannot be reached (")
