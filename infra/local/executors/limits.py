"""What a run may take: memory, as its FDL says, processes, and a log of bounded length; nothing of it outlives it.

A watchdog instead of the kernel's own limits, since it works everywhere: cgroups are rarely a user's to write,
RLIMIT_AS and RLIMIT_DATA count what is mapped instead of what is used, and no RLIMIT counts a tree of processes. It
looks at runs that have lasted a while; a short one costs an entry in a table. It reads `/proc` itself: a few fields of
three files do not pay for a dependency.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from infra.local.executors import Ended

LOOK_S = 0.25
"""Between two looks; a run that is over by then has not been looked at."""
SHARE = 0.02
"""Of one core, which looks may take at most: on a machine with thousands of processes they come less often."""
SWEEPS = 2
"""Looks at all processes, after the end of one of ours, that must find nothing left of it."""
LOG_MOST = 64 << 20
LOG_HEAD = 32 << 20
LOG_TAIL = 1 << 20
"""A log that has grown beyond LOG_MOST keeps its first LOG_HEAD and its last LOG_TAIL bytes."""
LOG_BLOCK = 1 << 20
"""File systems take whole blocks out of a file."""
LOG_NOTE = 100
"""Bytes of what is said in between, over the end of the first part."""
COLLAPSE_RANGE = 0x08
"""Of `fallocate`, in Linux: ext4 and XFS have it."""
CHASES = 64
"""Times that the end of a log is read again while a run goes on writing, on other file systems."""
SETTING = "DIOSCAR_LIMITS"
PROCESS = "DIOSCAR_PROCESS"
"""Set in every process that an executor starts, and so in all that those start: each has a mark of its own."""
MOST_PROCESSES = 512
"""Of a run at once; where the kernel counts, with their threads."""
OUT_OF_MEMORY = 137
"""The exit status that Kubernetes gives to a container which was killed for its memory."""
OOM_SCORE = "500"
TOO_MANY = f"wanted more than {MOST_PROCESSES} processes and threads at once; start fewer"
PROC = Path("/proc")

log = logging.getLogger("dioscar.jobs")


@dataclass(eq=False)
class Watch:
    """A run under way. `used`, in bytes, or `processes` is what it was ended for. `memory` 0 is no limit."""

    pid: int
    memory: int
    log: Path
    began: float = field(default_factory=time.monotonic)
    used: int = 0
    processes: int = 0
    left_out: int = 0
    cutting: threading.Lock = field(default_factory=threading.Lock)

    def ended(self) -> Ended | None:
        """The end of a run that took too much."""
        if self.processes:
            return Ended(1, "TooManyProcesses", TOO_MANY)
        if not self.used:
            return None
        return Ended(
            OUT_OF_MEMORY,
            "OutOfMemory",
            f"used {in_units(self.used)}, more than its {in_units(self.memory)} (memory in the FDL); give it more",
        )


class Limits:
    """The watchdog of one cluster; belongs to one event loop."""

    def __init__(self, *, memory: bool = True) -> None:
        self._memory = memory
        self._watches: set[Watch] = set()
        self._marks: set[str] = set()
        self._clean = SWEEPS
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closed = False
        self._failing = False

    def mark(self) -> str:
        """A mark for a process that is about to start: the value of its variable `PROCESS`."""
        mark = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._marks.add(mark)
        return mark

    def forget(self, mark: str) -> None:
        """The process of that mark has ended: what still bears the mark is to end too."""
        self._marks.discard(mark)
        self._clean = 0
        self._arm(LOOK_S)

    @contextmanager
    def watch(self, pid: int, memory: int, log: Path) -> Iterator[Watch]:
        """Watch over a run, in the process `pid` and in all that come from it, of `memory` bytes at most."""
        watch = Watch(pid, memory if self._memory else 0, log)
        self._watches.add(watch)
        self._arm(LOOK_S)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            if time.monotonic() - watch.began > LOOK_S / 5:
                trim(watch)

    async def close(self) -> None:
        """Look once more for what was left running, and stop."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            await asyncio.wait([self._looking])
        if self._clean < SWEEPS:
            await asyncio.to_thread(sweep, self._marks)

    def _arm(self, delay_s: float) -> None:
        if self._timer is None and self._looking is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        before, took = time.monotonic(), 0.0
        watches = [watch for watch in self._watches if before - watch.began >= LOOK_S]
        try:
            if watches:
                took = await asyncio.to_thread(look, watches)
            if self._clean < SWEEPS:
                left = await asyncio.to_thread(sweep, self._marks)
                self._clean = 0 if left else self._clean + 1
            self._failing = False
        except Exception:  # it must not be the end of all looking
            if not self._failing:
                log.exception("the watchdog could not look")
            self._failing = True
        self._looking = None
        if self._watches or self._clean < SWEEPS:
            self._arm(max(LOOK_S, took / SHARE))


def are_on(environ: Mapping[str, str]) -> bool:
    """Whether memory is limited: the variable DIOSCAR_LIMITS, `on` or `off`. Raises ValueError."""
    value = environ.get(SETTING, "on").strip().lower() or "on"
    if value not in ("on", "off"):
        raise ValueError(f'{SETTING}: "{value}" is neither on nor off; write "off" to run without memory limits')
    return value == "on"


def last_in_line(pid: int) -> None:
    """Should the machine run out of memory, let the kernel end this process, and what it starts, before the cluster."""
    with contextlib.suppress(OSError):
        (PROC / str(pid) / "oom_score_adj").write_text(OOM_SCORE)


def look(watches: Iterable[Watch]) -> float:
    """End every run that takes more than it may, cut logs to their length, and return the CPU seconds it took."""
    began = time.thread_time()
    table = _table()
    for watch in watches:
        trim(watch)
        if watch.memory:
            tree = _tree(table, watch.pid)
            if len(tree) > MOST_PROCESSES:
                watch.processes = len(tree)
                _kill(tree)
                continue
            used = _memory(tree, "status", (b"RssAnon", b"RssShmem", b"VmSwap"))
            if used > watch.memory and len(tree) > 1:  # pages that forks share were counted for each
                used = _memory(tree, "smaps_rollup", (b"Pss_Anon", b"Pss_Shmem", b"SwapPss")) or used
            if used > watch.memory:
                watch.used = used
                _kill(tree)
    return time.thread_time() - began


def sweep(living: Container[str]) -> int:
    """Kill what bears the mark of a process of ours that is not `living` any more; returns how many there were.

    `living` is asked after a process has been found: one that starts meanwhile is in it by then.
    """
    ours = f"{PROCESS}={os.getpid()}-".encode()
    prefix = len(PROCESS) + 1
    left = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            environ = _read(pid, "environ")
            if ours not in environ:
                continue
            marks = [entry[prefix:].decode() for entry in environ.split(b"\0") if entry.startswith(ours)]
            if marks and not any(mark in living for mark in marks):
                left.append(pid)
    _kill(left)
    return len(left)


def trim(watch: Watch) -> None:
    """Cut a log that is too long, and say so in it; the end of a run and a look at it may both want to."""
    with watch.cutting, contextlib.suppress(OSError), watch.log.open("r+b", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= LOG_MOST:
            return
        length = (size - LOG_HEAD - LOG_TAIL) // LOG_BLOCK * LOG_BLOCK
        left_out = length if _collapse(stream.fileno(), LOG_HEAD, length) else _moved(stream)
        watch.left_out += left_out + (0 if watch.left_out else LOG_NOTE)
        note = f"\n[dioscar: {in_units(watch.left_out)} are left out here: a log holds {LOG_MOST >> 20} MiB]"
        stream.seek(LOG_HEAD - LOG_NOTE)
        stream.write(f"{note:<{LOG_NOTE - 1}}\n".encode())


def _collapse(descriptor: int, start: int, length: int) -> bool:
    """Take a range out of a file, at once for whoever writes at its end; False where its file system cannot."""
    try:
        fallocate = ctypes.CDLL(None).fallocate
    except (AttributeError, OSError):  # not on Linux
        return False
    return not fallocate(descriptor, COLLAPSE_RANGE, ctypes.c_int64(start), ctypes.c_int64(length))


def _moved(stream: FileIO) -> int:
    """The same by moving the file's end; returns the bytes left out. What is written at that moment is lost."""
    stream.seek(-LOG_TAIL, os.SEEK_END)
    tail = b""
    for _ in range(CHASES):
        more = stream.read()
        tail = (tail + more)[-LOG_TAIL:]
        if not more:
            break
    left_out = stream.tell() - LOG_HEAD - len(tail)
    stream.truncate(LOG_HEAD)
    with Path(stream.name).open("ab") as end:
        end.write(tail)
    return left_out


def in_units(size: int) -> str:
    """Bytes as a person reads them.

    >>> in_units(1 << 30), in_units(1_400_000_000), in_units(3 << 19)
    ('1 GiB', '1.3 GiB', '1.5 MiB')
    """
    unit, name = (1 << 30, "GiB") if size >= 1 << 30 else (1 << 20, "MiB")
    return f"{round(size / unit, 1):g} {name}"


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    session: int


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]  # noqa: PTH208 - a tenth of iterdir's time


def _read(pid: int, file: str) -> bytes:
    """A file about a process, without what `open` does for files of other kinds: there are many to read."""
    descriptor = os.open(f"/proc/{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while piece := os.read(descriptor, 1 << 16):
            data += piece
        return data
    finally:
        os.close(descriptor)


def _table() -> list[_Process]:
    """Every process there is."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _read(pid, "stat").rpartition(b")")[2].split()  # a name may have blanks and brackets
            found.append(_Process(pid, int(fields[1]), int(fields[3])))
    return found


def _tree(table: Iterable[_Process], root: int) -> list[int]:
    """A process, those that come from it, and those that lost their parents and are still in its session."""
    tree = {root} | {process.pid for process in table if process.session == root}
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.parent, []).append(process.pid)
    waiting = list(tree)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in tree:
                tree.add(child)
                waiting.append(child)
    return sorted(tree)


def _memory(pids: Iterable[int], file: str, names: tuple[bytes, ...]) -> int:
    """Bytes that processes hold of what cannot be read again from a file: `file` and `names` say how to count them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in _read(pid, file).splitlines():
                name, _, value = line.partition(b":")
                if name in names:
                    total += int(value.split()[0]) * 1024
    return total


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
