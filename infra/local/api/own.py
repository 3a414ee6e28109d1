"""`/dioscar/v1`: what OSCAR has no route for."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from infra.local import history, jobs
from infra.local.api.nodes import Nodes
from infra.local.api.replies import json_reply
from infra.local.backup import BackupError, back_up
from infra.local.engine import Engine
from infra.local.interlink import record
from infra.local.jobs import OPEN, Job, State
from infra.local.users import policy
from infra.local.webhooks import Webhooks

MOST = 1000
POLL_S = 0.1
LARGEST_EVENT = 1 << 20


class OwnRoutes:
    """The queue and the cluster, as the CLI shows them."""

    def __init__(self, engine: Engine, webhooks: Webhooks, data: Path) -> None:
        self._engine = engine
        self._webhooks = webhooks
        self._data = data
        self._nodes = Nodes(engine.interlink)
        self._began = time.monotonic()

    async def jobs(self, request: Request) -> Response:
        """The newest jobs that are for who asks, by `service`, `state`, `bucket` and `key`."""
        query = request.query_params
        where = {name: query[name] for name in ("service", "state", "bucket", "key") if query.get(name)}
        if "state" in where and where["state"] not in list(State):
            return _refused(f'state "{where["state"]}" is none; known are {", ".join(State)}', 400)
        limit = query.get("limit", "100")
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 10):
            return _refused(f'limit "{limit}" is no whole number', 400)
        user = policy.named(request.state.user)
        found = history.find(self._engine.database.read, where, limit=min(int(limit), MOST), user=user)
        return json_reply({"jobs": [self._shown(job) for job in found]})

    async def job(self, request: Request) -> Response:
        """One job with everything that happened to it."""
        job = self._find(request)
        if job is None:
            return _missing(request)
        read = self._engine.database.read
        following = (jobs.get(read, other) for other in history.triggered(read, job))
        return json_reply(
            {
                **self._shown(job),
                **_event(jobs.body(read, job)),
                "node": record.node_of(read, job.id),
                "transitions": history.transitions(read, job),
                "triggered": [other.id for other in following if other and policy.sees_job(request.state.user, other)],
            }
        )

    async def cancel(self, request: Request) -> Response:
        """End a job that waits or runs."""
        job = self._find(request)
        if job is None:
            return _missing(request)
        return json_reply({"cancelled": await self._engine.cancel(job)})

    async def log(self, request: Request) -> Response:
        """A job's output; with `follow=1`, until it ends."""
        job = self._find(request)
        if job is None:
            return _missing(request)
        follow = request.query_params.get("follow", "") in ("1", "true")
        return StreamingResponse(self._lines(job, follow=follow), media_type="text/plain")

    async def status(self, request: Request) -> Response:
        """The cluster at a glance."""
        read = self._engine.database.read
        objects, size = self._engine.store.totals()
        return json_reply(
            {
                "version": version("dioscar"),
                "data": str(self._data),
                "uptime_s": round(time.monotonic() - self._began, 3),
                "services": len(self._engine.services.all()),
                "jobs": history.counts(read),
                "objects": objects,
                "bytes": size,
                "workers": self._engine.workers(),
                "webhooks": self._webhooks.queued(),
                "nodes": await self._node_states(),
            }
        )

    async def _node_states(self) -> list[dict[str, Any]]:
        """The interLink nodes; the cluster's own, which it starts at the first job, is not asked whether it answers."""
        if self._engine.interlink is None:
            return []
        ready = {one["name"]: one["status"] == "Ready" for one in await self._nodes.shown()}
        nodes = self._engine.interlink.nodes.values()
        return [{"name": node.name, "url": node.url, "reachable": ready.get(node.name)} for node in nodes]

    async def models(self, request: Request) -> Response:
        """Which model versions serve, registry by registry, and which promotions cannot be followed."""
        return json_reply({"registries": await self._engine.models.summary()})

    async def backup(self, request: Request) -> Response:
        """Copy the cluster, while it runs, to the folder in `{"to": PATH}` on its own machine."""
        try:
            document = json.loads(await request.body())
            target = Path(document["to"])
        except (ValueError, KeyError, TypeError):
            return _refused('the body must be {"to": "/a/new/folder"}', 400)
        try:
            made = await back_up(self._data, self._engine.database, self._engine.store.blobs, target)
        except BackupError as error:
            return _refused(str(error), 400)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            return _refused(f"{document['to']!a}: the copy was given up ({error}); nothing of it was kept", 507)
        return json_reply(asdict(made))

    async def metrics(self, request: Request) -> Response:
        """What Prometheus scrapes."""
        return Response(self._engine.metrics.text(), media_type="text/plain; version=0.0.4")

    def _find(self, request: Request) -> Job | None:
        """The job that the path names, if it is for who asks."""
        job = jobs.get(self._engine.database.read, request.path_params["job"])
        return job if job is not None and policy.sees_job(request.state.user, job) else None

    def _shown(self, job: Job) -> dict[str, Any]:
        found = history.outputs(self._engine.database.read, job) if job.state == State.SUCCEEDED else []
        return {
            "id": job.id,
            "service": job.service,
            "state": job.state,
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "bucket": job.bucket,
            "key": job.key,
            "created": job.created,
            "started": job.started,
            "finished": job.finished,
            "exit_code": job.exit_code,
            "reason": job.reason,
            "run_key": job.run_key,
            "progress": self._engine.progress(job),
            "outputs": [{"bucket": o.bucket, "key": o.key, "size": o.size, "sha256": o.sha256} for o in found],
        }

    async def _lines(self, job: Job, *, follow: bool) -> AsyncIterator[bytes]:
        """The log's bytes; while following, what comes until the job has ended."""
        path, offset = self._engine.log_path(job), 0
        while True:
            now = jobs.get(self._engine.database.read, job.id)
            ended = now is None or now.state not in OPEN
            printed = self._engine.printed(job)
            if offset < len(printed):
                chunk = printed[offset:]
            else:
                chunk = await asyncio.to_thread(_read_from, path, offset - len(printed))
            offset += len(chunk)
            if chunk:
                yield chunk
            elif ended or not follow:
                return
            else:
                await asyncio.sleep(POLL_S)


def _event(body: bytes) -> dict[str, Any]:
    """What made a job: a notification as it came, or how much a direct call brought."""
    try:
        document = json.loads(body) if len(body) <= LARGEST_EVENT else None
        event = document if isinstance(document, dict) and "Records" in document else None
    except (ValueError, RecursionError):
        event = None
    return {"event": event, "body_bytes": len(body)}


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(1 << 20)
    except FileNotFoundError:
        return b""


def _refused(message: str, status: int) -> Response:
    return json_reply({"error": {"type": "BadRequest", "message": message}}, status)


def _missing(request: Request) -> Response:
    message = f'there is no job "{request.path_params["job"]}"; `dioscar jobs` lists them'
    return json_reply({"error": {"type": "NoSuchJob", "message": message}}, 404)
