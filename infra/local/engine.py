"""The engine: turns events into jobs, jobs into runs, and runs into objects, each step one transaction."""

import asyncio
import errno
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from events.notifications import build
from infra.local import buckets, history, jobs
from infra.local.announcing import notification_of
from infra.local.attached import Attached
from infra.local.attempts import Reply, Start, reply, why_failed
from infra.local.database import Database, DatabaseError
from infra.local.dispatch import Dispatcher
from infra.local.executors import Ended
from infra.local.executors.choice import Executors, start_executors
from infra.local.executors.confinement import Confinement
from infra.local.executors.leftovers import kill_left_behind
from infra.local.executors.limits import Limits
from infra.local.finishing import Finisher
from infra.local.interlink import record
from infra.local.interlink.executor import Interlink, Told
from infra.local.interlink.lineage import maker_of
from infra.local.jobs import Job, State
from infra.local.metrics import Metrics
from infra.local.models import Models
from infra.local.objects import PUT, ObjectStore, Origin, StoredObject
from infra.local.reserve import has_room
from infra.local.services import Deployed, NoSuchService, Services, exists
from infra.local.staging import Stager
from infra.local.tracing import Attempt, Tracing
from infra.local.workspace import SMALL, Scratch, Workspace, checkpoint_path, forget_checkpoints
from layers.runtime import wire
from layers.runtime.contract import Exit, InputError
from layers.runtime.incoming import Payload, StorageEvent, interpret

DRAIN_S = 10.0
CALLS = 8
"""Synchronous calls of one service that are served at once; the others wait."""
CALL_S = 300.0
"""How long a synchronous call may take without `dioscar/timeout`: OSCAR's own limit."""
RECORD_S = 2.0
LARGE_BODY = 1 << 20
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""What is the machine's trouble and not the job's: such an attempt is not counted."""


log = logging.getLogger("dioscar.jobs")


class Engine:
    """Runs the jobs of one cluster; belongs to the event loop that starts it."""

    def __init__(
        self,
        data: Path,
        database: Database,
        store: ObjectStore,
        services: Services,
        region: str,
        tracing: Tracing | None = None,
    ) -> None:
        self.database = database
        self.store = store
        self.services = services
        self._data = data
        self._region = region
        self._tracing = tracing
        self.interlink: Interlink | None = None
        """The nodes beside this machine; whoever has any sets this before the start."""
        self._dispatcher = Dispatcher(database, services, max(2, os.cpu_count() or 1), self._attempt, self._is_away)
        self._workspaces: dict[str, Workspace] = {}
        self._pending_writes: set[asyncio.Future[None]] = set()
        self._calls: dict[str, asyncio.Semaphore] = {}
        self._stager = Stager(database, store, data)
        self._finisher = Finisher(database, store)
        self._scratch = Scratch(data)
        self._attached = Attached(data, database)
        self.models = Models(data, store)
        self.metrics = Metrics(lambda: history.open_counts(database.read))
        database.add_schema(jobs.SCHEMA)
        database.add_schema(record.SCHEMA)
        store.listeners.append(self._on_created)

    async def start(self) -> None:
        """Take up what was open when the last process ended, then run."""
        kill_left_behind(self._data)
        (self._data / "home").mkdir(exist_ok=True)
        self._scratch.clear()
        self.models.clear()
        await self.database.write(jobs.interrupted)
        names = [deployed.name for deployed in self.services.all()]
        self._executors: Executors = await start_executors(self._data, names, self._scratch)
        self.services.on_change.append(self._on_service)
        if self.interlink is not None:
            self.interlink.start()
        self._dispatcher.start()

    async def stop(self, patience_s: float = DRAIN_S) -> None:
        """Start nothing more, let what runs end or checkpoint, and leave the rest to the next start."""
        await self._dispatcher.stop(patience_s)
        if self.interlink is not None:
            await self.interlink.close()
        await self._executors.close()
        self._scratch.close()
        await self.models.close()
        await asyncio.gather(*self._pending_writes, return_exceptions=True)

    def bounds(self) -> tuple[Limits, Confinement]:
        """What bounds the processes of this cluster, from its start on; also those that are nobody's job."""
        return self._executors.limits, self._executors.confinement

    async def submit(self, deployed: Deployed, body: bytes, caller: str = "") -> Job:
        """Queue an asynchronous call (`/job`); a notification of several objects is a job for each, the first returned.

        `caller` is the user who calls with a token of their own.

        Raises InputError where the body is neither JSON nor base64, NoSuchService where the service has just gone.
        """
        event = await understand(body)
        bodies = (event.bodies if isinstance(event, StorageEvent) else []) or [body]

        def work(connection: sqlite3.Connection) -> Job:
            if not exists(connection, deployed.name, deployed.token):
                raise NoSuchService(deployed.name)
            attempts = 1 + deployed.settings.retries
            added = [
                jobs.add(connection, deployed.name, one, max_attempts=attempts, tenant=deployed.tenant, caller=caller)
                for one in bodies
            ]
            self.wake(deployed.name)
            return added[0]

        return await self.database.write(work)

    async def call(self, deployed: Deployed, body: bytes) -> Reply:
        """Run synchronously (`/run`): nothing is queued and nothing is stored. Raises InputError for a wrong body."""
        event = await understand(body)
        if isinstance(event, StorageEvent):
            raise InputError(f"the body is an object's notification; POST it to /job/{deployed.name}")
        async with self._calls.setdefault(deployed.name, asyncio.Semaphore(CALLS)):
            name = f"call-{time.monotonic_ns():x}"
            workspace = self._scratch.workspace(deployed.name, name, None, len(event.body))
            left = True
            try:
                executor = self._executors.of(deployed)
                staged = await self._stager.stage_event(event, workspace)
                if executor is not self._executors.warm:
                    staged = staged.unpacked()
                async with self.models.served(deployed, call=True) as models:
                    given = staged.adding(models)
                    limit_s = deployed.settings.timeout_s or CALL_S
                    ended = await self._attached.bounded(
                        deployed, partial(executor.run, deployed, given, timeout_s=limit_s)
                    )
                self.metrics.called(deployed.name, ended.code)
                left = ended.files is None
                size = staged.size() if left else wire.TRAVELS
                self._scratch.learn(deployed.name, size if ended.code == Exit.DONE else None)
                if left:
                    return await asyncio.to_thread(reply, deployed.name, ended, staged)
                return reply(deployed.name, ended, staged)
            finally:
                if left:
                    await workspace.remove()

    async def cancel(self, job: Job) -> bool:
        """End a job that waits or runs; whether there was anything to end."""
        cancelled = await self.database.write(lambda connection: jobs.cancel(connection, job))
        self._dispatcher.cancel(job)
        self._tidy()
        return cancelled

    async def delete_service(self, name: str) -> None:
        """Undeploy: its open jobs are cancelled with it."""
        await self.services.delete(name, lambda connection: jobs.cancel_open(connection, name, "the service is gone"))
        self._dispatcher.cancel_service(name)
        self._tidy()

    def progress(self, job: Job) -> dict[str, float] | None:
        """What a running job last said of its progress."""
        if workspace := self._workspaces.get(job.id):
            return workspace.progress
        return self.interlink.progress(job) if self.interlink else None

    def log_path(self, job: Job) -> Path:
        """Where a job's output is streamed to."""
        return Path(f"{self._data}/logs/{job.service}/{job.id}.log")

    def printed(self, job: Job) -> bytes:
        """What a job printed that has no file, or none yet; what its file holds came after it."""
        now = self._executors.warm.printed(self.log_path(job))
        return jobs.printed(self.database.read, job).encode() if now is None else now

    def logs_of(self, service: str) -> Path:
        """The folder of a service's logs."""
        return self._data / "logs" / service

    def workers(self) -> list[dict[str, object]]:
        """The idle warm workers."""
        return self._executors.warm.summary()

    async def forget_checkpoints(self, gone: Iterable[str]) -> None:
        """Remove what jobs kept between their attempts."""
        await asyncio.to_thread(forget_checkpoints, self._data, gone)

    def _on_created(
        self, connection: sqlite3.Connection, stored: StoredObject, event_name: str, origin: Origin
    ) -> None:
        """In the transaction that stores an object: the jobs that its bucket's notifications ask for."""
        if stored.key.endswith("/") or not event_name.startswith("s3:ObjectCreated:"):
            return  # a folder marker is not data, and a deletion brings none
        parent = maker_of(connection, stored, origin) if self.interlink is not None else ""
        for deployed in self.listening(connection, stored.bucket, stored.key, event_name):
            self.queue(connection, deployed, stored, event_name, origin, parent)

    def listening(self, connection: sqlite3.Connection, bucket: str, key: str, event_name: str = PUT) -> list[Deployed]:
        """The services that an event on this key triggers; no user's whom the bucket is shared with no longer."""
        targets = map(self.services.target, self.store.matching(connection, bucket, key, event_name))
        return [
            deployed
            for deployed in targets
            if deployed is not None and (not deployed.tenant or buckets.is_seen(connection, bucket, deployed.tenant))
        ]

    def queue(
        self,
        connection: sqlite3.Connection,
        deployed: Deployed,
        stored: StoredObject,
        event_name: str = PUT,
        origin: Origin = Origin(),  # noqa: B008 - it is frozen
        parent: str = "",
    ) -> None:
        """In a transaction: a job of the service on this version of the object, which `parent` may have made."""
        job = jobs.add(
            connection,
            deployed.name,
            json.dumps(build(notification_of(stored, event_name, origin, self._region)), ensure_ascii=False).encode(),
            max_attempts=1 + deployed.settings.retries,
            bucket=stored.bucket,
            key=stored.key,
            object_id=stored.id,
            parent=parent or self._finisher.emitting,
            tenant=deployed.tenant,
            caller=origin.user,
        )
        jobs.handle(connection, deployed.name, stored.id)
        self.store.pin(connection, stored.id, job.id)
        self.wake(deployed.name)

    def wake(self, service: str) -> None:
        """In a transaction: look for work of the service once it is committed."""
        self.database.after_commit(lambda: self._dispatcher.wake(service))

    def _on_service(self, name: str) -> None:
        gone = self.services.get(name) is None
        self._executors.forget(name, gone=gone)
        self._scratch.forget(name)
        self._calls.pop(name, None)
        self.models.on_service(self.services.get(name))
        if gone:
            self.metrics.forget(name)
        self._dispatcher.wake(name)

    async def _attempt(self, deployed: Deployed, job: Job) -> None:
        """One attempt of a job, from its input's bytes to its outputs' rows; only the run itself takes up a slot."""
        if self.interlink is not None and self.interlink.follows(deployed, job):
            await self._attempt_away(self.interlink, deployed, job)
            return
        workspace: Workspace | None = None
        ended: Ended | None = None
        began = time.time()
        start = Start(lambda when: self._write_later(lambda connection: jobs.start(connection, job, when)))
        try:
            stored = self.store.by_id(job.object) if job.object is not None else None
            size = stored.size if stored else 0
            workspace = self._scratch.workspace(job.service, job.id, self.log_path(job), size)
            if not workspace.quiet:
                workspace.log.parent.mkdir(parents=True, exist_ok=True)
            self._workspaces[job.id] = workspace
            staged = await self._stager.stage_job(deployed, job, workspace, stored) if size <= SMALL else None
            one_by_one = deployed.settings.concurrency == 1  # then each finds what the one before it has stored
            async with self._dispatcher.slot(deployed, job):
                began = time.time()
                if job.attempt == 0:
                    self.metrics.waited(job.service, began - job.created)
                start.begin(began)
                staged = staged or await self._stager.stage_job(deployed, job, workspace, stored)
                executor = self._executors.of(deployed)
                if executor is not self._executors.warm:
                    staged = staged.unpacked()
                if not staged.quiet:
                    staged.mark_attempt(job.attempt + 1)
                with self._span(job, stored) as span:
                    async with self.models.served(deployed) as models:
                        given = staged.adding(models)
                        limit_s = deployed.settings.timeout_s
                        ended = await self._attached.bounded(
                            deployed, partial(executor.run, deployed, given, timeout_s=limit_s)
                        )
                    span.ended(ended, "" if ended.code == Exit.DONE else why_failed(ended, workspace))
                if one_by_one:
                    await self._conclude(deployed, job, staged, ended, span, start)
            if not one_by_one:
                await self._conclude(deployed, job, staged, ended, span, start)
        except InputError as error:
            await self._failed(job, Ended(Exit.BAD_INPUT, "InputError", str(error)), f"InputError: {error}", start)
        except (OSError, DatabaseError, MemoryError) as error:
            ended = Ended(Exit.FAILED, type(error).__name__, str(error))
            passing = not isinstance(error, OSError) or error.errno in PASSING
            reason = f"the cluster could not stage or store it: {str(error) or 'it has no memory left'}"
            if workspace is not None:
                await workspace.remove()  # before its end is recorded, which may need the room
            await self._failed(job, ended, reason, start, counted=not passing)
        except Exception as error:  # a defect of the engine's is a failed attempt, not a job that nobody ends
            log.exception("job %s", job.id)
            reason = f"the cluster failed: {type(error).__name__}: {error}"
            await self._failed(job, Ended(Exit.FAILED, type(error).__name__, str(error)), reason, start)
        finally:
            start.untold()
            self._workspaces.pop(job.id, None)
            if workspace is not None and (ended is None or ended.files is None):
                await workspace.remove()

    async def _conclude(
        self, deployed: Deployed, job: Job, staged: Workspace, ended: Ended, span: Attempt, start: Start
    ) -> None:
        """Store what a run has made, or record why it failed."""
        took = time.time() - start.began
        if ended.code != Exit.DONE:
            reason = why_failed(ended, staged)
            counted = ended.code == Exit.BAD_INPUT or has_room(self._data)
            if not counted:
                reason = f"{reason} (the disk is full; it runs again, uncounted, until there is room)"
            await self._failed(job, ended, reason, start, counted=counted)
            return
        self._scratch.time(deployed.name, None if ended.files is None else took)
        produced = await self._finisher.succeed(deployed, job, staged, ended, span.metadata, start.untold())
        self._scratch.learn(deployed.name, produced)
        if os.path.exists(checkpoint_path(self._data, job)):  # noqa: PTH110 - a path is not made for every job
            await self.forget_checkpoints([job.id])
        self.metrics.ended(job.service, State.SUCCEEDED, time.time() - start.began)

    async def _attempt_away(self, interlink: Interlink, deployed: Deployed, job: Job) -> None:
        """One attempt of a job on a node, which stages and stores by itself; what is left here is to tell of it."""
        start = Start(lambda when: self._write_later(lambda connection: jobs.start(connection, job, when, reason="")))
        new = job.attempt == 0

        def begins(when: float) -> None:
            nonlocal new
            if new:
                self.metrics.waited(job.service, max(0.0, when - job.created))
            new = False
            start.begin(when)

        def waits(reason: str) -> None:
            start.untold()
            self._write_later(lambda connection: jobs.waits(connection, job, reason))

        stored = self.store.by_id(job.object) if job.object is not None else None
        try:
            async with self._dispatcher.slot(deployed, job):
                with self._span(job, stored) as span:
                    ended = await interlink.run(deployed, job, self.log_path(job), Told(begins, waits))
                    span.ended(ended, ended.message)
                if ended.code == Exit.DONE:
                    await self._finisher.succeed_away(job, start.untold())
                    self.metrics.ended(job.service, State.SUCCEEDED, time.time() - start.began)
                else:
                    reason = f"{ended.error}: {ended.message}" if ended.error else ended.message
                    await self._failed(job, ended, reason, start)
        except InputError as error:
            await self._failed(job, Ended(Exit.BAD_INPUT, "InputError", str(error)), f"InputError: {error}", start)
        finally:
            start.untold()
            interlink.tidy()

    def _is_away(self, deployed: Deployed) -> bool:
        """Whether a service's jobs run elsewhere, and take no place of this machine's."""
        return self.interlink is not None and self.interlink.offloads(deployed)

    def _tidy(self) -> None:
        if self.interlink is not None:
            self.interlink.tidy()

    def _span(self, job: Job, stored: StoredObject | None) -> AbstractContextManager[Attempt]:
        """The trace of an attempt, or nothing where nobody asks for traces."""
        return self._tracing.attempt(job, stored) if self._tracing else nullcontext(Attempt())

    async def _failed(self, job: Job, ended: Ended, reason: str, start: Start, *, counted: bool = True) -> None:
        """Record how an attempt failed; where that cannot be written, wait until it can: the run is not repeated."""
        self._scratch.learn(job.service, None)
        self._scratch.time(job.service, None)
        untold = start.untold()
        told = False
        while True:
            try:
                state = await self._finisher.fail(job, ended, reason, counted=counted, began=untold)
                break
            except DatabaseError as error:
                if not told:
                    log.error("job %s: its end cannot be recorded, and waits until it can: %s", job.id, error)
                told = True
                await asyncio.sleep(RECORD_S)
        self._dispatcher.delayed(job.service)
        self.metrics.ended(job.service, state, time.time() - start.began)
        facts = {"job": job.id, "service": job.service, "key": job.key, "state": str(state), "exit_code": ended.code}
        log.warning("job %s is %s: %s", job.id, state, reason, extra=facts)

    def _write_later(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Queue a change that need not be durable before we go on; changes are made in the order they are queued."""
        future = asyncio.ensure_future(self.database.write(work))
        self._pending_writes.add(future)
        future.add_done_callback(self._pending_writes.discard)


async def understand(body: bytes) -> StorageEvent | Payload:
    """What a body is, decoded off the event loop where it is large. Raises InputError where it is neither."""
    return await asyncio.to_thread(interpret, body) if len(body) > LARGE_BODY else interpret(body)
