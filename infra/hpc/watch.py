"""Watching jobs: the batch system is asked once for all pods together, however many ask for theirs."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from infra.hpc.batch import Batch, BatchJob, BatchState, BatchUnavailable
from infra.hpc.folder import CLAIM
from infra.hpc.logs import Notes
from infra.hpc.pods import Pods, Record
from infra.hpc.settings import Settings
from infra.hpc.status import (
    Marks,
    as_record,
    ending,
    is_complete,
    last_words,
    read_marks,
    wants_another_run,
)

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long a request for a status waits for the batch system before it gets what was known last."""

_RACY_S = 2.0
"""A folder that changed less than this ago may change again under the same time stamp: its reading is not kept."""


class Watch:
    """What is known of the pods' jobs, at most `poll` seconds old while the batch system answers."""

    def __init__(self, pods: Pods, batch: Batch, settings: Settings, again: Callable[[Record], None]) -> None:
        self._pods = pods
        self._batch = batch
        self._settings = settings
        self._again = again
        self._flight: asyncio.Task[None] | None = None
        self._asked = float("-inf")
        self._ended: dict[str, float] = {}
        self._marks: dict[str, tuple[int, Marks]] = {}
        self._notes = Notes()
        self.error = ""
        """Why the batch system could not be asked the last time; empty where it could."""

    async def fresh(self) -> None:
        """Return when what is known is fresh enough, or the batch system keeps one waiting."""
        if time.monotonic() - self._asked < self._settings.poll:
            return
        if not any(record.is_live for record in self._pods.unsettled()):
            return
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._ask())
        if not self.error:  # else nobody waits for a batch system that is away: it takes seconds to say so
            await asyncio.wait([self._flight], timeout=PATIENCE_S)

    async def close(self) -> None:
        """Stop asking."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    def marks(self, record: Record) -> Marks:
        """What the job's script has written down; read again only where the folder has changed since."""
        folder = self._pods.folder(record)
        try:
            changed = folder.stat().st_mtime_ns
        except OSError:
            return read_marks(folder, record.all_containers)
        kept = self._marks.get(record.uid)
        if kept is not None and kept[0] == changed:
            return kept[1]
        marks = read_marks(folder, record.all_containers)
        if time.time() - changed / 1e9 > _RACY_S:
            self._marks[record.uid] = (changed, marks)
        else:
            self._marks.pop(record.uid, None)
        return marks

    def forget(self, record: Record) -> None:
        """Drop what is held of a pod that is no more watched."""
        self._marks.pop(record.uid, None)
        self._ended.pop(record.uid, None)
        self._notes.forget(self._pods.folder(record), record.all_containers)

    async def _ask(self) -> None:
        asked = {record.uid: record.job for record in self._pods.unsettled() if record.is_live}
        try:
            jobs = await self._batch.query(set(asked.values()))
            self.error = ""
        except BatchUnavailable as error:
            if not self.error:
                log.warning("the batch system does not answer; what was known last is told meanwhile: %s", error)
            self.error = str(error) or "the batch system does not answer"
            return
        except Exception as error:
            log.exception("the batch system could not be asked")
            self.error = type(error).__name__
            return
        finally:
            self._asked = time.monotonic()
        for uid, job in asked.items():
            record = self._pods.get(uid)
            if record is None or not record.is_live or record.job != job:
                continue  # deleted, or submitted again, while the question was under way
            try:
                await self._apply(record, _own(record, jobs.get(job)))
            except Exception:
                log.exception("pod %s/%s: what the batch system said was not taken in", record.namespace, record.name)
        running = [record for record in self._pods.unsettled() if record.is_live and record.state == BatchState.RUNNING]
        await self._note(running)

    async def _note(self, records: list[Record]) -> None:
        folders = [(self._pods.folder(record), record.all_containers) for record in records]
        await asyncio.to_thread(self._notes.take, folders)

    async def _apply(self, record: Record, job: BatchJob | None) -> None:
        if job is None:
            await self._missing(record)
        elif job.state is BatchState.UNKNOWN:
            return
        elif job.state.is_final:
            record.heard(job)
            await self._end(record, job)
        else:
            self._ended.pop(record.uid, None)
            if record.heard(job):
                await self._pods.save(record)

    async def _missing(self, record: Record) -> None:
        """A job that a working batch system does not know: its script's word is taken, else it is lost after a time."""
        now = time.time()
        record.missing = record.missing or now
        marks = _fresh_marks(self._pods.folder(record), record.all_containers)
        overdue = now - record.missing >= self._settings.lost_after
        if is_complete(record, marks) or (overdue and not await self._found_elsewhere(record)):
            await self._finish(record, None, marks)

    async def _found_elsewhere(self, record: Record) -> bool:
        """Whether a job that lives, or another one, bears the pod's name: then that one is watched."""
        try:
            jobs = await self._batch.named([record.uid])
        except BatchUnavailable:
            return True  # cannot tell now; it stays missing
        job = candidate(record, jobs)
        if job is None or record.run is None or (job.id == record.job and job.state.is_final):
            return False
        record.run.id = job.id
        record.heard(job)
        await self._pods.save(record)
        return True

    async def _end(self, record: Record, job: BatchJob) -> None:
        folder = self._pods.folder(record)
        claimed = _claimed(folder)
        run = record.run
        if claimed and run is not None and claimed != run.id and claimed not in [one.id for one in record.runs]:
            log.warning("pod %s/%s: job %s runs it, not %s", record.namespace, record.name, claimed, run.id)
            run.id, run.submitted = claimed, None
            await self._pods.save(record)
            return
        marks = _fresh_marks(folder, record.all_containers)
        first_seen = self._ended.setdefault(record.uid, time.monotonic())
        if not is_complete(record, marks) and time.monotonic() - first_seen < self._settings.settle_s:
            return
        await self._finish(record, job, marks)

    async def _finish(self, record: Record, job: BatchJob | None, marks: Marks) -> None:
        folder = self._pods.folder(record)
        await self._note([record])
        self.forget(record)
        again = wants_another_run(record, job, marks)
        if again and len(record.runs) <= self._settings.requeue:
            self._again(record)
            return
        now = time.time()
        words = "" if is_complete(record, marks) else last_words(folder)
        if again:
            words = f"checkpointed, but has run {len(record.runs)} times, which is all that the setting requeue allows"
        record.final = as_record(ending(record, job, marks, now, words))
        record.finished = now
        codes = ", ".join(f"{name} {end['exitCode']}" for name, end in record.final.items())
        log.info("pod %s/%s has ended: %s", record.namespace, record.name, codes)
        try:
            await self._pods.save(record)
        except OSError:
            record.final, record.finished = {}, None  # an end that is not on disk is told to nobody
            raise
        await self._pods.strip(record)


def candidate(record: Record, jobs: list[BatchJob]) -> BatchJob | None:
    """Of the jobs that bear a pod's name, the one that is of its current run; earlier runs bear the name, too."""
    earlier = {run.id: run.submitted for run in record.runs[:-1] if run.id}

    def is_earlier(job: BatchJob) -> bool:
        if job.id in record.ended_jobs:
            return True
        if job.id not in earlier:
            return False
        known = earlier[job.id]
        return known is None or job.submitted is None or abs(job.submitted - known) <= 1

    own = [job for job in jobs if job.name == record.uid and not is_earlier(job)]
    return max(own, key=lambda job: (not job.state.is_final, job.submitted or 0.0), default=None)


def _fresh_marks(folder: Path, containers: list[str]) -> Marks:
    """What stands in a folder, as its file server tells now: NFS asks it again where a folder is opened."""
    with contextlib.suppress(OSError):
        os.listdir(folder)  # noqa: PTH208 - for what it does, not for what it tells
    return read_marks(folder, containers)


def _own(record: Record, job: BatchJob | None) -> BatchJob | None:
    """The job, unless its id has passed on to another: its name tells, and a submission before the pod's own."""
    if job is None or job.name != record.uid:
        return None
    known = record.run.submitted if record.run else None
    if known is not None and job.submitted is not None and job.submitted < known - 1:
        return None
    return job


def _claimed(folder: Path) -> str:
    try:
        return (folder / CLAIM / "job").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
