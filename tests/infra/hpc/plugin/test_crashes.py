"""The plugin killed at the worst moments: no pod runs twice, none is forgotten, none succeeds that did not run."""

import json
import threading
from pathlib import Path

import pytest
import requests

from infra.hpc.batch import BatchState
from tests.infra.hpc.plugin.alone import Killable, alone, reached
from tests.infra.hpc.plugin.fake import UID, oscar_pod, until


def interrupted(plugin: Killable, fault: str) -> None:
    """Ask for a pod, and kill the plugin at a fault."""
    plugin.batch.fault(fault)

    def ask() -> None:
        with pytest.raises(requests.ConnectionError):
            plugin.create(oscar_pod())

    thread = threading.Thread(target=ask)
    thread.start()
    reached(plugin)
    plugin.kill()
    thread.join()
    plugin.batch.fault(fault, on=False)
    plugin.batch.fault("reached", on=False)


@pytest.mark.parametrize("fault", [pytest.param("hang-write", marks=pytest.mark.slow), "hang-before"])
def test_killed_between_intent_and_sbatch(tmp_path: Path, fault: str) -> None:
    with alone(tmp_path) as plugin:
        interrupted(plugin, fault)
    assert (plugin.folder() / "pod.json").exists()
    with alone(tmp_path) as plugin:
        assert plugin.batch.jobs() == []
        state = plugin.state(oscar_pod()["pod"])
        assert state["waiting"]["reason"] in ("Submitting", "NotCreated")
        assert plugin.create(oscar_pod()).json() == {"PodUID": UID, "PodJID": "1"}
        assert (plugin.folder() / "job.sh").is_file() and len(plugin.batch.jobs()) == 1


def test_killed_after_sbatch_before_the_answer(tmp_path: Path) -> None:
    with alone(tmp_path) as plugin:
        interrupted(plugin, "hang-after")
        assert len(plugin.batch.jobs()) == 1
    with alone(tmp_path) as plugin:
        assert plugin.create(oscar_pod()).json() == {"PodUID": UID, "PodJID": "1"}
        plugin.run(0, 0)
        plugin.batch.set("1", BatchState.COMPLETED)
        assert plugin.ended(oscar_pod()["pod"])["exitCode"] == 0
        assert len(plugin.batch.jobs()) == 1


@pytest.mark.slow
def test_a_job_of_which_the_answer_was_lost_is_watched_though_nobody_asks_again(tmp_path: Path) -> None:
    with alone(tmp_path) as plugin:
        interrupted(plugin, "hang-after")
    with alone(tmp_path) as plugin:
        until(lambda: plugin.status(oscar_pod()["pod"]).json()[0].get("JID") == "1")


@pytest.mark.slow
def test_a_pod_that_is_deleted_after_the_crash_leaves_no_job(tmp_path: Path) -> None:
    with alone(tmp_path) as plugin:
        interrupted(plugin, "hang-after")
    with alone(tmp_path) as plugin:
        assert plugin.delete(oscar_pod()["pod"]).status_code == 200
        until(lambda: [job.state for job in plugin.batch.jobs()] == [BatchState.CANCELLED])


@pytest.mark.parametrize("fault", [pytest.param("hang-before", marks=pytest.mark.slow), "hang-after"])
def test_killed_while_a_pod_is_submitted_again(tmp_path: Path, fault: str) -> None:
    with alone(tmp_path) as plugin:
        assert plugin.create(oscar_pod()).status_code == 200
        plugin.batch.fault(fault)
        plugin.run(0, 75)
        plugin.batch.set("1", BatchState.FAILED, exit_code=75)
        reached(plugin)
        plugin.kill()
        plugin.batch.fault(fault, on=False)
    with alone(tmp_path) as plugin:
        until(lambda: plugin.status(oscar_pod()["pod"]).json()[0].get("JID") == "2")
        plugin.run(0, 0)
        plugin.batch.set("2", BatchState.COMPLETED)
        assert plugin.ended(oscar_pod()["pod"])["exitCode"] == 0
        assert len(plugin.batch.jobs()) == 2


@pytest.mark.slow
def test_what_is_known_outlives_the_plugin(tmp_path: Path) -> None:
    pod = oscar_pod()["pod"]
    with alone(tmp_path) as plugin:
        plugin.create(oscar_pod())
        plugin.write("log", "words\n")
        plugin.run(0, 7)
        plugin.batch.set("1", BatchState.FAILED, exit_code=7)
        end = plugin.ended(pod)
        plugin.batch.purge("1")
        plugin.kill()
    with alone(tmp_path) as plugin:
        assert plugin.ended(pod) == end
        assert plugin.logs().text == "words\n"
        assert json.loads((plugin.folder() / "pod.json").read_bytes())["runs"][0]["id"] == "1"


def test_a_deletion_outlives_the_plugin(tmp_path: Path) -> None:
    with alone(tmp_path) as plugin:
        plugin.create(oscar_pod())
        plugin.batch.fault("down")
        assert plugin.delete(oscar_pod()["pod"]).status_code == 200
        plugin.kill()
        plugin.batch.fault("down", on=False)
    with alone(tmp_path) as plugin:
        until(lambda: [job.state for job in plugin.batch.jobs()] == [BatchState.CANCELLED])
