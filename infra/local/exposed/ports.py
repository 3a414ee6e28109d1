"""Ports of the loopback address: which are free for a script to listen on, and who listens."""

import contextlib
import os
import socket
from pathlib import Path

HOST = "127.0.0.1"
LISTENING = "0A"
"""The state of a socket, in the kernel's tables."""
PROC = Path("/proc")


class Ports:
    """The ports that the scripts of a cluster were told to listen on, whether they do it yet or not."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def take(self, wanted: int) -> int:
        """`wanted`, where nobody has it, else another one. Raises OSError where there is none."""
        for port in (wanted, *[0] * 16):
            try:
                with bound(port) as probe:
                    found: int = probe.getsockname()[1]
            except OSError:
                if not port:
                    raise
                continue
            if found not in self._given:
                self._given.add(found)
                return found
        raise OSError("no port is free")

    def give_back(self, port: int) -> None:
        """Nobody is told to listen on it any more."""
        self._given.discard(port)


def bound(port: int) -> socket.socket:
    """A socket with that port, 0 for any free one. Raises OSError where somebody listens on it."""
    found = socket.socket()
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
    except OSError:
        found.close()
        raise
    return found


def is_listened_on_by_another(port: int, session: int) -> bool:
    """Whether a port is listened on, and by no process of that session.

    What cannot be seen (the kernel's tables, another user's processes) is no reason to think so.
    """
    sockets = {f"socket:[{inode}]" for inode in _listeners(port)}
    if not sockets:
        return False
    seen = False
    for name in os.listdir(PROC):  # noqa: PTH208 - a tenth of iterdir's time
        with contextlib.suppress(OSError, ValueError, IndexError):
            if name.isdigit() and _session(name) == session:
                for number in os.listdir(PROC / name / "fd"):  # noqa: PTH208
                    seen = True
                    with contextlib.suppress(OSError):
                        if os.readlink(PROC / name / "fd" / number) in sockets:  # noqa: PTH115
                            return False
    return seen


def _session(pid: str) -> int:
    text = (PROC / pid / "stat").read_text(encoding="utf-8", errors="replace")
    return int(text.rpartition(")")[2].split()[3])


def _listeners(port: int) -> set[str]:
    """The inodes of the sockets that listen on a port, of whatever address."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found
