"""The `warm` executor: workers that have imported a function and its model, each serving one service of one owner.

A worker serves one run at a time. It is retired on a crash, an error, a revision of its service, a memory that has
grown past its limit, or a time without work.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

from infra.local.executors import Ended
from infra.local.executors.channel import Channel
from infra.local.executors.confinement import Confined, Confinement
from infra.local.executors.limits import PROCESS, Limits, last_in_line
from infra.local.executors.process import GRACE_S, kill_group, killed, timed_out
from infra.local.models import readable
from infra.local.services import Deployed
from infra.local.workspace import Workspace, checkpoints_of, service_environment
from layers.runtime.contract import Exit
from layers.runtime.wire import Frame

IDLE_S = 300.0
PRINTED = 4096
"""Bytes of its output's end that a failed call tells."""
KEPT = 8192
"""Bytes that a job prints up to which they are kept in its row instead of a log."""
PATIENCE_S = 0.02
"""How long a run waits for a worker that is busy, before one more is started."""
CORES = max(2, os.cpu_count() or 1)
CLOSING_S = 2.0
"""How long a process may take to end after its channel has closed."""
HEALTHY = (Exit.DONE, Exit.BAD_INPUT, Exit.AGAIN)
Key = tuple[str, str, int]
"""Service, token and revision: a service of the same name that is made anew has another token."""


@dataclass
class Worker:
    """A running worker process and the channel to it."""

    process: asyncio.subprocess.Process
    channel: Channel
    mark: str
    output: FileIO
    logs: socket.socket
    confined: Confined
    served: int = 0
    idle_since: float = field(default_factory=time.monotonic)

    def printed(self) -> bytes:
        """What it has printed that went to no log; forgotten here."""
        data = self.peek()
        if data:
            os.ftruncate(self.output.fileno(), 0)
        return data

    def peek(self) -> bytes:
        """What it has printed that went to no log."""
        size = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, 0) if size else b""

    @cached_property
    def memory(self) -> Path:
        """The file, in memory, of what goes to no log."""
        return Path(f"/proc/self/fd/{self.output.fileno()}")

    def hand_over(self, log: Path) -> None:
        """Open a log for the next run: the worker need not see where it stands."""
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # it has died, which its channel tells too
                socket.send_fds(self.logs, [b"l"], [file], socket.MSG_DONTWAIT)
        finally:
            os.close(file)

    def retire(self) -> None:
        """End the worker, and whatever it started, at once."""
        self.channel.close()
        self.logs.close()
        kill_group(self.process.pid, signal.SIGKILL)


class WarmExecutor:
    """Satisfies `infra.local.executors.Executor`."""

    def __init__(
        self, data: Path, limits: Limits, confinement: Confinement, scratch: Callable[[str], list[Path]]
    ) -> None:
        self._data = data
        self._limits = limits
        self._confinement = confinement
        self._scratch = scratch
        self._idle: dict[Key, list[Worker]] = {}
        self._serving: dict[Path, Worker] = {}
        self._busy: Counter[Key] = Counter()
        self._starting: Counter[Key] = Counter()
        self._waiting: dict[Key, deque[asyncio.Future[Worker | None]]] = {}
        self._forgotten: dict[str, int] = {}
        self._burials: set[asyncio.Task[None]] = set()
        self._reaper = asyncio.create_task(self._reap())

    async def run(self, deployed: Deployed, workspace: Workspace, *, timeout_s: float | None) -> Ended:
        """Serve the run on an idle worker of this service, or on a new one where there is none or its code is stale."""
        key = (deployed.name, deployed.token, deployed.revision)
        forgotten = self._forgotten.get(deployed.name, 0)
        worker: Worker | None = None
        keep = False
        self._busy[key] += 1
        try:
            idle = self._idle.get(key)
            found = idle.pop() if idle else await self._hire(key, deployed, workspace, timeout_s)
            if isinstance(found, Ended):
                return found
            worker = found
            if workspace.job_log is not None:
                self._serving[workspace.job_log] = worker
            frame, why = await self._ask(worker, deployed, workspace, timeout_s)
            if frame is None:
                return _settled(worker, workspace, why)
            reply, body = frame
            if reply.get("stale"):
                return await self.run(deployed, workspace, timeout_s=timeout_s)
            worker.served += 1
            if "errno" in reply:
                raise OSError(reply["errno"], reply["strerror"])
            fit = reply["peak_rss_bytes"] < max(2 * deployed.memory, 2**29) and not reply.get("left_running")
            keep = reply["code"] in HEALTHY and fit
            return _settled(worker, workspace, _ended(reply, body))
        except asyncio.CancelledError:
            if worker is not None:
                _settled(worker, workspace, Ended(Exit.FAILED))
            raise
        finally:
            if workspace.job_log is not None:
                self._serving.pop(workspace.job_log, None)
            self._busy[key] -= 1
            if not self._busy[key]:
                del self._busy[key]
            if worker is not None and keep and forgotten == self._forgotten.get(deployed.name, 0):
                self._release(key, worker)
            elif worker is not None:
                await self._retire(worker)

    async def _ask(
        self, worker: Worker, deployed: Deployed, workspace: Workspace, timeout_s: float | None
    ) -> tuple[Frame | None, Ended]:
        """The worker's answer; None where it gave none, and why."""
        request = {
            "environ": workspace.job_variables,
            "log": None if workspace.quiet else str(workspace.log),
            "folder": None if workspace.content is None else str(workspace.folder),
        }
        if not workspace.quiet:
            worker.hand_over(workspace.log)
        asked = worker.channel.ask(request, workspace.content or b"")
        output = worker.memory if workspace.quiet else workspace.log
        with self._limits.watch(worker.process.pid, deployed.memory, output) as watch:
            frame, in_time = await _in_time(asked, timeout_s, worker.process.pid)
        if not in_time:
            return None, timed_out(timeout_s)
        if frame is None:
            return None, watch.ended() or await _death(worker)
        return frame, Ended(Exit.DONE)

    def printed(self, log: Path) -> bytes | None:
        """What the run that has this log has printed so far, where that is in no file; None: there is no such run."""
        worker = self._serving.get(log)
        return None if worker is None else worker.peek()

    async def _hire(
        self, key: Key, deployed: Deployed, workspace: Workspace, timeout_s: float | None
    ) -> Worker | Ended:
        """A worker for a run that finds none idle: where every core has one, one that soon comes free; else a new one.

        Starting one takes as long as thousands of short runs do.
        """
        while self._busy[key] > CORES:
            worker = await self._freed(key)
            if worker is not None:
                return worker
            if not self._starting[key]:
                break
        self._starting[key] += 1
        try:
            return await self._spawn(deployed, workspace, deployed.memory, timeout_s)
        finally:
            self._starting[key] -= 1

    async def _freed(self, key: Key) -> Worker | None:
        """The next worker that comes free, if that is soon."""
        loop = asyncio.get_running_loop()
        free: asyncio.Future[Worker | None] = loop.create_future()
        self._waiting.setdefault(key, deque()).append(free)
        timer = loop.call_later(PATIENCE_S, _give_up, free)
        try:
            return await free
        except asyncio.CancelledError:
            if free.done() and not free.cancelled() and (worker := free.result()) is not None:
                self._release(key, worker)
            raise
        finally:
            timer.cancel()

    def _release(self, key: Key, worker: Worker) -> None:
        """To whoever has waited longest, or to the idle ones."""
        waiting = self._waiting.get(key)
        while waiting:
            free = waiting.popleft()
            if not free.done():
                free.set_result(worker)
                return
        worker.idle_since = time.monotonic()
        self._idle.setdefault(key, []).append(worker)

    def forget(self, service: str) -> None:
        """Retire the workers of a service that has changed or gone: the idle ones now, the others after their run."""
        self._forgotten[service] = self._forgotten.get(service, 0) + 1
        for key in [key for key in self._idle if key[0] == service]:
            for worker in self._idle.pop(key):
                worker.retire()
                self._limits.forget(worker.mark)
                worker.output.close()
                worker.confined.close()

    def summary(self) -> list[dict[str, Any]]:
        """The idle workers, for people to see."""
        return [
            {"service": key[0], "revision": key[2], "pid": worker.process.pid, "served": worker.served}
            for key, workers in self._idle.items()
            for worker in workers
        ]

    async def close(self) -> None:
        """Retire every worker, and wait until all have ended."""
        self._reaper.cancel()
        for key in list(self._idle):
            for worker in self._idle.pop(key):
                await self._retire(worker)
        if self._burials:
            await asyncio.wait(self._burials)

    async def _spawn(
        self, deployed: Deployed, workspace: Workspace, memory: int, timeout_s: float | None
    ) -> Worker | Ended:
        volume = self._confinement.volume(self._data, deployed)
        mark = self._limits.mark()
        ours, theirs = socket.socketpair()
        logs, their_logs = socket.socketpair()
        ends = (theirs.fileno(), their_logs.fileno())
        folders = self._scratch(deployed.name)
        own = [*folders, Path(checkpoints_of(self._data, deployed.name, deployed.tenant))]
        output = FileIO(os.memfd_create("output", os.MFD_CLOEXEC), "r+")
        fcntl.fcntl(output, fcntl.F_SETFL, os.O_APPEND)
        with theirs, their_logs:
            command = [sys.executable, "-P", "-m", "layers.runtime.worker", f"--fd={ends[0]}", f"--logs={ends[1]}"]
            models = readable(self._data, deployed)
            confined = self._confinement.confine(command, deployed, mark, own, models, mount=volume)
            process = await asyncio.create_subprocess_exec(
                *confined.command,
                cwd=folders[0],
                env={
                    **service_environment(deployed, self._data),
                    **(volume.variables if volume else {}),
                    PROCESS: mark,
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=ends,
                start_new_session=True,
            )
        _, channel = await asyncio.get_running_loop().create_connection(Channel, sock=ours)
        worker = Worker(process, channel, mark, output, logs, confined)
        last_in_line(process.pid)
        self._burials.add(burial := asyncio.create_task(_bury(worker)))
        burial.add_done_callback(self._burials.discard)
        try:
            with self._limits.watch(process.pid, memory, worker.memory) as watch:
                ready, in_time = await _in_time(channel.answer(), timeout_s, process.pid)
        except BaseException:
            await self._retire(worker)
            raise
        if ready is None or not in_time:
            did_not_start = Ended(1, "WorkerError", "the worker did not start; its output is in the log")
            why = timed_out(timeout_s) if not in_time else watch.ended() or did_not_start
            why = _settled(worker, workspace, why)
            await self._retire(worker)
            return why
        if not workspace.quiet:
            _append(workspace.log, worker.printed())
        return worker

    async def _retire(self, worker: Worker) -> None:
        worker.retire()
        with contextlib.suppress(Exception):
            await worker.process.wait()
        self._limits.forget(worker.mark)
        worker.output.close()
        worker.confined.close()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(IDLE_S / 10)
            for key, workers in list(self._idle.items()):
                for worker in list(workers):
                    if time.monotonic() - worker.idle_since > IDLE_S or worker.process.returncode is not None:
                        workers.remove(worker)
                        await self._retire(worker)
                if not workers:
                    del self._idle[key]


def _settled(worker: Worker, workspace: Workspace, ended: Ended) -> Ended:
    """Find a place for what a run has printed to memory: the job's row, or its log; a call that failed tells it."""
    if not workspace.quiet and not worker.served:
        _append(workspace.log, worker.printed())
    if not workspace.quiet:
        return ended
    data = worker.printed()
    if workspace.is_call:
        return ended if ended.code == Exit.DONE else replace(ended, printed=_text(data[-PRINTED:]))
    if ended.code == Exit.DONE and len(data) <= KEPT:
        return replace(ended, printed=_text(data))
    _append(workspace.log, data)
    return ended


def _append(log: Path, data: bytes) -> None:
    if data:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            stream.write(data)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _give_up(free: "asyncio.Future[Worker | None]") -> None:
    if not free.done():
        free.set_result(None)


async def _in_time(
    asked: "asyncio.Future[Frame | None]", timeout_s: float | None, pid: int
) -> tuple[Frame | None, bool]:
    """Await a worker's answer; past its time, or when the waiting is cancelled, SIGTERM, then SIGKILL."""
    loop = asyncio.get_running_loop()
    late = False
    timers: list[asyncio.TimerHandle] = []

    def end() -> None:
        nonlocal late
        late = True
        kill_group(pid, signal.SIGTERM)
        timers.append(loop.call_later(GRACE_S, kill_group, pid, signal.SIGKILL))

    if timeout_s is not None:
        timers.append(loop.call_later(timeout_s, end))
    try:
        return await asyncio.shield(asked), not late
    except asyncio.CancelledError:
        end()
        await asked
        raise
    finally:
        for timer in timers:
            timer.cancel()


async def _bury(worker: Worker) -> None:
    """Notice the death of a worker even where a process that it forked keeps its end of the channel open."""
    await worker.process.wait()
    worker.retire()


async def _death(worker: Worker) -> Ended:
    """How a worker ended that does not answer any more."""
    try:
        code = await asyncio.wait_for(worker.process.wait(), CLOSING_S)
    except TimeoutError:
        return Ended(1, "WorkerError", "the function closed its worker's connection to the cluster; leave it open")
    code = worker.confined.status(code)
    if code == -signal.SIGKILL:
        return worker.confined.explain(killed(code))
    status = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
    return worker.confined.explain(Ended(code or 1, "WorkerError", f"the process of the function died ({status})"))


def _ended(reply: dict[str, Any], body: bytes) -> Ended:
    files: dict[str, bytes] | None = None
    if reply["files"] is not None:
        files, at = {}, 0
        for name, size in reply["files"]:
            files[name] = body[at : at + size]
            at += size
    return Ended(reply["code"], reply["error"], reply["message"], reply["run_key"], files)
