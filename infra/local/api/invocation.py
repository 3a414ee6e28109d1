"""`/run` and `/job`: call a service and wait, or leave it work."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.local.api.authentication import by_token, refused
from infra.local.api.replies import empty, json_reply
from infra.local.engine import Engine, Reply
from infra.local.executors import Ended
from infra.local.executors.process import TIMED_OUT
from infra.local.services import NoSuchService
from layers.runtime.contract import Exit, InputError

LARGEST_BODY = 256 * 2**20
GONE = 499
"""The status that nobody reads: the client has closed its connection."""


class InvocationRoutes:
    """Synchronous and asynchronous calls over an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, request: Request) -> Response:
        """The function's reply (base64), or `{"error": {"type", "message"}}` with a 4xx or 5xx."""
        deployed = by_token(request, self._engine.services)
        if deployed is None:
            return refused(request)
        try:
            reply = await _while_listening(request, self._engine.call(deployed, await _body(request)))
        except InputError as error:
            return _error(Ended(Exit.BAD_INPUT, "InputError", str(error)))
        if reply is None:
            return empty(GONE)
        if reply.ended.code != Exit.DONE:
            return _error(reply.ended)
        return Response(reply.body, media_type=request.headers.get("content-type", "text/plain"))

    async def job(self, request: Request) -> Response:
        """201 with an empty body, as OSCAR; the job's id is in the header `X-Dioscar-Job`."""
        deployed = by_token(request, self._engine.services)
        if deployed is None:
            return refused(request)
        try:
            job = await self._engine.submit(deployed, await _body(request))
        except InputError as error:
            return _error(Ended(Exit.BAD_INPUT, "InputError", str(error)))
        except NoSuchService:
            return refused(request)
        response = empty(201)
        response.headers["X-Dioscar-Job"] = job.id
        return response


async def _while_listening(request: Request, call: Coroutine[Any, Any, Reply]) -> Reply | None:
    """The reply, or None where the client has gone: nobody waits for the run any more, so it is ended."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    running, leaving = asyncio.ensure_future(call), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await running if running.done() else None
    finally:
        for task in (running, leaving):
            task.cancel()
        await asyncio.gather(running, leaving, return_exceptions=True)


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LARGEST_BODY:
            raise InputError(
                f"the body is larger than {LARGEST_BODY >> 20} MiB; upload the file to the service's bucket"
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _error(ended: Ended) -> Response:
    statuses = {Exit.BAD_INPUT: HTTPStatus.BAD_REQUEST, Exit.AGAIN: HTTPStatus.SERVICE_UNAVAILABLE}
    status = statuses.get(Exit(ended.code)) if ended.code in statuses else None
    if ended.code == TIMED_OUT:
        status = HTTPStatus.GATEWAY_TIMEOUT
    status = status or HTTPStatus.INTERNAL_SERVER_ERROR
    return json_reply({"error": {"type": ended.error, "message": ended.message}}, status)
