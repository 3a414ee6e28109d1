"""`/dioscar/v1/schedules`: what runs by itself, for the administrator."""

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from events.schedules import ScheduleError
from fdl.names import did_you_mean
from infra.local.api.authentication import Doors, Handler
from infra.local.api.replies import empty, json_reply
from infra.local.engine import Engine
from infra.local.objects import StoreError
from infra.local.schedules.scheduler import NoSuchSchedule, Scheduler
from infra.local.schedules.shown import shown
from infra.local.schedules.starting import Hindered
from infra.local.schedules.table import Entry

ROOT = "/dioscar/v1/schedules"


class ScheduleRoutes:
    """Schedules over a scheduler."""

    def __init__(self, scheduler: Scheduler, engine: Engine) -> None:
        self._scheduler = scheduler
        self._engine = engine

    def routes(self, doors: Doors) -> list[Route]:
        """All of them, each for the administrator."""

        def route(method: str, path: str, handler: Handler) -> Route:
            return Route(ROOT + path, doors.administrator(_answered(handler)), methods=[method])

        return [
            route("GET", "", self.list),
            route("PUT", "", self.apply),
            route("GET", "/{name}", self.read),
            route("DELETE", "/{name}", self.delete),
            route("POST", "/{name}/run", self.run),
            route("POST", "/{name}/pause", self._turned(self._scheduler.pause)),
            route("POST", "/{name}/resume", self._turned(self._scheduler.resume)),
        ]

    async def list(self, request: Request) -> Response:
        """Every schedule, by name."""
        return json_reply({"schedules": [self._shown(entry.name) for entry in self._scheduler.all()]})

    async def read(self, request: Request) -> Response:
        """One schedule."""
        return json_reply(self._shown(request.path_params["name"]))

    async def apply(self, request: Request) -> Response:
        """Take the schedules of a document, `{"schedules": {NAME: {...}}}`; others stay as they are."""
        try:
            document = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise ScheduleError('the body must be JSON: {"schedules": {NAME: {...}}}') from None
        done = await self._scheduler.apply(document)
        warnings = [
            f"{entry.name}: {warning}"
            for entry in (self._scheduler.get(name) for name in done)
            for warning in self._warnings(entry, done[entry.name])
        ]
        return json_reply({"applied": done, "warnings": warnings})

    async def delete(self, request: Request) -> Response:
        """Forget a schedule."""
        await self._scheduler.delete(request.path_params["name"])
        return empty(204)

    async def run(self, request: Request) -> Response:
        """Run a schedule now."""
        return json_reply({"jobs": await self._scheduler.run(request.path_params["name"])})

    def _turned(self, turn: Callable[[str], Awaitable[None]]) -> Handler:
        async def handler(request: Request) -> Response:
            await turn(request.path_params["name"])
            return json_reply(self._shown(request.path_params["name"]))

        return handler

    def _warnings(self, entry: Entry, done: str) -> Iterator[str]:
        """What keeps a schedule that was just applied from running, as things are."""
        schedule = entry.schedule
        deployed = self._engine.services.get(schedule.service)
        if deployed is None:
            close = did_you_mean(schedule.service, [one.name for one in self._engine.services.all()])
            mend = f"; did you mean {close}?" if close else ""
            yield f"there is no service {schedule.service} yet; it runs from when that is deployed{mend}"
        elif schedule.gather is not None or schedule.model is not None:
            bucket, folder = schedule.inbox
            if deployed not in self._engine.listening(self._engine.database.read, bucket, f"{folder}/a.json"):
                yield f"{schedule.service} does not listen to {bucket}/{folder}; name its input as mailbox"
        store = self._engine.store
        if (
            schedule.gather is not None
            and not self._scheduler.is_elsewhere
            and not store.bucket(schedule.gather.bucket)
        ):
            close = did_you_mean(schedule.gather.bucket, [one.name for one in store.buckets()])
            mend = f"did you mean {close}?" if close else f"`dioscar mb {schedule.gather.bucket}` makes it"
            yield f"there is no bucket {schedule.gather.bucket} now; {mend}"
        if done != "unchanged" and schedule.at is not None and entry.due is None:
            yield f"does not run: {entry.note or 'it has run'}"

    def _shown(self, name: str) -> dict[str, Any]:
        entry = self._scheduler.get(name)
        return shown(self._engine.database.read, entry, self._scheduler.progress(entry))


def _answered(handler: Handler) -> Handler:
    """`handler`, with an answer for what it may not find or do."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except ScheduleError as error:
            return _refused("BadSchedule", str(error), 400)
        except NoSuchSchedule as error:
            return _refused("NoSuchSchedule", f'there is no schedule "{error}"; `dioscar schedule list` has them', 404)
        except (Hindered, StoreError) as error:
            return _refused("Hindered", f"not run: {error}", 409)

    return answering


def _refused(kind: str, message: str, status: int) -> Response:
    return json_reply({"error": {"type": kind, "message": message}}, status)
