"""Jobs that ended long ago are forgotten with all that was theirs, and nothing runs again for it."""

import subprocess
from pathlib import Path

import pytest

from infra.local import expiry, jobs
from infra.local.blobs import Blobs
from infra.local.database import Database
from infra.local.expiry import DAY_S, Ages, Expiry, ages_of
from infra.local.jobs import Job, State
from infra.local.objects import ObjectStore
from infra.local.workspace import checkpoint_path
from tests.cluster import COMMAND, eventually, running_cluster

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000.0
DEFAULT = Ages()


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Kept:
    """A data folder with jobs of any age in it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.database = Database(data / "dioscar.db")
        self.blobs = Blobs(self.database, data / "blobs")
        self.store = ObjectStore(self.database, self.blobs)
        self.database.add_schema(jobs.SCHEMA)
        self.database.write_blocking(lambda c: self.store.create_bucket(c, "bucket"))

    async def job(self, state: State, *, made: float, ended: float | None) -> Job:
        """A job on an object of its own, with a log and a checkpoint; times in days before now."""
        blob = await self.store.ingest_bytes(b"x")

        def work(connection):
            stored = self.store.insert(connection, "bucket", "in/a", blob)
            job = jobs.add(
                connection, "service", b"{}", max_attempts=1, bucket="bucket", key="in/a", object_id=stored.id
            )
            jobs.handle(connection, "service", stored.id)
            self.store.pin(connection, stored.id, job.id)
            connection.execute(
                "UPDATE jobs SET state = ?, created = ?, finished = ? WHERE seq = ?",
                (state, NOW - made * DAY_S, None if ended is None else NOW - ended * DAY_S, job.seq),
            )
            return job

        job = await self.database.write(work)
        self.log(job).parent.mkdir(parents=True, exist_ok=True)
        self.log(job).write_text("printed")
        Path(checkpoint_path(self.data, job)).mkdir(parents=True)
        return job

    def log(self, job: Job) -> Path:
        return self.data / "logs" / "service" / f"{job.id}.log"

    def has(self, job: Job) -> bool:
        there = jobs.get(self.database.read, job.id) is not None
        assert self.log(job).exists() == there
        assert Path(checkpoint_path(self.data, job)).exists() == there
        return there

    async def purge(self, ages: Ages = DEFAULT) -> int:
        return await Expiry(self.data, self.database, self.store, ages, lambda: NOW).purge()

    def count(self, table: str) -> int:
        return self.database.read.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.fixture
def kept(tmp_path: Path):
    kept = Kept(tmp_path)
    yield kept
    kept.blobs.close()
    kept.database.close()


async def test_what_ended_long_ago_goes_with_its_log_and_what_is_younger_stays(kept: Kept):
    old = [await kept.job(state, made=40, ended=31) for state in (State.SUCCEEDED, State.CANCELLED)]
    young = [await kept.job(state, made=40, ended=29) for state in (State.SUCCEEDED, State.CANCELLED)]
    assert await kept.purge() == 2
    assert [kept.has(job) for job in old] == [False, False]
    assert [kept.has(job) for job in young] == [True, True]
    assert kept.count("transitions") == 2


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING, State.RETRYING])
async def test_what_is_open_never_goes(kept: Kept, state: State):
    job = await kept.job(state, made=4000, ended=None)
    assert await kept.purge(Ages(1.0, 1.0)) == 0
    assert kept.has(job)


async def test_dead_letters_stay_unless_their_time_is_set(kept: Kept):
    dead = await kept.job(State.DEAD, made=4000, ended=3999)
    assert await kept.purge() == 0
    assert kept.has(dead)
    assert await kept.purge(Ages(0, 4000 * DAY_S)) == 0
    assert await kept.purge(Ages(0, 3998 * DAY_S)) == 1
    assert not kept.has(dead)


async def test_zero_is_for_ever(kept: Kept):
    job = await kept.job(State.SUCCEEDED, made=4000, ended=3999)
    assert await kept.purge(Ages(0, 0)) == 0
    assert kept.has(job)


async def test_its_object_is_still_known_to_have_had_a_job_and_a_version_that_only_it_held_goes(kept: Kept):
    await kept.job(State.CANCELLED, made=40, ended=40)
    current = await kept.job(State.CANCELLED, made=40, ended=40)
    assert await kept.purge() == 2
    await kept.store.garbage.collect()
    assert (kept.count("pins"), kept.count("objects"), kept.count("handled")) == (0, 1, 1)
    stored = kept.store.get("bucket", "in/a")
    assert stored is not None and jobs.is_handled(kept.database.read, "service", stored.id)
    assert not kept.has(current)


async def test_one_that_was_replayed_lately_does_not_keep_those_after_it(kept: Kept, monkeypatch):
    monkeypatch.setattr(expiry, "ROWS", 2)
    monkeypatch.setattr(expiry, "PAUSE_S", 0)
    replayed = [await kept.job(State.SUCCEEDED, made=90, ended=1) for _ in range(5)]
    old = [await kept.job(State.SUCCEEDED, made=80, ended=80) for _ in range(4)]
    young = [await kept.job(State.SUCCEEDED, made=2, ended=1) for _ in range(5)]
    assert await kept.purge() == 4
    assert all(kept.has(job) for job in replayed + young)
    assert not any(kept.has(job) for job in old)


async def test_it_is_done_a_few_at_a_time_and_stops_where_all_are_young(kept: Kept, monkeypatch):
    monkeypatch.setattr(expiry, "ROWS", 3)
    monkeypatch.setattr(expiry, "PAUSE_S", 0)
    for _ in range(7):
        await kept.job(State.SUCCEEDED, made=40, ended=40)
    for _ in range(12):
        await kept.job(State.SUCCEEDED, made=1, ended=1)
    looked = []
    some = Expiry._some

    def counted(self, connection, state, before, after):
        seen, gone = some(self, connection, state, before, after)
        looked.append((str(state), len(gone)))
        return seen, gone

    monkeypatch.setattr(Expiry, "_some", counted)
    assert await kept.purge() == 7
    assert [gone for state, gone in looked if state == "Succeeded"] == [3, 3, 1, 0]


def test_the_settings_are_oscars_and_a_wrong_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert ages_of({}) == Ages(2_592_000, 0)
    assert ages_of({"TTL_JOB": "60", "DIOSCAR_TTL_DEAD": "1e7"}) == Ages(60, 1e7)
    for text in ("-1", "nan", "inf", "a month"):
        with pytest.raises(ValueError, match=f'TTL_JOB: "{text}" is no time in seconds; write e.g. 2592000'):
            ages_of({"TTL_JOB": text})
    monkeypatch.setenv("DIOSCAR_TTL_DEAD", "soon")
    command = [*COMMAND, "--data", str(tmp_path), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith('dioscar: DIOSCAR_TTL_DEAD: "soon" is no time in seconds; ')


def test_a_cluster_forgets_by_itself_and_runs_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TTL_JOB", "1")
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("expiring", script='echo printed; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"')
        cluster.deploy("failing", script="exit 3", annotations={"dioscar/retries": "0"})
        cluster.put("failing", "in/a", b"x")
        cluster.put("expiring", "in/a", b"x")
        eventually(lambda: cluster.objects("expiring", "out/"), what="the job")
        eventually(lambda: not cluster.jobs(service="expiring"), what="its end of time")
        assert list((tmp_path / "data/logs").rglob("expiring-*")) == []
        assert cluster.objects("expiring") == {"in/a": b"x", "out/a": b"x"}
        replayed = cluster.http.post(cluster.url("/dioscar/v1/replay"), json={"missing": {}})
        assert replayed.json() == {"replayed": 0}
        assert [job["state"] for job in cluster.ended("failing")] == ["Dead"]
