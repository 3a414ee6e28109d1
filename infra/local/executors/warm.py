"""The `warm` executor: workers that have imported a function and its model, each serving one service of one owner.

A worker serves one run at a time. It is retired on a crash, an error, a revision of its service, a memory that has
grown past its limit, or a time without work.
"""

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fdl.quantities import parse_memory
from infra.local.executors import Ended
from infra.local.executors.process import kill_group, timed_out, within
from infra.local.services import Deployed
from infra.local.workspace import Workspace, service_environment
from layers.runtime.contract import Exit

IDLE_S = 300.0
LARGEST_REPLY = 64 * 2**20
HEALTHY = (Exit.DONE, Exit.BAD_INPUT, Exit.AGAIN)
Key = tuple[str, str, int]
"""Service, token and revision: a service of the same name that is made anew has another token."""


@dataclass
class Worker:
    """A running worker process and the socket to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    served: int = 0
    idle_since: float = field(default_factory=time.monotonic)

    async def ask(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Send one request and await its answer; None where the worker died of it."""
        try:
            self.writer.write(json.dumps(message).encode() + b"\n")
            line = await self.reader.readline()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):  # ValueError: a line without an end
            return None
        return json.loads(line) if line else None

    def retire(self) -> None:
        """End the worker, and whatever it started, at once."""
        self.writer.close()
        kill_group(self.process.pid, signal.SIGKILL)


class WarmExecutor:
    """Satisfies `infra.local.executors.Executor`."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._idle: dict[Key, list[Worker]] = {}
        self._forgotten: dict[str, int] = {}
        self._reaper = asyncio.create_task(self._reap())

    async def run(self, deployed: Deployed, workspace: Workspace, *, timeout_s: float | None) -> Ended:
        """Serve the run on an idle worker of this service, or on a new one where there is none or its code is stale."""
        key = (deployed.name, deployed.token, deployed.revision)
        forgotten = self._forgotten.get(deployed.name, 0)
        idle = self._idle.get(key, [])
        worker = idle.pop() if idle else await self._spawn(deployed, workspace)
        if worker is None:
            return Ended(1, "WorkerError", "the worker did not start; its output is in this log")
        keep = False
        try:
            request = {"environ": dict(workspace.job_variables), "log": str(workspace.log)}
            reply, in_time = await within(timeout_s, worker.ask(request), worker.process.pid)
            if not in_time:
                return timed_out(timeout_s)
            if reply is None:
                code = await worker.process.wait()
                return Ended(code or 1, "WorkerError", f"the process of the function died (status {code})")
            if reply.get("stale"):
                return await self.run(deployed, workspace, timeout_s=timeout_s)
            worker.served += 1
            limit = 2 * parse_memory(deployed.service.memory)
            keep = reply["code"] in HEALTHY and reply["peak_rss_bytes"] < max(limit, 2**29)
            return Ended(reply["code"], reply["error"], reply["message"], reply["run_key"])
        finally:
            if keep and forgotten == self._forgotten.get(deployed.name, 0):
                worker.idle_since = time.monotonic()
                self._idle.setdefault(key, []).append(worker)
            else:
                await self._retire(worker)

    def forget(self, service: str) -> None:
        """Retire the workers of a service that has changed or gone: the idle ones now, the others after their run."""
        self._forgotten[service] = self._forgotten.get(service, 0) + 1
        for key in [key for key in self._idle if key[0] == service]:
            for worker in self._idle.pop(key):
                worker.retire()

    def summary(self) -> list[dict[str, Any]]:
        """The idle workers, for people to see."""
        return [
            {"service": key[0], "revision": key[2], "pid": worker.process.pid, "served": worker.served}
            for key, workers in self._idle.items()
            for worker in workers
        ]

    async def close(self) -> None:
        """Retire every worker."""
        self._reaper.cancel()
        for key in list(self._idle):
            for worker in self._idle.pop(key):
                await self._retire(worker)

    async def _spawn(self, deployed: Deployed, workspace: Workspace) -> Worker | None:
        ours, theirs = socket.socketpair()
        folder = self._data / "run"
        folder.mkdir(parents=True, exist_ok=True)
        with theirs, workspace.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "layers.runtime.worker",
                "--fd",
                str(theirs.fileno()),
                cwd=folder,
                env=service_environment(deployed, self._data),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=LARGEST_REPLY)
        worker = Worker(process, reader, writer)
        try:
            ready = await reader.readline()
        except BaseException:
            await self._retire(worker)
            raise
        if not ready:
            await self._retire(worker)
            return None
        return worker

    async def _retire(self, worker: Worker) -> None:
        worker.retire()
        with contextlib.suppress(Exception):
            await worker.process.wait()

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
