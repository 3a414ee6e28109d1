"""What a run has kept outlives a pod of which nothing is left: in object storage, through every supervisor."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.contract.callers import Order, Supervised, clear, signal_function, step_reached

STEPS = 16


@pytest.fixture(params=["supervisor", "oscar-supervisor"])
def pod(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Supervised:
    return Supervised(cluster, tmp_path, real=request.param.startswith("oscar"), alone=True)


def order(**request: Any) -> Order:
    """Steps that are kept one by one."""
    return Order("contract.train", json.dumps({"steps": STEPS, "pause_s": 0.05, **request}).encode(), key="in/r.json")


def end_at(pod: Supervised, order: Order, step: int, number: signal.Signals) -> None:
    """Run it as far as `step`, and then end it and its supervisor."""

    def when() -> None:
        step_reached(pod.progress_file(order), step)()
        signal_function(order.service, number)

    pod.run_and_stop(order, when)
    pod.progress_file(order).unlink()


def kept(cluster: Cluster, order: Order) -> dict[str, bytes]:
    return cluster.objects(order.service, "checkpoints/")


def test_a_pod_that_is_killed_goes_on_in_another(pod: Supervised, cluster: Cluster):
    training = order()
    end_at(pod, training, 4, signal.SIGKILL)
    assert len(kept(cluster, training)) >= 2, "a manifest, and what it names"
    end_at(pod, training, 8, signal.SIGKILL)
    ran = pod.run(training)
    model = json.loads(ran.outputs["r.json.model"])
    assert (model["steps"], model["starts"]) == (STEPS, 3)
    assert kept(cluster, training) == {}, "what has succeeded leaves no checkpoint"


def test_a_pod_that_is_told_to_end_goes_on_in_another(pod: Supervised, cluster: Cluster):
    training = order()
    end_at(pod, training, 4, signal.SIGTERM)
    assert kept(cluster, training) != {}
    model = json.loads(pod.run(training).outputs["r.json.model"])
    assert (model["steps"], model["starts"]) == (STEPS, 2)


def test_what_another_request_has_kept_is_never_used(cluster: Cluster, tmp_path: Path):
    pod = Supervised(cluster, tmp_path, real=False, alone=True)
    first = order()
    end_at(pod, first, 4, signal.SIGKILL)
    other = Order("contract.train", b'{"steps": 2}', key=first.key, service=first.service)
    model = json.loads(pod.run(other).outputs["r.json.model"])
    assert (model["steps"], model["starts"]) == (2, 1)
    assert kept(cluster, first) != {}, "nor is it removed"


def test_a_resumed_request_reads_what_its_select_found_at_first(cluster: Cluster, tmp_path: Path):
    pod = Supervised(cluster, tmp_path, real=False, alone=True)
    select = {"select": {"bucket": "raw", "prefix": "kept/"}}
    training = Order(
        "contract.train",
        json.dumps({"inputs": [select], "steps": STEPS, "pause_s": 0.05}).encode(),
        key="in/r.json",
        objects={("raw", "kept/1.txt"): b"one"},
    )
    end_at(pod, training, 4, signal.SIGKILL)
    cluster.put("raw", "kept/0.txt", b"came later")
    model = json.loads(pod.run(training).outputs["r.json.model"])
    assert (model["texts"], model["starts"]) == (["one"], 2)


@pytest.mark.parametrize("damage", ["manifest", "object"])
def test_a_checkpoint_that_is_damaged_counts_for_nothing(cluster: Cluster, tmp_path: Path, damage: str):
    pod = Supervised(cluster, tmp_path, real=False, alone=True)
    training = order(steps=8)
    end_at(pod, training, 3, signal.SIGKILL)
    for key in kept(cluster, training):
        if key.endswith("manifest.json") == (damage == "manifest"):
            cluster.put(training.service, key, b"{")
    ran = pod.run(training)
    assert json.loads(ran.outputs["r.json.model"])["starts"] == 1
    assert "is damaged" in ran.log and "starting anew" in ran.log
    clear(cluster, training)


def test_a_run_that_keeps_nothing_asks_the_store_for_nothing(cluster: Cluster, tmp_path: Path):
    pod = Supervised(cluster, tmp_path, real=False, alone=True)
    copied = Order("contract.copy", b"abc")
    assert pod.run(copied).outputs["a.txt.copy"] == b"abc"
    assert kept(cluster, copied) == {}


def test_what_was_kept_stays_until_the_outputs_are_stored(cluster: Cluster, tmp_path: Path):
    class WithoutRoom(Supervised):
        """Its outputs go to a bucket that is not there."""

        def _config(self, order: Order) -> dict[str, Any]:
            found = super()._config(order)
            found["output"][0]["path"] = "nowhere-at-all/out"
            return found

    training = order(steps=4)
    lost = WithoutRoom(cluster, tmp_path / "1", real=False, alone=True).run(training)
    assert lost.code == 1 and "nowhere-at-all" in lost.log
    assert kept(cluster, training) != {}
    pod = Supervised(cluster, tmp_path / "2", real=False, alone=True)
    model = json.loads(pod.run(training).outputs["r.json.model"])
    assert (model["steps"], model["starts"]) == (4, 2), "nothing is done twice"
    assert kept(cluster, training) == {}
