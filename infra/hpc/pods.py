"""What the plugin knows of its pods: one file in each pod's folder, so that it outlives any death of the plugin."""

import asyncio
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from infra.hpc.batch import BatchJob, BatchState, Submission
from infra.hpc.folder import KEPT, NAME, OUTPUT, RECORD, file_of, pod_folder, sync_folder, write_whole

log = logging.getLogger(__name__)

LOCK = ".lock"


class RootError(Exception):
    """The root cannot be used; the message is one sentence with the mend."""


@dataclass
class Run:
    """One submission of a pod, from when it was meant (seconds since 1970) to the job that came of it."""

    intent: float
    id: str = ""
    """The job; empty while it is not known whether there is one."""
    submitted: float | None = None
    """By the batch system's clock, once it has told."""
    offsets: dict[str, int] = field(default_factory=dict)
    """Where each container's log began in its file, in bytes."""


@dataclass
class Record:
    """A pod. What changes is saved before anything is done or said that depends on it."""

    uid: str
    namespace: str
    name: str
    containers: list[str]
    init_containers: list[str]
    images: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    script: str = ""
    comment: str = ""
    flags: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    """All submissions, the last one is the current one; none, or one without a script, was never written out."""
    state: str = BatchState.PENDING.value
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    missing: float | None = None
    """Since when the batch system, though it answers, has not known the job."""
    final: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How each container has ended, once the pod has: what is told for ever after."""
    finished: float | None = None
    """When the plugin saw that the pod had ended."""
    abandoned: bool = False
    """Its creation was answered with an error, so whatever came of it is to be cancelled."""
    ended_jobs: list[str] = field(default_factory=list)
    """The jobs that were ended here because of that: none of them is the pod's, if it is created after all."""
    deleted: float | None = None
    cancelled: bool = False
    """Deleted or abandoned, and no job of it is left."""

    @property
    def run(self) -> Run | None:
        """The current submission."""
        return self.runs[-1] if self.runs else None

    @property
    def job(self) -> str:
        """The current job's id, empty while there is none that is known."""
        return self.run.id if self.run else ""

    @property
    def is_live(self) -> bool:
        """Whether there is a job to be watched."""
        return bool(self.job) and not self.final and not self.deleted and not self.abandoned

    @property
    def in_doubt(self) -> bool:
        """Whether the batch system may or may not have a job that the plugin does not know."""
        return bool(self.runs) and not self.job and not self.final and not self.deleted and not self.abandoned

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be done for it for the time being: it has ended, or is deleted and has no job left."""
        if self.deleted or self.abandoned:
            return self.cancelled
        return bool(self.final) or not self.runs

    @property
    def all_containers(self) -> list[str]:
        """Init containers, then containers."""
        return [*self.init_containers, *self.containers]

    def known_job(self) -> BatchJob:
        """What was last heard of the current job."""
        run = self.run
        return BatchJob(
            id=self.job,
            name=self.uid,
            state=BatchState(self.state),
            reason=self.reason,
            submitted=run.submitted if run else None,
            started=self.started,
            ended=self.ended,
            exit_code=self.exit_code,
            signal=self.signal,
        )

    def heard(self, job: BatchJob) -> bool:
        """Take over what the batch system says of the job; whether that is worth keeping, as a new reason is not."""
        new = (job.state.value, job.started, job.ended, job.exit_code, job.signal)
        old = (self.state, self.started, self.ended, self.exit_code, self.signal)
        self.state, self.started, self.ended, self.exit_code, self.signal = new
        self.reason = job.reason
        changed = old != new
        self.missing = None
        if self.run and job.submitted is not None and self.run.submitted != job.submitted:
            self.run.submitted = job.submitted
            changed = True
        return changed

    def begin_run(self, now: float, offsets: dict[str, int] | None = None) -> Run:
        """Note that the pod is about to be submitted (again)."""
        run = Run(intent=now, offsets=offsets or {})
        self.runs.append(run)
        self.state, self.reason = BatchState.PENDING.value, ""
        self.started = self.ended = self.exit_code = self.signal = self.missing = None
        return run


class Pods:
    """All pods of a root: in memory, and in their folders. One plugin at a time has a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._records: dict[str, Record] = {}
        self._unsettled: dict[str, Record] = {}
        self._writes: dict[str, asyncio.Lock] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._lock: int | None = None

    def open(self) -> None:
        """Take the root for this process and read what is there. Raises RootError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise RootError(f"{self.root}: another plugin uses this root; stop it, or give this one its own") from None
        except OSError as error:
            self.close()
            raise RootError(f"{self.root}: cannot be used as the root: {error.strerror}") from None
        for path in sorted(self.root.glob(f"*/{RECORD}")):
            record = _read(path)
            if record is not None:
                self._keep(record)

    def close(self) -> None:
        """Let go of the root."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def get(self, uid: str) -> Record | None:
        """The pod of a uid."""
        return self._records.get(uid)

    def lock(self, uid: str) -> asyncio.Lock:
        """Whoever submits a pod, ends its jobs or removes its files has this meanwhile; it lives while it is held."""
        return self._locks.setdefault(uid, asyncio.Lock())

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def unsettled(self) -> list[Record]:
        """The pods for which there is something to be done: few beside those that are only kept."""
        return list(self._unsettled.values())

    def folder(self, record: Record) -> Path:
        """The pod's folder."""
        return pod_folder(self.root, record.namespace, record.uid)

    def submission(self, record: Record) -> Submission:
        """The pod's job, as it was written out."""
        return Submission(record.uid, record.comment, Path(record.script), self.folder(record), tuple(record.flags))

    async def save(self, record: Record, *, durable: bool = True) -> None:
        """Keep a pod as it is now; where `durable`, also over a power cut. Raises OSError."""
        content = json.dumps(asdict(record), separators=(",", ":")).encode()
        self._keep(record)
        folder = self.folder(record)
        try:
            async with self._writes.setdefault(record.uid, asyncio.Lock()):
                await asyncio.to_thread(_write, folder, content, durable)
        except OSError:
            if self._records.get(record.uid) is record:
                self._unsettled[record.uid] = record  # it is to be tried again
            raise

    async def forget(self, record: Record) -> None:
        """Remove a pod and its folder."""
        async with self._writes.setdefault(record.uid, asyncio.Lock()):
            await asyncio.to_thread(shutil.rmtree, self.folder(record), ignore_errors=True)
        self._records.pop(record.uid, None)
        self._unsettled.pop(record.uid, None)
        self._writes.pop(record.uid, None)

    def _keep(self, record: Record) -> None:
        self._records[record.uid] = record
        if record.is_settled:
            self._unsettled.pop(record.uid, None)
        else:
            self._unsettled[record.uid] = record

    async def strip(self, record: Record) -> None:
        """Remove what a pod that has ended leaves, its secrets above all; its record, logs and exit codes stay."""
        async with self._writes.setdefault(record.uid, asyncio.Lock()):  # a record that is being written stays, too
            await asyncio.to_thread(_strip, self.folder(record), record.all_containers)


def log_sizes(folder: Path, containers: list[str]) -> dict[str, int]:
    """How long each container's log is, in bytes."""
    sizes = {}
    for name in containers:
        path = file_of(folder, name, "log")
        sizes[name] = path.stat().st_size if path.exists() else 0
    return sizes


def _write(folder: Path, content: bytes, durable: bool) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
    write_whole(folder / RECORD, content, durable=durable)


def _strip(folder: Path, containers: list[str]) -> None:
    keep = {RECORD, OUTPUT, *(name + ending for name in containers for ending in KEPT)}
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name in keep:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _read(path: Path) -> Record | None:
    """A record; None, with a word in the log, for what is none: it is left where it is for a person to look at."""
    try:
        values = json.loads(path.read_bytes())
        values["runs"] = [Run(**run) for run in values["runs"]]
        record = Record(**values)
        if not NAME.fullmatch(record.uid) or path.parent.name != f"{record.namespace}-{record.uid}":
            raise ValueError("does not belong to this folder")
        BatchState(record.state)
        return record
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.error("%s: is no record of a pod, and is left alone: %s", path, error)
        return None
