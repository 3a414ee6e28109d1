"""`/run` and `/job`: call a service and wait, or leave it work.

Both are called a thousand times a second, so they stand before the router, on ASGI itself.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.local.api.authentication import Callers, refused
from infra.local.api.replies import empty, json_reply
from infra.local.attempts import Reply
from infra.local.engine import Engine
from infra.local.executors import Ended
from infra.local.executors.process import TIMED_OUT
from infra.local.services import NoSuchService
from infra.local.users.users import Users
from layers.runtime.contract import Exit, InputError

LARGEST_BODY = 256 * 2**20
LISTEN_S = 0.1
"""A call that lasts longer is ended when its client goes; a shorter one is over before anybody would notice."""
HANDLED = ("/run/", "/job/")
CALLER = "dioscar.caller"
"""Where in a request's scope the user stands who calls; nobody, where a service's token does."""


class Invocations:
    """Synchronous and asynchronous calls over an engine; everything else goes to `others`."""

    def __init__(
        self, engine: Engine, others: ASGIApp, failed: Callable[[Exception], Response], users: Users | None = None
    ) -> None:
        self._engine = engine
        self._callers = Callers(engine.services, users)
        self._others = others
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope.get("path", "")
        if not path.startswith(HANDLED) or scope.get("method") != "POST" or "/" in path[5:]:
            await self._others(scope, receive, send)
            return
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        answer = self._run if path.startswith("/run/") else self._job
        response: ASGIApp | None
        try:
            response = await answer(path[5:], headers, receive, scope)
        except ClientDisconnect:
            return
        except Exception as error:
            response = self._failed(error)
        if response is not None:
            await response(scope, receive, send)

    async def _run(
        self, service: str, headers: Mapping[bytes, bytes], receive: Receive, scope: Scope
    ) -> ASGIApp | None:
        """The function's reply (base64), or `{"error": {"type", "message"}}` with a 4xx or 5xx; None: nobody waits."""
        called = await self._callers.called(headers, service)
        if isinstance(called, Response):
            return called
        deployed, user = called
        scope[CALLER] = user and user.uid
        try:
            reply = await _while_listening(receive, self._engine.call(deployed, await _body(receive)))
        except InputError as error:
            return _error(Ended(Exit.BAD_INPUT, "InputError", str(error)))
        if reply is None:
            return None
        if reply.ended.code != Exit.DONE:
            return _error(reply.ended)
        return _Plain(reply.body, headers.get(b"content-type", b"text/plain"))

    async def _job(self, service: str, headers: Mapping[bytes, bytes], receive: Receive, scope: Scope) -> ASGIApp:
        """201 with an empty body, as OSCAR; the job's id is in the header `X-Dioscar-Job`."""
        called = await self._callers.called(headers, service)
        if isinstance(called, Response):
            return called
        deployed, user = called
        scope[CALLER] = user and user.uid
        try:
            job = await self._engine.submit(deployed, await _body(receive), user.uid if user else "")
        except InputError as error:
            return _error(Ended(Exit.BAD_INPUT, "InputError", str(error)))
        except NoSuchService:
            return refused(service)
        response = empty(201)
        response.headers["X-Dioscar-Job"] = job.id
        return response


class _Plain:
    """A reply with nothing to it but a status, a type and a length."""

    def __init__(self, body: bytes, content_type: bytes) -> None:
        self._body = body
        self._headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})


async def _while_listening(receive: Receive, call: Coroutine[Any, Any, Reply]) -> Reply | None:
    """The reply, or None where the client has gone: nobody waits for the run any more, so it is ended."""
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    assert running is not None
    gone = False
    listening: list[asyncio.Task[None]] = []

    async def listen() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        running.cancel()

    timer = loop.call_later(LISTEN_S, lambda: listening.append(loop.create_task(listen())))
    try:
        return await call
    except asyncio.CancelledError:
        if not gone:
            raise
        running.uncancel()
        return None
    finally:
        timer.cancel()
        for task in listening:
            task.cancel()


async def _body(receive: Receive) -> bytes:
    """Raises InputError where the body is too large, ClientDisconnect where it does not come whole."""
    chunks, size = [], 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > LARGEST_BODY:
            raise InputError(
                f"the body is larger than {LARGEST_BODY >> 20} MiB; upload the file to the service's bucket"
            )
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _error(ended: Ended) -> Response:
    statuses = {Exit.BAD_INPUT: HTTPStatus.BAD_REQUEST, Exit.AGAIN: HTTPStatus.SERVICE_UNAVAILABLE}
    status = statuses.get(Exit(ended.code)) if ended.code in statuses else None
    if ended.code == TIMED_OUT:
        status = HTTPStatus.GATEWAY_TIMEOUT
    status = status or HTTPStatus.INTERNAL_SERVER_ERROR
    return json_reply({"error": {"type": ended.error, "message": ended.message}}, status)
