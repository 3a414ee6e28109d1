"""`/system/logs`: a service's jobs in OSCAR's phases, and what they printed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.local import jobs
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.engine import Engine
from infra.local.jobs import OSCAR_PHASES, Job

PAGE = 70


class LogRoutes:
    """OSCAR's view of the queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: Request) -> Response:
        """A page of jobs, newest first; `next_page` goes on where it ended."""
        name = request.path_params["service"]
        if self._engine.services.get(name) is None:
            return empty(404)
        page = request.query_params.get("page", "")
        if page and not page.isdigit():
            return text_reply(f'page "{page}" is not one of ours; take next_page of the page before', 400)
        found = jobs.find(
            self._engine.database.read, {"service": name}, limit=PAGE + 1, before=int(page) if page else None
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
        text = _read(self._engine.log_path(job))
        if request.query_params.get("timestamps", "").lower() in ("true", "1"):
            stamp = _rfc3339(job.started or job.created, "microseconds")
            text = "".join(f"{stamp} {line}" for line in text.splitlines(keepends=True))
        return Response(text, media_type="text/plain")

    async def delete(self, request: Request) -> Response:
        """Forget one job."""
        job = self._job(request)
        if job is None or not await self._forget(job.id):
            return empty(404)
        self._engine.log_path(job).unlink(missing_ok=True)
        return empty(204)

    async def delete_all(self, request: Request) -> Response:
        """Forget the jobs that succeeded, or (`all=true`) all that have ended."""
        name = request.path_params["service"]
        if self._engine.services.get(name) is None:
            return empty(404)
        everything = request.query_params.get("all", "").lower() in ("true", "1")

        def work(connection: Any) -> Any:
            gone = jobs.delete_finished(connection, name, everything=everything)
            for job_id in gone:
                self._engine.store.unpin(connection, job_id)
            return gone

        for job_id in await self._engine.database.write(work):
            (self._engine.logs_of(name) / f"{job_id}.log").unlink(missing_ok=True)
        return empty(204)

    def _job(self, request: Request) -> Job | None:
        job = jobs.get(self._engine.database.read, request.path_params["job"])
        return job if job is not None and job.service == request.path_params["service"] else None

    async def _forget(self, job_id: str) -> bool:
        def work(connection: Any) -> bool:
            gone = jobs.delete(connection, job_id)
            if gone:
                self._engine.store.unpin(connection, job_id)
            return gone

        return await self._engine.database.write(work)


def _status(job: Job) -> dict[str, str]:
    times = {"creation_time": job.created, "start_time": job.started, "finish_time": job.finished}
    return {"status": OSCAR_PHASES[job.state], **{name: _rfc3339(t) for name, t in times.items() if t is not None}}


def _rfc3339(seconds: float, precision: str = "seconds") -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
