"""What goes wrong, with the exit status that says so to programs (names and numbers of sysexits.h)."""

import os
from enum import IntEnum

DIOSCAR = os.environ.get("DIOSCAR_LAUNCHER") or "dioscar"
"""How this program was called, for sentences that say what to type next."""


class Exit(IntEnum):
    """The exit statuses of `dioscar`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_INPUT = 65
    NOT_FOUND = 66
    UNREACHABLE = 69
    REFUSED = 77
    INTERRUPTED = 130


class CliError(Exception):
    """One sentence for a person, one number for a program."""

    def __init__(self, message: str, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.status = status
