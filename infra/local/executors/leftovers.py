"""Processes that a cluster left running when it was killed."""

import contextlib
import os
import signal
from pathlib import Path

from infra.local.workspace import MARK


def kill_left_behind(data: Path) -> int:
    """End the processes that a killed cluster left running in this data folder; returns how many there were."""
    mark = f"{MARK}={data}".encode()
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
    return killed
