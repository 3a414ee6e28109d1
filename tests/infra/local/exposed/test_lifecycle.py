"""An exposed service is started when it is deployed, started again when it dies, stopped when it is to be."""

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest
import requests

from tests.cluster import Cluster, eventually, running_cluster
from tests.infra.local.exposed.conftest import PATIENCE_S, Exposed, alive, expose


def test_it_is_started_when_it_is_deployed_and_ended_when_it_is_removed(cluster: Cluster):
    service = expose(cluster, "exposed-come-go", variables={"GREETING": "good day"})
    status = service.reaches("ready")
    assert status == {
        "service_name": "exposed-come-go",
        "namespace": status["namespace"],
        "state": "ready",
        "reason": "Deployment is ready.",
        "last_transition_time": status["last_transition_time"],
        "active_instances": 1,
        "affected_instances": 0,
        "resource_kind": "exposed_service",
    }
    facts = service.ask("/x").json()
    assert facts["greeting"] == "good day"
    assert "good day, here I am" in service.log()
    service.remove()
    assert service.ask("/x").status_code == 404
    eventually(lambda: not alive(facts["pid"]), PATIENCE_S, "the end of its process")
    folders = cluster.data / "exposed"
    eventually(lambda: not list(folders.glob("exposed-come-go.*")), PATIENCE_S, "the end of its folder")


def test_it_is_started_again_when_it_is_killed(cluster: Cluster):
    service = expose(cluster, "exposed-killed")
    service.reaches("ready")
    before = service.ask("/x").json()["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: not alive(before), PATIENCE_S, "its end")
    after = eventually(
        lambda: reply if (reply := service.ask("/x")).status_code == 200 else None, PATIENCE_S, "another process"
    ).json()["pid"]
    assert after != before
    assert any("was killed (SIGKILL), and not by the cluster; starts again in 0.5 s" in line for line in service.log())
    service.remove()


def test_a_new_revision_takes_the_place_of_the_old_one_and_requests_wait_for_it(cluster: Cluster):
    service = expose(cluster, "exposed-update", variables={"GREETING": "one"})
    service.reaches("ready")
    before = service.ask("/x").json()
    expose(cluster, "exposed-update", variables={"GREETING": "two"})
    after = service.ask("/x")
    assert (after.status_code, after.json()["greeting"]) == (200, "two")
    eventually(lambda: not alive(before["pid"]), PATIENCE_S, "the end of the old one")
    service.remove()


def test_it_is_stopped_started_and_restarted(cluster: Cluster):
    service = expose(cluster, "exposed-manual")
    service.reaches("ready")
    first = service.ask("/x").json()["pid"]
    stopped = service.act("stop")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "stopped")
    assert stopped.json()["reason"] == "Deployment is stopped."
    assert not alive(first)
    refused = service.ask("/x")
    assert refused.status_code == 503
    assert refused.text == "exposed-manual is stopped; POST /system/services/exposed-manual/start starts it"
    assert service.act("restart").json()["state"] == "stopped"
    assert service.act("start").status_code == 200
    second = service.ask("/x").json()["pid"]
    assert service.act("restart").status_code == 200
    third = service.ask("/x").json()["pid"]
    assert len({first, second, third}) == 3
    assert any("good night" in line for line in service.log())
    service.remove()


def test_only_what_is_exposed_is_stopped(cluster: Cluster):
    cluster.deploy("exposed-not", script="true")
    answered = cluster.http.post(cluster.url("/system/services/exposed-not/stop"))
    assert (answered.status_code, answered.text) == (400, 'service "exposed-not" is not exposed')
    assert cluster.http.post(cluster.url("/system/services/exposed-nobody/stop")).status_code == 404
    assert requests.post(cluster.url("/system/services/exposed-not/stop"), timeout=PATIENCE_S).status_code == 401


def test_it_sleeps_when_nobody_asks_and_the_next_request_wakes_it(cluster: Cluster):
    service = expose(cluster, "exposed-sleepy", min_scale=0, annotations={"dioscar/idle": "1"})
    asleep = service.reaches("stopped")
    assert asleep["reason"] == "no process runs; the first request starts one"
    assert asleep["active_instances"] == 0
    first = service.ask("/x").json()["pid"]
    eventually(lambda: not alive(first), PATIENCE_S, "its sleep")
    service.reaches("stopped")
    assert service.ask("/x").json()["pid"] != first
    service.remove()


def test_a_stream_keeps_it_awake(cluster: Cluster):
    service = expose(
        cluster, "exposed-awake", min_scale=0, annotations={"dioscar/idle": "1"}, variables={"PAUSE_S": "0.2"}
    )
    with requests.get(service.url("/stream"), stream=True, timeout=PATIENCE_S) as reply:
        lines = (line for line in reply.iter_lines() if line)
        assert [next(lines) for _ in range(12)][-1] == b"data: 11"  # more than two seconds of it
    service.remove()


@pytest.mark.parametrize(
    "function, variables, sentence",
    [
        ("contract.answer", {"PAUSE_S": "soon"}, 'environment variable PAUSE_S: "soon" is no number'),
        ("contract.nobody", {}, 'there is no function "contract.nobody"'),
        ("contract.copy", {}, "has no app(settings) to serve"),
    ],
)
def test_wrong_settings_are_told_and_not_tried_again(
    cluster: Cluster, function: str, variables: dict[str, str], sentence: str
):
    service = expose(cluster, "exposed-wrong", variables={**variables, "DIOSCAR_FUNCTION": function})
    status = service.reaches("failed")
    assert sentence in status["reason"]
    assert any(sentence in line for line in service.log())
    assert sum(line == "[dioscar: starting]" for line in service.log()) == 1
    refused = service.ask("/x")
    assert refused.status_code == 503
    assert refused.text == "exposed-wrong does not run; GET /system/services/exposed-wrong/deployment says why"
    assert service.act("start").status_code == 200  # it may be another's file that was missing
    eventually(lambda: service.log().count("[dioscar: starting]") == 2, PATIENCE_S, "another start")
    service.reaches("failed")
    if function == "contract.answer":  # mended
        expose(cluster, "exposed-wrong", variables={"PAUSE_S": "1"})
        assert service.ask("/x").status_code == 200
    service.remove()
    eventually(lambda: service.ask("/").status_code == 404, PATIENCE_S, "its end")


def test_what_dies_over_and_over_waits_longer_and_longer(cluster: Cluster):
    service = expose(cluster, "exposed-dying", script='echo "no luck today"; exit 3')
    eventually(
        lambda: any("ended with status 3: no luck today; starts again in 2 s" in line for line in service.log()),
        PATIENCE_S,
        "its third end",
    )
    started = [line for line in service.log() if "starts again in" in line]
    assert [line.split()[-2] for line in started[:3]] == ["0.5", "1", "2"]
    service.remove()


def test_what_takes_more_memory_than_it_may_is_ended_and_told_so(cluster: Cluster):
    script = 'exec python3 -c "import time; held = bytearray(200 << 20); time.sleep(60)"'
    cluster.deploy("exposed-greedy", script=script, memory="64Mi", expose={"api_port": 8080, "min_scale": 1})
    service = Exposed(cluster, "exposed-greedy")
    words = "more than its 64 MiB (memory in the FDL); give it more; starts again in"
    eventually(lambda: any(words in line for line in service.log()), PATIENCE_S, "its end")
    service.remove()


def test_an_app_is_reached_through_the_cluster_and_by_no_port(cluster: Cluster, answer: Exposed):
    pid = answer.ask("/x").json()["pid"]
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.add(str(entry.readlink()))
    for table in ("tcp", "tcp6"):
        lines = [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
        assert not [line for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in held]
    (folder,) = (cluster.data / "exposed").glob("exposed-answer.*")
    assert (folder / "socket").is_socket()
    assert folder.stat().st_mode & 0o077 == 0


def test_a_script_that_listens_by_itself_is_exposed_too(cluster: Cluster):
    service = expose(
        cluster, "exposed-script", script='echo "hi from $PORT" >index.html; exec python3 -m http.server "$PORT"\n'
    )
    service.reaches("ready")
    assert service.ask("/").text.startswith("hi from ")
    service.remove()


def test_a_probe_that_fails_is_named_and_goes_where_the_service_says(cluster: Cluster):
    service = expose(cluster, "exposed-ill", health_path="status/418")
    said = "is starting: GET /status/418 answers 418; name a path that answers below 400 in expose.health_path"
    eventually(lambda: service.status()["reason"] == said, PATIENCE_S, "the reason")
    assert service.status()["state"] == "pending"
    expose(cluster, "exposed-ill", health_path="/status/301")
    service.reaches("ready")
    service.remove()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="there is no bubblewrap here")
def test_in_a_sandbox_it_is_reached_and_reaches_nothing(tmp_path: Path):
    cluster = Cluster(tmp_path / "data")
    cluster.environ["DIOSCAR_SANDBOX"] = "require"
    cluster.start()
    port = cluster.facts["api"].rpartition(":")[2]
    try:
        service = expose(cluster, "boxed")
        open_one = expose(cluster, "boxed-open", annotations={"dioscar/network": "true"})
        script = expose(cluster, "boxed-script", script='exec python3 -m http.server "$PORT"')
        wrong = expose(cluster, "boxed-wrong", variables={"PAUSE_S": "soon"})
        assert service.ask("/x").json()["pid"] < 10  # it sees no process but its own
        assert service.ask(f"/reach?port={port}").text != "reached"
        assert open_one.ask(f"/reach?port={port}").text == "reached"
        assert script.ask("/").status_code == 200  # it listens by itself, so it has the network
        assert 'PAUSE_S: "soon" is no number' in wrong.reaches("failed")["reason"]
        service.act("restart")
        assert "good night" in service.log()
        service.reaches("ready")
    finally:
        cluster.stop()
    assert "Traceback" not in cluster.log


def test_it_is_there_again_after_the_cluster_was_killed_and_nothing_of_the_old_one(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        service = expose(cluster, "survivor")
        halted = expose(cluster, "halted")
        service.reaches("ready")
        halted.reaches("ready")
        halted.act("stop")
        before = service.ask("/x").json()["pid"]
        cluster.kill()
        assert alive(before)
        cluster.start()
        service.reaches("ready")
        assert not alive(before)
        after = service.ask("/x").json()["pid"]
        assert halted.status()["state"] == "stopped"
        with requests.get(service.url("/stream"), stream=True, timeout=PATIENCE_S) as stream:
            assert next(stream.iter_lines()) == b"data: 0"
            assert cluster.stop() == 0
        assert not alive(after)
    assert "Traceback" not in cluster.log
