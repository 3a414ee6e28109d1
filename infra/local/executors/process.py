"""The `process` executor: the service's script under `sh`, in a session of its own, killed as a whole."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from fdl.quantities import parse_memory
from infra.local.executors import Ended
from infra.local.executors.confinement import Confinement
from infra.local.executors.limits import OUT_OF_MEMORY, PROCESS, Limits, last_in_line
from infra.local.models import readable
from infra.local.services import Deployed
from infra.local.workspace import Workspace, read_json, service_environment

T = TypeVar("T")

GRACE_S = 10.0
"""How long a run may take to write its checkpoint, between SIGTERM and SIGKILL."""
TIMED_OUT = 124


class ProcessExecutor:
    """Satisfies `infra.local.executors.Executor`."""

    def __init__(self, data: Path, limits: Limits, confinement: Confinement) -> None:
        self._data = data
        self._limits = limits
        self._confinement = confinement

    async def run(self, deployed: Deployed, workspace: Workspace, *, timeout_s: float | None) -> Ended:
        """Run the script of `deployed`; its output goes to the workspace's log as it comes."""
        script = workspace.folder / "script.sh"
        script.write_text(deployed.service.script, encoding="utf-8")
        outcome = workspace.folder / "outcome.json"
        volume = self._confinement.volume(self._data, deployed)
        mark = self._limits.mark()
        environment = {
            **service_environment(deployed, self._data),
            **workspace.job_variables,
            **(volume.variables if volume else {}),
            "DIOSCAR_OUTCOME": str(outcome),
            PROCESS: mark,
        }
        own = [workspace.folder, Path(environment["DIOSCAR_CHECKPOINT"])]
        models = readable(self._data, deployed)
        confined = self._confinement.confine(["/bin/sh", str(script)], deployed, mark, own, models, mount=volume)
        try:
            with workspace.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *confined.command,
                    cwd=workspace.folder,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            last_in_line(process.pid)
            memory = int(parse_memory(deployed.service.memory))
            with self._limits.watch(process.pid, memory, workspace.log) as watch:
                try:
                    code, in_time = await within(timeout_s, process.wait(), process.pid)
                finally:
                    kill_group(process.pid, signal.SIGKILL)
            if not in_time:
                return timed_out(timeout_s)
            code = confined.status(code)
            told = read_json(outcome) or {}
            ended = Ended(code, told.get("error", ""), told.get("message", ""), told.get("run_key", ""))
            why = killed(code) if code in (-signal.SIGKILL, OUT_OF_MEMORY) else ended
            return watch.ended() or confined.explain(why)
        finally:
            self._limits.forget(mark)
            confined.close()

    async def close(self) -> None:
        """Nothing outlives a run."""


async def within(timeout_s: float | None, ending: Awaitable[T], pid: int) -> tuple[T, bool]:
    """Await the end of a run; past its time, SIGTERM, then SIGKILL. Also when the waiting itself is cancelled."""
    waiting = asyncio.ensure_future(ending)
    try:
        return await asyncio.wait_for(asyncio.shield(waiting), timeout_s), True
    except TimeoutError:
        return await _terminate(waiting, pid), False
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await _terminate(waiting, pid)
        raise


async def _terminate(waiting: "asyncio.Future[T]", pid: int) -> T:
    kill_group(pid, signal.SIGTERM)
    try:
        return await asyncio.wait_for(asyncio.shield(waiting), GRACE_S)
    except TimeoutError:
        kill_group(pid, signal.SIGKILL)
        return await waiting


def kill_group(pid: int, number: signal.Signals) -> None:
    """Signal a process and all it has started; one that is gone needs no more."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def timed_out(timeout_s: float | None) -> Ended:
    """The end of a run that took too long."""
    return Ended(
        TIMED_OUT, "Timeout", f"took longer than {timeout_s:g} s and was stopped; raise the annotation dioscar/timeout"
    )


def killed(code: int) -> Ended:
    """The end of a run that somebody else killed."""
    message = "was killed (SIGKILL), and not by the cluster: most likely the machine had no memory left for it"
    return Ended(code, "Killed", message)
