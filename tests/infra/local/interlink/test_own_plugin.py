"""The whole way with nothing configured: an event, a pod, our plugin, a process, an output in the bucket."""

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from infra.local.interlink.client import Plugin
from infra.local.interlink.own import OwnPlugin
from tests.cluster import FUNCTION_SCRIPT, Cluster, eventually
from tests.ports import free_port

COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'
LONG_S = 180.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose store has the same address after each start, as pods that outlive it must be able to rely on."""
    cluster = Cluster(tmp_path_factory.mktemp("own") / "data", "--s3", f"127.0.0.1:{free_port()}")
    cluster.start()
    yield cluster
    for pid in processes_of(cluster):  # of a test that has failed
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if cluster.process is not None and cluster.process.poll() is None:
        cluster.stop()


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    yield running
    for service in running.get("/system/services"):
        running.http.delete(running.url(f"/system/services/{service['name']}"))


def processes_of(cluster: Cluster) -> list[int]:
    """What runs in this data folder's pods."""
    mark = f"{cluster.data}/interlink/pods/".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def function_processes(job: str) -> list[int]:
    """The processes of a job that run its function."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = f"JOB_UUID={job}".encode() in (folder / "environ").read_bytes().split(b"\0")
            if mine and (folder / "cmdline").read_bytes().endswith(b"layers.runtime\0"):
                found.append(int(folder.name))
    return found


def plugin_of(cluster: Cluster) -> int:
    return int((cluster.data / "interlink" / "hpc.pid").read_text())


def deploy(cluster: Cluster, name: str, script: str, **more: Any) -> None:
    cluster.deploy(name, script=script, interlink_node_name="hpc", **more)


def ended(cluster: Cluster, service: str, count: int = 1) -> list[dict[str, Any]]:
    return cluster.ended(service, count, LONG_S)


def has_printed(cluster: Cluster, service: str, words: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        for job in cluster.jobs(service=service):
            if words in cluster.job_log(job):
                return job
        return None

    return eventually(look, LONG_S, f'"{words}" in a log of {service}')


def test_an_event_becomes_a_process_and_its_output_starts_what_follows(cluster: Cluster) -> None:
    cluster.deploy("after", script=COPY)
    script = COPY + '; printf \'%s has %s: %s\' "$RESOURCE_ID" "$STORAGE_OBJECT_KEY" "$QUOTES"'
    tricky = "a 'b' \"c\" $d\n\\e"
    output = [{"storage_provider": "minio.default", "path": "after/in"}]
    deploy(cluster, "copies", script, variables={"QUOTES": tricky}, output=output)
    cluster.put("copies", "in/a b é.txt", b"hello")
    job = ended(cluster, "copies")[0]
    assert job["state"] == "Succeeded", (job, cluster.job_log(job))
    assert cluster.job_log(job).strip() == f"hpc has in/a b é.txt: {tricky}"
    following = ended(cluster, "after")[0]
    assert cluster.read("after", "out/a b é.txt") == b"hello"
    assert cluster.job(job["id"])["triggered"] == [following["id"]]
    assert [output["key"] for output in job["outputs"]] == ["in/a b é.txt"]


def test_a_function_of_ours_runs_there_with_its_inputs_and_leaves_its_record(cluster: Cluster) -> None:
    deploy(cluster, "trains", FUNCTION_SCRIPT, variables={"DIOSCAR_FUNCTION": "contract.train"})
    cluster.put("trains", "data/one.txt", b"one")
    request = {"inputs": [{"bucket": "trains", "key": "data/one.txt"}], "steps": 3}
    response = cluster.invoke("job", "trains", base64.b64encode(json.dumps(request).encode()))
    job = eventually(lambda: ended(cluster, "trains"), LONG_S)[0]
    assert job["id"] == response.headers["X-Dioscar-Job"]
    assert job["state"] == "Succeeded", (job, cluster.job_log(job))
    keys = [output["key"] for output in job["outputs"]]
    model = json.loads(cluster.read("trains", next(key for key in keys if key.endswith(".model"))))
    assert (model["steps"], model["texts"]) == (3, ["one"])
    record = json.loads(cluster.read("trains", next(key for key in keys if "/_runs/" in key)))
    assert record["job"] == job["id"]
    assert record["run_key"] == job["run_key"]


def test_a_status_is_the_jobs_own(cluster: Cluster) -> None:
    deploy(cluster, "fails", "echo no such pulsar; exit 7", annotations={"dioscar/retries": "0"})
    cluster.put("fails", "in/a", b"")
    job = ended(cluster, "fails")[0]
    assert (job["state"], job["exit_code"]) == ("Dead", 7), job
    assert "no such pulsar" in cluster.job_log(job)


def test_a_cancelled_job_ends_with_all_that_it_has_started(cluster: Cluster) -> None:
    deploy(cluster, "sleeps", "echo asleep; sleep 987")
    cluster.put("sleeps", "in/a", b"")
    job = has_printed(cluster, "sleeps", "asleep")
    eventually(lambda: cluster.job(job["id"])["state"] == "Running", LONG_S, "that it runs")
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel")).raise_for_status()
    eventually(lambda: not processes_of(cluster), LONG_S, "the end of its processes")
    assert cluster.job(job["id"])["state"] == "Cancelled"


@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_job_outlives_its_cluster(cluster: Cluster, how: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f'echo started; until [ -e "{go}" ]; do sleep 0.1; done; echo over; {COPY}'
    deploy(cluster, f"waits-{how}", script, annotations={"dioscar/retries": "0"})
    cluster.put(f"waits-{how}", f"in/{how}", b"kept")
    has_printed(cluster, f"waits-{how}", "started")
    getattr(cluster, how)()
    assert processes_of(cluster)
    go.touch()
    time.sleep(0.5)  # so that it may be over before the cluster is back; it need not
    cluster.start()
    job = ended(cluster, f"waits-{how}")[0]
    assert (job["state"], job["attempt"]) == ("Succeeded", 1), (job, cluster.job_log(job))
    log = cluster.job_log(job)
    assert [log.count(word) for word in ("started", "over")] == [1, 1], log
    assert cluster.read(f"waits-{how}", f"out/{how}") == b"kept"


def test_a_job_outlives_its_plugin(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f'echo started; until [ -e "{go}" ]; do sleep 0.1; done; echo over; {COPY}'
    deploy(cluster, "waits-plugin", script, annotations={"dioscar/retries": "0"})
    cluster.put("waits-plugin", "in/plugin", b"kept")
    has_printed(cluster, "waits-plugin", "started")
    before = plugin_of(cluster)
    os.kill(before, signal.SIGKILL)
    number = cluster.data / "interlink" / "hpc.pid"
    eventually(lambda: number.read_text() not in ("", str(before)), LONG_S, "another plugin")
    go.touch()
    job = ended(cluster, "waits-plugin")[0]
    assert (job["state"], job["attempt"]) == ("Succeeded", 1), (job, cluster.job_log(job))
    log = cluster.job_log(job)
    assert [log.count(word) for word in ("started", "over")] == [1, 1], log


def test_a_training_whose_process_dies_goes_on_from_its_checkpoint(cluster: Cluster) -> None:
    variables = {"DIOSCAR_FUNCTION": "contract.train"}
    deploy(cluster, "trains-on", FUNCTION_SCRIPT, variables=variables, annotations={"dioscar/retries": "1"})
    cluster.put("trains-on", "in/r.json", b'{"steps": 60, "pause_s": 0.05}')
    job = eventually(lambda: [job for job in cluster.jobs(service="trains-on") if job["state"] == "Running"], LONG_S)[0]
    folders = cluster.data / "interlink" / "checkpoints"
    state = eventually(lambda: next(iter(folders.rglob("state.json")), None), LONG_S, "a checkpoint")
    eventually(lambda: json.loads(state.read_text() or "{}").get("done", 0) > 5, LONG_S, "some steps")
    for pid in function_processes(job["id"]):
        os.kill(pid, signal.SIGKILL)
    done = ended(cluster, "trains-on")[0]
    assert (done["state"], done["attempt"]) == ("Succeeded", 2), (done, cluster.job_log(done))
    model = json.loads(cluster.read("trains-on", "out/r.json.model"))
    assert (model["steps"], model["starts"]) == (60, 2)


def test_a_socket_is_in_the_data_folder_however_deep_that_is(tmp_path: Path) -> None:
    async def run() -> None:
        data = tmp_path / ("x" * 120)
        data.mkdir()
        own = OwnPlugin(data, os.environ)
        assert len(own.url.removeprefix("unix://").encode()) < 108
        plugin = Plugin(own.url)
        await own.ensure(plugin)
        socket_file = data / "interlink" / "hpc.sock"
        assert socket_file.is_socket() and socket_file.stat().st_uid == os.getuid()
        for file in (socket_file, socket_file.parent):
            assert file.stat().st_mode & 0o077 == 0, file
        pid = (data / "interlink" / "hpc.pid").read_text()
        after = OwnPlugin(data, os.environ)  # as of a cluster that was started again
        await after.ensure(again := Plugin(after.url))
        assert (data / "interlink" / "hpc.pid").read_text() == pid, "it was started twice"
        await after.stop()
        assert not socket_file.exists(), "it goes on"
        await own.stop()  # which collects its child
        await plugin.close()
        await again.close()

    asyncio.run(run())


def test_a_plugin_whose_number_is_lost_ends_with_its_cluster(tmp_path: Path) -> None:
    async def run() -> int:
        own = OwnPlugin(tmp_path, os.environ)
        plugin = Plugin(own.url)
        await own.ensure(plugin)
        number = tmp_path / "interlink" / "hpc.pid"
        pid = int(number.read_text())
        number.unlink()
        await asyncio.wait_for(own.stop(), LONG_S)
        await plugin.close()
        return pid

    pid = asyncio.run(run())
    assert not Path(f"/proc/{pid}").exists()


def test_a_call_that_waits_is_served_by_the_cluster_itself(cluster: Cluster) -> None:
    deploy(cluster, "calls", 'echo "here: ${JOB_UUID-none}"')
    reply = cluster.run("calls", b"")
    assert reply.status_code == 200
    assert b"here: none" in reply.content


@pytest.mark.slow
def test_where_the_sandbox_is_required_nothing_runs_outside_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data")
    cluster.environ = {"DIOSCAR_SANDBOX": "require"}
    try:
        cluster.start()
    except AssertionError:
        pytest.skip("bubblewrap does not work here")
    try:
        deploy(cluster, "copies", COPY)
        cluster.put("copies", "in/a", b"a")
        assert cluster.ended("copies")[0]["state"] == "Succeeded"
        assert not (cluster.data / "interlink").exists()
    finally:
        cluster.stop()


@pytest.mark.slow
def test_fifty_jobs_at_once(cluster: Cluster) -> None:
    deploy(cluster, "many", COPY)
    for number in range(50):
        cluster.put("many", f"in/{number}", b"x")
    jobs = cluster.ended("many", 50, 600.0)
    assert {(job["state"], job["attempt"]) for job in jobs} == {("Succeeded", 1)}
    assert len(cluster.objects("many", "out/")) == 50
