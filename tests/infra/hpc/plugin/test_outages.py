"""Pods on a real Slurm whose controller dies, forgets, and gives a job's id to another."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.hpc.batch import BatchState
from tests.infra.hpc.lab import Lab, running_lab
from tests.infra.hpc.plugin.fake import Client, until
from tests.infra.hpc.plugin.test_end_to_end import plugin, pod_of, write_supervisor


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A Slurm of these tests' own, which they hurt."""
    with running_lab(tmp_path_factory.mktemp("slurm"), "--nodes", "1") as found:
        yield found


def ping(site: Client) -> int:
    return site.send("GET", "/status", "[]").status_code


def test_a_controller_that_is_away_costs_no_running_pod(lab: Lab, tmp_path: Path) -> None:
    go = tmp_path / "go"
    write_supervisor(tmp_path, f"until [ -e {go} ]; do sleep 0.1; done; exit 0")
    with plugin(tmp_path, "slurm", lab.environ) as site:
        pod = pod_of(site.uid)["pod"]
        assert site.create(pod_of(site.uid)).status_code == 200
        until(lambda: "running" in site.state(pod))
        controller = lab.pid()
        os.kill(controller, signal.SIGTERM)  # by SIGKILL it may forget that the job has begun, and begin it again
        until(lambda: not Path(f"/proc/{controller}").exists())
        until(lambda: ping(site) == 503)
        assert "running" in site.state(pod)
        lab.start()
        until(lambda: ping(site) == 200)
        assert "running" in site.state(pod)
        go.touch()
        assert site.ended(pod)["exitCode"] == 0


def test_a_job_whose_id_another_has_got_is_lost_and_no_success(lab: Lab, tmp_path: Path) -> None:
    write_supervisor(tmp_path, "exit 0")
    with plugin(tmp_path, "slurm", lab.environ, lost_after=1) as site:
        body = pod_of(site.uid)
        body["pod"]["metadata"]["annotations"] = {"slurm-job.vk.io/flags": "--begin=now+1days"}
        number = int(site.create(body).json()["PodJID"])
        waiting = until(lambda: (state := site.state(body["pod"])["waiting"])["reason"] == "BeginTime" and state)
        assert waiting["message"] == f"job {number} waits in the queue: BeginTime"
        lab.stop()
        for path in (lab.folder / "state").iterdir():
            path.unlink() if path.is_file() else None
        lab.start()
        another = 0
        while another < number:
            another = int(lab.run("sbatch", "--parsable", "--mem=16", "--output=/dev/null", "--wrap=true"))
        assert another == number
        until(lambda: BatchState.COMPLETED in lab.run("squeue", "-h", "-t", "all", "-j", str(number), "-o", "%T"))
        end = site.ended(body["pod"])
        assert end["exitCode"] == 1 and end["message"].startswith(f"lost: the batch system does not know job {number}")


@pytest.mark.slow
def test_a_time_limit_is_a_checkpoint_and_another_run(lab: Lab, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    more = f"[ -e {kept} ] && exit 0; trap 'touch {kept}; exit 75' TERM; while :; do sleep 0.1; done"
    write_supervisor(tmp_path, more)
    with plugin(tmp_path, "slurm", lab.environ) as site:
        site.uid = str(uuid.uuid4())
        body = pod_of(site.uid)
        body["pod"]["metadata"]["annotations"] = {"slurm-job.vk.io/flags": "--time=1 --signal=B:TERM@50"}
        assert site.create(body).status_code == 200
        end = until(lambda: site.state(body["pod"]).get("terminated"), 240.0)
        assert end["exitCode"] == 0
        assert site.status(body["pod"]).json()[0]["containers"][0]["restartCount"] == 1
