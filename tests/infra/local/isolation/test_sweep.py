"""The watchdog ends what a run has left behind, and nothing else."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from infra.local.executors import limits
from infra.local.executors.limits import PROCESS, Limits


def sleeping(mark: str) -> "subprocess.Popen[bytes]":
    """A process that bears the mark of a run."""
    return subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], PROCESS: mark})


async def ended(watchdog: Limits, mark: str) -> None:
    """The watchdog, told that a run has ended, looks for what it left."""
    watchdog.forget(mark)
    await watchdog.close()


def test_a_run_that_starts_while_the_watchdog_looks_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog = Limits()
    started: list[subprocess.Popen[bytes]] = []

    def meanwhile() -> Iterator[int]:
        started.append(sleeping(watchdog.mark()))
        yield started[0].pid

    killed: list[int] = []
    monkeypatch.setattr(limits, "_pids", meanwhile)
    monkeypatch.setattr(limits, "_kill", killed.extend)
    try:
        asyncio.run(ended(watchdog, "another run"))
        assert (len(started), killed) == (1, [])
    finally:
        started[0].kill()
        started[0].wait(60)


def test_what_an_ended_run_has_left_is_killed() -> None:
    watchdog = Limits()
    mark = watchdog.mark()
    left = sleeping(mark)
    try:
        asyncio.run(ended(watchdog, mark))
        assert left.wait(60) == -signal.SIGKILL
    finally:
        left.kill()
        left.wait(60)
