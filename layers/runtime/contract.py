"""The words that a function and its callers share."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol


class InputError(Exception):
    """The input cannot be processed and never will be: one clear sentence that names the file, the field and the mend.

    Raised by a function; ends the run with exit status 65, leaves nothing in the destination, and is not retried.
    """


class Checkpointed(Exception):  # noqa: N818 - it is an outcome, not an error
    """Stopped on purpose: the state is in `job.checkpoint`, run it again (exit status 75, no attempt counted)."""


class Exit(IntEnum):
    """Exit statuses of a run (the names of sysexits.h); anything else is a failure that is worth another attempt."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 65
    AGAIN = 75


@dataclass(frozen=True)
class Input:
    """One object that a request names, staged in as a file of the job's own."""

    bucket: str
    key: str
    sha256: str
    path: Path


class Job(Protocol):
    """A function's only door to anything beside its source, its destination and its settings."""

    @property
    def inputs(self) -> Sequence[Input]:
        """The objects that the request names, in its order; a `select` is resolved once and pinned over attempts."""

    @property
    def checkpoint(self) -> Path:
        """A folder that survives attempts of the same run key, as it was at the last `keep`; empty on the first one."""

    def keep(self) -> None:
        """What stands in `checkpoint` now survives this attempt, however it ends: call it after every save.

        Costs nothing where the folder itself survives; else it goes to object storage. `Checkpointed` does it, too.
        """

    @property
    def stopping(self) -> bool:
        """Whether SIGTERM was seen: save to `checkpoint` and raise `Checkpointed`."""

    @property
    def seed(self) -> int:
        """A 64-bit seed that derives from the source's SHA-256: same input, same random numbers."""

    def model(self, name: str) -> Path:
        """The file of the version of `name` that serves, resolved once at start; `name` must be listed in `MODELS`."""

    def progress(self, done: float, total: float) -> None:
        """Tell whoever watches how far the run has come; cheap, call it as often as is natural."""
