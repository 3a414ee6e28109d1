"""Containers' logs: streamed from the file in bounded memory, with the options that Kubernetes knows.

No process stands between a container and its log file, so nothing is lost with one, and a line bears no time. Instead
the plugin notes, each time that it looks at the jobs, how long the log is and when it was last written to, in
`<name>.times`. The time of a line is that of the first such note which includes it: at most `poll` seconds too late.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from infra.hpc.folder import file_of
from infra.hpc.protocol import LogOptions

BLOCK = 64 * 1024
"""The most of a log that is in memory for one reader, in bytes."""

SILENCE_S = 20.0
"""interLink's server passes a reply on with its first byte, which its client does not await for longer than 30 s."""

_LOOK_S = 0.25
_NOTE = 34
"""The length of a note, `<seconds> <bytes>` and a line feed: all the same, so that they can be searched."""


class LogOptionsError(ValueError):
    """Options that contradict each other or make no sense, in one sentence."""


@dataclass(frozen=True)
class Part:
    """What of a log file to send: from a byte to another, or to the end where that is None."""

    start: int
    end: int | None


class Notes:
    """The notes of logs' lengths over time; remembers the last length of each, so that silence costs one look."""

    def __init__(self) -> None:
        self._sizes: dict[Path, int] = {}

    def take(self, folders: Iterable[tuple[Path, list[str]]]) -> None:
        """Note those of the containers' logs that have grown."""
        for folder, containers in folders:
            for name in containers:
                self._take(file_of(folder, name, "log"), file_of(folder, name, "times"))

    def forget(self, folder: Path, containers: list[str]) -> None:
        """Drop what is remembered of a pod that has ended."""
        for name in containers:
            self._sizes.pop(file_of(folder, name, "log"), None)

    def _take(self, log: Path, times: Path) -> None:
        try:
            state = log.stat()
            if not state.st_size or self._sizes.get(log) == state.st_size:
                return
            with times.open("ab") as stream:
                stream.write(b"%017.6f %015d\n" % (state.st_mtime, state.st_size))
        except OSError:
            return  # a full disk costs times, no log
        self._sizes[log] = state.st_size


def check(options: LogOptions) -> None:
    """Raise LogOptionsError where options make no sense together."""
    if options.tail < 0 or options.bytes < 0 or options.since_seconds < 0:
        raise LogOptionsError("Opts: Tail, Bytes and SinceSeconds cannot be negative")
    if options.tail and options.bytes:
        raise LogOptionsError("Opts: Tail and Bytes cannot both be given")
    if options.since_seconds and since_time(options):
        raise LogOptionsError("Opts: SinceSeconds and SinceTime cannot both be given")


def since_time(options: LogOptions) -> float | None:
    """The time that `SinceTime` names, in seconds since 1970; None where it is unset, which is the year 1."""
    if options.since_time is None or options.since_time.year <= 1:
        return None
    return options.since_time.timestamp()


def select(log: Path, times: Path, options: LogOptions, whole: Part) -> Part:
    """The part of a log within `whole` that the options ask for."""
    try:
        size, written = log.stat().st_size, log.stat().st_mtime
    except FileNotFoundError:
        return whole
    stop = size if whole.end is None else min(size, whole.end)
    start = min(whole.start, stop)
    since = time.time() - options.since_seconds if options.since_seconds else since_time(options)
    if since is not None:
        start = max(start, stop if written < since else _line_start(log, _size_before(times, since)))
    if options.tail:
        start = _tail(log, start, stop, options.tail)
    return Part(start, whole.end)


@dataclass(frozen=True)
class Reader:
    """Who gets a log: whether they are gone, and whether they give up a log that begins with silence."""

    gone: Callable[[], Awaitable[bool]]
    impatient: bool = False


async def stream(
    log: Path, times: Path, options: LogOptions, part: Part, alive: Callable[[], bool], reader: Reader
) -> AsyncIterator[bytes]:
    """A part of a log as it is sent; followed, until nobody writes to it any more, or its reader is gone.

    An impatient reader gets an empty line where the log begins with a long silence.
    """
    stamps = _Stamps(log, times) if options.timestamps else None
    left = options.bytes or None
    offset, end = part.start, part.end
    if end is None and not options.follow:
        end = await asyncio.to_thread(_size, log)
    began = time.monotonic()
    silent = True
    while end is None or offset < end:
        writes = alive()  # asked before the file is read, so that its last words are
        block = await asyncio.to_thread(_read, log, offset, BLOCK if end is None else min(BLOCK, end - offset))
        if block:
            sent = block if stamps is None else await asyncio.to_thread(stamps.stamp, block, offset)
            offset += len(block)
            if left is not None:
                sent = sent[:left]
                left -= len(sent)
            yield sent
            silent = False
            if left == 0:
                return
            continue
        if end is not None or not writes or await reader.gone():
            return
        if reader.impatient and silent and time.monotonic() - began > SILENCE_S:
            yield b"\n"
            silent = False
        await asyncio.sleep(_LOOK_S)


class _Stamps:
    """Puts the time before each line, as `kubectl logs --timestamps` shows it."""

    def __init__(self, log: Path, times: Path) -> None:
        self._log = log
        self._times = times
        self._at_start = True
        self._until = -1
        self._stamp = b""

    def stamp(self, block: bytes, offset: int) -> bytes:
        """A block of the log that begins at `offset`, with its lines stamped."""
        out = []
        for line in _lines(block):
            if self._at_start:
                out.append(self._at(offset))
            out.append(line)
            offset += len(line)
            self._at_start = line.endswith(b"\n")
        return b"".join(out)

    def _at(self, offset: int) -> bytes:
        if offset >= self._until:
            seconds, self._until = _noted(self._times, self._log, offset)
            whole = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._stamp = f"{whole}.{int(seconds % 1 * 1e6):06d}000Z ".encode()
        return self._stamp


def _lines(block: bytes) -> list[bytes]:
    """Lines as line feeds end them; `splitlines` would take a progress bar's carriage returns for ends."""
    parts = block.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _noted(times: Path, log: Path, offset: int) -> tuple[float, int]:
    """When the byte at `offset` was first seen, and up to which byte that holds."""
    try:
        with times.open("rb") as stream:
            count = _count(times)
            low, high = 0, count
            while low < high:
                middle = (low + high) // 2
                if _note(stream, middle)[1] > offset:
                    high = middle
                else:
                    low = middle + 1
            if low < count:
                return _note(stream, low)
    except (OSError, ValueError):
        pass
    try:
        state = log.stat()
    except OSError:
        return time.time(), offset + 1
    return state.st_mtime, max(state.st_size, offset + 1)


def _size_before(times: Path, since: float) -> int:
    """How long the log was at the last note before a time."""
    try:
        with times.open("rb") as stream:
            low, high = 0, _count(times)
            while low < high:
                middle = (low + high) // 2
                if _note(stream, middle)[0] < since:
                    low = middle + 1
                else:
                    high = middle
            return _note(stream, low - 1)[1] if low else 0
    except (OSError, ValueError):
        return 0


def _count(times: Path) -> int:
    return times.stat().st_size // _NOTE


def _note(stream: BinaryIO, number: int) -> tuple[float, int]:
    stream.seek(number * _NOTE)
    seconds, size = stream.read(_NOTE).split()
    return float(seconds), int(size)


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def _read(log: Path, offset: int, count: int) -> bytes:
    try:
        with log.open("rb") as stream:
            stream.seek(offset)
            return stream.read(count)
    except FileNotFoundError:
        return b""


def _line_start(log: Path, offset: int) -> int:
    """The start of the line that a byte is in; the byte itself where the line began too far before."""
    if not offset:
        return 0
    start = max(0, offset - BLOCK)
    before = _read(log, start, offset - start)
    feed = before.rfind(b"\n")
    return start + feed + 1 if feed >= 0 else (0 if start == 0 else offset)


def _tail(log: Path, start: int, stop: int, lines: int) -> int:
    """Where the last lines before `stop` begin, not before `start`; a line need not be ended."""
    position, feeds = stop, 0
    wanted = lines
    while position > start:
        begin = max(start, position - BLOCK)
        block = _read(log, begin, position - begin)
        if position == stop and block.endswith(b"\n"):
            wanted = lines + 1
        count = block.count(b"\n")
        if feeds + count >= wanted:
            at = len(block)
            for _ in range(wanted - feeds):
                at = block.rfind(b"\n", 0, at)
            return begin + at + 1
        feeds += count
        position = begin
    return start
