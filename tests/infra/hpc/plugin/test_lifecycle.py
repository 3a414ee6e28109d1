"""The life of a pod, and the faults that a batch system and a virtual kubelet have."""

import asyncio
import errno
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.hpc import lifecycle, pods, unwanted
from infra.hpc.batch import BatchJob, BatchState, Submission
from infra.hpc.pods import Pods, RootError
from infra.hpc.protocol import CreateRequest
from infra.hpc.settings import Settings
from tests.infra.hpc.plugin.fake import INIT, MAIN, UID, Client, oscar_pod, serving, until, write


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path) as client:
        yield client


def record(plugin: Client, uid: str = UID) -> dict[str, Any]:
    return dict(json.loads((plugin.folder(uid) / "pod.json").read_bytes()))


def created(plugin: Client, uid: str = UID) -> dict[str, Any]:
    body = oscar_pod(uid)
    reply = plugin.create(body)
    assert reply.status_code == 200, reply.text
    return dict(body["pod"])


# Creating


def test_a_pod_that_is_created_again_keeps_its_job(plugin: Client) -> None:
    assert plugin.create(oscar_pod()).json() == plugin.create(oscar_pod()).json()
    assert plugin.batch.submissions == 1


def test_two_creates_at_once_make_one_job(plugin: Client) -> None:
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(plugin.create(oscar_pod()).json())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [{"PodUID": UID, "PodJID": "1"}] * 5
    assert len(plugin.batch.jobs()) == 1


def test_fifty_pods_at_once(plugin: Client) -> None:
    uids = [f"{number:08x}-2f3b-4c6d-8e9f-a0b1c2d3e4f5" for number in range(50)]
    threads = [threading.Thread(target=created, args=(plugin, uid)) for uid in uids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job.name for job in plugin.batch.jobs()) == uids
    for uid in uids:
        plugin.run(0, 0, uid=uid)
    for job in plugin.batch.jobs():
        plugin.batch.set(job.id, BatchState.COMPLETED)
    pods = [oscar_pod(uid)["pod"] for uid in uids]

    def all_ended() -> bool:
        states = [one["containers"][0]["state"] for one in plugin.status(*pods).json()]
        return len(states) == 50 and all(state.get("terminated", {}).get("exitCode") == 0 for state in states)

    assert until(all_ended)


def test_a_batch_system_that_is_away_for_a_moment_costs_no_pod(plugin: Client) -> None:
    plugin.batch.fault("down")
    replies = []
    thread = threading.Thread(target=lambda: replies.append(plugin.create(oscar_pod())))
    thread.start()
    until(lambda: plugin.batch.submissions)
    plugin.batch.fault("down", on=False)
    thread.join()
    assert replies[0].json() == {"PodUID": UID, "PodJID": "1"}


def test_a_job_that_was_taken_though_the_batch_system_did_not_say_so_is_found_by_name(plugin: Client) -> None:
    plugin.batch.fault("silent")
    assert plugin.create(oscar_pod()).json() == {"PodUID": UID, "PodJID": "1"}
    assert len(plugin.batch.jobs()) == 1


def test_a_batch_system_that_stays_away_fails_the_pod_and_leaves_no_job(tmp_path: Path) -> None:
    with serving(tmp_path, submit_within=0.2) as plugin:
        plugin.batch.fault("silent")
        plugin.batch.fault("down")
        reply = plugin.create(oscar_pod())
        assert reply.status_code == 503 and "does not answer" in reply.text
        late = plugin.batch.add(UID)  # it had been taken after all
        plugin.batch.fault("down", on=False)
        until(lambda: [job.state for job in plugin.batch.jobs() if job.id == late] == [BatchState.CANCELLED])
        until(lambda: not (plugin.folder() / "secrets").exists())
        assert plugin.state(oscar_pod()["pod"])["waiting"]["reason"] == "NotCreated"


def test_a_queue_that_is_full_is_no_refusal(tmp_path: Path) -> None:
    with serving(tmp_path, submit_within=0.2) as plugin:
        plugin.batch.fault("busy")
        reply = plugin.create(oscar_pod())
        assert reply.status_code == 503
        assert reply.text.startswith("the batch system does not take the job now: Required partition")
        plugin.batch.fault("busy", on=False)
        assert plugin.create(oscar_pod()).status_code == 200


def test_a_pod_that_failed_to_be_created_may_be_created_again(tmp_path: Path) -> None:
    with serving(tmp_path, submit_within=0.2) as plugin:
        plugin.batch.fault("down")
        assert plugin.create(oscar_pod()).status_code == 503
        plugin.batch.fault("down", on=False)
        until(lambda: record(plugin)["cancelled"])
        assert plugin.create(oscar_pod()).status_code == 200
        assert "waiting" in plugin.state(oscar_pod()["pod"])
        time.sleep(0.3)
        assert [job.state for job in plugin.batch.jobs()] == [BatchState.PENDING]


def test_a_pod_that_is_created_after_all_is_not_the_job_that_was_ended_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path, submit_within=0.2) as plugin:
        plugin.batch.fault("down")
        assert plugin.create(oscar_pod()).status_code == 503
        late = plugin.batch.add(UID)
        plugin.batch.fault("down", on=False)
        until(lambda: [job.state for job in plugin.batch.jobs() if job.id == late] == [BatchState.CANCELLED])
        reply = until(lambda: (reply := plugin.create(oscar_pod())).status_code == 200 and reply)
        assert reply.json()["PodJID"] != late
        assert (plugin.folder() / "job.sh").is_file()
        assert "waiting" in plugin.state(oscar_pod()["pod"])


def test_a_pod_that_is_created_again_while_it_is_put_away_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving, asked, written = threading.Event(), threading.Event(), threading.Event()
    save, strip = pods._write, pods._strip

    def slow_save(folder: Path, content: bytes, durable: bool) -> None:
        if b'"cancelled":true' in content:
            saving.set()
            assert asked.wait(30)
        save(folder, content, durable)

    def late_strip(folder: Path, containers: list[str]) -> None:
        written.wait(0.5)  # long enough for a creation that does not wait for it
        strip(folder, containers)

    def writer(pod: CreateRequest, folder: Path, settings: Settings) -> Submission:
        submission = write(pod, folder, settings)
        if saving.is_set():
            written.set()
        return submission

    create = lifecycle.Lifecycle.create

    async def noted_create(self: lifecycle.Lifecycle, request: CreateRequest) -> lifecycle.Created:
        making = asyncio.ensure_future(create(self, request))
        await asyncio.sleep(0)
        if saving.is_set():
            asyncio.get_running_loop().call_later(0.05, asked.set)
        return await making

    with serving(tmp_path, writer, submit_within=0.2) as plugin:
        plugin.batch.fault("down")
        assert plugin.create(oscar_pod()).status_code == 503
        monkeypatch.setattr(lifecycle.Lifecycle, "create", noted_create)
        monkeypatch.setattr(pods, "_write", slow_save)
        monkeypatch.setattr(pods, "_strip", late_strip)
        plugin.batch.fault("down", on=False)
        assert saving.wait(30)
        replies = []
        thread = threading.Thread(target=lambda: replies.append(plugin.create(oscar_pod())))
        thread.start()
        thread.join()
        assert replies[0].status_code == 200
        assert (plugin.folder() / "job.sh").is_file() and (plugin.folder() / "secrets").is_dir()


def test_a_creation_that_was_cut_off_leaves_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "DOUBT_S", 0.0)
    with serving(tmp_path) as plugin:
        created(plugin)
        until(lambda: record(plugin)["runs"][0]["submitted"])
    left = record(plugin)
    left["runs"][0].update(id="", submitted=None)  # as a plugin leaves it that is killed before sbatch
    (plugin.folder() / "pod.json").write_text(json.dumps(left))
    plugin.batch.purge("1")
    assert (plugin.folder() / "secrets").is_dir()
    with serving(tmp_path) as plugin:
        until(lambda: not (plugin.folder() / "secrets").exists())
        assert not record(plugin)["runs"] and not record(plugin)["script"]
        assert plugin.create(oscar_pod()).status_code == 200
        assert (plugin.folder() / "job.sh").is_file()


def test_a_batch_system_that_hangs_is_not_waited_for_longer_than_interlink_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_LAST_TRY_S", 0.1)
    with serving(tmp_path, submit_within=0.2) as plugin:
        plugin.batch.fault("hang-after")
        reply = plugin.create(oscar_pod())
        assert reply.status_code == 503 and "has not answered within" in reply.text
        until(lambda: [job.state for job in plugin.batch.jobs()] == [BatchState.CANCELLED])


def test_what_the_batch_system_refuses_fails_at_once_and_leaves_nothing(plugin: Client) -> None:
    plugin.batch.fault("refuse")
    reply = plugin.create(oscar_pod())
    assert reply.status_code == 422
    assert reply.text == "the batch system refuses the job: invalid partition specified: nosuch"
    assert plugin.batch.submissions == 1 and not plugin.folder().exists()


def test_an_unsupported_volume_is_refused_and_leaves_nothing(plugin: Client) -> None:
    body = oscar_pod()
    body["pod"]["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "d"}})
    reply = plugin.create(body)
    assert reply.status_code == 422 and "data: a persistentVolumeClaim" in reply.text
    assert plugin.batch.submissions == 0 and not plugin.folder().exists()


def test_a_root_that_cannot_be_written_is_no_traceback(plugin: Client) -> None:
    plugin.folder().parent.joinpath(plugin.folder().name).write_text("in the way")
    reply = plugin.create(oscar_pod())
    assert reply.status_code == 503 and "cannot be written" in reply.text
    assert plugin.batch.submissions == 0


def test_a_full_disk_is_no_traceback(plugin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, content: bytes, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(pods, "_write", full)
        reply = plugin.create(oscar_pod())
        assert reply.status_code == 503 and reply.text.endswith("cannot be written: No space left on device")
    assert plugin.batch.submissions == 0
    assert plugin.create(oscar_pod()).status_code == 200


def test_a_full_disk_keeps_no_job_alive(plugin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, content: bytes, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    pod = created(plugin)
    with monkeypatch.context() as patch:
        patch.setattr(pods, "_write", full)
        assert plugin.delete(pod).status_code == 200
        until(lambda: plugin.batch.jobs()[0].state is BatchState.CANCELLED)
    until(lambda: record(plugin)["cancelled"])


def test_an_end_that_cannot_be_written_down_is_written_later(plugin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def full(folder: Path, content: bytes, durable: bool) -> None:
        if b'"final":{"' in content:
            tried.set()
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    pod = created(plugin)
    plugin.run(0, 3)
    with monkeypatch.context() as patch:
        patch.setattr(pods, "_write", full)
        plugin.batch.set("1", BatchState.FAILED, exit_code=3)
        assert tried.wait(30)
    assert plugin.ended(pod)["exitCode"] == 3
    until(lambda: record(plugin)["final"])


def test_folders_and_files_are_their_owners_alone(plugin: Client) -> None:
    created(plugin)
    assert plugin.folder().stat().st_mode & 0o777 == 0o700
    assert (plugin.folder() / "pod.json").stat().st_mode & 0o777 == 0o600


def test_a_second_plugin_on_the_same_root_does_not_start(plugin: Client) -> None:
    with pytest.raises(RootError, match="another plugin uses this root"):
        Pods(plugin.root).open()


# Watching


def test_a_pod_that_waits_says_why(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.set("1", BatchState.PENDING, reason="Resources")
    waiting = until(lambda: (state := plugin.state(pod)["waiting"])["reason"] == "Resources" and state)
    assert waiting["message"] == "job 1 waits in the queue: Resources"


def test_init_containers_are_reported_as_they_run(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.set("1", BatchState.RUNNING)
    until(lambda: plugin.state(pod, INIT)["waiting"]["reason"] == "PodInitializing")
    plugin.write("started", f"{time.time():.0f}", INIT)
    until(lambda: "running" in plugin.state(pod, INIT))
    assert plugin.state(pod)["waiting"]["reason"] == "PodInitializing"
    plugin.run(0, None)
    until(lambda: "running" in plugin.state(pod))
    assert plugin.state(pod, INIT)["terminated"]["exitCode"] == 0


def test_a_failed_init_container_ends_the_pod(plugin: Client) -> None:
    pod = created(plugin)
    plugin.write("started", "1790000000", INIT)
    plugin.write("status", "3", INIT)
    plugin.batch.set("1", BatchState.FAILED, exit_code=3)
    end = plugin.ended(pod)
    assert end["exitCode"] == 3 and end["message"] == f"did not start: init container {INIT} ended with 3"
    assert plugin.ended(pod, INIT)["exitCode"] == 3


def test_a_container_that_has_ended_runs_until_its_job_has(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.set("1", BatchState.RUNNING)
    plugin.run(0, 0)
    until(lambda: "running" in plugin.state(pod))
    plugin.batch.set("1", BatchState.COMPLETED)
    assert plugin.ended(pod)["exitCode"] == 0


@pytest.mark.parametrize(
    ("state", "values", "code", "says"),
    [
        (BatchState.TIMEOUT, {"reason": "TimeLimit", "signal": 15}, 143, "job 1 ended as TIMEOUT (TimeLimit)"),
        (BatchState.TIMEOUT, {"exit_code": 0}, 124, "job 1 ended as TIMEOUT"),
        (BatchState.NODE_FAIL, {"exit_code": 0, "reason": "NodeDown"}, 1, "job 1 ended as NODE_FAIL (NodeDown)"),
        (BatchState.OUT_OF_MEMORY, {"exit_code": 0}, 137, "job 1 ended as OUT_OF_MEMORY"),
        (BatchState.CANCELLED, {"exit_code": 0}, 143, "job 1 ended as CANCELLED"),
        (BatchState.FAILED, {"exit_code": 7}, 7, "job 1 ended as FAILED"),
        (BatchState.COMPLETED, {"exit_code": 0}, 1, "job 1 ended as COMPLETED, but no exit code was recorded"),
    ],
)
def test_an_end_that_no_container_recorded(
    plugin: Client, state: BatchState, values: dict[str, Any], code: int, says: str
) -> None:
    pod = created(plugin)
    plugin.run(0, None)
    plugin.batch.set("1", state, **values)
    end = plugin.ended(pod)
    assert (end["exitCode"], end["message"]) == (code, says)


def test_the_containers_own_code_goes_before_the_batch_systems(plugin: Client) -> None:
    pod = created(plugin)
    plugin.run(0, 7)
    plugin.batch.set("1", BatchState.FAILED, exit_code=1)
    assert plugin.ended(pod)["exitCode"] == 7


def test_the_jobs_last_words_tell_of_a_failed_start(plugin: Client) -> None:
    pod = created(plugin)
    (plugin.folder() / "job.out").write_text("first\nslurmstepd: error: execve(): No such file\n")
    plugin.batch.set("1", BatchState.FAILED, exit_code=2)
    assert plugin.ended(pod)["message"].endswith("the job's last words: slurmstepd: error: execve(): No such file")


def test_while_the_batch_system_is_away_the_last_state_stands(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.set("1", BatchState.RUNNING)
    plugin.run(0, None)
    until(lambda: "running" in plugin.state(pod))
    plugin.batch.fault("down")
    plugin.batch.set("1", BatchState.COMPLETED)
    plugin.run(0, 0)
    asked = plugin.batch.questions
    until(lambda: plugin.state(pod) and plugin.batch.questions > asked + 2)
    assert "running" in plugin.state(pod)
    plugin.batch.fault("down", on=False)
    assert plugin.ended(pod)["exitCode"] == 0


def test_an_unknown_state_ends_nothing(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.set("1", BatchState.RUNNING)
    plugin.run(0, None)
    until(lambda: "running" in plugin.state(pod))
    plugin.batch.set("1", BatchState.UNKNOWN)
    asked = plugin.batch.questions
    until(lambda: plugin.state(pod) and plugin.batch.questions > asked + 2)
    assert "running" in plugin.state(pod)


def test_a_job_that_is_forgotten_is_judged_by_its_files(plugin: Client) -> None:
    pod = created(plugin)
    plugin.run(0, 0)
    plugin.batch.purge("1")
    assert plugin.ended(pod)["exitCode"] == 0


def test_a_job_that_is_forgotten_without_a_trace_is_lost(plugin: Client) -> None:
    pod = created(plugin)
    plugin.run(0, None)
    plugin.batch.purge("1")
    end = plugin.ended(pod)
    assert end["exitCode"] == 1
    assert end["message"] == "lost: the batch system does not know job 1 any more, and no exit code was recorded"


def test_a_job_that_is_known_by_its_name_lives(tmp_path: Path) -> None:
    with serving(tmp_path, lost_after=0.0) as plugin:
        pod = created(plugin)
        plugin.batch.set("1", BatchState.RUNNING)
        plugin.run(0, None)
        plugin.batch.fault("hidden")
        asked = plugin.batch.questions
        until(lambda: plugin.state(pod) and plugin.batch.questions > asked + 3)
        assert "running" in plugin.state(pod)
        assert plugin.batch.jobs()[0].state is BatchState.RUNNING


def test_an_id_that_has_passed_on_to_another_job_is_noticed(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.put(BatchJob("1", "somebody-elses", BatchState.COMPLETED, submitted=time.time()))
    end = plugin.ended(pod)
    assert end["exitCode"] == 1 and end["message"].startswith("lost: ")


def test_an_earlier_job_of_the_same_name_and_id_is_noticed(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.set("1", BatchState.RUNNING)
    until(lambda: record(plugin)["runs"][0]["submitted"])
    plugin.batch.put(BatchJob("1", UID, BatchState.COMPLETED, submitted=time.time() - 100))
    assert plugin.ended(pod)["message"].startswith("lost: ")


def test_many_who_ask_share_one_question(tmp_path: Path) -> None:
    with serving(tmp_path, poll=3.0) as plugin:
        pod = created(plugin)
        for _ in range(50):
            plugin.state(pod)
        assert plugin.batch.questions <= 2


def test_a_pod_nobody_has_created_waits(plugin: Client) -> None:
    assert plugin.state(oscar_pod()["pod"])["waiting"]["reason"] == "NotCreated"


def test_a_pod_that_was_created_here_once_but_left_no_trace_is_lost(plugin: Client) -> None:
    pod = oscar_pod()["pod"]
    pod["metadata"]["annotations"]["JobID"] = "17"
    assert plugin.state(pod)["terminated"]["exitCode"] == 1
    plugin.batch.fault("down")
    reply = plugin.status(pod)
    assert reply.status_code == 503 and reply.text.startswith("cannot be told now")
    plugin.batch.fault("down", on=False)
    plugin.batch.add(UID, BatchState.RUNNING)
    assert "waiting" in plugin.state(pod)


# Running again


def test_a_pod_that_has_checkpointed_is_submitted_again(plugin: Client) -> None:
    pod = created(plugin)
    plugin.run(0, 75)
    plugin.write("log", "first\n")
    plugin.batch.set("1", BatchState.FAILED, exit_code=75)
    until(lambda: len(plugin.batch.jobs()) == 2)
    assert "waiting" in plugin.state(pod)
    until(lambda: record(plugin)["runs"][1]["id"] == "2")
    assert not (plugin.folder() / f"{MAIN}.status").exists()
    assert (plugin.folder() / "secrets" / "accessKey").exists()
    plugin.batch.set("2", BatchState.RUNNING)
    plugin.run(0, None)
    until(lambda: "running" in plugin.state(pod))
    [status] = plugin.status(pod).json()
    assert status["JID"] == "2" and status["containers"][0]["restartCount"] == 1
    with (plugin.folder() / f"{MAIN}.log").open("a") as log:
        log.write("second\n")
    assert plugin.logs(Previous=True).text == "first\n"
    assert plugin.logs().text == "first\nsecond\n"
    plugin.run(0, 0)
    plugin.batch.set("2", BatchState.COMPLETED)
    assert plugin.ended(pod)["exitCode"] == 0


def test_a_checkpoint_at_the_time_limit_runs_again(plugin: Client) -> None:
    created(plugin)
    plugin.run(0, 75)
    plugin.batch.set("1", BatchState.TIMEOUT, signal=15)
    until(lambda: len(plugin.batch.jobs()) == 2)


def test_what_somebody_has_cancelled_does_not_run_again(plugin: Client) -> None:
    pod = created(plugin)
    plugin.run(0, 75)
    plugin.batch.set("1", BatchState.CANCELLED)
    assert plugin.ended(pod)["exitCode"] == 75
    assert len(plugin.batch.jobs()) == 1


def test_a_pod_does_not_run_again_for_ever(tmp_path: Path) -> None:
    with serving(tmp_path, requeue=2) as plugin:
        pod = created(plugin)
        for number in ("1", "2", "3"):
            until(lambda: len(record(plugin)["runs"]) == int(number) and record(plugin)["runs"][-1]["id"])  # noqa: B023
            plugin.run(0, 75)
            plugin.batch.set(number, BatchState.FAILED, exit_code=75)
        end = plugin.ended(pod)
        assert end["exitCode"] == 75 and "has run 3 times" in end["message"]


def test_a_pod_that_is_to_run_again_waits_for_a_batch_system_that_does_not_take_it_now(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.fault("busy")
    plugin.run(0, 75)
    plugin.batch.set("1", BatchState.FAILED, exit_code=75)
    until(lambda: plugin.batch.submissions > 2)
    waiting = plugin.state(pod)["waiting"]
    assert waiting["reason"] == "Requeued"
    assert waiting["message"].endswith(": Required partition not available (inactive or drain)")
    plugin.batch.fault("busy", on=False)
    until(lambda: len(plugin.batch.jobs()) == 2)
    plugin.run(0, 0)
    plugin.batch.set("2", BatchState.COMPLETED)
    assert plugin.ended(pod)["exitCode"] == 0


def test_a_pod_that_waits_to_run_again_can_be_deleted(plugin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_TRY_AGAIN_S", (0.0,))
    pod = created(plugin)
    plugin.batch.fault("busy")
    plugin.run(0, 75)
    plugin.batch.set("1", BatchState.FAILED, exit_code=75)
    until(lambda: plugin.batch.submissions > 2)
    assert plugin.delete(pod).status_code == 200
    until(lambda: record(plugin)["cancelled"] and not (plugin.folder() / "secrets").exists())
    assert len(plugin.batch.jobs()) == 1


def test_a_pod_that_is_refused_when_it_is_to_run_again_has_failed(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.fault("refuse")
    plugin.run(0, 75)
    plugin.batch.set("1", BatchState.FAILED, exit_code=75)
    end = plugin.ended(pod)
    assert end["exitCode"] == 1 and "could not be submitted again: invalid partition" in end["message"]


# Deleting


def test_delete_is_a_success_for_pods_that_are_not_known(plugin: Client) -> None:
    assert plugin.delete(oscar_pod()["pod"]).status_code == 200
    assert plugin.delete({"metadata": {"name": "x", "namespace": "y", "uid": "../z"}}).status_code == 200


def test_a_deleted_pods_job_ends_its_logs_stay_its_secrets_do_not(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.set("1", BatchState.RUNNING)
    plugin.run(0, None)
    plugin.write("log", "words\n")
    assert plugin.delete(pod).status_code == 200
    until(lambda: plugin.batch.jobs()[0].state is BatchState.CANCELLED)
    until(lambda: not (plugin.folder() / "secrets").exists())
    assert plugin.logs().text == "words\n"
    assert plugin.state(pod)["terminated"]["message"] == "the pod has been deleted"
    assert plugin.delete(pod).status_code == 200


def test_a_pod_that_has_ended_keeps_no_secrets(plugin: Client) -> None:
    pod = created(plugin)
    plugin.run(0, 0)
    plugin.batch.set("1", BatchState.COMPLETED)
    plugin.ended(pod)
    until(lambda: not (plugin.folder() / "secrets").exists())


def test_a_deletion_while_the_batch_system_is_away_is_not_forgotten(plugin: Client) -> None:
    pod = created(plugin)
    plugin.batch.fault("down")
    assert plugin.delete(pod).status_code == 200
    plugin.batch.fault("down", on=False)
    until(lambda: plugin.batch.jobs()[0].state is BatchState.CANCELLED)


def test_a_pod_that_is_deleted_before_it_is_created_does_not_start(plugin: Client) -> None:
    assert plugin.delete(oscar_pod()["pod"]).status_code == 200
    reply = plugin.create(oscar_pod())
    assert reply.status_code == 409 and reply.text.endswith("has been deleted")
    assert plugin.batch.submissions == 0


def test_a_pod_that_is_deleted_while_it_is_created_leaves_no_job(plugin: Client) -> None:
    plugin.batch.fault("down")
    replies = []
    thread = threading.Thread(target=lambda: replies.append(plugin.create(oscar_pod())))
    thread.start()
    until(lambda: plugin.batch.submissions)
    assert plugin.delete(oscar_pod()["pod"]).status_code == 200
    plugin.batch.fault("down", on=False)
    thread.join()
    assert replies[0].status_code == 409
    until(lambda: record(plugin)["cancelled"])
    assert not [job for job in plugin.batch.jobs() if not job.state.is_final]


def test_a_job_that_turns_up_after_its_pod_was_deleted_is_ended(plugin: Client) -> None:
    plugin.delete(created(plugin))
    until(lambda: record(plugin)["cancelled"])
    late = plugin.batch.add(UID)
    until(lambda: [job.state for job in plugin.batch.jobs() if job.id == late] == [BatchState.CANCELLED])


def test_a_deleted_pod_is_looked_for_no_longer_than_jobs_of_it_may_turn_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwanted, "DOUBT_S", 0.02)
    other = UID.replace("0d5a", "1d5a")
    with serving(tmp_path) as plugin:
        plugin.delete(created(plugin))
        created(plugin, other)
        until(lambda: list(plugin.batch.looked_for) == [other])
    with serving(tmp_path) as plugin:  # after a time in which nobody looked, once more
        until(lambda: set(plugin.batch.looked_for) == {UID, other})


def test_a_job_that_turns_up_after_its_pod_has_ended_is_ended(plugin: Client) -> None:
    pod = created(plugin)
    plugin.run(0, 0)
    plugin.batch.set("1", BatchState.COMPLETED)
    assert plugin.ended(pod)["exitCode"] == 0
    late = plugin.batch.add(UID)
    until(lambda: [job.state for job in plugin.batch.jobs() if job.id == late] == [BatchState.CANCELLED])
    assert plugin.ended(pod)["exitCode"] == 0


def test_a_second_job_of_a_pod_is_ended(plugin: Client) -> None:
    created(plugin)
    late = plugin.batch.add(UID)
    until(lambda: [job.state for job in plugin.batch.jobs() if job.id == late] == [BatchState.CANCELLED])
    assert plugin.batch.jobs()[0].state is BatchState.PENDING


def test_the_job_that_has_begun_is_the_one_that_stays(plugin: Client) -> None:
    pod = created(plugin)
    late = plugin.batch.add(UID)
    (plugin.folder() / "claim").mkdir()
    (plugin.folder() / "claim" / "job").write_text(f"{late}\n")
    until(lambda: plugin.batch.jobs()[0].state is BatchState.CANCELLED)
    until(lambda: plugin.status(pod).json()[0]["JID"] == late)


def test_logs_are_forgotten_in_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, keep_logs=0.0) as plugin:
        pod = created(plugin)
        plugin.delete(pod)
        until(lambda: not plugin.folder().exists())
        until(lambda: plugin.logs().status_code == 404)


def test_a_pod_that_nobody_deletes_goes_in_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, keep_ended=0.0) as plugin:
        created(plugin)
        plugin.run(0, 0)
        plugin.batch.set("1", BatchState.COMPLETED)
        until(lambda: not plugin.folder().exists())


def test_a_damaged_record_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "root" / f"oscar-svc-{UID}"
    folder.mkdir(parents=True)
    (folder / "pod.json").write_text("{")
    with serving(tmp_path) as plugin:
        assert plugin.state(oscar_pod()["pod"])["waiting"]["reason"] == "NotCreated"
        assert (folder / "pod.json").read_text() == "{"
