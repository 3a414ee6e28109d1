"""OSCAR's pod through the whole plugin, its own process, with plain processes and with a real Slurm."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.infra.hpc.lab import Lab, slurm_lab
from tests.infra.hpc.plugin.fake import INIT, MAIN, Client, FolderBatch, oscar_pod, until
from tests.ports import free_port

__all__ = ["slurm_lab"]

SUPERVISOR = """#!/bin/sh
echo "event: $(cat)"
echo "config: $(cat {root}/oscar/config/script.sh | tail -n 1)"
echo "key: $(cat {root}/var/run/secrets/providers/minio.default/secretKey | wc -c)"
echo "function: $DIOSCAR_FUNCTION"
{more}
"""


class Site(Client):
    """A client that can kill its plugin."""

    process: subprocess.Popen[str]


@contextmanager
def plugin(folder: Path, batch: str, environ: dict[str, str] | None = None, **given: Any) -> Iterator[Site]:
    """The plugin as a site runs it, with plain processes for containers."""
    kit = folder / "kit"
    kit.mkdir(exist_ok=True)
    port = free_port()
    config = folder / "hpc.yaml"
    values = {
        "root": str(folder / "root"),
        "listen": f"127.0.0.1:{port}",
        "batch": batch,
        "runtime": "process",
        "images": {"*supervisor*": {"/supervisor": str(kit)}},
        "poll": 0.2,
        "settle": 1,
        "grace": 1,
        **given,
    }
    config.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-P", "-m", "infra.hpc", "--config", str(config)]
    environ = environ or {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().split()[-1]
            client = Site(url, folder / "root", FolderBatch(folder / "none"))
            client.process = process
            client.uid = str(uuid.uuid4())
            yield client
        finally:
            process.terminate()


def write_supervisor(folder: Path, more: str) -> None:
    """What the image of the init container would have held."""
    path = folder / "kit" / "supervisor"
    path.parent.mkdir(exist_ok=True)
    path.write_text(SUPERVISOR.format(root="$DIOSCAR_POD_ROOT", more=more))
    path.chmod(0o755)


@pytest.fixture(params=["local", "slurm"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A plugin before each batch system."""
    environ = None
    if request.param == "slurm":
        lab: Lab = request.getfixturevalue("slurm_lab")
        environ = lab.environ
    with plugin(tmp_path, request.param, environ) as client:
        yield client


def pod_of(uid: str) -> dict[str, Any]:
    body = oscar_pod(uid)
    body["pod"]["metadata"]["annotations"] = {"slurm-job.vk.io/flags": "--time=5"}
    body["pod"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "memory": "128Mi"}}
    return body


def test_a_pod_from_its_creation_to_its_deletion(site: Client, tmp_path: Path) -> None:
    write_supervisor(tmp_path, "exit 7")
    body = pod_of(site.uid)
    pod = body["pod"]
    reply = site.create(body)
    assert reply.status_code == 200, reply.text
    job = reply.json()["PodJID"]
    assert site.create(body).json()["PodJID"] == job
    end = site.ended(pod)
    assert end["exitCode"] == 7 and end["startedAt"] <= end["finishedAt"]
    assert site.ended(pod, INIT)["exitCode"] == 0
    said = site.logs().text.splitlines()
    assert said == ['event: {"epochs": 1}', "config: echo hello", "key: 6", "function: pulsar.train"]
    assert site.logs(Tail=1, Timestamps=True).text.endswith("Z function: pulsar.train\n")
    assert site.delete(pod).status_code == 200
    until(lambda: not (site.folder() / "job.sh").exists())
    assert site.logs().text.splitlines() == said
    until(lambda: json.loads((site.folder() / "pod.json").read_bytes())["cancelled"])
    left = {path.name for path in site.folder().iterdir()} - {"pod.json", ".pod.json.part", "job.out"}
    assert not [name for name in left if not name.startswith((INIT, MAIN))]


def test_a_success(site: Client, tmp_path: Path) -> None:
    write_supervisor(tmp_path, "exit 0")
    body = pod_of(site.uid)
    assert site.create(body).status_code == 200
    assert site.ended(body["pod"])["exitCode"] == 0


def test_a_checkpoint_is_gone_on_with(site: Client, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoint"
    write_supervisor(tmp_path, f"[ -e {kept} ] && exit 0; touch {kept}; exit 75")
    body = pod_of(site.uid)
    assert site.create(body).status_code == 200
    assert site.ended(body["pod"])["exitCode"] == 0
    assert site.logs().text.count("event: ") == 2
    [status] = site.status(body["pod"]).json()
    assert status["containers"][0]["restartCount"] == 1


def test_a_pod_that_runs_is_followed_and_ended(site: Client, tmp_path: Path) -> None:
    write_supervisor(tmp_path, "sleep 600 & trap 'kill $!; echo stopping; exit 1' TERM; wait")
    body = pod_of(site.uid)
    assert site.create(body).status_code == 200
    with site.logs(Follow=True) as reply:
        lines = reply.iter_lines()
        assert next(lines) == b'event: {"epochs": 1}'
        until(lambda: "running" in site.state(body["pod"]))
        assert site.delete(body["pod"]).status_code == 200
        list(lines)
    until(lambda: json.loads((site.folder() / "pod.json").read_bytes())["cancelled"])
    until(lambda: "stopping" in site.logs().text)


@pytest.mark.parametrize("when", ["before sbatch", "after sbatch", "while sbatch goes on"])
def test_killed_around_a_real_sbatch(slurm_lab: Lab, tmp_path: Path, when: str) -> None:
    write_supervisor(tmp_path, "sleep 2; exit 0")
    reached, programs, orphan = tmp_path / "reached", tmp_path / "bin", tmp_path / "orphan"
    sbatch = _programs(programs, slurm_lab)
    submit = f'{sbatch} "$@" >/dev/null'
    tell = f"echo $$ >{reached}.part; mv {reached}.part {reached}"
    lines = {
        "before sbatch": [tell, "exec sleep 600"],
        "after sbatch": [submit, tell, "exec sleep 600"],
        "while sbatch goes on": [tell, f"until [ -e {orphan} ]; do sleep 0.1; done", submit, f"touch {orphan}.done"],
    }[when]
    (programs / "sbatch").write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (programs / "sbatch").chmod(0o755)
    uid = str(uuid.uuid4())
    body = pod_of(uid)
    with plugin(tmp_path, "slurm", slurm_lab.environ, slurm_bin=str(programs)) as site:

        def ask() -> None:
            with pytest.raises(requests.ConnectionError):
                site.create(body)

        thread = threading.Thread(target=ask)
        thread.start()
        until(reached.exists)
        site.process.kill()
        site.process.wait(30)
        thread.join()
    with plugin(tmp_path, "slurm", slurm_lab.environ, sweep=0.5) as site:
        assert site.create(body).status_code == 200
        if when == "while sbatch goes on":
            orphan.touch()
            until(Path(f"{orphan}.done").exists)
        else:
            os.kill(int(reached.read_text()), signal.SIGKILL)
        assert site.ended(body["pod"])["exitCode"] == 0
        assert site.logs(uid=uid).text.count("event: ") == 1
        until(lambda: not slurm_lab.run("squeue", "-h", f"--name={uid}"))
        ran = slurm_lab.run("squeue", "-h", "-a", "--states=all", f"--name={uid}", "-o", "%T").splitlines()
        assert len(ran) == (2 if when == "while sbatch goes on" else 1)


def _programs(folder: Path, lab: Lab) -> str:
    """A folder of Slurm's commands but sbatch, whose true path is returned."""
    folder.mkdir()
    for name in ("squeue", "scancel", "scontrol", "sinfo"):
        (folder / name).symlink_to(str(shutil.which(name, path=lab.environ["PATH"])))
    return str(shutil.which("sbatch", path=lab.environ["PATH"]))


@pytest.mark.slow
def test_fifty_pods_at_once_on_a_real_slurm(slurm_lab: Lab, tmp_path: Path) -> None:
    write_supervisor(tmp_path, "exit 0")
    bodies = [pod_of(str(uuid.uuid4())) for _ in range(50)]
    pods = [body["pod"] for body in bodies]
    with plugin(tmp_path, "slurm", slurm_lab.environ) as site:
        with ThreadPoolExecutor(50) as threads:
            replies = list(threads.map(site.create, bodies))
        assert [reply.status_code for reply in replies] == [200] * 50

        def codes() -> list[int] | None:
            states = [status["containers"][0]["state"] for status in site.status(*pods).json()]
            return (
                [one["terminated"]["exitCode"] for one in states]
                if all("terminated" in one for one in states)
                else None
            )

        assert until(codes, 300.0) == [0] * 50
        for pod in pods:
            assert site.delete(pod).status_code == 200


def test_the_ping_and_the_check_of_a_site(site: Client) -> None:
    reply = site.send("GET", "/status", "[]")
    assert reply.status_code == 200 and int(reply.json()["resources"]["cpu"]) >= 1
    assert reply.json()["resources"]["accelerators"] == []


def test_a_socket_is_its_owners_alone_and_a_left_one_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    for end in (signal.SIGKILL, signal.SIGTERM):
        environ = {"PATH": os.environ["PATH"], "DIOSCAR_HPC_ROOT": str(tmp_path / "root"), "DIOSCAR_HPC_BATCH": "local"}
        environ |= {"DIOSCAR_HPC_LISTEN": f"unix://{path}", "DIOSCAR_HPC_RUNTIME": "process"}
        command = [sys.executable, "-P", "-m", "infra.hpc"]
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout and process.stdout.readline().rstrip().endswith(f"unix://{path}")
            assert path.stat().st_mode & 0o777 == 0o600
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]")
                assert client.recv(12) == b"HTTP/1.1 200"
            process.send_signal(end)
            _, said = process.communicate(timeout=60)
            assert "Traceback" not in said
            assert process.returncode == (0 if end == signal.SIGTERM else -signal.SIGKILL)
            assert path.is_socket() == (end == signal.SIGKILL)


def test_slurm_away_makes_the_node_not_ready(tmp_path: Path) -> None:
    with plugin(tmp_path, "slurm", {"PATH": "/nonexistent", "HOME": str(tmp_path)}) as site:
        reply = site.send("GET", "/status", "[]")
        assert reply.status_code == 503 and reply.text.startswith("the batch system does not answer")


def test_requests_of_the_wrong_kind(tmp_path: Path) -> None:
    with plugin(tmp_path, "slurm", {"PATH": "/nonexistent", "HOME": str(tmp_path)}) as site:
        assert requests.get(f"{site.url}/create", timeout=10).status_code == 405
        assert requests.get(f"{site.url}/nosuch", timeout=10).status_code == 404
