"""The life of a pod: created once however often it is asked for, submitted again after a checkpoint, deleted for good.

What is meant is saved before it is done. So after a crash at any point the record says what may have happened, and the
batch system, asked by the pod's name, says what has.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from infra.hpc.batch import Batch, BatchBusy, BatchJob, BatchRefused, BatchUnavailable, Submission
from infra.hpc.folder import CLAIM, NAME, file_of
from infra.hpc.pods import Pods, Record, log_sizes
from infra.hpc.protocol import CreateRequest, Pod, PodRefused, Terminated
from infra.hpc.settings import Settings
from infra.hpc.status import as_record
from infra.hpc.unwanted import DOUBT_S, Unwanted
from infra.hpc.watch import Watch, candidate

log = logging.getLogger(__name__)

Writer = Callable[[CreateRequest, Path, Settings], Submission]
"""Writes a pod's files and script into its folder. Raises PodRefused, or OSError."""

SUBMITTERS = 8
"""How many submissions are under way at once: login nodes are shared."""

_TRY_AGAIN_S = (0.5, 1.0, 2.0, 5.0)
_RESUBMIT_AGAIN_S = 15.0
_BUSY_AGAIN_S = 60.0
"""How often a pod that has checkpointed is offered to a batch system that does not take it for the time being."""
_LAST_TRY_S = 10.0
"""How long the last try may take; with the longest `submit_within` that makes the 120 s of interLink."""


class Unavailable(Exception):  # noqa: N818 - a state of the world
    """It cannot be done or told now; the message is one sentence."""


class Deleted(Exception):  # noqa: N818
    """The pod has been deleted; the message is one sentence."""


@dataclass(frozen=True)
class Created:
    """A pod that has a job."""

    uid: str
    job: str


class Lifecycle:
    """Creates, submits again and deletes pods; what cannot be done at once it goes on with in the background."""

    def __init__(self, pods: Pods, batch: Batch, settings: Settings, write: Writer) -> None:
        self._pods = pods
        self._batch = batch
        self._settings = settings
        self._write = write
        self.watch = Watch(pods, batch, settings, self._submit_again)
        self._submitters = asyncio.Semaphore(SUBMITTERS)
        self._again: dict[str, asyncio.Task[None]] = {}
        self._creating: dict[str, asyncio.Task[Created]] = {}
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._unwanted = Unwanted(pods, batch, settings, self._is_busy)

    def start(self) -> None:
        """Go on with what a plugin before this one has left, and look after the pods from now on."""
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Stop; jobs go on, and the next start finds them. Creations under way are let finish for a moment."""
        if self._creating:
            await asyncio.wait(list(self._creating.values()), timeout=5)
        tasks = [task for task in (self._keeper, *self._again.values(), *self._creating.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.watch.close()

    async def create(self, request: CreateRequest) -> Created:
        """Submit a pod, once. Raises PodRefused, Deleted or Unavailable; then no job of it will stay."""
        check(request.pod)
        uid = request.pod.metadata.uid
        task = self._creating.get(uid)
        if task is None:
            task = asyncio.create_task(self._create(request))
            self._creating[uid] = task
            task.add_done_callback(self._created)
        return await asyncio.shield(task)  # a caller that goes away stops nothing half-way

    async def delete(self, pod: Pod) -> None:
        """Mark a pod as deleted, for good; its job is ended in the background until it is."""
        metadata = pod.metadata
        record = self._pods.get(metadata.uid)
        if record is None:
            if not NAME.fullmatch(metadata.uid) or not NAME.fullmatch(metadata.namespace):
                return  # no pod of this name can have been created
            record = Record(metadata.uid, metadata.namespace, metadata.name, [], [], created=time.time())
        if record.deleted is None:
            record.deleted = time.time()
            record.cancelled = False
            try:
                await self._pods.save(record)
            except OSError as error:  # nobody will ask again, so its job is ended all the same
                log.error("pod %s/%s: its deletion is not on disk: %s", record.namespace, record.name, error)
            self.watch.forget(record)
        self._wake.set()

    async def find(self, uid: str) -> BatchJob | None:
        """A job of a pod that there is no record of. Raises Unavailable."""
        try:
            jobs = [job for job in await self._batch.named([uid]) if job.name == uid]
        except BatchUnavailable as error:
            raise Unavailable(str(error)) from None
        return max(jobs, key=lambda job: (not job.state.is_final, job.submitted or 0.0), default=None)

    # Creating

    def _created(self, task: asyncio.Task[Created]) -> None:
        for uid in [uid for uid, one in self._creating.items() if one is task]:
            del self._creating[uid]
        if not task.cancelled():
            task.exception()  # whoever waits gets it; nobody may be left who does

    async def _create(self, request: CreateRequest) -> Created:
        metadata = request.pod.metadata
        async with self._pods.lock(metadata.uid):
            record = self._pods.get(metadata.uid)
            if record is not None and record.deleted:
                raise Deleted(f"pod {metadata.namespace}/{metadata.name}: uid {metadata.uid} has been deleted")
            if record is not None and not record.abandoned and record.job:
                return Created(record.uid, record.job)
            doubt = record is not None and bool(record.runs)
            if record is not None and record.abandoned:
                await self._take_back(record)
            record = await self._intend(request, record)
            try:
                await self._submit_soon(record, doubt)
            except BatchRefused as error:
                log.warning("pod %s/%s (%s) is refused: %s", record.namespace, record.name, record.uid, error)
                await self._pods.forget(record)
                raise PodRefused(f"the batch system refuses the job: {error}") from None
            except Unavailable:
                record.abandoned, record.cancelled = True, False
                await self._save(record)
                self._wake.set()
                raise
            if record.deleted:
                self._wake.set()
                raise Deleted(f"pod {metadata.namespace}/{metadata.name}: was deleted while it was created")
            log.info("pod %s/%s (%s) is job %s", record.namespace, record.name, record.uid, record.job)
            return Created(record.uid, record.job)

    async def _take_back(self, record: Record) -> None:
        """Make sure that no job of an earlier creation is still at work in the pod's folder. Raises Unavailable."""
        try:
            jobs = await self._batch.named([record.uid])
        except BatchUnavailable as error:
            raise Unavailable(f"the batch system does not answer: {error}") from None
        if any(job.id in record.ended_jobs and not job.state.is_final for job in jobs):
            raise Unavailable(f"pod {record.namespace}/{record.name}: an earlier job of it is still being ended")
        await asyncio.to_thread(_clear, self._pods.folder(record), record.all_containers)

    async def _intend(self, request: CreateRequest, record: Record | None) -> Record:
        """Save what is meant, then write the pod's files and script, unless that was done before a crash."""
        metadata, spec = request.pod.metadata, request.pod.spec
        if record is None:
            record = Record(
                uid=metadata.uid,
                namespace=metadata.namespace,
                name=metadata.name,
                containers=[container.name for container in spec.containers],
                init_containers=[container.name for container in spec.init_containers],
                images={container.name: container.image for container in (*spec.init_containers, *spec.containers)},
                created=time.time(),
            )
        record.abandoned = record.cancelled = False
        if not record.runs:
            record.begin_run(time.time())
        fresh = self._pods.get(record.uid) is None
        try:
            await self._save(record, durable=bool(record.script))  # else it is so before the job is submitted
            if not record.script:
                submission = await asyncio.to_thread(self._write, request, self._pods.folder(record), self._settings)
                record.script, record.comment = str(submission.script), submission.comment
                record.flags = list(submission.flags)
                await self._save(record)
        except BaseException as error:
            if fresh:
                await self._pods.forget(record)
            if isinstance(error, OSError):
                where = error.filename or self._pods.folder(record)
                raise Unavailable(f"{where}: cannot be written: {error.strerror or error}") from None
            raise
        return record

    async def _submit_soon(self, record: Record, doubt: bool) -> None:
        """Submit a new pod while its caller still waits for the answer. Raises BatchRefused, Unavailable."""
        within = self._settings.submit_within
        try:
            async with asyncio.timeout(within + _LAST_TRY_S):
                await self._submit(record, doubt, time.monotonic() + within)
        except TimeoutError:
            raise Unavailable(f"the batch system has not answered within {within + _LAST_TRY_S:g} s") from None

    async def _submit(self, record: Record, doubt: bool, deadline: float | None) -> None:
        """Submit the current run, unless the batch system has it already; looked up by name whenever in doubt."""
        pauses = iter(_TRY_AGAIN_S)
        while True:
            try:
                job = candidate(record, await self._batch.named([record.uid])) if doubt else None
                if job is not None:
                    await self._adopt(record, job.id, job)
                    return
                if record.deleted:
                    return
                doubt = True
                async with self._submitters:
                    submitted = await self._batch.submit(self._pods.submission(record))
                await self._adopt(record, submitted, None)
                return
            except BatchUnavailable as error:
                busy = isinstance(error, BatchBusy)
                why = f"the batch system does not {'take the job now' if busy else 'answer'}: {error}"
                again = _BUSY_AGAIN_S if busy else _RESUBMIT_AGAIN_S
                pause = next(pauses, _TRY_AGAIN_S[-1] if deadline else again)
                if deadline is not None and time.monotonic() + pause > deadline:
                    raise Unavailable(why) from None
                if record.reason != why:
                    log.warning("pod %s/%s: not submitted yet: %s", record.namespace, record.name, why)
                record.reason = why
                await _sleep_while_wanted(record, pause)

    async def _adopt(self, record: Record, job_id: str, job: BatchJob | None) -> None:
        assert record.run is not None
        record.run.id, record.reason = job_id, ""
        if job is not None:
            record.heard(job)
        await self._save(record)
        self._wake.set()

    # Running again after a checkpoint

    def _submit_again(self, record: Record) -> None:
        if record.uid not in self._again:
            self._go(record.uid, self._resubmit(record, begin=True))

    async def _resubmit(self, record: Record, begin: bool) -> None:
        folder = self._pods.folder(record)
        async with self._pods.lock(record.uid):
            if record.deleted or (not begin and record.job):
                return
            if begin:
                sizes = await asyncio.to_thread(log_sizes, folder, record.all_containers)
                record.begin_run(time.time(), sizes)
                await self._pods.save(record)
            try:
                jobs = [] if begin else await self._batch.named([record.uid])
                if candidate(record, jobs) is None:  # else what stands in the folder is the new run's
                    await asyncio.to_thread(_clear, folder, record.all_containers)
                await self._submit(record, not begin, None)
                if record.job:  # else it has been deleted meanwhile
                    log.info("pod %s/%s runs again, as job %s", record.namespace, record.name, record.job)
            except BatchUnavailable:
                return  # the next round of the keeper finds it in doubt
            except (BatchRefused, OSError) as error:
                message = f"checkpointed, but could not be submitted again: {error}"
                log.error("pod %s/%s: %s", record.namespace, record.name, message)
                end = Terminated(exit_code=1, reason="Error", message=message)
                record.final = as_record(dict.fromkeys(record.all_containers, end))
                record.finished = time.time()
                await self._pods.save(record)
                await self._pods.strip(record)

    # In the background

    async def _keep(self) -> None:
        """Look after the pods for ever: doubts, jobs of deleted pods, ends, what is old."""
        swept = 0.0
        pause = 0.0
        while True:
            self._wake.clear()
            try:
                await self.watch.fresh()
                self._resolve_doubts()
                done = await self._unwanted.end_jobs()
                if time.monotonic() - swept >= self._settings.sweep:
                    swept = time.monotonic()
                    await self._unwanted.sweep()
                pause = self._settings.poll if done else min(self._settings.poll, 1.0)
                if not self._pods.unsettled():
                    pause = self._settings.sweep
            except BatchUnavailable as error:
                log.debug("the batch system does not answer: %s", error)
                pause = min(max(pause, 0.5) * 2, 30.0)
            except Exception:
                log.exception("looking after the pods failed; it goes on")
                pause = min(max(pause, 0.5) * 2, 30.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._wake.wait()

    def _resolve_doubts(self) -> None:
        """Pods whose submission was cut off: one that has run runs again, a new one is watched if it has a job."""
        for record in self._pods.unsettled():
            if record.in_doubt and not self._is_busy(record.uid):
                work = self._resubmit(record, begin=False) if len(record.runs) > 1 else self._recover(record)
                self._go(record.uid, work)

    def _is_busy(self, uid: str) -> bool:
        """Whether a submission of a pod is under way; it sees for itself that the pod is not wanted any more."""
        return uid in self._creating or uid in self._again

    def _go(self, uid: str, work: Coroutine[None, None, None]) -> None:
        """Do something for a pod in the background, one thing at a time."""

        def done(task: asyncio.Task[None]) -> None:
            self._again.pop(uid, None)
            if not task.cancelled() and task.exception() is not None:
                log.error("pod %s: %s", uid, task.exception())

        self._again[uid] = asyncio.create_task(work)
        self._again[uid].add_done_callback(done)

    async def _recover(self, record: Record) -> None:
        async with self._pods.lock(record.uid):
            if not record.in_doubt:
                return
            try:
                job = candidate(record, await self._batch.named([record.uid]))
            except BatchUnavailable:
                return
            if job is not None:
                log.info("pod %s/%s: job %s was submitted before a crash", record.namespace, record.name, job.id)
                await self._adopt(record, job.id, job)
            elif record.run is not None and time.time() - record.run.intent > DOUBT_S:
                log.info("pod %s/%s: was never submitted", record.namespace, record.name)
                kept = record.runs, record.script
                record.runs, record.script = [], ""  # the caller got no answer; it may create the pod again
                try:
                    await self._save(record)
                except Unavailable:
                    record.runs, record.script = kept
                    raise
                await self._pods.strip(record)

    async def _save(self, record: Record, *, durable: bool = True) -> None:
        try:
            await self._pods.save(record, durable=durable)
        except OSError as error:
            raise Unavailable(f"{self._pods.folder(record)}: cannot be written: {error.strerror or error}") from None


def check(pod: Pod) -> None:
    """Raise PodRefused for a pod whose names cannot be file names, or that runs nothing."""
    metadata = pod.metadata
    for field, value in (("uid", metadata.uid), ("namespace", metadata.namespace)):
        if not NAME.fullmatch(value):
            raise PodRefused(f'pod.metadata.{field}: "{value[:80]}" is no DNS label, as Kubernetes makes them')
    if not metadata.name:
        raise PodRefused("pod.metadata.name: is missing")
    if not pod.spec.containers:
        raise PodRefused("pod.spec.containers: is empty; a pod has one container at least")
    seen = set()
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        if not NAME.fullmatch(container.name):
            raise PodRefused(f'pod.spec.containers: name "{container.name[:80]}" is no DNS label')
        if container.name in seen:
            raise PodRefused(f'pod.spec.containers: there are two named "{container.name}"')
        seen.add(container.name)


async def _sleep_while_wanted(record: Record, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not record.deleted and (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, 1.0))


def _clear(folder: Path, containers: list[str]) -> None:
    """Remove what the run before has written of its end."""
    for name in containers:
        for ending in ("status", "finished", "started"):
            file_of(folder, name, ending).unlink(missing_ok=True)
    shutil.rmtree(folder / CLAIM, ignore_errors=True)
