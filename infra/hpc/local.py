"""A batch system of plain processes on this machine: a queue, its cores, and jobs that outlive the plugin.

Each job has a folder below `<root>/.batch`, in which a process of its own (`infra.hpc.runner`) writes down how it goes.
Of the options of a job, `--time`, `--signal` (for the time between SIGTERM and the end) and the cores are heeded.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from infra.hpc import runner
from infra.hpc.batch import BatchJob, BatchRefused, BatchState, BatchUnavailable, Resources, Submission
from infra.hpc.environment import handed_on
from infra.hpc.flags import seconds_of
from infra.hpc.folder import OUTPUT

T = TypeVar("T")

FOLDER = ".batch"
KEPT_S = 86_400.0
"""For how long jobs that have ended are remembered."""
LOOK_S = 0.1
"""How often is looked for a free core while a job waits for one."""
SWEEP_S = 60.0
"""How often is looked for what need not be remembered any longer."""
GRACE_S = 60
MOST_JOBS = 10_000
"""That wait or run."""


@dataclass
class _Job:
    id: str
    folder: Path
    name: str
    cores: int
    submitted: float
    end: dict[str, Any] | None = None
    running: dict[str, Any] | None = None


class Local:
    """Satisfies `infra.hpc.batch.Batch`. One at a time has a root."""

    def __init__(self, root: Path, cores: int | None = None) -> None:
        self._folder = root / FOLDER
        self._cores = cores or len(os.sched_getaffinity(0))
        self._jobs: dict[str, _Job] | None = None
        # what waits, in its order, and what runs: to look at them must not cost more, the more jobs there are
        self._waiting: dict[str, _Job] = {}
        self._running: dict[str, _Job] = {}
        self._swept = 0.0
        self._lock = threading.Lock()
        self._starter: asyncio.Task[None] | None = None
        self._boot = runner.boot()

    async def submit(self, submission: Submission) -> str:
        """See `Batch`."""
        job = await self._do(lambda: self._submit(submission))
        self._start_when_free()
        return job

    async def named(self, names: Collection[str]) -> list[BatchJob]:
        """See `Batch`."""
        wanted = set(names)
        return await self._do(lambda: [self._tell(job) for job in self._all().values() if job.name in wanted])

    async def query(self, ids: Collection[str]) -> dict[str, BatchJob]:
        """See `Batch`."""
        wanted = set(ids)

        def found() -> dict[str, BatchJob]:
            jobs = self._all()
            return {name: self._tell(jobs[name]) for name in wanted if name in jobs}

        return await self._do(found)

    async def cancel(self, job: str) -> None:
        """See `Batch`. SIGTERM, and half a minute later SIGKILL."""
        await self._do(lambda: self._cancel(job))

    async def ping(self) -> Resources:
        """See `Batch`."""
        await self._do(self._all)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Resources(cpus=self._cores, memory=memory, pods=MOST_JOBS, accelerators={})

    async def close(self) -> None:
        """See `Batch`."""
        if self._starter is not None:
            self._starter.cancel()
            await asyncio.gather(self._starter, return_exceptions=True)

    async def _do(self, work: Callable[[], T]) -> T:
        def locked() -> T:
            with self._lock:
                return work()

        try:
            result = await asyncio.to_thread(locked)
        except OSError as error:
            raise BatchUnavailable(f"{self._folder}: {error.strerror or error}") from None
        self._start_when_free()
        return result

    def _start_when_free(self) -> None:
        """Start what waits, and go on with it in the background for as long as anything does."""
        if self._waiting and (self._starter is None or self._starter.done()):
            self._starter = asyncio.get_running_loop().create_task(self._keep_starting())

    async def _keep_starting(self) -> None:
        def start() -> bool:
            with self._lock:
                return self._start()

        with contextlib.suppress(OSError):  # the next question tries again, and tells
            while await asyncio.to_thread(start):
                await asyncio.sleep(LOOK_S)

    # What follows is done by one thread at a time.

    def _all(self) -> dict[str, _Job]:
        """All jobs; those that run have been looked at."""
        if self._jobs is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            jobs = [job for folder in self._folder.iterdir() if (job := _read(folder)) is not None]
            found = {job.id: job for job in sorted(jobs, key=lambda job: job.submitted)}
            self._waiting, self._running = dict(found), {}
            for job in jobs:
                job.cores = min(job.cores, self._cores)  # there may have been more of them
                self._look(job)
            self._jobs = found
        for job in list(self._running.values()):
            self._look(job)
        if time.time() - self._swept > SWEEP_S:
            self._sweep(self._jobs)
        return self._jobs

    def _sweep(self, jobs: dict[str, _Job]) -> None:
        self._swept = time.time()
        old = self._swept - KEPT_S
        for job in [job for job in jobs.values() if job.end and job.end["ended"] < old]:
            shutil.rmtree(job.folder, ignore_errors=True)
            del jobs[job.id]

    def _submit(self, submission: Submission) -> str:
        jobs = self._all()
        flags = dict(flag.partition("=")[::2] for flag in submission.flags)
        if len(self._waiting) + len(self._running) >= MOST_JOBS:
            raise BatchUnavailable(f"{MOST_JOBS} jobs are in the queue already")
        limit = seconds_of(flags.get("--time", ""))
        if flags.get("--time") and limit is None and flags["--time"] not in ("0", "UNLIMITED", "INFINITE"):
            raise BatchRefused(f'--time={flags["--time"]}: is no time; write minutes, or "1-00:00:00"')
        grace = re.search(r"@(\d+)$", flags.get("--signal", ""))
        job = _Job(uuid.uuid4().hex[:16], Path(), submission.name, self._cores_of(flags), time.time())
        job.folder = self._folder / job.id
        # written beside its place, so that it is there as a whole
        part = self._folder / f".{job.id}"
        part.mkdir(mode=0o700)
        record = {"name": job.name, "comment": submission.comment, "cores": job.cores, "submitted": job.submitted}
        what = {"script": str(submission.script), "folder": str(submission.folder)}
        limits = {"limit_s": limit, "grace_s": int(grace[1]) if grace else GRACE_S}
        output = str(submission.folder / OUTPUT)
        runner.write(part / runner.JOB, {**record, **what, **limits, "output": output})
        part.rename(job.folder)
        jobs[job.id] = self._waiting[job.id] = job
        self._start()
        return job.id

    def _cores_of(self, flags: dict[str, str]) -> int:
        """As Slurm counts: `--ntasks` is the number of all tasks, whatever stands beside it."""

        def count(name: str) -> int:
            return max(1, int(value)) if (value := flags.get(name, "1")).isdecimal() else 1

        tasks = count("--ntasks") if "--ntasks" in flags else count("--nodes") * count("--ntasks-per-node")
        return min(tasks * count("--cpus-per-task"), self._cores)

    def _start(self) -> bool:
        """Start jobs in their order for as long as cores are free; whether any still waits."""
        self._all()
        while self._waiting:
            job = next(iter(self._waiting.values()))
            self._look(job)  # a plugin that was killed may just have started it
            if job.id not in self._waiting:
                continue
            if job.cores > self._cores - sum(one.cores for one in self._running.values()):
                return True
            said = job.folder / "runner.log"
            said.touch(mode=0o600)
            with said.open("ab") as log:
                started = subprocess.run(
                    [sys.executable, "-I", "-S", runner.__file__, str(job.folder)],
                    cwd="/",
                    env=handed_on(os.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=False,
                )
            if started.returncode:
                self._end(job, "FAILED", f"cannot be started; see {said}")
            self._look(job)
            if job.id in self._waiting:
                return True
        return False

    def _cancel(self, name: str) -> None:
        job = self._all().get(name)
        if job is None:
            return
        self._look(job)
        if job.end is not None:
            return
        (job.folder / runner.CANCEL).touch(mode=0o600)
        if job.running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.running["pid"], signal.SIGTERM)
        else:
            self._end(job, "CANCELLED")

    def _look(self, job: _Job) -> None:
        """Find out how a job goes. What its runner writes last is read last."""
        if job.end is not None:
            return
        if job.running is None:
            job.running = _load(job.folder / runner.RUNNING)
            if job.running is not None:
                self._waiting.pop(job.id, None)
                self._running[job.id] = job
        alive = True
        if job.running is not None:
            alive = job.running["boot"] == self._boot and runner.start_of(job.running["pid"]) == job.running["start"]
        end = _load(job.folder / runner.ENDED)
        if end is not None:
            self._has_ended(job, end)
        elif not alive:
            self._kill_left_behind(job)
            self._end(job, "NODE_FAIL", "the process that watched over it is gone")

    def _has_ended(self, job: _Job, end: dict[str, Any]) -> None:
        job.end = end
        self._waiting.pop(job.id, None)
        self._running.pop(job.id, None)

    def _end(self, job: _Job, state: str, reason: str = "") -> None:
        started = job.running["started"] if job.running else None
        end = {"state": state, "reason": reason, "started": started, "ended": time.time()}
        runner.write(job.folder / runner.ENDED, end)
        self._has_ended(job, end)

    def _kill_left_behind(self, job: _Job) -> None:
        mark = f"{runner.MARK}={job.id}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)

    def _tell(self, job: _Job) -> BatchJob:
        if job.end is not None:
            return BatchJob(
                id=job.id,
                name=job.name,
                state=BatchState(job.end["state"]),
                reason=job.end.get("reason", ""),
                submitted=job.submitted,
                started=job.end.get("started"),
                ended=job.end["ended"],
                exit_code=job.end.get("exit_code"),
                signal=job.end.get("signal"),
            )
        if job.running is not None:
            started = job.running["started"]
            return BatchJob(job.id, job.name, BatchState.RUNNING, submitted=job.submitted, started=started)
        reason = f"waits for {job.cores} of this machine's {self._cores} cores"
        return BatchJob(job.id, job.name, BatchState.PENDING, reason, submitted=job.submitted)


def _read(folder: Path) -> _Job | None:
    record = None if folder.name.startswith(".") else _load(folder / runner.JOB)
    if record is None:
        return None
    return _Job(folder.name, folder, record["name"], record["cores"], record["submitted"])


def _load(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
