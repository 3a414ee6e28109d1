"""Schedules by what arrives, where the objects are in another store: found by looking there, and gathered once."""

import json
from typing import Any

from events.schedules import STATE
from tests.infra.local.external.linked import Linked

ROOT = "/dioscar/v1/schedules"


def apply(world: Linked, fields: dict[str, Any]) -> None:
    """Take the schedule; the store is looked at at once, whether it says something new or not."""
    cluster = world.cluster
    reply = cluster.http.put(cluster.url(ROOT), data=json.dumps({"schedules": {"far": fields}}))
    assert reply.status_code == 200, reply.text


def test_what_arrives_there_is_gathered_once_and_starts_the_service(world: Linked):
    world.cluster.deploy("ext-gather", variables={"DIOSCAR_FUNCTION": "contract.train"})
    gather = {"bucket": "ext-gather", "prefix": "frames/", "objects": 2}
    fields = {"service": "ext-gather", "gather": gather, "payload": {"steps": 1}}
    world.put("ext-gather/frames/a", b"a")
    world.put("ext-gather/frames/b", b"b")
    apply(world, fields)
    assert [job["state"] for job in world.cluster.ended("ext-gather")] == ["Succeeded"]
    world.put("ext-gather/frames/c", b"c")
    world.put("ext-gather/frames/d", b"d")
    apply(world, fields)
    found = world.cluster.ended("ext-gather", 2)
    requests = [json.loads(world.read(f"ext-gather/{job['key']}"))["inputs"] for job in found]
    assert sorted(sorted(entry["key"] for entry in inputs) for inputs in requests) == [
        ["frames/a", "frames/b"],
        ["frames/c", "frames/d"],
    ]
    shown = world.cluster.get(f"{ROOT}/far")
    assert (shown["job_state"], shown["arrived"]) == ("Succeeded", None)
    assert json.loads(world.read(f"ext-gather/{STATE}far.json"))["number"] == 2
    refused = world.cluster.http.post(world.cluster.url(f"{ROOT}/far/run"))
    assert (refused.status_code, "nothing new has arrived" in refused.text) == (409, True)


def test_a_bucket_that_is_not_there_is_said(world: Linked):
    world.cluster.deploy("ext-lost", script="true")
    apply(world, {"service": "ext-lost", "gather": {"bucket": "ext-no-such", "objects": 1}})
    refused = world.cluster.http.post(world.cluster.url(f"{ROOT}/far/run"))
    assert refused.status_code == 409
    assert "ext-no-such" in refused.json()["error"]["message"]
