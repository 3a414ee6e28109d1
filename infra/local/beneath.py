"""Files that a run has made, opened without following links: it may put one in the place of any of its own files."""

import errno
import os
import stat
from pathlib import Path

FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(path: Path, within: Path | None = None) -> int:
    """A descriptor of the regular file `path`; no folder on the way to it from `within` may be a link, nor it itself.

    Raises OSError.
    """
    if within is None:
        return _checked(os.open(path, FLAGS), path)
    real = Path(os.path.realpath(within))
    root = real if path.is_relative_to(real) else within
    if not path.is_relative_to(root):
        raise OSError(errno.EXDEV, "is outside of the run's folders", str(path))
    *folders, name = path.relative_to(root).parts
    at = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            below = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        return _checked(os.open(name, FLAGS, dir_fd=at), path)
    finally:
        os.close(at)


def _checked(descriptor: int, path: Path) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is no regular file", str(path))
