"""Pods that nobody wants, deleted or never created after all: their jobs are ended, their files removed."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from infra.hpc.batch import Batch, BatchJob
from infra.hpc.folder import CLAIM
from infra.hpc.pods import Pods, Record
from infra.hpc.settings import Settings

log = logging.getLogger(__name__)

DOUBT_S = 120.0
"""How long after a submission in doubt the batch system may still come up with a job of it."""
NAMES = 500
"""How many names are asked for in one question."""


class Unwanted:
    """Ends what nobody wants. `is_busy` says of a uid whether a submission of the pod is under way."""

    def __init__(self, pods: Pods, batch: Batch, settings: Settings, is_busy: Callable[[str], bool]) -> None:
        self._pods = pods
        self._batch = batch
        self._settings = settings
        self._is_busy = is_busy
        self._looked = 0.0

    async def end_jobs(self) -> bool:
        """End the jobs of deleted pods; whether none is left. Raises BatchUnavailable, OSError."""
        done = True
        for group in _groups([record for record in self._pods.unsettled() if _to_be_ended(record)]):
            jobs = await self._batch.named([record.uid for record in group])
            work = []
            for record in group:
                live = [job for job in jobs if job.name == record.uid and not job.state.is_final]
                if live:
                    done = False
                    work.append(self._cancel(record, live))
                elif self._is_busy(record.uid):
                    done = False  # a submission is under way; it sees that it is not wanted any more
                else:
                    work.append(self._put_away(record))
            if errors := [one for one in await asyncio.gather(*work, return_exceptions=True) if one is not None]:
                raise errors[0]
        return done

    async def _put_away(self, record: Record) -> None:
        """Note that no job of a pod is left, and remove its files, unless it is created again meanwhile."""
        if self._is_busy(record.uid):
            return
        async with self._pods.lock(record.uid):  # a creation that comes now writes its files when these are gone
            if not _to_be_ended(record):
                return
            record.cancelled, record.script = True, ""
            try:
                await self._pods.save(record)
            except OSError:
                record.cancelled = False
                raise
            await self._pods.strip(record)

    async def _cancel(self, record: Record, jobs: Iterable[BatchJob]) -> None:
        async with self._pods.lock(record.uid):
            if record.deleted or record.abandoned:
                for job in jobs:
                    log.info("pod %s/%s is not wanted: ending job %s", record.namespace, record.name, job.id)
                    if record.abandoned and job.id not in record.ended_jobs:
                        record.ended_jobs.append(job.id)
                        await self._pods.save(record)
                    await self._batch.cancel(job.id)

    async def sweep(self) -> None:
        """End jobs that deleted pods have all the same, and second jobs of one pod; forget what is old.

        Raises BatchUnavailable, OSError.
        """
        now = time.time()
        for record in self._pods:
            if record.deleted and record.cancelled and now - record.deleted > self._settings.keep_logs:
                await self._pods.forget(record)
            elif record.finished and not record.deleted and now - record.finished > self._settings.keep_ended:
                record.deleted = now - self._settings.keep_logs
                await self._pods.save(record)
            elif _is_unwanted(record) and now - record.created > self._settings.keep_logs:
                async with self._pods.lock(record.uid):
                    if _is_unwanted(record):
                        await self._pods.forget(record)
        watched = [record for record in self._pods if _may_have_more(record, self._looked)]
        for group in _groups(watched):
            jobs = await self._batch.named([record.uid for record in group])
            for record in group:
                live = [job for job in jobs if job.name == record.uid and not job.state.is_final]
                if record.cancelled:
                    await self._cancel(record, live)
                elif record.final:
                    for job in live:
                        log.warning("pod %s/%s has ended: ending job %s", record.namespace, record.name, job.id)
                        await self._batch.cancel(job.id)
                elif len(live) > 1:
                    await self._end_doubles(record, live)
        self._looked = now

    async def _end_doubles(self, record: Record, live: list[BatchJob]) -> None:
        claim = self._pods.folder(record) / CLAIM / "job"
        async with self._pods.lock(record.uid):
            keep = claim.read_text().strip() if claim.is_file() else record.job
            if not record.is_live or keep not in [job.id for job in live]:
                return
            for job in live:
                if job.id != keep:
                    log.warning("pod %s/%s: has job %s; ending job %s", record.namespace, record.name, keep, job.id)
                    await self._batch.cancel(job.id)


def _to_be_ended(record: Record) -> bool:
    return bool(record.deleted or record.abandoned) and not record.cancelled


def _is_unwanted(record: Record) -> bool:
    """Whether a pod was never created: its creation was cut off or answered with an error, and nothing came of it."""
    return record.is_settled and not record.final and not record.deleted


def _may_have_more(record: Record, looked: float) -> bool:
    """Whether the batch system may have jobs of a pod that nobody wants: what was in doubt may turn up late.

    `looked`: when the batch system was asked for such jobs the last time, 0 for never.
    """
    if record.is_live:
        return True
    intent = record.run.intent if record.run else 0.0
    last = max(record.finished or 0.0, record.deleted or 0.0, intent)
    return bool(record.final or record.cancelled) and looked - last < 5 * DOUBT_S


def _groups(records: list[Record]) -> list[list[Record]]:
    return [records[start : start + NAMES] for start in range(0, len(records), NAMES)]
