"""The whole way with a real Slurm: an event, a pod, our plugin, sbatch, an output in the bucket."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layers.learning.registry import Registry
from tests.cluster import FUNCTION_SCRIPT, TWIN, Cluster, eventually
from tests.infra.hpc.lab import Lab, slurm_lab
from tests.infra.local.interlink.test_own_plugin import COPY, LONG_S
from tests.layers.quality.test_chain import CHAIN
from tests.ports import free_port

__all__ = ["slurm_lab"]


class SlurmPlugin:
    """Our plugin before the lab's Slurm, as a site has it: not the cluster's child."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.folder = folder
        settings = {
            "root": str(folder / "root"),
            "listen": f"unix://{folder}/plugin.sock",
            "batch": "slurm",
            "runtime": "process",
            "poll": 0.5,
        }
        (folder / "hpc.yaml").write_text(json.dumps(settings))
        self.url = settings["listen"]
        self._environ = {**lab.environ, "LANG": "C.UTF-8", "PYTHONPATH": str(TWIN)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "plugin.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "infra.hpc", "--config", str(self.folder / "hpc.yaml")],
                env=self._environ,
                stdout=log,
                stderr=log,
            )
        eventually((self.folder / "plugin.sock").exists, what="the plugin's socket")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory, slurm_lab: Lab) -> Iterator[SlurmPlugin]:
    plugin = SlurmPlugin(tmp_path_factory.mktemp("plugin"), slurm_lab)
    plugin.start()
    yield plugin
    plugin.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, plugin: SlurmPlugin) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "data", "--s3", f"127.0.0.1:{free_port()}")
    cluster.environ = {"DIOSCAR_INTERLINK_NODES": json.dumps({"slurm": {"url": plugin.url}})}
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    yield running
    for service in running.get("/system/services"):
        running.http.delete(running.url(f"/system/services/{service['name']}"))


def deploy(cluster: Cluster, name: str, script: str, flags: str = "--time=5 --mem=200", **more: Any) -> None:
    annotations = {"slurm-job.vk.io/flags": flags, "dioscar/retries": "0", **more.pop("annotations", {})}
    cluster.deploy(name, script=script, annotations=annotations, interlink_node_name="slurm", **more)


def submit(cluster: Cluster, name: str, key: str = "in/a", data: bytes = b"hello") -> dict[str, Any]:
    cluster.put(name, key, data)
    return eventually(lambda: [job for job in cluster.jobs(service=name) if job["key"] == key])[0]


def finished(cluster: Cluster, job: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        now = cluster.job(job["id"])
        return now if now["state"] in ("Succeeded", "Dead", "Cancelled") else None

    return eventually(look, LONG_S, f"the end of {job['id']}")


def queued(lab: Lab) -> list[str]:
    return lab.run("squeue", "-h", "-o", "%T %j").splitlines()


def test_an_event_becomes_a_batch_job_and_its_output_is_in_the_bucket(
    cluster: Cluster, slurm_lab: Lab, plugin: SlurmPlugin
) -> None:
    deploy(cluster, "trains", FUNCTION_SCRIPT, variables={"DIOSCAR_FUNCTION": "contract.train"})
    job = finished(cluster, submit(cluster, "trains", "in/r.json", b'{"steps": 2}'))
    assert job["state"] == "Succeeded", (job, cluster.job_log(job), (plugin.folder / "plugin.log").read_text())
    assert "out/r.json.model" in [output["key"] for output in job["outputs"]]
    assert json.loads(cluster.read("trains", "out/r.json.model"))["steps"] == 2


def test_a_training_goes_from_an_event_to_a_model_that_serves_and_over_a_stop_on_the_way(
    cluster: Cluster, slurm_lab: Lab
) -> None:
    for name, variables in CHAIN.items():
        node = {"interlink_node_name": "slurm"} if name == "line-train" else {}
        cluster.deploy(name, variables=variables, **node)
    request = {"points": 2000, "parts": 40, "pause_s": 0.25}
    job = submit(cluster, "line-train", "in/first.json", json.dumps(request).encode())
    eventually(lambda: "progress" in cluster.job_log(job) or cluster.job(job["id"])["progress"], LONG_S, "its progress")
    slurm_lab.run("scancel", "--batch", "--signal=TERM", *slurm_lab.run("squeue", "-h", "-o", "%A").split())
    eventually(lambda: "Checkpointed: stopped after" in cluster.job_log(job), LONG_S, "its checkpoint")
    assert finished(cluster, job)["state"] == "Succeeded", cluster.job_log(job)
    assert cluster.job(job["id"])["attempt"] == 1, "a checkpoint is no attempt"
    eventually(lambda: cluster.jobs(service="line-validate", state="Succeeded"), LONG_S, "the validation")
    serving = Registry(cluster.s3).serving("line")
    assert serving is not None
    predicted = submit(cluster, "line-predict", "in/one", b"1.0")
    assert finished(cluster, predicted)["state"] == "Succeeded"
    answer = json.loads(cluster.read("line-predict", "out/one.json"))
    assert answer["version"] == serving.version and answer["y"] == pytest.approx(3.0, abs=0.1)


@pytest.mark.slow
def test_a_status_is_the_jobs_own(cluster: Cluster) -> None:
    deploy(cluster, "fails", "echo no such pulsar; exit 7")
    job = finished(cluster, submit(cluster, "fails"))
    assert (job["state"], job["exit_code"]) == ("Dead", 7), job
    assert "no such pulsar" in cluster.job_log(job)


def test_a_job_that_waits_in_the_queue_says_why_and_can_be_cancelled(cluster: Cluster, slurm_lab: Lab) -> None:
    deploy(cluster, "later", COPY, flags="--time=5 --mem=200 --begin=now+1hour")
    job = submit(cluster, "later")
    eventually(lambda: "BeginTime" in cluster.job(job["id"])["reason"], LONG_S, "the queue's reason")
    assert cluster.job(job["id"])["state"] == "Pending"
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel")).raise_for_status()
    eventually(lambda: not queued(slurm_lab), LONG_S, "an empty queue")
    assert cluster.job(job["id"])["state"] == "Cancelled"


@pytest.mark.slow
def test_a_job_that_runs_can_be_cancelled(cluster: Cluster, slurm_lab: Lab) -> None:
    deploy(cluster, "sleeps", "echo asleep; sleep 987")
    job = submit(cluster, "sleeps")
    eventually(lambda: "asleep" in cluster.job_log(job), LONG_S, "its output")
    eventually(lambda: cluster.job(job["id"])["state"] == "Running", LONG_S, "that it runs")
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel")).raise_for_status()
    eventually(lambda: not queued(slurm_lab), LONG_S, "an empty queue")


@pytest.mark.slow
def test_flags_that_slurm_refuses_are_its_own_sentence(cluster: Cluster) -> None:
    deploy(cluster, "refused", COPY, flags="--partition=nowhere")
    job = finished(cluster, submit(cluster, "refused"))
    assert job["state"] == "Dead"
    assert job["reason"].startswith("Refused: the node slurm does not take the job:")
    assert "partition" in job["reason"]


def test_a_job_outlives_cluster_and_plugin_both_killed(
    cluster: Cluster, plugin: SlurmPlugin, slurm_lab: Lab, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    deploy(cluster, "waits", f'echo started; until [ -e "{go}" ]; do sleep 0.1; done; echo over; {COPY}')
    job = submit(cluster, "waits")
    eventually(lambda: "started" in cluster.job_log(job), LONG_S, "its output")
    plugin.end(signal.SIGKILL)
    cluster.kill()
    plugin.start()
    cluster.start()
    go.touch()
    ended = finished(cluster, job)
    assert (ended["state"], ended["attempt"]) == ("Succeeded", 1), (ended, cluster.job_log(job))
    log = cluster.job_log(job)
    assert [log.count(word) for word in ("started", "over")] == [1, 1], log
    assert cluster.read("waits", "out/a") == b"hello"


@pytest.mark.slow
def test_fifty_jobs_at_once_are_fifty_batch_jobs(cluster: Cluster, slurm_lab: Lab) -> None:
    deploy(cluster, "many", COPY, flags="--time=5 --mem=50", cpu="0.5", memory="50Mi")
    for number in range(50):
        cluster.put("many", f"in/{number}", b"x")
    jobs = cluster.ended("many", 50, 600.0)
    assert {(job["state"], job["attempt"]) for job in jobs} == {("Succeeded", 1)}, [job["reason"] for job in jobs]
    assert len(cluster.objects("many", "out/")) == 50
