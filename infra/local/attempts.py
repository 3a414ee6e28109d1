"""What is told of an attempt: when it began, why it failed, and what a call is answered."""

import asyncio
import base64
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from infra.local.beneath import open_file
from infra.local.executors import Ended
from infra.local.workspace import ATTEMPT, Workspace
from layers.runtime.contract import Exit
from layers.runtime.supervisor import encode_reply

TOLD_S = 0.05
"""How long an attempt may run before the job's row says so."""
TAIL = 4000
"""Bytes of a log's end in which its last lines are looked for."""

log = logging.getLogger("dioscar.jobs")


@dataclass(frozen=True)
class Reply:
    """The answer to a synchronous call: the reply's bytes, or how it failed."""

    ended: Ended
    body: bytes


class Start:
    """When an attempt began. That is recorded while it runs; with its end, where that comes at once.

    Nobody has time to see a state of a hundredth of a second, and recording it costs as much as the end does.
    """

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._begun = self._told = False
        self.began = time.time()

    def begin(self, now: float) -> None:
        """The attempt begins."""
        self.began, self._begun, self._told = now, True, False
        self._timer = asyncio.get_running_loop().call_later(TOLD_S, self._due)

    def untold(self) -> float | None:
        """When it began, if that has not been recorded; from now on that is the caller's."""
        if self._timer is not None:
            self._timer.cancel()
        return self.began if self._begun and not self._told else None

    def _due(self) -> None:
        self._told = True
        self._tell(self.began)


def why_failed(ended: Ended, workspace: Workspace) -> str:
    """Why an attempt failed: what the runtime said, else the last thing that the script printed."""
    if ended.message:
        return f"{ended.error}: {ended.message}" if ended.error else ended.message
    status = f"signal {-ended.code}" if ended.code < 0 else f"status {ended.code}"
    last = _last_line(workspace.log)
    return f"the script ended with {status}" + (f": {last}" if last else "")


def reply(service: str, ended: Ended, workspace: Workspace) -> Reply:
    """The answer to a call; what a failed one printed is nowhere but in the cluster's log."""
    if ended.code != Exit.DONE:
        if not ended.message:
            ended = replace(ended, error="ScriptError", message=why_failed(ended, workspace))
        if ended.code != Exit.BAD_INPUT:
            printed = (ended.printed or _tail(workspace.log)).rstrip()
            log.warning("a call of %s failed: %s: %s\n%s", service, ended.error, ended.message, printed)
        return Reply(ended, b"")
    if ended.files is not None:
        return Reply(ended, base64.b64encode(next(iter(ended.files.values()), b"")))
    files = workspace.files()
    return Reply(ended, encode_reply(workspace.produced, files) if files else workspace.log.read_bytes())


def _last_line(log: Path) -> str:
    lines = _tail(log).strip().splitlines()
    return lines[-1][:500] if lines and not lines[-1].startswith(ATTEMPT) else ""


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError), os.fdopen(open_file(log), "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL))
        return stream.read().decode(errors="replace")
    return ""
