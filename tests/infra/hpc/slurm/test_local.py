"""Jobs as plain processes: queued, ended in every way, and not harmed by the end of who has started them."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import infra.hpc.local
from infra.hpc.batch import BatchJob, BatchRefused, BatchState, BatchUnavailable
from infra.hpc.local import FOLDER, Local
from tests.cluster import PATIENCE_S
from tests.infra.hpc.slurm.test_slurm import submission

TICK_S = 0.02


async def until(look: Callable[[], Any], what: str = "it") -> None:
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end, f"{what} did not happen"
        await asyncio.sleep(TICK_S)


async def ended(local: Local, job: str) -> BatchJob:
    return await in_state(local, job, *(state for state in BatchState if state.is_final))


async def in_state(local: Local, job: str, *states: BatchState) -> BatchJob:
    end = time.monotonic() + PATIENCE_S
    while (found := (await local.query([job]))[job]).state not in states:
        assert time.monotonic() < end, f"{found} is in none of {states}"
        await asyncio.sleep(TICK_S)
    return found


def test_a_job_ends_with_its_own_exit_status(tmp_path: Path) -> None:
    async def run() -> None:
        local = Local(tmp_path)
        given = submission(tmp_path, "echo said; exit 7")
        job = await local.submit(given)
        found = await ended(local, job)
        assert (found.state, found.exit_code, found.signal, found.name) == (BatchState.FAILED, 7, None, given.name)
        assert found.submitted and found.started and found.ended and found.submitted <= found.started <= found.ended
        assert (given.folder / "job.out").read_text() == "said\n"
        found = await ended(local, await local.submit(submission(tmp_path, "true")))
        assert (found.state, found.exit_code) == (BatchState.COMPLETED, 0)
        found = await ended(local, await local.submit(submission(tmp_path, "kill -KILL $$")))
        assert (found.state, found.signal) == (BatchState.FAILED, 9)
        assert [one.id for one in await local.named([given.name])] == [job]
        assert await local.query(["unknown"]) == {} and await local.named(["unknown"]) == []
        await local.cancel("unknown")
        await local.close()

    asyncio.run(run())


def test_jobs_wait_for_cores_in_their_order(tmp_path: Path) -> None:
    async def run() -> None:
        local = Local(tmp_path, cores=2)
        texts = [f"date +%s.%N >{tmp_path}/{number}; while [ ! -e go ]; do sleep 0.05; done" for number in range(3)]
        given = [submission(tmp_path, text, "--cpus-per-task=1") for text in texts]
        wide = submission(tmp_path, f"touch {tmp_path}/wide", "--cpus-per-task=2")
        jobs = [await local.submit(one) for one in (*given[:2], wide, given[2])]
        await in_state(local, jobs[0], BatchState.RUNNING)
        waiting = (await local.query(jobs))[jobs[2]]
        assert waiting.state is BatchState.PENDING and "cores" in waiting.reason
        (given[0].folder / "go").touch()
        await ended(local, jobs[0])
        assert (await local.query(jobs))[jobs[3]].state is BatchState.PENDING  # not before the wide one
        (given[1].folder / "go").touch()
        await ended(local, jobs[2])
        await in_state(local, jobs[3], BatchState.RUNNING)
        (given[2].folder / "go").touch()
        assert (await ended(local, jobs[3])).state is BatchState.COMPLETED
        assert (await local.ping()).cpus == 2
        await local.close()

    asyncio.run(run())


def test_a_job_takes_as_many_cores_as_its_tasks_do(tmp_path: Path) -> None:
    async def run() -> None:
        local = Local(tmp_path, cores=16)
        for flags, cores in (
            ((), 1),
            (("--ntasks=8",), 8),
            (("--ntasks=3", "--cpus-per-task=2", "--nodes=3"), 6),
            (("--nodes=2", "--ntasks-per-node=3"), 6),
            (("--ntasks=64",), 16),
        ):
            job = await local.submit(submission(tmp_path, "true", *flags))
            assert json.loads((tmp_path / FOLDER / job / "job.json").read_text())["cores"] == cores, flags
        await local.close()

    asyncio.run(run())


def test_what_has_ended_takes_no_place_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.hpc.local.MOST_JOBS", 2)

    async def run() -> None:
        local = Local(tmp_path, cores=1)
        for _ in range(2):
            await ended(local, await local.submit(submission(tmp_path, "true")))
        waits = "while [ ! -e go ]; do sleep 0.05; done"
        given = [submission(tmp_path, waits) for _ in range(2)]
        jobs = [await local.submit(one) for one in given]
        with pytest.raises(BatchUnavailable, match="2 jobs"):
            await local.submit(submission(tmp_path, "true"))
        for one in given:
            (one.folder / "go").touch()
        for job in jobs:
            assert (await ended(local, job)).state is BatchState.COMPLETED
        await local.close()

    asyncio.run(run())


def test_a_look_at_the_queue_costs_the_same_however_long_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> dict[str, Any] | None:
        read.append(path)
        return load(path)

    load = infra.hpc.local._load
    monkeypatch.setattr(infra.hpc.local, "_load", counted)
    monkeypatch.setattr(Local, "_start_when_free", lambda local: None)  # nothing else looks meanwhile

    async def run() -> None:
        local = Local(tmp_path, cores=1)
        jobs = [await local.submit(submission(tmp_path, "exec sleep 300"))]
        counts = []
        for more in (2, 20):
            jobs += [await local.submit(submission(tmp_path, "true")) for _ in range(more)]
            read.clear()
            found = await local.query(jobs)
            await local.ping()
            assert local._start()
            counts.append(len(read))
            states = [found[job].state for job in jobs]
            assert states == [BatchState.RUNNING] + [BatchState.PENDING] * (len(jobs) - 1)
        assert counts[0] == counts[1] > 0, counts
        for job in reversed(jobs):
            await local.cancel(job)
        await ended(local, jobs[0])
        await local.close()

    asyncio.run(run())


def test_what_waits_starts_though_nobody_asks(tmp_path: Path) -> None:
    async def run() -> None:
        local = Local(tmp_path, cores=1)
        for _ in range(2):
            await local.submit(submission(tmp_path, "sleep 0.2; echo one >>../all"))
        await until(lambda: (tmp_path / "all").exists() and (tmp_path / "all").read_text() == "one\none\n")
        await local.close()

    asyncio.run(run())


def test_cancelling_ends_all_that_a_job_has_started(tmp_path: Path) -> None:
    async def run() -> None:
        local = Local(tmp_path, cores=1)
        text = "trap 'echo told >told; exit 75' TERM; setsid sleep 601 & echo $! >sleeper; while :; do sleep 0.05; done"
        given = submission(tmp_path, text)
        running = await local.submit(given)
        waiting = await local.submit(submission(tmp_path, "touch never"))
        await until(lambda: (given.folder / "sleeper").exists() and (given.folder / "sleeper").read_text().strip())
        sleeper = int((given.folder / "sleeper").read_text())
        await local.cancel(waiting)
        await local.cancel(running)
        assert (await ended(local, waiting)).state is BatchState.CANCELLED
        found = await ended(local, running)
        assert (found.state, found.exit_code) == (BatchState.CANCELLED, 75)
        assert (given.folder / "told").read_text() == "told\n"
        await until(lambda: not alive(sleeper), "the end of what it left behind")
        await local.cancel(running)
        await local.close()

    asyncio.run(run())


def test_a_time_limit_is_told_of_before_it_is_kept(tmp_path: Path) -> None:
    async def run() -> None:
        local = Local(tmp_path)
        loop = "while :; do sleep 0.05; done"
        stubborn = submission(tmp_path, f"trap 'echo told >told' TERM; {loop}", "--time=0:2", "--signal=B:TERM@1")
        obedient = submission(tmp_path, f"trap 'exit 75' TERM; {loop}", "--time=0:4", "--signal=B:TERM@3")
        first, second = await local.submit(stubborn), await local.submit(obedient)
        found = await ended(local, first)
        assert found.state is BatchState.TIMEOUT and "2 s" in found.reason
        assert (stubborn.folder / "told").exists()
        found = await ended(local, second)
        assert (found.state, found.exit_code) == (BatchState.FAILED, 75)
        with pytest.raises(BatchRefused, match="--time"):
            await local.submit(submission(tmp_path, "true", "--time=soon"))
        await local.close()

    asyncio.run(run())


def test_jobs_outlive_who_has_started_them(tmp_path: Path) -> None:
    async def before() -> list[str]:
        local = Local(tmp_path, cores=1)
        jobs = [await local.submit(one) for one in given]
        await until(lambda: (given[0].folder / "began").exists())
        await local.close()
        return jobs

    async def after(jobs: list[str]) -> None:
        local = Local(tmp_path, cores=1)
        found = await local.query(jobs)
        assert [found[job].state for job in jobs] == [BatchState.RUNNING, BatchState.PENDING]
        (given[0].folder / "go").touch()
        assert (await ended(local, jobs[0])).exit_code == 3
        assert (await ended(local, jobs[1])).state is BatchState.COMPLETED
        assert (await Local(tmp_path).query(jobs[:1]))[jobs[0]].exit_code == 3
        await local.close()

    given = [submission(tmp_path, "touch began; while [ ! -e go ]; do sleep 0.05; done; exit 3")]
    given.append(submission(tmp_path, "true"))
    asyncio.run(after(asyncio.run(before())))


def test_a_job_whose_watcher_was_killed_has_failed_and_is_gone(tmp_path: Path) -> None:
    async def run() -> None:
        local = Local(tmp_path)
        given = submission(tmp_path, "echo $$ >pid; while :; do sleep 0.05; done")
        job = await local.submit(given)
        await until(lambda: (given.folder / "pid").exists() and (given.folder / "pid").read_text().strip())
        script = int((given.folder / "pid").read_text())
        os.kill(int(Path(f"/proc/{script}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        found = await ended(local, job)
        assert found.state is BatchState.NODE_FAIL and "gone" in found.reason
        await until(lambda: not alive(script), "the end of its script")
        await local.close()

    asyncio.run(run())


def test_nothing_of_the_plugins_environment_reaches_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIOSCAR_HPC_SECRET", "s3cret")

    async def run() -> None:
        local = Local(tmp_path)
        given = submission(tmp_path, "env >env")
        job = await local.submit(given)
        await ended(local, job)
        told = (given.folder / "env").read_text()
        assert "s3cret" not in told and f"DIOSCAR_HPC_JOB={job}" in told
        for file in (tmp_path / FOLDER / job).iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
        await local.close()

    asyncio.run(run())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
