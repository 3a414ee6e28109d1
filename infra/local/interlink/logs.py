"""A pod's output, taken into the log of its job as it comes: each byte once, whatever breaks in between."""

import asyncio
import contextlib
import os
import re
from pathlib import Path

from infra.local.interlink.client import Plugin, PluginAway, PluginRefused
from infra.local.interlink.pod import CONTAINER, PodName
from infra.local.waiting import news

LARGEST = 64 << 20
"""Bytes of a pod's output that are kept."""
CUT = b"\n[dioscar: the log is longer than 64 MiB; the rest of it is on the node]\n"
PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
LAST_S = 5.0
"""How long a plugin may take to end the log of a pod that has ended."""
ATTEMPTS = 5
"""How often the end of a log is asked for."""
TAIL = 8 << 10
PROGRESS = re.compile(rb"dioscar: progress ([-+.\deE]+) of ([-+.\deE]+)")
DONE = re.compile(r"dioscar: \S+ .*: done in [\d.]+ s, \d+ files")
SAID = re.compile(r"dioscar: \S+ .*?: (\w+): (.+)")
OURS = re.compile(r"\S+ \S+ - supervisor - \w+ - ")
"""A line of the supervisor's own log, which says that a script has failed and not why."""


class PodLog:
    """The job's log, as far as one pod has written it; `start` is where that part begins."""

    def __init__(self, plugin: Plugin, pod: PodName, path: Path, start: int) -> None:
        self._plugin = plugin
        self._pod = pod
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        self._start = start
        self._taken = max(0, size - start)
        self._line = b""
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self.progress: dict[str, float] | None = None

    def follow(self) -> None:
        """Take what comes, from now on."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow())

    async def finish(self, patience_s: float = LAST_S, container: str = CONTAINER) -> None:
        """The pod has ended: take what is left of its output, or of one that kept it from starting."""
        self._ended.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=patience_s)
        await self.close()
        for attempt in range(ATTEMPTS):
            with contextlib.suppress(PluginAway, PluginRefused):
                await self._take(follow=False, container=container)
                return
            await asyncio.sleep(PAUSE_S * 2**attempt)

    async def close(self) -> None:
        """Take nothing more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def said(self) -> tuple[str, str]:
        """Why the run failed, as the runtime has said it, or else the last line; an error's name and a sentence."""
        lines = [line for line in _tail(self._path, self._start).splitlines() if line.strip() and not OURS.match(line)]
        for line in reversed(lines[-5:]):
            if DONE.fullmatch(line.strip()):
                break
            if found := SAID.fullmatch(line.strip()):
                return found.group(1), found.group(2)
        return "", lines[-1].strip()[:500] if lines else ""

    async def _follow(self) -> None:
        pause = PAUSE_S
        while not self._ended.is_set():  # an end of the log that comes before the pod's own is none
            before = self._taken
            with contextlib.suppress(PluginAway, PluginRefused):
                await self._take(follow=True)
            pause = PAUSE_S if self._taken > before else min(pause * 2, LONGEST_PAUSE_S)
            await news(self._ended, pause)

    async def _take(self, *, follow: bool, container: str = CONTAINER) -> None:
        """Read the log from its start, and keep what is new."""
        position = 0
        async for chunk in self._plugin.logs(self._pod, follow=follow, container=container):
            if follow and chunk == b"\n" and not position and not self._taken and not await self._begins_with(chunk):
                continue  # a sign of life in a silence, such as our own plugin gives, and no part of the log
            fresh = chunk[max(0, self._taken - position) :]
            position += len(chunk)
            if fresh:
                self._keep(fresh)

    async def _begins_with(self, start: bytes) -> bool:
        with contextlib.suppress(PluginAway, PluginRefused):
            async for chunk in self._plugin.logs(self._pod, follow=False):
                return chunk.startswith(start)
        return False

    def _keep(self, chunk: bytes) -> None:
        room = LARGEST - self._taken
        self._taken += len(chunk)
        if room > 0:
            with contextlib.suppress(OSError), open(self._path, "ab", buffering=0, opener=_opener) as log:
                # a disk that is full costs lines of the log, and not the hours of the job that printed them
                log.write(chunk[:room] + (CUT if len(chunk) > room else b""))
        lines = (self._line + chunk[-TAIL:]).split(b"\n")
        self._line = lines.pop()[-TAIL:]
        for line in reversed(lines):
            if found := PROGRESS.match(line):
                with contextlib.suppress(ValueError):
                    self.progress = {"done": float(found[1]), "total": float(found[2])}
                break


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(start, log.seek(0, os.SEEK_END) - TAIL))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
