"""Which job is taken up when: due, in the order of its key, within its service's limit, and services in turn."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from infra.local import due
from infra.local.database import Database
from infra.local.jobs import LATEST_S, Job
from infra.local.services import Deployed, Services
from infra.local.slots import Slots

log = logging.getLogger("dioscar.jobs")

AHEAD = 2
"""Jobs of a service that are staged while others run, so that a slot is never idle for want of a file."""
STORING = 32
"""Jobs of a service whose outputs are being stored; a slot is for running, not for waiting on a disk."""
AWAY = 256
"""Jobs at once that run on other machines."""
REST_S = 1.0
"""How long a job rests after the engine itself has failed with it."""


class Dispatcher:
    """Takes up jobs and hands each to `attempt`; belongs to one event loop."""

    def __init__(
        self,
        database: Database,
        services: Services,
        slots: int,
        attempt: Callable[[Deployed, Job], Awaitable[None]],
        is_away: Callable[[Deployed], bool] = lambda deployed: False,
    ) -> None:
        """`is_away` tells whether a service's jobs run on another machine, and need no place on this one."""
        self._database = database
        self._services = services
        self._attempt = attempt
        self._total = slots
        self._slots = Slots(slots)
        self._away = Slots(AWAY)
        self._is_away = is_away
        self._left_alone: set[int] = set()
        self._open = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._taken: dict[str, set[int]] = {}
        self._before: dict[str, set[int]] = {}
        self._woken: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._prompt: set[str] = set()
        self._writing: set[asyncio.Future[None]] = set()

    def start(self) -> None:
        """Take up what is there."""
        self._open = True
        for deployed in self._services.all():
            self.wake(deployed.name)

    async def stop(self, patience_s: float) -> None:
        """Start nothing more, wait a while for what runs here, and leave the rest to the next start."""
        self._open = False
        for timer in self._timers.values():
            timer.cancel()
        for seq in self._left_alone:
            self._tasks[seq].cancel()
        running = list(self._tasks.values())
        if running:
            await asyncio.wait(running, timeout=patience_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def wake(self, service: str) -> None:
        """Look for work of a service soon; many calls in a row are one look."""
        if not self._woken:
            asyncio.get_running_loop().call_soon(self._look)
        self._woken.add(service)

    def delayed(self, service: str) -> None:
        """A job of the service waits for its time now: it is to be woken for it."""
        self._prompt.discard(service)
        self.wake(service)

    def cancel(self, job: Job) -> None:
        """End what is done about a job just now."""
        task = self._tasks.get(job.seq)
        if task is not None:
            task.cancel()

    def cancel_service(self, service: str) -> None:
        """End what is done about any job of a service."""
        for seq in list(self._taken.get(service, ())):
            self._tasks[seq].cancel()

    @asynccontextmanager
    async def slot(self, deployed: Deployed, job: Job) -> AsyncIterator[None]:
        """A place to run in, within the limits of the service and of the machine."""
        away = self._is_away(deployed)
        async with (self._away if away else self._slots).place(deployed.name, self._limit(deployed)):
            if not self._open:
                raise asyncio.CancelledError  # the cluster is stopping: the next start takes it up
            if away:
                self._left_alone.add(job.seq)
            try:
                yield
            finally:
                self._left_alone.discard(job.seq)
                self._before[job.service].discard(job.seq)
                self.wake(job.service)

    def _limit(self, deployed: Deployed) -> int:
        most = AWAY if self._is_away(deployed) else self._total
        return min(deployed.settings.concurrency or most, most)

    def _look(self) -> None:
        woken, self._woken = self._woken, set()
        for service in woken:
            self._dispatch(service)

    def _dispatch(self, service: str) -> None:
        deployed = self._services.get(service)
        if not self._open or deployed is None:
            return
        taken = self._taken.setdefault(service, set())
        before = self._before.setdefault(service, set())
        room = min(self._limit(deployed) + AHEAD - len(before), STORING - (len(taken) - len(before)))
        now = time.time()
        if room > 0:
            for job in due.ready(self._database.read, service, now, limit=room, taken=taken):
                taken.add(job.seq)
                before.add(job.seq)
                task = asyncio.ensure_future(self._attempt(deployed, job))
                self._tasks[job.seq] = task
                task.add_done_callback(lambda task, job=job: self._ended(task, job))  # type: ignore[misc]
        self._arm(service, now)

    def _arm(self, service: str, now: float) -> None:
        """Wake the service when the next of its jobs that wait for their time is due."""
        if service in self._prompt:
            return
        timer = self._timers.pop(service, None)
        if timer is not None:
            timer.cancel()
        when = due.next_due(self._database.read, service, now)
        if when is None:
            self._prompt.add(service)
        elif when - now > LATEST_S:
            self._set_back(service, now)
        else:
            delay = max(0.0, when - now) + 0.001
            self._timers[service] = asyncio.get_running_loop().call_later(delay, self.wake, service)

    def _set_back(self, service: str, now: float) -> None:
        """The clock was set back by hours: what waits for its time is not to wait for those too."""

        def work(connection: sqlite3.Connection) -> None:
            due.set_back(connection, service, now)
            self._database.after_commit(lambda: self.wake(service))

        writing = asyncio.ensure_future(self._database.write(work))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    def _ended(self, task: "asyncio.Future[None]", job: Job) -> None:
        del self._tasks[job.seq]
        self._before[job.service].discard(job.seq)
        if task.cancelled() or task.exception() is None:
            self._release(job)
            return
        log.error("job %s: the engine failed", job.id, exc_info=task.exception())
        asyncio.get_running_loop().call_later(REST_S, self._release, job)

    def _release(self, job: Job) -> None:
        self._taken[job.service].discard(job.seq)
        self.wake(job.service)
