"""What the plugin asks of a batch system, whichever it is: Slurm, or plain processes on this machine."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class BatchRefused(Exception):  # noqa: N818 - the batch system's answer, not a defect
    """The batch system will never take this job; the message is its own, in one line."""


class BatchUnavailable(Exception):  # noqa: N818
    """The batch system does not answer now; whether it has taken what was just submitted is not known."""


class BatchBusy(BatchUnavailable):
    """The batch system has not taken the job, but may take the same one later: a full queue, a maintenance."""


class BatchState(StrEnum):
    """Where a job is. Only `COMPLETED` may be a success; `UNKNOWN` says nothing, and never ends a pod."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """Whether a job in this state has ended."""
        return self not in (BatchState.PENDING, BatchState.RUNNING, BatchState.UNKNOWN)


@dataclass(frozen=True)
class Submission:
    """A job to be submitted. `name` is the pod's uid: by it the job is found again, whatever happened meanwhile."""

    name: str
    comment: str
    script: Path
    folder: Path
    flags: tuple[str, ...] = ()
    """The batch system's own flags, checked and complete, e.g. `--time=60`."""


@dataclass(frozen=True)
class BatchJob:
    """A job as the batch system tells of it; times in seconds since 1970, None where it does not say."""

    id: str
    name: str
    state: BatchState
    reason: str = ""
    """Why it waits, or how it ended, in the batch system's words."""
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True)
class Resources:
    """What the batch system has in all (not what is free): cores, bytes of memory, jobs, and GPUs by type."""

    cpus: int
    memory: int
    pods: int
    accelerators: Mapping[str, int]


class Batch(Protocol):
    """A batch system."""

    async def submit(self, submission: Submission) -> str:
        """Submit a job; its id. Raises BatchRefused, BatchBusy, or BatchUnavailable where it may have been taken."""
        ...

    async def named(self, names: Collection[str]) -> list[BatchJob]:
        """All jobs of these names that are still known, ended ones too. Raises BatchUnavailable.

        Whether one has ended is told, how it has only by `query`.
        """
        ...

    async def query(self, ids: Collection[str]) -> dict[str, BatchJob]:
        """The jobs of these ids in one question; one left out is not known any more. Raises BatchUnavailable."""
        ...

    async def cancel(self, job: str) -> None:
        """End a job; one that has ended or is unknown needs no more. Raises BatchUnavailable."""
        ...

    async def ping(self) -> Resources:
        """What the batch system has. Raises BatchUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of what is held; jobs go on."""
        ...
