"""Bytes on their way into a blob and out of one: the numbered files, what fills them, and what reads them."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5, sha256
from pathlib import Path
from typing import Protocol

INLINE = 64 * 1024
"""Contents up to this size are stored in the database: one fsync, shared with their row, instead of three."""
BLOCK = 1 << 20
SYNC = 16 << 20
"""Bytes after which an upload is sent on to the disk while its MD5 goes on, so that little is left for its end."""
NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class Digest(Protocol):
    """A running hash, as hashlib has them."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""


@dataclass(frozen=True)
class Blob:
    """Contents that are stored, or (with `data`) will be when their row is inserted; `md5` is empty if never needed."""

    id: int
    size: int
    md5: str
    sha256: str
    data: bytes | None = field(default=None, repr=False)


def place(number: int) -> str:
    """The path of a blob's file below the folder."""
    return f"{(number >> 20 ^ number) & 0xFF:02x}/{number:016x}"


class Folder:
    """Files named by numbers that rise with time and are never used twice, so that a copy of the folder stays true."""

    def __init__(self, root: Path, newest: int) -> None:
        self.root = root
        self.first = self._last = max(newest, int(time.time() * 1000) << 20)
        self._gate = threading.Lock()
        _make_shards(root)

    def path(self, number: int) -> Path:
        """Where the file of this number stands."""
        return self.root / place(number)

    def next(self) -> int:
        """A number for new contents; `first` and what is below it were given by earlier processes."""
        with self._gate:
            self._last = max(self._last + 1, int(time.time() * 1000) << 20)
            return self._last

    def create(self) -> tuple[int, int]:
        """A new number, and the descriptor of its empty file."""
        while True:
            number = self.next()
            with suppress(FileExistsError):  # left by a process whose clock was ahead
                return number, os.open(self.path(number), os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)

    def seal(self, number: int, descriptor: int) -> None:
        """Put a file on disk for good, and its name."""
        os.fsync(descriptor)
        sync_folder(self.path(number).parent)

    def numbers(self, shard: int) -> list[int]:
        """The numbers of the files in one of the 256 shards."""
        with os.scandir(self.root / f"{shard:02x}") as entries:
            names = [entry.name for entry in entries if len(entry.name) == 16]
        return [int(name, 16) for name in names if not name.strip("0123456789abcdef")]


class Spill:
    """A blob in the making, in one thread: bytes in memory until they are too many, then a file."""

    def __init__(self, folder: Folder, digests: Sequence[Digest] = ()) -> None:
        self._folder = folder
        self._md5, self._sha256 = md5(usedforsecurity=False), sha256()
        self._digests: Sequence[Digest] = (self._md5, self._sha256, *digests)
        self._number = 0
        self._descriptor = -1
        self._data = b""
        self._synced = 0
        self.size = 0

    def absorb(self, data: bytes) -> None:
        """Hash and keep more bytes."""
        for digest in self._digests:
            digest.update(data)
        self.size += len(data)
        if self.in_memory:
            if self.size <= INLINE:
                self._data += data
                return
            self._spill()
        write_all(self._descriptor, data)

    def steps(self, blocks: Sequence[bytes]) -> tuple[Callable[[], None], Callable[[], None]]:
        """`absorb` for bytes that are too many for memory, as two pieces of work that may go on at the same time.

        The MD5 is one of them: it takes as long as everything else together.
        """
        return partial(self._hash, blocks), partial(self._store, blocks)

    def _hash(self, blocks: Sequence[bytes]) -> None:
        for block in blocks:
            self._md5.update(block)

    def _store(self, blocks: Sequence[bytes]) -> None:
        if self.in_memory:
            self._spill()
        for block in blocks:
            for digest in self._digests[1:]:
                digest.update(block)
            write_all(self._descriptor, block)
            self.size += len(block)
        if self.size - self._synced >= SYNC:
            os.fdatasync(self._descriptor)
            self._synced = self.size

    def _spill(self) -> None:
        """Go on in a file, which begins with what was in memory."""
        self._number, self._descriptor = self._folder.create()
        data, self._data = self._data, b""
        write_all(self._descriptor, data)

    def finish(self) -> Blob:
        """The blob; its file, if it has one, is on disk."""
        hashes = self._md5.hexdigest(), self._sha256.hexdigest()
        if self.in_memory:
            return Blob(self._folder.next(), self.size, *hashes, self._data)
        self._folder.seal(self._number, self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        return Blob(self._number, self.size, *hashes)

    @property
    def in_memory(self) -> bool:
        """Whether there is no file to write, finish or remove."""
        return self._descriptor < 0

    def abandon(self) -> None:
        """Leave nothing of a blob that was not finished."""
        if not self.in_memory:
            os.close(self._descriptor)
            self._descriptor = -1
            self._folder.path(self._number).unlink(missing_ok=True)

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()


class Content:
    """The open contents of a blob, in memory or in a file, readable until closed whatever becomes of the blob."""

    def __init__(self, size: int, source: bytes | Path, executor: Executor) -> None:
        self._descriptor = -1
        self.size = size
        self.data = source if isinstance(source, bytes) else None
        self._descriptor = -1 if isinstance(source, bytes) else os.open(source, os.O_RDONLY | FLAGS)
        self._executor = executor

    def ready(self, start: int, count: int) -> bytes | bytearray:
        """Of these bytes those that are in memory, where the system can tell; nothing: `read` has to wait for them."""
        if self.data is not None:
            return self.data[start : start + count]
        if NOWAIT is None:
            return b""
        block = bytearray(count)
        try:
            found = os.preadv(self._descriptor, [block], start, NOWAIT)
        except OSError:  # not in memory, or a file system that cannot tell: `read` finds out what is wrong
            return b""
        return block if found == count else block[:found]

    async def read(self, start: int, count: int) -> bytes:
        """Up to `count` bytes from `start`; a file is read by a thread."""
        if self.data is not None:
            return self.data[start : start + count]
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, os.pread, self._descriptor, count, start
        )

    def copy_to(self, target: int) -> None:
        """Append everything to the file `target`, within the kernel where it can; for a thread."""
        if self.data is not None:
            write_all(target, self.data)
            return
        copied = 0
        while copied < self.size:
            count = self._copy_range(target, copied)
            if not count:
                raise OSError(errno.EIO, "a blob is shorter than its row says")
            copied += count

    def _copy_range(self, target: int, start: int) -> int:
        try:
            return os.copy_file_range(self._descriptor, target, min(self.size - start, 1 << 30), start)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        block = os.pread(self._descriptor, BLOCK, start)
        write_all(target, block)
        return len(block)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "Content":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte at the descriptor's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_shards(root: Path) -> None:
    """All at once: creating one later would need its parent's fsync on a hot path."""
    if (root / "ff").is_dir():
        return
    for shard in range(256):
        (root / f"{shard:02x}").mkdir(parents=True, exist_ok=True)
    sync_folder(root)
    sync_folder(root.parent)
