"""Schedules of a real cluster, asked by its API: at their time, by what arrives, and over a death at every step."""

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster import Cluster, eventually, running_cluster
from tests.infra.local.faults.world import broken

ROOT = "/dioscar/v1/schedules"
QUICK = "infra.local.schedules.scheduler:POLL_S=0.1,infra.local.schedules.scheduler:LONGEST_S=0.1"


def apply(cluster: Cluster, **schedules: Any) -> Any:
    reply = cluster.http.put(cluster.url(ROOT), data=json.dumps({"schedules": schedules}))
    assert reply.status_code == 200, reply.text
    return reply.json()


def say(cluster: Cluster, name: str, what: str) -> Any:
    return cluster.http.post(cluster.url(f"{ROOT}/{name}/{what}"))


def soon(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()


def test_once_at_its_time(cluster: Cluster):
    cluster.deploy("once", script='cat "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/said"')
    due = soon(1)
    apply(cluster, once={"service": "once", "at": due, "payload": {"seed": 7}})
    (job,) = cluster.ended("once")
    assert job["created"] >= datetime.fromisoformat(due).timestamp()
    assert cluster.read("once", "out/said") == b'{"seed": 7}'
    shown = cluster.get(f"{ROOT}/once")
    assert (shown["state"], shown["job"], shown["job_state"]) == ("done", job["id"], "Succeeded")


def test_what_arrives_goes_to_a_function_as_its_inputs(cluster: Cluster):
    cluster.deploy("arrive", variables={"DIOSCAR_FUNCTION": "contract.train"})
    gather = {"bucket": "arrive", "prefix": "frames/", "objects": 2}
    apply(cluster, arrive={"service": "arrive", "gather": gather, "payload": {"steps": 1}})
    cluster.put("arrive", "frames/b", b"first")
    cluster.put("arrive", "frames/a", b"second")
    (job,) = cluster.ended("arrive")
    assert job["state"] == "Succeeded", job["reason"]
    (model,) = [data for key, data in cluster.objects("arrive", "out/").items() if key.endswith(".model")]
    assert json.loads(model)["texts"] == ["first", "second"]
    assert job["key"].startswith("in/arrive-000001-")


def test_bytes_that_arrive_do_too_and_a_person_may_say_that_it_is_enough(cluster: Cluster):
    cluster.deploy("bytes", script="true")
    gather = {"bucket": "bytes", "prefix": "frames/", "bytes": "100k"}
    apply(cluster, bytes={"service": "bytes", "gather": gather})
    refused = say(cluster, "bytes", "run")
    assert (refused.status_code, refused.json()["error"]["message"]) == (409, "not run: nothing new has arrived for it")
    cluster.put("bytes", "frames/a", b"x" * 99_000)
    assert say(cluster, "bytes", "run").json()["jobs"] == [job["id"] for job in cluster.ended("bytes")]
    cluster.put("bytes", "frames/b", b"x" * 60_000)
    cluster.put("bytes", "frames/c", b"x" * 40_000)
    cluster.ended("bytes", 2)


def test_a_mailbox_that_the_service_has_not_is_told_at_once(cluster: Cluster):
    cluster.deploy("deaf", script="true")
    fields = {"service": "deaf", "model": {"name": "pulsar", "older": "1d"}}
    assert apply(cluster, deaf=fields)["warnings"] == []
    reply = apply(cluster, deaf={**fields, "mailbox": "deaf/inbox"})
    assert reply["warnings"] == ["deaf: deaf does not listen to deaf/inbox; name its input as mailbox"]


def test_the_api_shows_pauses_resumes_and_forgets(cluster: Cluster):
    reply = apply(cluster, far={"service": "no-such", "cron": "0 2 * * *", "timezone": "Europe/Madrid"})
    warning = "far: there is no service no-such yet; it runs from when that is deployed"
    assert reply == {"applied": {"far": "created"}, "warnings": [warning]}
    assert apply(cluster, far={"service": "s", "at": "2026-01-01"})["warnings"][1:] == [
        "far: does not run: its time was before it was made"
    ]
    apply(cluster, far={"service": "no-such", "cron": "0 2 * * *", "timezone": "Europe/Madrid"})
    assert "far" in [shown["name"] for shown in cluster.get(ROOT)["schedules"]]
    assert say(cluster, "far", "pause").json()["state"] == "paused"
    assert say(cluster, "far", "resume").json()["next"] > time.time()
    assert say(cluster, "far", "run").status_code == 409
    assert cluster.http.delete(cluster.url(f"{ROOT}/far")).status_code == 204
    assert cluster.http.delete(cluster.url(f"{ROOT}/far")).status_code == 404
    assert say(cluster, "far", "run").json()["error"]["type"] == "NoSuchSchedule"


@pytest.mark.parametrize(
    "body, sentence",
    [
        (b"", "the body must be JSON"),
        (b"[" * 100_000, "the body must be JSON"),
        (b"[]", "holds no schedules"),
        (b'{"schedules": {"a": 5}}', "schedules.a: holds no fields"),
        (b'{"schedules": {"a": {"service": "s", "cron": "99 * * * *"}}}', "schedules.a.cron"),
        (b'{"schedules": {"a": {"service": "s", "at": "2026-01-01", "payload": NaN}}}', "schedules.a.payload"),
    ],
)
def test_what_is_wrong_is_400_and_one_sentence(cluster: Cluster, body: bytes, sentence: str):
    reply = cluster.http.put(cluster.url(ROOT), data=body)
    assert reply.status_code == 400
    assert sentence in reply.json()["error"]["message"]


def test_schedules_are_the_administrators(cluster: Cluster):
    for method, path in (("GET", ROOT), ("PUT", ROOT), ("POST", f"{ROOT}/a/run")):
        assert requests.request(method, cluster.url(path), timeout=30).status_code == 401


# Over deaths, absences and clocks


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a service and two schedules in it, to be copied."""
    data = tmp_path_factory.mktemp("schedules") / "data"
    with running_cluster(data) as cluster:
        cluster.deploy("train", script="true")
        cluster.deploy("raw", script="true")
        gather = {"bucket": "raw", "prefix": "frames/", "objects": 2}
        apply(cluster, hourly={"service": "train", "cron": "0 * * * *", "paused": True})
        apply(cluster, gathered={"service": "train", "gather": gather, "paused": True})
    return data


def quick(steps: Iterable[str], *named: str) -> list[Any]:
    """The steps of a table; but for those that are named, they take their time with the slow tests."""
    return [step if step in named else pytest.param(step, marks=pytest.mark.slow) for step in steps]


CALLS = {
    "the job is queued": "infra.local.schedules.starting:jobs.add:after",
    "it is noted": "infra.local.schedules.table:change:after",
    "before the commit": "infra.local.schedules.scheduler:Scheduler._on_time:after",
    "committed": "infra.local.schedules.scheduler:Scheduler._say:before",
}


@pytest.mark.parametrize("step", quick(CALLS, "before the commit", "committed"))
def test_a_due_time_runs_once_whenever_the_cluster_dies(template: Path, tmp_path: Path, step: str):
    with broken(tmp_path / "data", step=CALLS[step], template=template, FAULT_SET=QUICK) as cluster:
        cluster.arm()
        name, due = next(
            (name, due)
            for name, due in ((f"once-{number}", soon(1)) for number in range(100))
            if not apply(cluster, **{name: {"service": "train", "at": due}})["warnings"]
        )  # as a rule the first, but a busy machine may be too slow for a second
        cluster.die()
        (job,) = cluster.ended("train")
        shown = cluster.get(f"{ROOT}/{name}")
        assert (shown["last"], shown["job"]) == (datetime.fromisoformat(due).timestamp(), job["id"])
        assert shown["state"] == "done"


REQUESTS = {
    "what has arrived is noted": "infra.local.schedules.table:keep:after",
    "that is committed": "infra.local.schedules.gathering:enough:before",
    "the request's bytes are there": "infra.local.blobs:Blobs.ingest_bytes:after",
    "the request is stored": "infra.local.schedules.gathering:by_request:after",
    "committed": "infra.local.schedules.gathering:Gathering._gather:after",
}


@pytest.mark.parametrize("step", quick(REQUESTS, "what has arrived is noted", "the request is stored", "committed"))
def test_what_arrives_is_gathered_once_whenever_the_cluster_dies(template: Path, tmp_path: Path, step: str):
    with broken(tmp_path / "data", step=REQUESTS[step], template=template, FAULT_SET=QUICK) as cluster:
        say(cluster, "gathered", "resume")
        cluster.put("raw", "frames/a", b"a")
        cluster.arm()
        cluster.put("raw", "frames/b", b"b")
        cluster.die()
        cluster.ended("train")
        found = [json.loads(data)["inputs"] for data in cluster.objects("train", "in/").values()]
        assert [sorted(entry["key"] for entry in inputs) for inputs in found] == [["frames/a", "frames/b"]]
        assert len(cluster.jobs(service="train")) == 1


@pytest.fixture
def half_past(tmp_path: Path) -> Path:
    """A clock that shows half past some hour."""
    file = tmp_path / "clock"
    file.write_text(str(1800 - time.time() % 3600))
    return file


def set_clock(clock: Path, hours: int) -> None:
    clock.write_text(str(float(clock.read_text()) + 3600 * hours))


def test_what_was_missed_while_the_cluster_was_down_runs_once(template: Path, tmp_path: Path, half_past: Path):
    settings = {"FAULT_CLOCK": str(half_past), "FAULT_SET": QUICK}
    with broken(tmp_path / "data", template=template, **settings) as cluster:
        say(cluster, "hourly", "resume")
        due = cluster.get(f"{ROOT}/hourly")["next"]
        cluster.kill()
        set_clock(half_past, 5)
        cluster.start()
        cluster.ended("train")
        shown = cluster.get(f"{ROOT}/hourly")
        assert (shown["last"], shown["next"]) == (due + 4 * 3600, due + 5 * 3600)
        assert shown["note"] == "ran 30 min late"
        assert len(cluster.jobs(service="train")) == 1


def test_a_clock_that_is_set_forward_and_back_is_noticed_and_runs_nothing_twice(
    template: Path, tmp_path: Path, half_past: Path
):
    settings = {"FAULT_CLOCK": str(half_past), "FAULT_SET": QUICK}
    with broken(tmp_path / "data", template=template, **settings) as cluster:
        say(cluster, "hourly", "resume")
        due = cluster.get(f"{ROOT}/hourly")["next"]
        set_clock(half_past, 5)
        cluster.ended("train")
        set_clock(half_past, -48)
        eventually(lambda: cluster.get(f"{ROOT}/hourly")["next"] < due)
        assert len(cluster.jobs(service="train")) == 1


def test_a_cluster_that_only_watches_writes_nothing(template: Path, tmp_path: Path):
    with broken(tmp_path / "data", template=template, FAULT_SET=QUICK) as cluster:
        say(cluster, "gathered", "resume")
        cluster.put("raw", "frames/a", b"a")
        eventually(lambda: cluster.get(f"{ROOT}/gathered")["arrived"]["objects"] == 1)
        log = cluster.data / "dioscar.db-wal"
        before, looks = (log.stat().st_mtime_ns, cluster.log), time.monotonic() + 0.5
        while time.monotonic() < looks:  # for as long as five looks take
            cluster.get(ROOT)
        assert (log.stat().st_mtime_ns, cluster.log) == before
