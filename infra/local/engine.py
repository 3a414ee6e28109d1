"""The engine: turns events into jobs, jobs into runs, and runs into objects, each step one transaction."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fdl
from events.notifications import build
from infra.local import jobs
from infra.local.announcing import notification_of
from infra.local.database import Database, DatabaseError
from infra.local.executors import Ended, Executor
from infra.local.executors.process import ProcessExecutor
from infra.local.executors.warm import WarmExecutor
from infra.local.finishing import Finisher
from infra.local.jobs import Job, State
from infra.local.metrics import Metrics
from infra.local.objects import PUT, ObjectStore, Origin, StoredObject
from infra.local.services import Deployed, Services
from infra.local.staging import Stager
from infra.local.workspace import MARK, SMALL, Scratch, Workspace
from layers.runtime.contract import Exit, InputError
from layers.runtime.incoming import Payload, interpret
from layers.runtime.supervisor import encode_reply, regular_files

DRAIN_S = 10.0
AHEAD = 8
"""Jobs that are staged or stored beside those that run: a slot is for running, not for waiting on a disk."""


log = logging.getLogger("dioscar.jobs")


@dataclass(frozen=True)
class Reply:
    """The answer to a synchronous call: the reply's bytes, or how it failed."""

    ended: Ended
    body: bytes


class Engine:
    """Runs the jobs of one cluster; belongs to the event loop that starts it."""

    def __init__(self, data: Path, database: Database, store: ObjectStore, services: Services, region: str) -> None:
        self.database = database
        self.store = store
        self.services = services
        self._data = data
        self._region = region
        self._slots = max(2, os.cpu_count() or 1)
        self._slots_free = asyncio.Semaphore(self._slots)
        self._service_slots: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._active: dict[int, asyncio.Task[None]] = {}
        self._running: dict[str, set[int]] = {}
        self._workspaces: dict[str, Workspace] = {}
        self._pending_writes: set[asyncio.Future[None]] = set()
        self._open = False
        self._calls = asyncio.Semaphore(4 * self._slots)
        self._function_script = (Path(fdl.__file__).parent / "function.sh").read_text(encoding="utf-8")
        self._stager = Stager(database, store)
        self._finisher = Finisher(database, store)
        self._scratch = Scratch(data)
        self.metrics = Metrics(lambda: jobs.open_counts(database.read))
        database.add_schema(jobs.SCHEMA)
        store.listeners.append(self._on_created)

    async def start(self) -> None:
        """Take up what was open when the last process ended, then run."""
        kill_left_behind(self._data)
        self._scratch.clear()
        await self.database.write(jobs.interrupted)
        self._process: Executor = ProcessExecutor(self._data)
        self._warm = WarmExecutor(self._data)
        self.services.on_change.append(self._on_service)
        self._open = True
        for deployed in self.services.all():
            self._dispatch(deployed.name)
        self._arm_all()

    async def stop(self, patience_s: float = DRAIN_S) -> None:
        """Start nothing more, let what runs end or checkpoint, and leave the rest to the next start."""
        self._open = False
        running = list(self._active.values())
        if running:
            await asyncio.wait(running, timeout=patience_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._warm.close()
        await self._process.close()
        self._scratch.close()
        await asyncio.gather(*self._pending_writes, return_exceptions=True)

    async def submit(self, deployed: Deployed, body: bytes, *, job_id: str = "") -> Job:
        """Queue an asynchronous call (`/job`). Raises InputError where the body is neither JSON nor base64."""
        interpret(body)
        attempts = 1 + deployed.settings.retries

        def work(connection: sqlite3.Connection) -> Job:
            job = jobs.add(connection, deployed.name, body, max_attempts=attempts, job_id=job_id)
            self.wake(deployed.name)
            return job

        return await self.database.write(work)

    async def call(self, deployed: Deployed, body: bytes) -> Reply:
        """Run synchronously (`/run`): nothing is queued and nothing is stored. Raises InputError for a wrong body."""
        event = interpret(body)
        async with self._calls:
            name = f"call-{time.monotonic_ns():x}"
            size = len(event.body) if isinstance(event, Payload) else event.notification.size
            workspace = self._scratch.workspace(deployed.name, name, None, size)
            try:
                workspace.create()
                staged = await self._stager.stage_event(event, workspace)
                ended = await self._executor(deployed).run(deployed, staged, timeout_s=deployed.settings.timeout_s)
                self.metrics.called(deployed.name, ended.code)
                self._scratch.learn(deployed.name, staged.size() if ended.code == Exit.DONE else None)
                return await asyncio.to_thread(_reply, ended, staged)
            finally:
                await workspace.remove()

    async def cancel(self, job: Job) -> bool:
        """End a job that waits or runs; whether there was anything to end."""
        cancelled = await self.database.write(lambda connection: jobs.cancel(connection, job))
        task = self._active.get(job.seq)
        if task is not None:
            task.cancel()
        return cancelled

    async def delete_service(self, name: str) -> None:
        """Undeploy: its open jobs are cancelled with it."""
        await self.services.delete(name, lambda connection: jobs.cancel_open(connection, name, "the service is gone"))
        for job in [self._active[seq] for seq in self._running.get(name, set()) if seq in self._active]:
            job.cancel()

    def progress(self, job: Job) -> dict[str, float] | None:
        """What a running job last said of its progress."""
        workspace = self._workspaces.get(job.id)
        return workspace.progress if workspace else None

    def log_path(self, job: Job) -> Path:
        """Where a job's output is streamed to."""
        return self.logs_of(job.service) / f"{job.id}.log"

    def logs_of(self, service: str) -> Path:
        """The folder of a service's logs."""
        return self._data / "logs" / service

    def workers(self) -> list[dict[str, object]]:
        """The idle warm workers."""
        return self._warm.summary()

    def _on_created(
        self, connection: sqlite3.Connection, stored: StoredObject, event_name: str, origin: Origin
    ) -> None:
        """In the transaction that stores an object: the jobs that its bucket's notifications ask for."""
        if stored.key.endswith("/") or not event_name.startswith("s3:ObjectCreated:"):
            return  # a folder marker is not data, and a deletion brings none
        for deployed in self.listening(connection, stored.bucket, stored.key, event_name):
            self.queue(connection, deployed, stored, event_name, origin)

    def listening(self, connection: sqlite3.Connection, bucket: str, key: str, event_name: str = PUT) -> list[Deployed]:
        """The services that an event on this key triggers."""
        targets = map(self.services.target, self.store.matching(connection, bucket, key, event_name))
        return [deployed for deployed in targets if deployed is not None]

    def queue(
        self,
        connection: sqlite3.Connection,
        deployed: Deployed,
        stored: StoredObject,
        event_name: str = PUT,
        origin: Origin = Origin(),  # noqa: B008 - it is frozen
    ) -> None:
        """In a transaction: a job of the service on this version of the object."""
        job = jobs.add(
            connection,
            deployed.name,
            json.dumps(build(notification_of(stored, event_name, origin, self._region)), ensure_ascii=False).encode(),
            max_attempts=1 + deployed.settings.retries,
            bucket=stored.bucket,
            key=stored.key,
            object_id=stored.id,
            parent=self._finisher.emitting,
        )
        self.store.pin(connection, stored.id, job.id)
        self.wake(deployed.name)

    def wake(self, service: str) -> None:
        """In a transaction: look for work of the service once it is committed."""
        self.database.after_commit(lambda: self._dispatch(service))

    def _on_service(self, name: str) -> None:
        self._warm.forget(name)
        self._scratch.forget(name)
        if self.services.get(name) is None:
            self.metrics.forget(name)
        self._dispatch(name)

    def _arm_all(self) -> None:
        """After a start: wake each service when its next retry is due."""
        for deployed in self.services.all():
            due = jobs.next_due(self.database.read, deployed.name)
            if due is not None:
                self._wake_at(deployed.name, due)

    def _wake_at(self, service: str, when: float) -> None:
        asyncio.get_running_loop().call_later(max(0.0, when - time.time()) + 0.001, self._dispatch, service)

    def _dispatch(self, service: str) -> None:
        """Take up as many of a service's jobs as there is room for: those that run, and a few behind them."""
        deployed = self.services.get(service)
        if not self._open or deployed is None:
            return
        mine = self._running.setdefault(service, set())
        limit = deployed.settings.concurrency or self._slots
        room = min(self._slots + AHEAD - len(self._active), limit + AHEAD - len(mine))
        if room <= 0:
            return
        ready = jobs.ready(self.database.read, service, time.time(), limit=room + len(mine))
        for job in [job for job in ready if job.seq not in self._active][:room]:
            mine.add(job.seq)
            task = asyncio.create_task(self._attempt(deployed, job))
            self._active[job.seq] = task
            task.add_done_callback(lambda task, job=job: self._ended(task, job))  # type: ignore[misc]

    def _ended(self, task: "asyncio.Task[None]", job: Job) -> None:
        self._active.pop(job.seq, None)
        self._running.get(job.service, set()).discard(job.seq)
        self._workspaces.pop(job.id, None)
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"job {job.id}: the engine failed", "exception": task.exception()}
            )
            self._wake_at(job.service, time.time() + 1)
        self._dispatch(job.service)
        if len(self._active) < self._slots + AHEAD:
            for deployed in self.services.all():
                self._dispatch(deployed.name)

    async def _attempt(self, deployed: Deployed, job: Job) -> None:
        """One attempt of a job, from its input's bytes to its outputs' rows; only the run itself takes up a slot."""
        stored = self.store.by_id(job.object) if job.object is not None else None
        size = stored.size if stored else 0
        workspace = self._scratch.workspace(job.service, job.id, self.log_path(job), size)
        self._workspaces[job.id] = workspace
        staged: Workspace | None = None
        began = time.time()
        try:
            try:
                if size <= SMALL:
                    staged = await self._stage(deployed, job, workspace)
                async with self._slot(deployed), self._slots_free:
                    began = time.time()
                    if job.attempt == 0:
                        self.metrics.waited(job.service, began - job.created)
                    self._write_later(lambda connection: jobs.start(connection, job))
                    staged = staged or await self._stage(deployed, job, workspace)
                    ended = await self._executor(deployed).run(deployed, staged, timeout_s=deployed.settings.timeout_s)
                if ended.code == Exit.DONE:
                    produced = await self._finisher.succeed(deployed, job, staged, ended.run_key)
                    self._scratch.learn(deployed.name, produced)
                    self.metrics.ended(job.service, State.SUCCEEDED, time.time() - began)
                    return
            except InputError as error:
                ended = Ended(Exit.BAD_INPUT, "InputError", str(error))
            except (OSError, DatabaseError) as error:
                ended = Ended(Exit.FAILED, type(error).__name__, f"the cluster could not store or stage it: {error}")
            self._scratch.learn(deployed.name, None)
            state, due = await self._finisher.fail(job, ended, _reason(ended, workspace))
            self.metrics.ended(job.service, state, time.time() - began)
            facts = {
                "job": job.id,
                "service": job.service,
                "key": job.key,
                "state": str(state),
                "exit_code": ended.code,
            }
            log.warning("job %s is %s: %s", job.id, state, _reason(ended, workspace), extra=facts)
            if due is not None:
                self._wake_at(job.service, due)
        finally:
            await workspace.remove()

    async def _stage(self, deployed: Deployed, job: Job, workspace: Workspace) -> Workspace:
        workspace.create()
        return await self._stager.stage_job(deployed, job, workspace)

    def _slot(self, deployed: Deployed) -> asyncio.Semaphore:
        """The service's own limit, `dioscar/concurrency`; a new revision starts with a new one."""
        key = (deployed.name, deployed.revision)
        if key not in self._service_slots:
            self._service_slots = {k: v for k, v in self._service_slots.items() if k[0] != deployed.name}
            self._service_slots[key] = asyncio.Semaphore(deployed.settings.concurrency or self._slots)
        return self._service_slots[key]

    def _write_later(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Queue a change that need not be durable before we go on; changes are made in the order they are queued."""
        future = asyncio.ensure_future(self.database.write(work))
        self._pending_writes.add(future)
        future.add_done_callback(self._pending_writes.discard)

    def _executor(self, deployed: Deployed) -> Executor:
        """`warm` where the script is ours, byte for byte, and the FDL does not ask for `process`."""
        ours = deployed.service.script == self._function_script and "DIOSCAR_FUNCTION" in deployed.variables
        return self._warm if ours and deployed.settings.executor != "process" else self._process


def _reason(ended: Ended, workspace: Workspace) -> str:
    """Why an attempt failed: what the runtime said, else the last thing that the script printed."""
    if ended.message:
        return f"{ended.error}: {ended.message}" if ended.error else ended.message
    status = f"signal {-ended.code}" if ended.code < 0 else f"status {ended.code}"
    last = _last_line(workspace.log)
    return f"the script ended with {status}" + (f": {last}" if last else "")


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 2000))
        lines = stream.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else ""
    return ""


def _reply(ended: Ended, workspace: Workspace) -> Reply:
    if ended.code != Exit.DONE:
        if not ended.message:
            ended = Ended(ended.code, "ScriptError", _reason(ended, workspace))
        return Reply(ended, b"")
    files = regular_files(workspace.produced)
    return Reply(ended, encode_reply(workspace.produced, files) if files else workspace.log.read_bytes())


def kill_left_behind(data: Path) -> int:
    """End the processes that a killed cluster left running in this data folder; returns how many there were."""
    mark = f"{MARK}={data}".encode()
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
    return killed
