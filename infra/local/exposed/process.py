"""One process of an exposed service: started, listened to, and ended with all that it has started."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from infra.local import executors
from infra.local.executors.confinement import Confined, Confinement
from infra.local.executors.limits import OUT_OF_MEMORY, PROCESS, Limits, last_in_line
from infra.local.executors.process import kill_group
from infra.local.exposed.log import ServiceLog
from infra.local.services import Deployed
from infra.local.workspace import read_json, service_environment
from layers.runtime.contract import Exit

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL: how long requests under way may take to end."""
LAST_WORDS_S = 1.0
OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Ended:
    """How a process ended; `lasting`: another one would end in the same way, as with wrong settings."""

    reason: str
    lasting: bool = False


class Process:
    """A running process; `ended` is done when it is over."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        confined: Confined,
        mark: str,
        deployed: Deployed,
        folder: Path,
        limits: Limits,
    ) -> None:
        self._process = process
        self._confined = confined
        self._mark = mark
        self._memory = deployed.memory
        self._outcome = folder / "told" / OUTCOME
        self._limits = limits
        self._stopping = False
        self.ended: asyncio.Task[Ended]

    @classmethod
    async def start(
        cls,
        deployed: Deployed,
        data: Path,
        folder: Path,
        address: "Address",
        bounds: tuple[Limits, Confinement],
        log: ServiceLog,
    ) -> "Process":
        """Start the script of `deployed` in a folder of its own. Raises OSError; InputError for a wrong volume."""
        limits, confinement = bounds
        volume = confinement.volume(data, deployed)
        work, temporary, told = (folder / name for name in ("work", "tmp", "told"))
        script = folder / "script.sh"
        for made in (work, temporary, told):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(mode=0o700, parents=True)
        script.write_text(deployed.service.script, encoding="utf-8")
        mark = limits.mark()
        environment = {
            **service_environment(deployed, data),
            **({"PORT": str(address.port)} if address.port else {}),
            "TMPDIR": str(temporary),
            "DIOSCAR_OUTCOME": str(told / OUTCOME),
            **(volume.variables if volume else {}),
            PROCESS: mark,
        }
        handed: tuple[int, ...] = ()
        if address.listener is not None:
            handed = (address.listener.fileno(),)
            environment["DIOSCAR_APP_FD"] = str(handed[0])
        network = address.listener is None  # a script listens by itself, and must be reached
        own = [work, temporary, told]
        confined = confinement.confine(
            ["/bin/sh", str(script)], deployed, mark, own, readable=[script], network=network, mount=volume
        )
        log.note("starting")
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *confined.command,
                cwd=work,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                pass_fds=handed,
            )
        except BaseException:
            os.close(reading)
            limits.forget(mark)
            confined.close()
            raise
        finally:
            os.close(writing)
        last_in_line(process.pid)
        started = cls(process, confined, mark, deployed, folder, limits)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: _Output(log), os.fdopen(reading, "rb", buffering=0)
            )
        except BaseException:
            kill_group(process.pid, signal.SIGKILL)
            limits.forget(mark)
            confined.close()
            raise
        started.ended = asyncio.create_task(started._follow(transport, log))
        return started

    @property
    def pid(self) -> int:
        """Its number, which is that of its session too."""
        return self._process.pid

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not heard; returns when it is over."""
        self._stopping = True
        if not self.ended.done():
            kill_group(self.pid, signal.SIGTERM)
            await asyncio.wait([self.ended], timeout=GRACE_S)
        if not self.ended.done():
            kill_group(self.pid, signal.SIGKILL)
        await asyncio.wait([self.ended])

    async def _follow(self, transport: asyncio.ReadTransport, log: ServiceLog) -> Ended:
        output = transport.get_protocol()
        assert isinstance(output, _Output)
        code = -signal.SIGKILL
        try:
            with self._limits.watch(self.pid, self._memory, log.path) as watch:
                try:
                    code = await self._process.wait()
                finally:
                    kill_group(self.pid, signal.SIGKILL)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(output.finished.wait(), LAST_WORDS_S)
        finally:
            self._limits.forget(self._mark)
            transport.close()
            log.flush()
            code = self._confined.status(code)
            bounded = watch.ended() or self._confined.explain(executors.Ended(code))
            self._confined.close()
        if bounded.message:
            return Ended(bounded.message)
        told = read_json(self._outcome) or {}
        if message := str(told.get("message") or ""):
            return Ended(message, lasting=code == Exit.BAD_INPUT)
        if code in (-signal.SIGKILL, OUT_OF_MEMORY) and not self._stopping:
            return Ended("was killed (SIGKILL), and not by the cluster")
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        last = log.last_line()
        return Ended(how + (f": {last}" if last else ""), lasting=code == Exit.BAD_INPUT)


@dataclass(frozen=True)
class Address:
    """Where a process is asked: on a port of the loopback address; an app at the socket `path`, its `listener`."""

    port: int = 0
    path: str = ""
    listener: socket.socket | None = None

    @property
    def base(self) -> str:
        """As the beginning of a URL."""
        return f"http://127.0.0.1:{self.port}" if self.port else "http://localhost"


class _Output(asyncio.Protocol):
    """The reading end of what a process prints."""

    def __init__(self, log: ServiceLog) -> None:
        self._log = log
        self.finished = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._log.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.finished.set()
