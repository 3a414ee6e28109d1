"""Schedules by the clock: each due time runs once, whatever happens to the clock, the cluster or the service."""

import base64
import json
import random
import sqlite3

import pytest

from events.cron import Cron
from events.schedules import ScheduleError, read_one
from infra.local.schedules import scheduler as room
from infra.local.schedules import table
from infra.local.schedules.scheduler import NoSuchSchedule
from infra.local.schedules.shown import when
from infra.local.schedules.starting import Hindered, by_call
from tests.infra.local.schedules.conftest import World, at

pytestmark = pytest.mark.anyio
NIGHTLY = {"cron": "30 2 * * *", "timezone": "Europe/Madrid", "payload": {"seed": 1}}


@pytest.fixture
async def nightly(world: World) -> World:
    await world.deploy("train")
    assert await world.apply(**NIGHTLY) == "created"
    return world


async def test_a_due_time_runs_once(nightly: World):
    await nightly.look("2026-06-02T02:29:59")
    assert nightly.jobs() == []
    await nightly.look("2026-06-02T02:30:00")
    await nightly.look("2026-06-02T02:30:00")
    await nightly.look("2026-06-02T02:31:00")
    (job,) = nightly.jobs()
    assert json.loads(base64.b64decode(job["body"])) == {"seed": 1}
    assert job["max_attempts"] == 4
    shown = nightly.shown()
    assert (shown["last"], shown["next"]) == (at("2026-06-02T02:30"), at("2026-06-03T02:30"))
    assert (shown["job"], shown["job_state"]) == (job["id"], "Pending")


async def test_a_restart_runs_nothing_again(nightly: World):
    await nightly.look("2026-06-02T02:30:00")
    nightly.restart()
    await nightly.look("2026-06-02T02:30:30")
    assert len(nightly.jobs()) == 1


async def test_what_was_missed_runs_once_and_says_so(nightly: World):
    nightly.restart()
    await nightly.look("2026-06-05T13:00")  # four nights later
    await nightly.look(1)
    assert len(nightly.jobs()) == 1
    assert nightly.shown()["last"] == at("2026-06-05T02:30")
    assert nightly.shown()["note"] == "ran 10 h late"
    assert nightly.shown()["next"] == at("2026-06-06T02:30")


async def test_what_was_missed_is_skipped_where_that_is_wanted(nightly: World):
    await nightly.apply(**NIGHTLY, missed="skip")
    await nightly.look("2026-06-02T02:31:01")
    assert nightly.jobs() == []
    assert nightly.shown()["note"] == "skipped what was due 1 min ago: nothing ran then"
    await nightly.look("2026-06-03T02:30:59")  # late, as a busy machine is, but not missed
    assert len(nightly.jobs()) == 1


async def test_there_is_no_overlap_unless_it_is_allowed(nightly: World):
    await nightly.look("2026-06-02T02:30")
    await nightly.look("2026-06-03T02:30")
    assert len(nightly.jobs()) == 1
    assert nightly.shown()["note"] == f"its last job ({nightly.jobs()[0]['id']}) is still Pending"
    await nightly.look("2026-06-04T09:00")
    await nightly.end()
    await nightly.look(1)  # what had to wait runs once, as soon as it can
    assert len(nightly.jobs()) == 2
    assert nightly.shown()["last"] == at("2026-06-04T02:30")
    await nightly.apply(**NIGHTLY, overlap=True)
    await nightly.look("2026-06-05T02:30")
    assert len(nightly.jobs()) == 3


async def test_an_overlap_is_skipped_where_what_is_missed_is(nightly: World):
    await nightly.apply(**NIGHTLY, missed="skip")
    await nightly.look("2026-06-02T02:30")
    await nightly.look("2026-06-03T02:30")
    await nightly.look("2026-06-03T02:31:01")
    await nightly.end()
    await nightly.look(1)
    assert len(nightly.jobs()) == 1
    assert "is still Pending" in nightly.shown()["note"]


async def test_others_jobs_of_the_service_are_no_overlap(nightly: World):
    await nightly.apply("b", **NIGHTLY)
    await nightly.scheduler.run("b")
    await nightly.look("2026-06-02T02:30")
    assert nightly.shown("a")["last"] == at("2026-06-02T02:30")
    assert nightly.shown("b")["last"] is None


@pytest.mark.parametrize("state", ["Running", "Retrying"])
async def test_a_job_that_is_tried_again_has_not_ended(nightly: World, state: str):
    await nightly.look("2026-06-02T02:30")
    await nightly.end(state)
    await nightly.look("2026-06-03T02:30")
    assert len(nightly.jobs()) == 1
    await nightly.end("Dead")
    await nightly.look(1)
    assert len(nightly.jobs()) == 2


async def test_a_service_that_is_not_there_is_waited_for(world: World):
    await world.apply(**NIGHTLY)
    await world.look("2026-06-02T02:30")
    assert world.shown()["note"] == "there is no service train; deploy it"
    await world.deploy("train")
    await world.look("2026-06-02T08:00")
    assert len(world.jobs()) == 1


async def test_a_pause_is_no_absence(nightly: World):
    await nightly.scheduler.pause("a")
    assert (nightly.shown()["state"], nightly.shown()["next"]) == ("paused", None)
    await nightly.look("2026-06-03T12:00")
    await nightly.scheduler.resume("a")
    await nightly.look(1)
    assert nightly.jobs() == []
    await nightly.look("2026-06-04T02:30")
    assert len(nightly.jobs()) == 1


async def test_a_pause_outlasts_a_restart_and_the_same_file_but_not_one_that_says_otherwise(nightly: World):
    await nightly.scheduler.pause("a")
    nightly.restart()
    assert await nightly.apply(**NIGHTLY) == "unchanged"
    assert await nightly.apply(**{**NIGHTLY, "payload": {}}) == "changed"
    assert nightly.shown()["state"] == "paused"
    await nightly.apply(**NIGHTLY, paused=True)
    await nightly.scheduler.resume("a")
    await nightly.apply(**NIGHTLY, paused=True)
    assert nightly.shown()["state"] == "active"
    await nightly.apply(**NIGHTLY)
    assert nightly.shown()["state"] == "active"


async def test_what_a_change_finds_missed_is_still_run(nightly: World):
    nightly.now = at("2026-06-02T09:00")
    await nightly.apply(**{**NIGHTLY, "payload": {"seed": 2}})
    await nightly.look(1)
    assert nightly.shown()["last"] == at("2026-06-02T02:30")


@pytest.mark.parametrize("back_s", [2, 600, 5 * 3600])
async def test_a_clock_that_is_set_back_runs_nothing_twice(nightly: World, back_s: int):
    await nightly.look("2026-06-02T02:30:01")
    await nightly.end()
    for _ in range(3):
        await nightly.look(-back_s)
        await nightly.look(back_s)
    assert len(nightly.jobs()) == 1
    await nightly.look("2026-06-03T02:30")
    assert len(nightly.jobs()) == 2


async def test_a_clock_that_was_years_ahead_holds_nothing_up_for_years(nightly: World):
    await nightly.look("2031-01-01T02:30")
    await nightly.end()
    await nightly.look("2026-06-02T12:00")
    assert nightly.shown()["next"] == at("2026-06-03T02:30")
    await nightly.look("2026-06-03T02:30")
    assert len(nightly.jobs()) == 2


async def test_a_clock_that_was_ahead_at_the_last_end_holds_nothing_up_either(nightly: World):
    await nightly.look("2031-01-01T02:30")
    await nightly.end()
    nightly.restart()
    await nightly.look("2026-06-02T12:00")
    assert nightly.shown()["next"] == at("2026-06-03T02:30")


async def test_a_clock_that_jumps_forward_runs_the_last_time_that_it_has_passed(nightly: World):
    await nightly.look("2026-06-02T02:29")
    await nightly.look("2026-06-02T07:29")
    assert [job["state"] for job in nightly.jobs()] == ["Pending"]
    assert nightly.shown()["note"] == "ran 5 h late"


async def test_where_the_clocks_change_each_night_runs_once(nightly: World):
    nightly.now = at("2026-10-24T12:00")
    await nightly.scheduler.delete("a")
    await nightly.apply(**NIGHTLY)
    ran = []
    for _ in range(3 * 24 * 6):  # three days, every ten minutes
        await nightly.look(600)
        if len(nightly.jobs()) > len(ran):
            ran.append(nightly.shown()["last"])
            await nightly.end()
    assert ran == [at("2026-10-25T02:30+02:00"), at("2026-10-26T02:30"), at("2026-10-27T02:30")]


async def test_once_is_once(world: World):
    await world.deploy("train")
    await world.apply(at="2026-06-01T13:00", timezone="Europe/Madrid")
    assert world.shown()["next"] == at("2026-06-01T13:00")
    await world.look("2026-06-01T13:00")
    await world.end()
    for _ in range(3):
        await world.look(86_400)
        assert await world.apply(at="2026-06-01T13:00", timezone="Europe/Madrid") == "unchanged"
    assert await world.apply(at="2026-06-01T13:00", timezone="Europe/Madrid", payload={"seed": 2}) == "changed"
    await world.look(1)
    assert len(world.jobs()) == 1
    assert (world.shown()["state"], world.shown()["next"]) == ("done", None)


@pytest.mark.parametrize("missed, runs", [("run_once", 1), ("skip", 0)])
async def test_once_may_be_missed(world: World, missed: str, runs: int):
    await world.deploy("train")
    await world.apply(at="2026-06-01T11:00Z", missed=missed)
    world.restart()
    await world.look("2026-06-02T12:00")
    await world.look(1)
    assert len(world.jobs()) == runs
    assert world.shown()["state"] == "done"


async def test_once_is_not_what_lies_in_the_past_already(world: World):
    await world.deploy("train")
    await world.apply(at="2026-05-01T13:00")
    await world.look(1)
    assert world.jobs() == []
    assert (world.shown()["state"], world.shown()["note"]) == ("done", "its time was before it was made")
    await world.apply(at="2026-07-01T13:00")
    assert (world.shown()["state"], world.shown()["note"]) == ("active", "")


async def test_once_is_not_what_was_paused_at_its_time(world: World):
    await world.deploy("train")
    await world.apply(at="2026-06-01T13:00")
    await world.scheduler.pause("a")
    await world.look("2026-06-03T12:00")
    await world.scheduler.resume("a")
    await world.look(1)
    assert world.jobs() == []
    assert world.shown()["note"] == "was paused at its time"


async def test_a_person_may_run_it_now_also_while_it_is_paused(nightly: World):
    await nightly.scheduler.pause("a")
    (job,) = await nightly.scheduler.run("a")
    assert [one["id"] for one in nightly.jobs()] == [job]
    with pytest.raises(Hindered, match="is still Pending"):
        await nightly.scheduler.run("a")
    await nightly.scheduler.resume("a")
    assert nightly.shown()["next"] == at("2026-06-02T02:30")


async def test_what_is_not_there_is_said(world: World):
    for ask in (world.scheduler.run, world.scheduler.pause, world.scheduler.resume, world.scheduler.delete):
        with pytest.raises(NoSuchSchedule):
            await ask("b")
    await world.apply(**NIGHTLY)
    with pytest.raises(Hindered, match="there is no service train"):
        await world.scheduler.run("a")


async def test_a_document_is_taken_whole_or_not_at_all(world: World, monkeypatch: pytest.MonkeyPatch):
    fine = {"service": "train", **NIGHTLY}
    with pytest.raises(ScheduleError, match=r"schedules\.b\.crom"):
        await world.scheduler.apply({"schedules": {"a": fine, "b": {"service": "train", "crom": ""}}})
    monkeypatch.setattr(table, "MOST", 1)
    with pytest.raises(ScheduleError, match="more than 1 schedules"):
        await world.scheduler.apply({"schedules": {"a": fine, "b": fine}})
    assert world.scheduler.all() == []


async def test_what_is_deleted_runs_no_more(nightly: World):
    await nightly.scheduler.delete("a")
    assert await nightly.look("2026-06-02T02:30") == float("inf")
    assert nightly.jobs() == []


async def test_another_time_counts_from_now(nightly: World):
    await nightly.look("2026-06-02T02:30")
    await nightly.end()
    await nightly.apply(**{**NIGHTLY, "cron": "0 4 * * *"})
    assert nightly.shown()["next"] == at("2026-06-02T04:00")
    await nightly.look("2026-06-02T04:00")
    assert len(nightly.jobs()) == 2


async def test_a_cluster_without_schedules_is_never_woken(nightly: World):
    assert 0 < await nightly.look("2026-06-01T12:00") <= room.LONGEST_S
    assert await nightly.look("2026-06-02T02:29:58") == pytest.approx(2)
    await nightly.scheduler.pause("a")
    assert await nightly.look() == float("inf")


async def test_a_failed_commit_is_no_run(nightly: World, monkeypatch: pytest.MonkeyPatch):
    def break_down(connection: sqlite3.Connection, name: str, **facts: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(table, "change", break_down)
        await nightly.look("2026-06-02T02:30")
    assert nightly.jobs() == []
    await nightly.look(1)
    assert len(nightly.jobs()) == 1


async def test_what_is_wrong_with_one_keeps_no_other_from_running(nightly: World, caplog: pytest.LogCaptureFixture):
    await nightly.apply("b", **NIGHTLY)
    real = by_call

    def fail(connection, engine, entry):
        if entry.name == "a":
            raise ZeroDivisionError("a defect")
        return real(connection, engine, entry)

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(room, "by_call", fail)
        for _ in range(2):
            await nightly.look("2026-06-02T02:30")
    assert len(nightly.jobs()) == 1
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "schedule a waits: the cluster failed: ZeroDivisionError: a defect"
    ]
    await nightly.look(1)
    assert len(nightly.jobs()) == 2


async def test_a_document_that_is_no_longer_understood_is_shown_and_keeps_no_other_from_running(nightly: World):
    await nightly.apply("b", **NIGHTLY)
    document = json.dumps({"service": "train", "cron": "30 2 * * *", "timezone": "Europe/Atlantis"})
    await nightly.database.write(lambda connection: table.change(connection, "b", document=document))
    nightly.restart()
    await nightly.look("2026-06-02T02:30")
    assert len(nightly.jobs()) == 1
    shown = nightly.shown("b")
    assert (shown["state"], shown["when"]) == ("paused", "cannot be read")
    assert "timezone: 'Europe/Atlantis' is no time zone" in shown["note"]
    with pytest.raises(Hindered):
        await nightly.scheduler.run("b")
    await nightly.apply("b", **NIGHTLY)
    assert nightly.shown("b")["state"] == "active"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"cron": "0 2 * * *"}, "0 2 * * * UTC"),
        ({"at": "2026-12-01T08:30Z"}, "once, 2026-12-01 08:30:00 UTC"),
        ({"gather": {"bucket": "raw", "objects": 1, "bytes": "5Gi"}}, "1 object or 5 GiB in raw/*"),
        (
            {"gather": {"bucket": "raw", "prefix": "in/", "suffix": ".h5", "bytes": 1001, "age": "90m", "word": "OK"}},
            "1001 bytes or one that is 90m old or the word OK in raw/in/*.h5",
        ),
        ({"model": {"name": "pulsar", "older": "90s"}}, "pulsar (serving) older than 90s"),
    ],
)
def test_what_a_schedule_waits_for_is_said_in_a_few_words(fields: dict[str, object], words: str):
    assert when(read_one("a", {"service": "train", **fields})) == words


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("missed", ["run_once", "skip"])
async def test_whatever_happens_no_due_time_runs_twice_and_none_that_could_run_is_left_out(
    world: World, seed: int, missed: str
):
    chance = random.Random(seed)
    await world.deploy("train")
    cron = Cron("*/10 * * * *")
    await world.apply(cron=cron.expression, missed=missed)
    ran: list[float] = []
    furthest = world.now
    for _ in range(80):
        what = chance.random()
        if what < 0.1:
            world.restart()
        elif what < 0.2:
            await world.scheduler.apply({"schedules": {"a": {**world.shown()["schedule"], "payload": {"n": len(ran)}}}})
        elif what < 0.3:
            await world.scheduler.pause("a")
            await world.scheduler.resume("a")
        open_before = any(job["state"] == "Pending" for job in world.jobs())
        step = chance.choice([1, 30, 59, 600, 601, 4000, -5, -700])
        due_before = world.shown()["next"]
        await world.look(step)
        jobs = world.jobs()
        if len(jobs) > len(ran):
            assert len(jobs) == len(ran) + 1
            assert not open_before
            ran.append(world.shown()["last"])
            assert cron.next(ran[-1] - 1) == ran[-1] <= world.now
            assert missed == "run_once" or world.now - ran[-1] <= 60
        elif world.now >= due_before and not open_before:
            assert missed == "skip" and world.now - cron.last(world.now, 0) > 60
        furthest = max(furthest, world.now)
        assert world.shown()["next"] <= max(cron.next(furthest), world.now)
        if chance.random() < 0.7:
            await world.end()
    assert len(set(ran)) == len(ran)
    assert missed == "skip" or len(ran) > 10
    assert ran == sorted(ran)
