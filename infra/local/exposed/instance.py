"""An exposed service as the cluster keeps it: started, watched, started again, and put to sleep where it may."""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from infra.local.executors.confinement import Confinement
from infra.local.executors.limits import Limits
from infra.local.exposed import health
from infra.local.exposed.log import ServiceLog
from infra.local.exposed.ports import Ports, is_listened_on_by_another
from infra.local.exposed.process import Address, Ended, Process
from infra.local.exposed.upstream import Upstream
from infra.local.services import Deployed
from layers.runtime.contract import InputError

IDLE_S = 300.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
"""Pauses before a service that has ended is started again; they double."""
STEADY_S = 60.0
"""A service that was ready for so long has recovered: its next end counts as the first."""
FAILED_AFTER = 5
"""Ends in a row after which a service counts as failed; it is started again all the same."""
WAIT_S = 60.0
"""How long a request waits for a service that is being started."""
SOON_S = 5.0
"""A request does not wait for a service that is to be started later than that."""
BACKLOG = 1024
CONTAINER = "container"

log = logging.getLogger("dioscar.exposed")


class State(StrEnum):
    """OSCAR's states of a deployment."""

    PENDING = "pending"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Status:
    """The state, why it is that, since when (Unix seconds), and whether a process is there."""

    state: State
    reason: str
    since: float
    running: bool = False


class Unavailable(Exception):  # noqa: N818 - an answer, not a defect
    """A request cannot be passed on: the HTTP status to answer it with, a sentence, and when to come again."""

    def __init__(self, status: int, sentence: str, retry_s: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_s = retry_s


class Instance:
    """One exposed service of one cluster; belongs to one event loop."""

    def __init__(
        self,
        deployed: Deployed,
        data: Path,
        bounds: tuple[Limits, Confinement],
        upstream: Upstream,
        ports: Ports,
        *,
        app: bool,
        demanded: str | None = None,
    ) -> None:
        """`app`: the contract's form, no script that listens; `demanded`: the executor that the cluster insists on."""
        self.deployed = deployed
        self._demanded = demanded
        self._data = data
        self._folder = folder_of(data, deployed)
        self._bounds = bounds
        self._upstream = upstream
        self._ports = ports
        self._app = app
        self.log = ServiceLog(self._folder / "log")
        self._own: Address | None = None
        self._entry = -1
        self._address = Address()
        self._halted = self._mark.exists()
        self._closed = False
        self._wanted = asyncio.Event()
        self._uses = 0
        self._used = time.monotonic()
        self._next_start = 0.0
        self._ready_since: float | None = None
        self._changed = asyncio.Event()
        self._status = Status(State.STOPPED, "Deployment is stopped.", time.time())
        self._keeping: asyncio.Task[None] | None = None
        self._order = asyncio.Lock()

    @property
    def status(self) -> Status:
        """How it is."""
        return self._status

    @property
    def address(self) -> Address:
        """Where the process that is ready is asked."""
        return self._address

    async def start(self) -> None:
        """Run, unless it runs already; also what was stopped."""
        async with self._order:
            self._halted = False
            self._mark.unlink(missing_ok=True)
            self._wanted.set()
            self._begin()

    async def stop(self) -> None:
        """Let requests under way end, and stay stopped, over restarts of the cluster too."""
        async with self._order:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mark.touch()
            self._halted = True
            self._set(State.STOPPED, "Deployment is stopped.")
            await self._end()

    async def replace(self, deployed: Deployed, *, app: bool) -> None:
        """Run as `deployed` says from now on; what is stopped stays so."""
        self.deployed, self._app = deployed, app
        await self.restart()

    async def restart(self) -> None:
        """End the process and start another; requests that come meanwhile wait. What is stopped stays so."""
        if not self._halted and not self._closed:
            self._set(State.PENDING, "is being started anew")
        async with self._order:
            await self._end()
            self._begin()

    async def close(self, *, remove: bool) -> None:
        """End for good; `remove`: with its folder and its log."""
        self._closed = True
        self._set(State.STOPPED, "Deployment is stopped.")
        async with self._order:
            await self._end()
            if self._own is not None and self._own.listener is not None:
                self._own.listener.close()
                await self._upstream.forget(self._own.path)
                os.close(self._entry)
            if remove:
                await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def ready(self) -> None:
        """Wait until it takes requests, starting it where it sleeps. Raises Unavailable."""
        self._wanted.set()
        name, give_up = self.deployed.name, time.monotonic() + WAIT_S
        look = f"GET /system/services/{name}/deployment says why"
        while self._status.state not in (State.READY, State.DEGRADED):
            if self._closed:
                raise Unavailable(503, f"{name} is going away")
            if self._halted:
                raise Unavailable(503, f"{name} is stopped; POST /system/services/{name}/start starts it")
            later = self._next_start - time.monotonic()
            if self._status.state == State.FAILED or later > SOON_S:
                raise Unavailable(503, f"{name} does not run; {look}", max(1.0, later))
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), give_up - time.monotonic())
            except TimeoutError:
                raise Unavailable(504, f"{name} was not ready within {WAIT_S:g} s; {look}") from None

    @contextmanager
    def use(self) -> Iterator[None]:
        """While a request is under way, the service is not idle."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self._used = time.monotonic()

    @property
    def _mark(self) -> Path:
        return self._folder / "stopped"

    @property
    def _sleeps(self) -> bool:
        return self.deployed.service.expose.min_scale == 0

    def _idle_for(self) -> float:
        return 0.0 if self._uses else time.monotonic() - self._used

    def _set(self, state: State, reason: str, *, running: bool = False) -> None:
        if (state, reason, running) != (self._status.state, self._status.reason, self._status.running):
            self._status = Status(state, reason, time.time(), running)
            self._changed.set()
            self._changed = asyncio.Event()

    def _begin(self) -> None:
        over = self._keeping is None or self._keeping.done()
        if over and not self._halted and not self._closed:
            self._next_start = 0.0
            self._keeping = asyncio.create_task(self._kept())

    async def _end(self) -> None:
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
            with contextlib.suppress(asyncio.CancelledError):
                keeping.result()

    async def _kept(self) -> None:
        try:
            await self._keep()
        except Exception as error:  # a defect of the cluster's is a failed service, not one that nobody keeps
            log.exception("exposed service %s", self.deployed.name)
            self._set(State.FAILED, f"the cluster failed ({type(error).__name__}: {error})")

    async def _keep(self) -> None:
        """Have a process run, over and over."""
        failures = 0
        while True:
            if self._sleeps and not self._wanted.is_set():
                self._set(State.STOPPED, "no process runs; the first request starts one")
                await self._wanted.wait()
            self._set(State.PENDING, "is starting")
            self._ready_since = None
            ended = await self._once()
            if ended is None:
                failures = 0
                self.log.note("stopped, since nobody asked for it")
                continue
            if ended.lasting:
                self._fail(ended.reason)
                return
            steady = self._ready_since is not None and time.monotonic() - self._ready_since > STEADY_S
            failures = 1 if steady else failures + 1
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (failures - 1))
            self._next_start = time.monotonic() + pause
            reason = f"{ended.reason}; starts again in {pause:g} s"
            self._tell(State.FAILED if failures >= FAILED_AFTER else State.PENDING, reason)
            await asyncio.sleep(pause)

    def _fail(self, reason: str) -> None:
        self._tell(State.FAILED, f"{reason} (mend it and update the service)")

    def _tell(self, state: State, reason: str) -> None:
        self._set(state, reason)
        self.log.note(reason)
        facts = {"service": self.deployed.name, "state": str(state)}
        log.warning("exposed service %s is %s: %s", self.deployed.name, state, reason, extra=facts)

    async def _once(self) -> Ended | None:
        """One process, from its start to its end; None: it was idle."""
        if why := self._impossible():
            return Ended(why, lasting=True)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._address = address = self._find_address()
        except OSError as error:
            return Ended(f"cannot be started ({error})")
        try:
            process = await Process.start(self.deployed, self._data, self._folder, address, self._bounds, self.log)
            try:
                return await self._live(process)
            finally:
                await process.stop()
        except InputError as error:
            return Ended(str(error), lasting=True)
        except OSError as error:
            return Ended(f"cannot be started ({error})")
        finally:
            self._ports.give_back(address.port)

    def _impossible(self) -> str:
        """What the service asks for, or the cluster demands, that no process of this machine is."""
        if self.deployed.service.expose.default_command:
            wanted = "expose.default_command asks for the command of its image, and there are no images here"
            return f"{wanted}; give it a script and leave default_command out"
        if self._demanded == CONTAINER:
            return "exposed services are processes, and DIOSCAR_EXECUTOR of this cluster demands containers"
        if self.deployed.settings.executor == CONTAINER:
            return "exposed services are processes; leave the annotation dioscar/executor: container out"
        return ""

    async def _live(self, process: Process) -> Ended | None:
        """Watch over a process until it ends, or is to be ended; None: it is idle."""
        self._set(State.PENDING, "is starting", running=True)
        begun, pause = time.monotonic(), 0.02
        while problem := await self._complaint(process):
            if process.ended.done():
                return process.ended.result()
            if time.monotonic() - begun > health.START_S:
                return Ended(f"was not ready within {health.START_S:g} s: {problem}")
            self._set(State.PENDING, f"is starting: {problem}", running=True)
            await asyncio.wait([process.ended], timeout=pause)
            pause = min(1.0, 1.5 * pause)
        self._ready_since = self._used = asked = time.monotonic()
        self._set(State.READY, "Deployment is ready.", running=True)
        ill = 0
        while not process.ended.done():
            wait = asked + health.PERIOD_S - time.monotonic()
            if self._sleeps:
                left = self._idle_after - self._idle_for()
                if left <= 0:
                    self._wanted.clear()
                    self._set(State.STOPPED, "no process runs; the first request starts one", running=True)
                    return None
                wait = min(wait, left)
            if wait > 0:
                await asyncio.wait([process.ended], timeout=wait)
                continue
            problem = await self._complaint(process)
            asked = time.monotonic()
            ill = ill + 1 if problem else 0
            if ill >= health.RESTARTED_AFTER:
                return Ended(f"is ended, since it does not answer: {problem}")
            if ill >= health.DEGRADED_AFTER:
                self._set(State.DEGRADED, problem, running=True)
            elif not ill:
                self._set(State.READY, "Deployment is ready.", running=True)
        return process.ended.result()

    @property
    def _idle_after(self) -> float:
        return float(self.deployed.settings.idle_s or IDLE_S)

    async def _complaint(self, process: Process) -> str:
        """What is wrong with the service just now; it is not asked any longer than it lives."""
        asking = asyncio.create_task(health.complaint(self._upstream, self.deployed, self._address))
        try:
            await asyncio.wait([asking, process.ended], return_when=asyncio.FIRST_COMPLETED)
            problem = asking.result() if asking.done() else "it has ended"
        finally:
            asking.cancel()
        if not problem and not self._app and self._status.state == State.PENDING:
            port = self._address.port
            if await asyncio.to_thread(is_listened_on_by_another, port, process.pid):
                return f"another program listens on port {port} (its variable PORT)"
        return problem

    def _find_address(self) -> Address:
        """Where the next process is to listen. Raises OSError.

        An app is handed a socket that outlives it, so that no request is refused while it starts; it stands in the
        data folder, so that nobody gets past the cluster. A script gets the port that its FDL names, or another.
        """
        if not self._app:
            return Address(self._ports.take(self.deployed.service.expose.api_port[0]))
        if self._own is None:
            self._own = self._open()
        return self._own

    def _open(self) -> Address:
        """A socket in the folder of the service, by a path that is short enough for the kernel however deep that is."""
        (self._folder / "socket").unlink(missing_ok=True)
        self._entry = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        path = f"/proc/self/fd/{self._entry}/socket"
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(path)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            os.close(self._entry)
            raise
        return Address(path=path, listener=listener)


def folder_of(data: Path, deployed: Deployed) -> Path:
    """Where a service keeps its log; one of the same name that is made anew has another folder."""
    return data / "exposed" / f"{deployed.name}.{deployed.token[:12]}"
