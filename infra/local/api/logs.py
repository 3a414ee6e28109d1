"""`/system/logs`: a service's jobs in OSCAR's phases, and what they printed."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from infra.local import history, jobs
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.engine import Engine
from infra.local.jobs import OSCAR_PHASES, Job
from infra.local.users import policy

PAGE = 70
BATCH = 500
PIECE = 1 << 20


class LogRoutes:
    """OSCAR's view of the queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: Request) -> Response:
        """A page of jobs, newest first; `next_page` goes on where it ended."""
        name, user = request.path_params["service"], request.state.user
        deployed = self._engine.services.get(name)
        if deployed is None:
            return empty(404)
        if not policy.sees_service(user, deployed):
            return text_reply(f"User {user.uid} doesn't have permision to get this service", 403)
        page = request.query_params.get("page", "")
        if page and not (page.isascii() and page.isdecimal() and len(page) < 19):
            return text_reply(f'page "{page}" is not one of ours; take next_page of the page before', 400)
        found = history.find(
            self._engine.database.read,
            {"service": name},
            limit=PAGE + 1,
            before=int(page) if page else None,
            user=policy.named(user),
        )
        reply: dict[str, Any] = {"jobs": {job.id: _status(job) for job in found[:PAGE]}}
        if len(found) > PAGE:
            reply["next_page"] = str(found[PAGE - 1].seq)
        return json_reply(reply)

    async def read(self, request: Request) -> Response:
        """What a job printed; `timestamps=true` puts the time of its start before each line."""
        job = self._job(request)
        if job is None:
            return empty(404)
        stamped = request.query_params.get("timestamps", "").lower() in ("true", "1")
        stamp = f"{_rfc3339(job.started or job.created, 'microseconds')} ".encode() if stamped else b""
        pieces = _stamped(_pieces(self._engine.printed(job), self._engine.log_path(job)), stamp)
        return StreamingResponse(pieces, media_type="text/plain")

    async def delete(self, request: Request) -> Response:
        """Forget one job."""
        job = self._job(request)

        def work(connection: sqlite3.Connection) -> Sequence[str]:
            return self._unpinned(connection, [job.id] if job and jobs.delete(connection, job.id) else [])

        if job is None or not await self._engine.database.write(work, frees=True):
            return empty(404)
        await self._clean(job.service, [job.id])
        return empty(204)

    async def delete_all(self, request: Request) -> Response:
        """Forget the jobs that succeeded, or (`all=true`) all that have ended; also of a service that is gone."""
        name, user = request.path_params["service"], request.state.user
        everything = request.query_params.get("all", "").lower() in ("true", "1")

        def work(connection: sqlite3.Connection) -> Sequence[str]:
            gone = jobs.delete_finished(connection, name, everything=everything, limit=BATCH, user=policy.named(user))
            return self._unpinned(connection, gone)

        deployed = self._engine.services.get(name)
        found = deployed is not None and policy.sees_service(user, deployed)
        while gone := await self._engine.database.write(work, frees=True):
            found = True
            await self._clean(name, gone)
        return empty(204 if found else 404)

    def _unpinned(self, connection: sqlite3.Connection, gone: Sequence[str]) -> Sequence[str]:
        for job_id in gone:
            self._engine.store.unpin(connection, job_id)
        return gone

    async def _clean(self, service: str, gone: Sequence[str]) -> None:
        """Remove the files of jobs that are forgotten."""
        folder = self._engine.logs_of(service)
        await asyncio.to_thread(_unlink, [folder / f"{job_id}.log" for job_id in gone])
        await self._engine.forget_checkpoints(gone)

    def _job(self, request: Request) -> Job | None:
        """The job that the path names, if it is for who asks."""
        job = jobs.get(self._engine.database.read, request.path_params["job"])
        there = job is not None and job.service == request.path_params["service"]
        return job if job is not None and there and policy.sees_job(request.state.user, job) else None


def _status(job: Job) -> dict[str, str]:
    times = {"creation_time": job.created, "start_time": job.started, "finish_time": job.finished}
    return {"status": OSCAR_PHASES[job.state], **{name: _rfc3339(t) for name, t in times.items() if t is not None}}


def _rfc3339(seconds: float, precision: str = "seconds") -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


async def _pieces(printed: bytes, path: Path) -> AsyncIterator[bytes]:
    """A log, a megabyte at a time: what has no file, then the file."""
    if printed:
        yield printed
    try:
        stream = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        return
    with stream:
        while chunk := await asyncio.to_thread(stream.read, PIECE):
            yield chunk


async def _stamped(pieces: AsyncIterator[bytes], stamp: bytes) -> AsyncIterator[bytes]:
    """The same, with `stamp` before each line."""
    at_start = True
    async for chunk in pieces:
        if stamp:
            ends = chunk.endswith(b"\n")
            body = (chunk[:-1] if ends else chunk).replace(b"\n", b"\n" + stamp)
            yield (stamp if at_start else b"") + body + (b"\n" if ends else b"")
            at_start = ends
        else:
            yield chunk
