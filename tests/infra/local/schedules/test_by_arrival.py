"""Schedules by what arrives: every object is gathered once, in order, exactly as it was, and counting costs nothing."""

import json
import random
from typing import Any

import pytest

from infra.local.schedules import gathering
from infra.local.schedules.starting import Hindered
from tests.infra.local.schedules.conftest import World

pytestmark = pytest.mark.anyio
DAY = 86_400.0


@pytest.fixture
async def train(world: World) -> World:
    await world.deploy("train")
    await world.database.write(lambda connection: world.store.create_bucket(connection, "frames"))
    return world


def gather(**fields: Any) -> dict[str, Any]:
    return {"payload": {"seed": 1}, "gather": {"bucket": "frames", "prefix": "new/", **fields}}


def keys(world: World) -> list[list[str]]:
    return [[entry["key"] for entry in document["inputs"]] for document in world.requests()]


async def test_a_number_of_objects_starts_the_service_with_a_request_that_names_them(train: World):
    await train.apply(**gather(objects=2, suffix=".h5"))
    await train.put("frames", "new/b.h5", b"bb")
    await train.put("frames", "new/note.txt")
    await train.put("frames", "old/c.h5")
    await train.look(10)
    assert train.jobs() == []
    assert train.shown()["arrived"] == {"objects": 1, "bytes": 2, "oldest": train.now - 10}
    await train.put("frames", "new/a.h5")
    await train.look(10)
    (document,) = train.requests()
    assert document["seed"] == 1
    assert [(entry["bucket"], entry["key"]) for entry in document["inputs"]] == [
        ("frames", "new/b.h5"),
        ("frames", "new/a.h5"),
    ]
    stored = train.store.get("frames", "new/b.h5")
    assert stored is not None
    assert document["inputs"][0]["sha256"] == stored.sha256
    (job,) = train.jobs()
    assert job["key"].startswith("in/a-000001-")
    assert train.shown()["job"] == job["id"]
    assert train.shown()["arrived"] == {"objects": 0, "bytes": 0, "oldest": None}
    request = train.store.get("train", job["key"])
    assert request is not None
    assert request.metadata == {"dioscar-schedule": "a"}


async def test_a_number_of_bytes_does(train: World):
    await train.apply(**gather(bytes=1000))
    await train.put("frames", "new/a", b"x" * 600)
    await train.look(1)
    assert train.jobs() == []
    await train.put("frames", "new/b", b"x" * 400)
    await train.look(1)
    assert keys(train) == [["new/a", "new/b"]]


async def test_an_age_does(train: World):
    await train.apply(**gather(age="1d"))
    await train.put("frames", "new/a")
    await train.look(DAY - 1)
    assert train.jobs() == []
    await train.put("frames", "new/b")
    await train.look(1)
    assert keys(train) == [["new/a", "new/b"]]


async def test_a_word_does_for_its_folder(train: World):
    await train.apply(**gather(word="_DONE"), overlap=True)
    for key in ("new/1/a", "new/2/a", "new/1/b", "new/2/_DONE", "new/3/_DONE"):
        await train.put("frames", key)
    await train.look(1)
    await train.look(1)
    assert keys(train) == [["new/2/a"]]
    await train.put("frames", "new/1/_DONE")
    await train.look(1)
    assert keys(train) == [["new/2/a"], ["new/1/a", "new/1/b"]]


async def test_what_was_gathered_is_not_gathered_again_also_after_a_restart(train: World):
    await train.apply(**gather(objects=1), overlap=True)
    for number in range(3):
        await train.put("frames", f"new/{number}")
        await train.look(1)
        train.restart()
        await train.look(1)
    assert keys(train) == [["new/0"], ["new/1"], ["new/2"]]


async def test_what_arrived_before_a_restart_is_not_lost(train: World):
    await train.apply(**gather(objects=3))
    await train.put("frames", "new/0")
    await train.look(1)
    await train.put("frames", "new/1")
    train.restart()  # before anybody looked
    await train.put("frames", "new/2")
    await train.look(1)
    assert keys(train) == [["new/0", "new/1", "new/2"]]


async def test_of_an_overwritten_object_the_last_version_counts_and_a_deleted_one_does_not(train: World):
    await train.apply(**gather(objects=2))
    await train.put("frames", "new/a", b"1")
    await train.put("frames", "new/b")
    await train.look(0)
    assert len(train.jobs()) == 1
    await train.end()
    for data in (b"2", b"3"):
        await train.put("frames", "new/a", data)
        await train.look(1)
    await train.put("frames", "new/c")
    await train.look(1)
    await train.delete("frames", "new/c")
    assert len(train.jobs()) == 2
    await train.end()
    await train.put("frames", "new/d")
    await train.look(1)
    await train.delete("frames", "new/d")
    await train.put("frames", "new/e")
    await train.look(1)
    assert len(train.jobs()) == 2
    assert keys(train) == [["new/a", "new/b"], ["new/a", "new/c"]]
    assert train.shown()["arrived"]["objects"] == 1


async def test_a_job_reads_the_versions_that_its_request_names(train: World):
    await train.apply(**gather(objects=1))
    await train.put("frames", "new/a", b"then")
    await train.look(1)
    await train.put("frames", "new/a", b"now")
    (job,) = train.jobs()
    ((pinned),) = json.loads(job["pinned"])
    stored = train.store.by_id(int(pinned["id"]))
    assert stored is not None
    assert train.store.small(stored) == b"then"
    holders = train.database.read.execute("SELECT holder FROM pins WHERE object = ?", (stored.id,)).fetchall()
    assert [row[0] for row in holders] == [job["id"]]


async def test_a_job_elsewhere_is_not_told_which_contents_it_must_find(world: World):
    await world.deploy("train", interlink_node_name="hpc")
    await world.apply(**gather(objects=1))
    await world.put("frames", "new/a")
    await world.look(1)
    assert world.requests()[0]["inputs"] == [{"bucket": "frames", "key": "new/a"}]


async def test_while_its_last_job_runs_it_goes_on_collecting(train: World):
    await train.apply(**gather(objects=1))
    for number in range(3):
        await train.put("frames", f"new/{number}")
        await train.look(1)
    assert keys(train) == [["new/0"]]
    assert "is still Pending" in train.shown()["note"]
    await train.end()
    await train.look(1)
    assert keys(train) == [["new/0"], ["new/1", "new/2"]]
    assert train.shown()["note"] == ""


async def test_many_go_into_several_requests(train: World):
    await train.apply(**gather(objects=2, most=2), overlap=True)
    for number in range(5):
        await train.put("frames", f"new/{number}")
    await train.look(1)
    assert keys(train) == [["new/0", "new/1"], ["new/2", "new/3"]]


@pytest.mark.parametrize("existing, expected", [("gather", [["new/a", "new/b"]]), ("skip", [])])
async def test_what_was_there_before_the_schedule_counts_or_not(train: World, existing: str, expected: list[list[str]]):
    await train.put("frames", "new/a")
    await train.put("frames", "new/b")
    await train.apply(**gather(objects=1, existing=existing))
    await train.look(1)
    assert keys(train) == expected


async def test_a_pause_loses_nothing(train: World):
    await train.apply(**gather(objects=1), paused=True)
    await train.put("frames", "new/a")
    await train.look(1)
    assert train.jobs() == []
    await train.scheduler.resume("a")
    await train.look(1)
    assert keys(train) == [["new/a"]]


async def test_a_person_may_say_that_it_is_enough(train: World):
    await train.apply(**gather(objects=100))
    with pytest.raises(Hindered, match="nothing new has arrived"):
        await train.scheduler.run("a")
    await train.put("frames", "new/a")
    (job,) = await train.scheduler.run("a")
    assert [one["id"] for one in train.jobs()] == [job]
    assert keys(train) == [["new/a"]]


async def test_a_mailbox_that_nobody_listens_to_is_said_and_nothing_is_gathered(train: World):
    await train.apply(**gather(objects=1), mailbox="frames/requests")
    await train.put("frames", "new/a")
    await train.look(1)
    assert train.shown()["note"].startswith("train does not listen to frames/requests")
    assert list(train.store.keys("frames")) == ["new/a"]
    assert train.shown()["arrived"]["objects"] == 1
    await train.apply(**gather(objects=1))
    await train.look(1)
    assert keys(train) == [["new/a"]]


async def test_a_bucket_may_come_later(world: World):
    await world.deploy("train")
    await world.apply(**gather(objects=1))
    await world.look(1)
    await world.put("frames", "new/a")
    await world.look(1)
    assert keys(world) == [["new/a"]]


async def test_another_number_keeps_what_has_arrived_another_place_begins_anew(train: World):
    await train.apply(**gather(objects=2))
    await train.put("frames", "new/a")
    await train.look(1)
    await train.apply(**gather(objects=1))
    await train.look(1)
    assert keys(train) == [["new/a"]]
    await train.end()
    await train.put("frames", "other/b")
    await train.apply(gather={"bucket": "frames", "prefix": "other/", "objects": 1})
    await train.look(1)
    assert keys(train) == [["new/a"], ["other/b"]]


async def test_two_schedules_gather_the_same_each_for_itself(train: World):
    await train.deploy("else")
    await train.apply(**gather(objects=1))
    await train.apply("b", **{**gather(objects=1), "service": "else"})
    await train.put("frames", "new/a")
    await train.look(1)
    assert keys(train) == [["new/a"]]
    assert len(list(train.store.keys("else", "in/b-000001-"))) == 1


async def test_looking_walks_past_each_object_once_and_writes_nothing_where_nothing_arrives(
    train: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gathering, "WALK", 2)
    await train.apply(**gather(objects=9))
    for number in range(7):
        await train.put("frames", f"old/{number}")
    walked: list[tuple[int, int]] = []
    since = gathering.table.since

    def watched(connection, bucket, prefix, after, upto):
        walked.append((after, upto))
        return since(connection, bucket, prefix, after, upto)

    monkeypatch.setattr(gathering.table, "since", watched)
    changes = "SELECT scanned FROM schedules"
    for _ in range(3):
        await train.look(1)
    assert walked == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert train.database.read.execute(changes).fetchone()[0] == 0
    await train.put("frames", "new/a")
    await train.look(1)
    assert walked[-1] == (7, 8)
    assert train.database.read.execute(changes).fetchone()[0] == 8


async def test_the_walk_needs_no_index_and_reads_no_row_twice(train: World):
    plan = train.database.read.execute(
        "EXPLAIN QUERY PLAN SELECT id, key, size, modified FROM objects NOT INDEXED"
        " WHERE id > 5 AND id <= 9 AND bucket = 1 AND current = 1 AND substr(key, 1, 3) = 'new'"
    ).fetchall()
    assert [row["detail"] for row in plan] == ["SEARCH objects USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]


# By the age of a model


async def promote(world: World, number: int, version: str) -> None:
    await world.put("models", f"pulsar/versions/{version}/model.onnx")
    await world.put("models", f"pulsar/promotions/{number:08d}-{version}.json")


OLD = {"model": {"name": "pulsar", "older": "30d"}, "payload": {"seed": 3}}


async def test_a_model_that_is_too_old_starts_the_service(train: World):
    await promote(train, 1, "00000000000000aa")
    await train.apply(**OLD)
    await train.look(0)
    assert train.shown()["next"] == train.now + 30 * DAY
    await train.look(29 * DAY)
    assert train.jobs() == []
    await train.look(DAY)
    assert train.requests() == [{"seed": 3}]
    await train.end()
    await train.look(DAY)
    assert len(train.jobs()) == 1


async def test_a_new_model_puts_it_off_and_one_that_does_not_come_is_asked_for_again(train: World):
    await promote(train, 1, "00000000000000aa")
    await train.apply(**OLD)
    await train.look(20 * DAY)
    await promote(train, 2, "00000000000000bb")
    await train.look(29 * DAY)
    assert train.jobs() == []
    await train.look(DAY)
    await train.end()
    await train.look(29 * DAY)
    assert len(train.jobs()) == 1
    await train.look(DAY)
    assert len(train.jobs()) == 2


async def test_a_model_that_was_rolled_back_to_is_as_old_as_it_is(train: World):
    await promote(train, 1, "00000000000000aa")
    await train.apply(**OLD)
    train.now += 40 * DAY
    await train.put("models", "pulsar/versions/00000000000000bb/model.onnx")
    await train.put("models", "pulsar/promotions/00000002-00000000000000bb.json")
    await train.look(0)
    assert train.jobs() == []
    await train.put("models", "pulsar/promotions/00000003-00000000000000aa.json")
    await train.look(3600)
    assert len(train.jobs()) == 1


async def test_where_nothing_was_promoted_its_age_counts_from_the_schedule(train: World):
    await train.apply(**OLD)
    await train.look(29 * DAY)
    assert train.jobs() == []
    await train.look(DAY)
    assert len(train.jobs()) == 1
    (job,) = train.jobs()
    with pytest.raises(Hindered, match=f"{job['id']}.* is still Pending"):
        await train.scheduler.run("a")


async def test_a_person_may_ask_for_a_new_model_at_once(train: World):
    await promote(train, 1, "00000000000000aa")
    await train.apply(**OLD, paused=True)
    assert await train.scheduler.run("a") == [train.jobs()[0]["id"]]


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_each_version_is_gathered_once_and_none_is_left_out(train: World, seed: int):
    chance = random.Random(seed)
    fields = gather(objects=3, age="1h", word="_DONE", most=4)
    await train.apply(**fields)
    for _ in range(60):
        key = f"new/{chance.choice('ab')}/{chance.choice(['1', '2', '3', '_DONE'])}"
        what = chance.random()
        if what < 0.6:
            await train.put("frames", key, chance.randbytes(4))
        elif what < 0.7:
            await train.delete("frames", key)
        elif what < 0.8:
            train.restart()
        elif what < 0.9:
            await train.end()
        else:
            await train.apply(**{**fields, "payload": {"n": chance.random()}})
        if chance.random() < 0.7:
            await train.look(chance.choice([1, 60, 1800]))
    for _ in range(20):
        await train.end()
        await train.look(3600)
    named = [(entry["key"], entry["id"]) for job in train.jobs() for entry in json.loads(job["pinned"] or "[]")]
    assert len(set(named)) == len(named)
    for key in train.store.keys("frames", "new/"):
        stored = train.store.get("frames", key)
        assert stored is not None
        assert key.endswith("_DONE") or (key, str(stored.id)) in named
    assert all(0 < len(document["inputs"]) <= 4 for document in train.requests())
    assert train.shown()["arrived"]["objects"] == 0
