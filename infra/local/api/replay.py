"""`/dioscar/v1/replay`: put work back into the queue."""

import json
import time
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.local import jobs
from infra.local.api.replies import json_reply
from infra.local.engine import Engine
from infra.local.external.link import Link
from infra.local.jobs import State
from infra.local.objects import StoreError
from infra.local.replay import JobSpan, NothingToReplay, Replayer
from infra.local.services import NoSuchService
from infra.local.users import policy

KNOWN = {
    "jobs": {"service", "state", "since", "until"},
    "objects": {"bucket", "prefix", "newest", "service", "missing"},
    "missing": set[str](),
}
LATEST_S = 1e12
ENDED = (State.SUCCEEDED, State.DEAD, State.CANCELLED)


class ReplayRoutes:
    """Replays over an engine; each answers how many jobs it put into the queue."""

    def __init__(self, engine: Engine, link: Link | None = None) -> None:
        self._engine = engine
        self._link = link
        self._replayer = Replayer(engine)

    async def job(self, request: Request) -> Response:
        """One job again; a user's, as long as the user sees its service."""
        job, user = jobs.get(self._engine.database.read, request.path_params["job"]), request.state.user
        deployed = self._engine.services.get(job.service) if job is not None else None
        mine = job is not None and policy.sees_job(user, job)
        if job is None or not mine or (deployed is not None and not policy.sees_service(user, deployed)):
            return _refused("NoSuchJob", f'there is no job "{request.path_params["job"]}"', 404)
        try:
            await self._replayer.job(job)
        except NothingToReplay as error:
            return _refused("NothingToReplay", str(error), 409)
        return json_reply({"replayed": 1})

    async def many(self, request: Request) -> Response:
        """`{"jobs": {"service", "state", "since", "until"}}`,
        `{"objects": {"bucket", "prefix" or "newest", "service", "missing"}}`, or `{"missing": {}}`: all mailboxes."""
        try:
            kind, options = _read(await request.body())
            count = await self._replay(kind, options)
        except ValueError as error:
            return _refused("BadRequest", str(error), 400)
        except NoSuchService as error:
            return _refused("NoSuchService", f'there is no service "{error}"; deploy it first', 404)
        except StoreError as error:
            return _refused(error.code, str(error), 404)
        return json_reply({"replayed": count})

    async def _replay(self, kind: str, options: dict[str, Any]) -> int:
        if kind == "missing":
            return await self._replayer.missing() if self._link is None else await self._link.reconcile()
        service = _text(options, "service", "")
        if service and self._engine.services.get(service) is None:
            raise NoSuchService(service)
        if kind == "objects":
            bucket, newest = _text(options, "bucket"), _newest(options)
            heard = await self._hear(bucket, newest or {})
            return len(heard) + await self._replayer.objects(
                bucket,
                _text(options, "prefix", ""),
                newest=newest,
                service=service,
                missing=bool(options.get("missing", False)),
            )
        state = _text(options, "state", State.DEAD)
        if state not in ENDED:
            raise ValueError(f'state: "{state}" is none that a job ends in; write one of {", ".join(ENDED)}')
        return await self._replayer.span(
            JobSpan(
                service,
                state,
                _number(options, "since", 0.0),
                _number(options, "until", time.time() + 1),
            )
        )

    async def _hear(self, bucket: str, keys: Iterable[str]) -> set[str]:
        """Of objects in another store: those that had not been heard of, and have their first jobs now."""
        if self._link is None:
            return set()
        return {key for key in keys if await self._link.intake.notice(bucket, key)}


def _read(body: bytes) -> tuple[str, dict[str, Any]]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or len(document) != 1 or next(iter(document)) not in KNOWN:
        raise ValueError('the body must be {"jobs": {...}}, {"objects": {...}} or {"missing": {}}')
    kind, options = next(iter(document.items()))
    if not isinstance(options, dict):
        raise ValueError(f"{kind}: is no object; write {{...}}")
    for name in options:
        if name not in KNOWN[kind]:
            raise ValueError(f'{kind}: "{name}" is no key here; known are {", ".join(sorted(KNOWN[kind])) or "none"}')
    return kind, options


def _text(options: dict[str, Any], name: str, default: str | None = None) -> str:
    value = options.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name}: is missing or no text; add it")
    return value


def _newest(options: dict[str, Any]) -> dict[str, str] | None:
    value = options.get("newest")
    if value is None:
        return None
    if not (isinstance(value, dict) and all(isinstance(job, str) for job in value.values())):
        raise ValueError(
            "newest: is no object of keys and the newest job of each; write {KEY: JOB}, JOB empty for none"
        )
    if "prefix" in options:
        raise ValueError("newest: stands beside a prefix; write one of them")
    if not options.get("service"):
        raise ValueError("newest: is of one service; name it in service")
    return value


def _number(options: dict[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}: {json.dumps(value)} is no time in Unix seconds")
    if abs(value) > LATEST_S:
        raise ValueError(f"{name}: is no time in Unix seconds")
    return float(value)


def _refused(kind: str, message: str, status: int) -> Response:
    return json_reply({"error": {"type": kind, "message": message}}, status)
