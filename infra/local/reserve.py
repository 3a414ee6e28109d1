"""Room on the disk that is kept for the day on which there is none: what makes room has to be written down too."""

import os
import time
from contextlib import suppress
from pathlib import Path

SIZE = 2 << 20
"""Bytes: the log of a deletion of a thousand objects, and some more."""
ROOM = 4 * SIZE
"""What must be free before the reserve is taken (again)."""
PAUSE_S = 2.0
LEAST_ROOM = 16 << 20
"""Bytes that must be free on the disk for a failure to be the run's own."""


class Reserve:
    """A file of nothing, given up when the disk is full; belongs to one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._there = False
        self._tried = float("-inf")

    def take(self) -> None:
        """Take it, unless it is taken, or was tried to be just now, or there is too little room."""
        if self._there or time.monotonic() - self._tried < PAUSE_S:
            return
        self._tried = time.monotonic()
        with suppress(OSError):
            free = os.statvfs(self._path.parent)
            if self._path.exists() or free.f_bavail * free.f_frsize >= ROOM:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, SIZE)
                finally:
                    os.close(descriptor)
                self._there = True

    def give_up(self) -> bool:
        """Give its room back; whether there was any."""
        there, self._there, self._tried = self._there, False, time.monotonic()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        return there


def has_room(data: Path) -> bool:
    """Whether the disk has room for a run: one that fails on a full disk is not to blame."""
    free = os.statvfs(data)
    return free.f_bavail * free.f_frsize >= LEAST_ROOM
