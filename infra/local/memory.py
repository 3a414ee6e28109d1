"""How this process treats memory that it has freed: it keeps some, for the next block is as large as the last."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""As in glibc's malloc.h."""
KEPT = 16 << 20
LARGE = 4 << 20


def keep_freed() -> None:
    """Give blocks of a body back to the system only in bulk: faulting them in anew costs a sixth of a large put.

    Where the C library is not glibc, everything stays as it is.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGE)
