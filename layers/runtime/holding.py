"""Where runs keep what survives them, and which run has a folder of it: one at a time.

A folder is held by a lock (`flock`) on a file beside it, `<folder>.lock`: it ends with the process that has it, however
that ends, and goes with the folder.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from layers.runtime.contract import InputError

HOLDER_S, POLL_S = 120.0, 0.5
"""How long a run waits for the one that has its folder: an attempt that is ending needs a moment, and the lock of a
node that has died some more (NFS frees it after 90 s). What still has it then is another run."""


def run_folder(root: Path, run_key: str, bucket: str) -> Path:
    """The folder of a run: that of its key, which has no bucket in it, and of the bucket that invoked it."""
    return root / (f"{run_key}-{hashlib.sha256(bucket.encode()).hexdigest()[:16]}" if bucket else run_key)


def run_key_of(folder: Path) -> str:
    """The run key of such a folder."""
    return folder.name.partition("-")[0]


def default_root() -> Path:
    """Where nothing else is said: in the folder for temporary files, a folder for each user."""
    return Path(tempfile.gettempdir()) / f"dioscar-checkpoints-{os.geteuid()}"


def make_root(root: Path) -> None:
    """Make the folder of all runs. Raises InputError where the default one is not this user's alone."""
    if root != default_root():
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    else:
        with contextlib.suppress(FileExistsError):
            root.mkdir(mode=0o700)
        found = root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise InputError(f"{root}: is not a folder of this user alone; remove it, or set DIOSCAR_CHECKPOINT")


class Held:
    """A folder that this run has, and no other. Without a `lock` the file system knows of none."""

    def __init__(self, folder: Path, lock: int | None) -> None:
        self._folder = folder
        self._lock = lock

    def remove(self) -> None:
        """What is in it, and the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def release(self) -> None:
        """Leave it to the next run; a folder that is not there needs no lock."""
        if self._lock is None:
            return
        if not self._folder.exists() and _is_there(self._lock, self._folder):
            _lock_file(self._folder).unlink(missing_ok=True)
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # a child of this process may have the descriptor, too
        os.close(self._lock)
        self._lock = None


def held(folder: Path, patience_s: float) -> Held | None:
    """Have the folder, which need not be there; None where another run has it for so long."""
    end = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(BlockingIOError):
            return _held(folder)
        if time.monotonic() >= end:
            return None
        time.sleep(POLL_S)


def _held(folder: Path) -> Held:
    while True:
        lock = os.open(_lock_file(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(lock, folder):
                return Held(folder, lock)
        except BlockingIOError:
            os.close(lock)
            raise
        except OSError as error:  # some file systems of many nodes are mounted without locks
            os.close(lock)
            sentence = f"{folder.parent}: has no locks ({error.strerror}); run a request once at a time"
            print(f"dioscar: {sentence}", flush=True)  # noqa: T201 - the job's log
            return Held(folder, None)
        os.close(lock)


def _is_there(lock: int, folder: Path) -> bool:
    """Whether the lock is still the one beside the folder; who had it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), _lock_file(folder).stat())
    except FileNotFoundError:
        return False


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
