"""An exposed service: echoes requests, streams numbers, and answers on a websocket."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


@dataclass(frozen=True)
class Settings:
    greeting: str = "hello"
    pause_s: float = 0.0
    """Between two numbers of a stream."""


def numbers(start: int) -> Iterator[int]:
    """The core of the twin: pure, and the same for both forms."""
    while True:
        yield start
        start += 1


def app(settings: Settings) -> Any:
    open_streams = 0

    async def echo(request: Request) -> Response:
        size, first = 0, b""
        async for chunk in request.stream():
            size += len(chunk)
            first = first or chunk[:64]
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.scope["headers"]]
        facts = {
            "greeting": settings.greeting,
            "method": request.method,
            "path": request.url.path,
            "raw_path": request.scope["raw_path"].decode(),
            "query": request.url.query,
            "root_path": request.scope["root_path"],
            "url": str(request.url_for("echo", rest="x")),
            "headers": headers,
            "size": size,
            "first": first.decode("latin-1"),
            "pid": os.getpid(),
        }
        return JSONResponse(facts, headers={"X-Answer": "yes", "Connection": "X-Secret", "X-Secret": "hop by hop"})

    async def stream(request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            nonlocal open_streams
            open_streams += 1
            try:
                for number in numbers(0):
                    yield f"data: {number}\n\n"
                    await asyncio.sleep(settings.pause_s)
            finally:
                open_streams -= 1

        return StreamingResponse(events(), media_type="text/event-stream")

    async def count(request: Request) -> Response:
        return JSONResponse({"open_streams": open_streams})

    async def large(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(int(request.query_params["mib"])):
                yield bytes(1 << 20)

        return StreamingResponse(pieces(), headers={"Content-Length": str(int(request.query_params["mib"]) << 20)})

    async def status(request: Request) -> Response:
        code = int(request.path_params["code"])
        response = Response("" if code in (204, 304) else "said so", code, {"Location": "/elsewhere"})
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    async def broken(request: Request) -> Response:
        async def half() -> AsyncIterator[bytes]:
            yield b"half"
            os.kill(os.getpid(), 9)

        return StreamingResponse(half(), headers={"Content-Length": "8"})

    async def refuse_early(request: Request) -> Response:
        return PlainTextResponse("too large", 413, {"Connection": "close"})

    async def slow(request: Request) -> Response:
        await asyncio.sleep(float(request.query_params["s"]))
        return PlainTextResponse("at last")

    async def reach(request: Request) -> Response:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(request.query_params["port"]))
        except OSError as error:
            return PlainTextResponse(error.strerror or "nothing")
        writer.close()
        return PlainTextResponse("reached")

    async def socket(websocket: WebSocket) -> None:
        wanted = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=wanted[0] if wanted else None, headers=[(b"x-answer", b"yes")])
        await websocket.send_json(
            {"path": websocket.url.path, "headers": [k.decode() for k, _ in websocket.scope["headers"]]}
        )
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                Path("closed").write_text(str(message["code"]))
                return
            if message.get("text") == "bye":
                await websocket.close(4321, "as you wish")
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"].upper())
            else:
                await websocket.send_bytes(message["bytes"][::-1])

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        print(f"{settings.greeting}, here I am", flush=True)
        yield
        print("good night", flush=True)

    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/", lambda _: PlainTextResponse("here")),
            Route("/stream", stream),
            Route("/count", count),
            Route("/large", large),
            Route("/status/{code}", status),
            Route("/broken", broken),
            Route("/refuse", refuse_early, methods=["POST"]),
            Route("/slow", slow),
            Route("/reach", reach),
            WebSocketRoute("/socket", socket),
            Route("/{rest:path}", echo, methods=every, name="echo"),
        ],
        lifespan=lifespan,
    )
