"""Folders that runs write to, walked while they do: no link is followed, whenever it is put in the way."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DEEPEST = 128
"""Folders one in the other; each takes a descriptor while it is walked."""


def size_of(folder: Path) -> int:
    """Bytes in the files of a tree; a file of several names counts once."""
    total, seen = 0, set()
    for _, name, at in _entries(folder):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_ino not in seen:
                total += status.st_size
                if status.st_nlink > 1:
                    seen.add(status.st_ino)
    return total


def give(folder: Path, uid: int, gid: int) -> None:
    """Make a tree somebody's own, links as such. Raises OSError where its root cannot be."""
    os.chown(folder, uid, gid, follow_symlinks=False)
    for _, name, at in _entries(folder):
        with contextlib.suppress(OSError):
            os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)


def copy(folder: Path, target: Path) -> int:
    """Copy files, folders and links of a tree to the new folder `target`; returns the bytes of its files.

    What comes, goes or grows meanwhile is as it happens to be met; sockets and pipes are left out.
    """
    target.mkdir(mode=0o700, parents=True)
    total = 0
    for relative, name, at in _entries(folder):
        to = target / relative / name
        try:
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                to.mkdir(mode=stat.S_IMODE(mode) | stat.S_IRWXU)
            elif stat.S_ISLNK(mode):
                to.symlink_to(os.readlink(name, dir_fd=at))
            elif stat.S_ISREG(mode):
                total += _copy_file(name, at, to)
        except FileNotFoundError:
            continue
    return total


def _copy_file(name: str, at: int, to: Path) -> int:
    with os.fdopen(os.open(name, FILE, dir_fd=at), "rb") as source:
        mode = os.fstat(source.fileno()).st_mode
        if not stat.S_ISREG(mode):
            return 0
        with to.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            os.fchmod(file.fileno(), stat.S_IMODE(mode) & 0o777)
            return file.tell()


def _entries(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Everything below a folder, outermost first: the folder that it is in, its name, and a descriptor of the former.

    What cannot be entered is passed over. Raises OSError where the folder itself cannot be, or is nested too deeply.
    """
    at = os.open(folder, FOLDER)
    try:
        yield from _below(at, Path(), 0)
    finally:
        os.close(at)


def _below(at: int, relative: Path, depth: int) -> Iterator[tuple[Path, str, int]]:
    if depth > DEEPEST:
        raise OSError(errno.ENAMETOOLONG, f"has more than {DEEPEST} folders one in the other", str(relative)[:80])
    with os.scandir(at) as found:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in names:
        yield relative, name, at
        if not is_folder:
            continue
        try:
            below = os.open(name, FOLDER, dir_fd=at)
        except OSError:
            continue
        try:
            yield from _below(below, relative / name, depth + 1)
        finally:
            os.close(below)
