"""A job on an interLink node looks like any other, and survives whatever breaks between here and there."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layers.objects.client import S3Client
from tests.cluster import Cluster, eventually
from tests.infra.local.interlink.standin import StandIn, standing_in

REQUEST = b'{"epochs": 1}'


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, StandIn, StandIn]]:
    """One cluster and its node for all tests here."""
    folder = tmp_path_factory.mktemp("site")
    with standing_in(folder / "site.sock") as plugin, standing_in(folder / "go.sock", go=True) as official:
        cluster = Cluster(folder / "data")
        nodes = {"site": {"url": plugin.url}, "official": {"url": official.url}}
        cluster.environ = {"DIOSCAR_INTERLINK_NODES": json.dumps(nodes)}
        cluster.start()
        yield cluster, plugin, official
        if cluster.process is not None and cluster.process.poll() is None:
            cluster.stop()


@pytest.fixture
def cluster(pair: tuple[Cluster, StandIn, StandIn]) -> Iterator[Cluster]:
    """The cluster, with no service of an earlier test."""
    cluster, plugin, official = pair
    plugin.reset()
    official.reset()
    yield cluster
    for name in ("trains", "copies"):
        cluster.http.delete(cluster.url(f"/system/services/{name}"))
        cluster.http.delete(cluster.url(f"/system/logs/{name}?all=true"))
    for one in (plugin, official):
        eventually(lambda one=one: set(one.pods) <= set(one.deleted), what="the deletion of every pod")  # type: ignore[misc]


@pytest.fixture
def plugin(pair: tuple[Cluster, StandIn, StandIn]) -> StandIn:
    return pair[1]


@pytest.fixture
def official(pair: tuple[Cluster, StandIn, StandIn]) -> StandIn:
    return pair[2]


def deploy(cluster: Cluster, name: str = "trains", node: str = "site", **more: Any) -> None:
    cluster.deploy(name, script="echo never run here", interlink_node_name=node, **more)


def submit(cluster: Cluster, name: str = "trains", key: str = "in/request.json") -> dict[str, Any]:
    cluster.put(name, key, REQUEST)
    return eventually(lambda: [job for job in cluster.jobs(service=name) if job["key"] == key])[0]


def in_state(cluster: Cluster, job: dict[str, Any], state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        now = cluster.job(job["id"])
        assert now["state"] == state or now["state"] in ("Pending", "Running", "Retrying"), now
        return now if now["state"] == state else None

    return eventually(look, what=f"{state} of {job['id']}")


def with_reason(cluster: Cluster, job: dict[str, Any], words: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        now = cluster.job(job["id"])
        return now if words in now["reason"] else None

    return eventually(look, what=f'the reason "{words}"')


def test_the_status_tells_which_nodes_answer(cluster: Cluster, plugin: StandIn) -> None:
    nodes = {one["name"]: one for one in cluster.get("/dioscar/v1/status")["nodes"]}
    assert nodes["site"] == {"name": "site", "url": plugin.url, "reachable": True}
    assert nodes["hpc"] == {"name": "hpc", "url": "", "reachable": None}
    command = [sys.executable, "-P", "-m", "infra.cli", "status", "--cluster", str(cluster.data)]
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert f"site      {plugin.url}" in shown
    assert "(started when needed)" in shown


def test_a_job_waits_runs_and_ends_as_its_pod_does(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"slurm-job.vk.io/flags": "--time=5"})
    job = submit(cluster)
    uid = plugin.pod()
    waiting = with_reason(cluster, job, "waits on the node site: Priority: 3 jobs are before it")
    assert waiting["state"] == "Pending"
    assert cluster.get("/system/logs/trains")["jobs"][job["id"]]["status"] == "Pending"
    assert plugin.pods[uid]["pod"]["metadata"]["annotations"] == {"slurm-job.vk.io/flags": "--time=5"}

    plugin.run(uid)
    plugin.logs[uid] += b"one\ndioscar: progress 3 of 10\n"
    assert cluster.job(job["id"])["node"] == "site"
    running = in_state(cluster, job, "Running")
    assert running["reason"] == ""
    assert running["attempt"] == 1
    eventually(lambda: cluster.job_log(job) == "one\ndioscar: progress 3 of 10\n", what="the log as it comes")
    said = eventually(lambda: cluster.job(job["id"])["progress"], what="its progress")
    assert said == {"done": 3.0, "total": 10.0}

    plugin.logs[uid] += b"two\n"
    plugin.end(uid)
    ended = in_state(cluster, job, "Succeeded")
    assert ended["exit_code"] == 0
    assert cluster.job_log(job) == "one\ndioscar: progress 3 of 10\ntwo\n"
    assert [step["state"] for step in ended["transitions"]] == ["Pending", "Running", "Succeeded"]
    eventually(lambda: set(plugin.deleted) == {uid}, what="the pod's deletion")


def test_a_replayed_job_is_another_pod(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    job = submit(cluster)
    plugin.end(plugin.pod())
    in_state(cluster, job, "Succeeded")
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/replay")).raise_for_status()
    plugin.end(plugin.pod(1), 65)
    in_state(cluster, job, "Dead")


def test_a_failure_is_retried_as_another_pod_and_then_dead(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/retries": "1"})
    job = submit(cluster)
    for number in range(2):
        uid = plugin.pod(number)
        plugin.logs[uid] += b"no such pulsar\n"
        plugin.end(uid, 7)
        eventually(lambda uid=uid: uid in plugin.deleted)  # type: ignore[misc]
    ended = in_state(cluster, job, "Dead")
    assert (ended["exit_code"], ended["attempt"]) == (7, 2)
    assert ended["reason"] == "the script ended with status 7: no such pulsar"
    assert len(set(plugin.creates)) == len(plugin.creates) == 2
    assert "[dioscar: attempt 2" in cluster.job_log(job)


def test_bad_input_is_dead_at_once_in_the_runtimes_words(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    job = submit(cluster)
    uid = plugin.pod()
    plugin.logs[uid] += b"dioscar: pulsar.train request.json: InputError: epochs: must be above 0\n"
    plugin.end(uid, 65)
    ended = in_state(cluster, job, "Dead")
    assert ended["reason"] == "InputError: epochs: must be above 0"
    assert len(plugin.creates) == 1


def test_a_failure_that_the_pods_supervisor_hides_is_one(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, variables={"DIOSCAR_FUNCTION": "pulsar.train"}, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    uid = plugin.pod()
    plugin.logs[uid] += b"dioscar: pulsar.train request.json: ValueError: no gradient\n"
    plugin.end(uid, 0)
    ended = in_state(cluster, job, "Dead")
    assert (ended["exit_code"], ended["reason"]) == (1, "ValueError: no gradient")


def test_what_the_plugin_says_of_an_end_is_the_reason(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    plugin.end(plugin.pod(), 1, "TIMEOUT: TimeLimit")
    assert in_state(cluster, job, "Dead")["reason"] == "TIMEOUT: TimeLimit (status 1)"


def test_the_last_line_is_told_with_what_the_plugin_says(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/retries": "1"})
    job = submit(cluster)
    for number, says in enumerate(("job 8 ended as TIMEOUT (TimeLimit)", "job 9 ended as FAILED")):
        uid = plugin.pod(number)
        plugin.logs[uid] += b"warming up\nthe detector is on fire\n"
        plugin.end(uid, 3, says)
        if not number:
            told = with_reason(cluster, job, "its last line")["reason"]
            assert told == f"{says} (status 3); its last line: the detector is on fire"
    assert in_state(cluster, job, "Dead")["reason"] == "the script ended with status 3: the detector is on fire"


def test_an_init_container_that_fails_says_why_in_the_reason_and_the_log(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    plugin.end_first(plugin.pod(), 127, "job 6 ended as FAILED", b"starting\nno apptainer on this node\n")
    ended = in_state(cluster, job, "Dead")
    assert ended["reason"] == (
        "Pod: the container supervisor-container on the node site: job 6 ended as FAILED: no apptainer on this node"
    )
    assert cluster.job_log(job) == "starting\nno apptainer on this node\n"


def test_a_pod_that_can_never_be_taken_is_dead_at_once(cluster: Cluster, plugin: StandIn) -> None:
    plugin.refuse, plugin.refusal = "annotation flags: --uid=root is not allowed here", 422
    deploy(cluster)
    job = submit(cluster)
    ended = in_state(cluster, job, "Dead")
    assert (ended["exit_code"], len(plugin.creates)) == (65, 1)
    command = [sys.executable, "-P", "-m", "infra.cli", "logs", job["id"], "--cluster", str(cluster.data)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--uid=root is not allowed here" in said.stderr and not said.stdout


def test_a_checkpoint_is_run_again_and_not_counted(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    plugin.run(plugin.pod())
    in_state(cluster, job, "Running")
    plugin.end(plugin.pod(), 75)
    plugin.end(plugin.pod(1))
    ended = in_state(cluster, job, "Succeeded")
    assert ended["attempt"] == 1
    assert len(set(plugin.creates)) == 2


def test_a_job_that_the_queue_takes_back_is_pending_again(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    job = submit(cluster)
    uid = plugin.pod()
    plugin.run(uid)
    in_state(cluster, job, "Running")
    plugin.states[uid] = '{"waiting": {"reason": "BeginTime"}}'
    back = with_reason(cluster, job, "BeginTime")
    assert (back["state"], back["attempt"]) == ("Pending", 0)
    plugin.run(uid)
    in_state(cluster, job, "Running")
    plugin.end(uid)
    assert in_state(cluster, job, "Succeeded")["attempt"] == 1
    assert plugin.creates == [uid]


def test_a_refused_pod_is_a_failed_attempt_with_the_plugins_sentence(cluster: Cluster, plugin: StandIn) -> None:
    plugin.refuse = '{"detail": "sbatch: error: invalid partition specified: gpu"}'
    deploy(cluster, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    ended = in_state(cluster, job, "Dead")
    assert ended["reason"] == (
        "Refused: the node site does not take the job: sbatch: error: invalid partition specified: gpu"
    )


def test_a_plugin_that_is_away_is_waited_for(cluster: Cluster, plugin: StandIn) -> None:
    plugin.stop()
    deploy(cluster, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    assert with_reason(cluster, job, "the node site does not answer")["state"] == "Pending"
    plugin.start()
    uid = plugin.pod()
    plugin.run(uid)
    in_state(cluster, job, "Running")
    plugin.stop()
    time.sleep(0.5)  # long enough for a question that is not answered; nothing happens, which is what is shown
    assert cluster.job(job["id"])["state"] == "Running"
    plugin.start()
    plugin.end(uid)
    assert in_state(cluster, job, "Succeeded")["attempt"] == 1
    assert plugin.creates == [uid]


def test_a_plugin_that_cannot_just_now_is_asked_again(cluster: Cluster, plugin: StandIn) -> None:
    plugin.refuse, plugin.refusal = '{"detail": "slurmctld does not answer"}', 503
    deploy(cluster, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    assert with_reason(cluster, job, "slurmctld does not answer")["state"] == "Pending"
    plugin.refuse = ""
    plugin.end(plugin.pod())
    in_state(cluster, job, "Succeeded")
    assert len(set(plugin.creates)) == 1


@pytest.mark.parametrize("running", [False, True])
def test_a_cancelled_job_loses_its_pod(cluster: Cluster, plugin: StandIn, running: bool) -> None:
    deploy(cluster)
    job = submit(cluster)
    uid = plugin.pod()
    if running:
        plugin.run(uid)
        in_state(cluster, job, "Running")
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel")).raise_for_status()
    in_state(cluster, job, "Cancelled")
    eventually(lambda: set(plugin.deleted) == {uid}, what="the pod's deletion")


def test_a_service_that_is_deleted_takes_its_pods_with_it(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    submit(cluster)
    uid = plugin.pod()
    cluster.http.delete(cluster.url("/system/services/trains")).raise_for_status()
    eventually(lambda: set(plugin.deleted) == {uid}, what="the pod's deletion")


def test_a_pod_that_cannot_be_deleted_now_is_deleted_after_a_restart(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    job = submit(cluster)
    uid = plugin.pod()
    plugin.stop()
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel")).raise_for_status()
    cluster.kill()
    plugin.start()
    cluster.start()
    eventually(lambda: set(plugin.deleted) == {uid}, what="the pod's deletion")


def test_a_job_that_takes_too_long_is_deleted_and_timed_out(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/retries": "0", "dioscar/timeout": "1"})
    job = submit(cluster)
    uid = plugin.pod()
    plugin.run(uid)
    ended = in_state(cluster, job, "Dead")
    assert ended["reason"].startswith("Timeout: took longer than 1 s")
    eventually(lambda: uid in plugin.deleted)


@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_pod_outlives_its_cluster_and_is_found_again(cluster: Cluster, plugin: StandIn, how: str) -> None:
    deploy(cluster)
    job = submit(cluster)
    uid = plugin.pod()
    plugin.run(uid)
    plugin.logs[uid] += b"before\n"
    in_state(cluster, job, "Running")
    eventually(lambda: cluster.job_log(job) == "before\n")
    getattr(cluster, how)()
    plugin.logs[uid] += b"meanwhile\n"
    cluster.start()
    in_state(cluster, job, "Running")
    plugin.logs[uid] += b"after\n"
    plugin.end(uid)
    ended = in_state(cluster, job, "Succeeded")
    assert ended["attempt"] == 1
    assert plugin.creates == [uid]
    assert cluster.job_log(job) == "before\nmeanwhile\nafter\n"


def test_an_end_that_nobody_saw_is_taken_over(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/retries": "0"})
    job = submit(cluster)
    uid = plugin.pod()
    cluster.kill()
    plugin.logs[uid] += b"done\n"
    plugin.end(uid)
    cluster.start()
    in_state(cluster, job, "Succeeded")
    assert plugin.creates == [uid]
    assert cluster.job_log(job) == "done\n"


def test_a_cluster_killed_before_the_plugin_answered_asks_first_and_creates_the_same_pod(
    cluster: Cluster, plugin: StandIn
) -> None:
    plugin.hold.clear()
    deploy(cluster)
    job = submit(cluster)
    uid = eventually(lambda: plugin.creates[:1] or None)[0]
    plugin.refuse = "the connection broke"
    cluster.kill()
    plugin.hold.set()
    eventually(lambda: not plugin.pods)
    plugin.refuse = ""
    cluster.start()
    assert plugin.pod() == uid
    plugin.end(uid)
    assert in_state(cluster, job, "Succeeded")["attempt"] == 1


def test_one_question_is_for_all_pods(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    for number in range(20):
        cluster.put("trains", f"in/{number}.json", REQUEST)
    eventually(lambda: len(plugin.pods) == 20)
    eventually(lambda: 20 in plugin.questions, what="a question for all of them")
    before = len(plugin.questions)
    eventually(lambda: len(plugin.questions) >= before + 2)
    assert set(plugin.questions[before:]) == {20}
    for uid in list(plugin.pods):
        plugin.end(uid)
    assert {job["state"] for job in cluster.ended("trains", 20)} == {"Succeeded"}


def test_concurrency_bounds_the_pods(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster, annotations={"dioscar/concurrency": "2"})
    for number in range(5):
        cluster.put("trains", f"in/{number}.json", REQUEST)
    for number in range(5):
        uid = plugin.pod(number)
        eventually(lambda number=number: len(plugin.pods) >= min(number + 2, 5))  # type: ignore[misc]
        assert len(plugin.pods) <= number + 2
        plugin.end(uid)
        eventually(lambda uid=uid: uid in plugin.deleted)  # type: ignore[misc]
    cluster.ended("trains", 5)


def test_pods_take_no_place_of_local_jobs(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    for number in range(2 * (os.cpu_count() or 1) + 2):
        cluster.put("trains", f"in/{number}.json", REQUEST)
    eventually(lambda: len(plugin.pods) == 2 * (os.cpu_count() or 1) + 2)
    cluster.deploy("copies", script='cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"')
    cluster.put("copies", "in/a", b"a")
    assert cluster.ended("copies")[0]["state"] == "Succeeded"


def test_what_a_pod_uploads_is_its_jobs_and_starts_what_follows(
    cluster: Cluster, plugin: StandIn, tmp_path: Path
) -> None:
    deploy(cluster)
    cluster.deploy("copies", script='cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"')
    job = submit(cluster)
    uid = plugin.pod()
    plugin.run(uid)
    in_state(cluster, job, "Running")
    key = "f" * 64
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    client = S3Client(cluster.facts["s3"], cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"])
    made = {"dioscar-job": plugin.env(uid)["JOB_UUID"]}
    client.put("trains", "out/model", model, metadata=made)
    client.put("trains", f"out/_runs/request.json/{key}.json", model, metadata=made)
    client.put("copies", "in/model", model, metadata={**made, "dioscar-hops": "3"})
    client.put("trains", "out/other", model)
    client.close()
    following = cluster.ended("copies")[0]
    plugin.end(uid)
    ended = in_state(cluster, job, "Succeeded")
    assert {output["key"] for output in ended["outputs"]} == {
        "out/model",
        f"out/_runs/request.json/{key}.json",
        "in/model",
    }
    assert ended["run_key"] == key
    assert ended["triggered"] == [following["id"]]
    record = cluster.job(following["id"])["event"]["Records"][0]
    assert record["s3"]["object"]["userMetadata"]["X-Amz-Meta-Dioscar-Hops"] == "3"


def test_a_node_that_is_not_there_is_refused_with_those_that_are(cluster: Cluster) -> None:
    document = {
        "name": "lost",
        "image": "x",
        "script": "true",
        "interlink_node_name": "leonardo",
        "input": [],
        "output": [],
    }
    answer = cluster.http.post(cluster.url("/system/services"), json=document)
    assert answer.status_code == 400
    assert (
        'interlink_node_name: "leonardo" is no interLink node of this cluster; there is hpc, official, site'
        in answer.text
    )


def test_oscars_routes_know_of_nodes(cluster: Cluster, plugin: StandIn) -> None:
    assert cluster.get("/system/config")["config"]["interLink_available"] is True
    here, *nodes = cluster.get("/system/status")["cluster"]["nodes"]
    assert here["is_interlink"] is False
    assert [(node["name"], node["is_interlink"], node["status"]) for node in nodes] == [
        ("site", True, "Ready"),
        ("official", True, "Ready"),
    ]


def test_a_plugin_like_the_official_one_that_drops_logs_with_the_pod(cluster: Cluster, official: StandIn) -> None:
    deploy(cluster, node="official")
    job = submit(cluster)
    uid = official.pod()
    official.run(uid)
    official.logs[uid] += b"all of it\n"
    official.end(uid)
    in_state(cluster, job, "Succeeded")
    eventually(lambda: uid not in official.logs)
    assert cluster.job_log(job) == "all of it\n"
    assert official.creates == [uid]


def test_a_user_stops_the_cluster_while_a_pod_waits_and_nothing_waits_for_it(cluster: Cluster, plugin: StandIn) -> None:
    deploy(cluster)
    submit(cluster)
    plugin.run(plugin.pod())
    assert cluster.process is not None
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.process.wait(30) == 0
    assert plugin.deleted == []
    cluster.start()
