"""`up`, `down`, `status`, `config`: the embedded cluster's life."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from infra.cli import embedded
from tests.cluster import Cluster, eventually
from tests.infra.cli.conftest import Dioscar

ANYWHERE = ("--api", "127.0.0.1:0", "--s3", "127.0.0.1:0")


def test_a_cluster_starts_in_the_background_answers_and_stops(dioscar: Dioscar, tmp_path: Path) -> None:
    data = tmp_path / "data"
    try:
        said = dioscar("up", "--detach", "--data", data, *ANYWHERE)
        assert said.status == 0
        assert said.out.startswith("OSCAR API http://127.0.0.1:")
        running = embedded.require(data)
        assert requests.get(f"{running.api}/health", timeout=10).text == "Ok"
        assert stat.S_IMODE((data / "cluster.json").stat().st_mode) == 0o600
        assert dioscar("up", "--detach", "--data", data, *ANYWHERE).out == said.out, "the second one finds the first"
        already = dioscar("up", "--data", data)
        assert already.status == 1
        assert "runs on" in already.err
    finally:
        assert dioscar("down", "--data", data).status == 0
    assert embedded.find(data) is None
    assert not (data / "cluster.json").exists()
    assert dioscar("down", "--data", data).out == f"No cluster runs on {data}.\n"


def test_a_cluster_in_the_foreground_stops_when_it_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "infra.cli", "up", "--data", str(tmp_path), *ANYWHERE]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        running = eventually(lambda: embedded.find(tmp_path))
        assert running.pid == process.pid, "the command is the cluster, so a supervisor of processes can watch it"
        process.terminate()
        assert process.wait(30) == 0


def test_an_address_in_use_is_said_to_be_so(dioscar: Dioscar, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = dioscar("up", "--detach", "--data", tmp_path, "--api", address, "--s3", "127.0.0.1:0")
    assert said.status == 1
    assert address in said.err
    assert len(said.err.splitlines()) == 1


def test_what_a_killed_cluster_left_behind_is_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps({"pid": 2**22 + 1, "api": "http://127.0.0.1:1", "s3": ""}))
    assert embedded.find(tmp_path) is None
    (tmp_path / "cluster.json").write_text(json.dumps({"pid": os.getpid(), "api": "http://127.0.0.1:1", "s3": ""}))
    assert embedded.find(tmp_path) is None, "the number has passed on to another program"


def test_a_broken_state_file_is_named(dioscar: Dioscar, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    said = dioscar("status", "--cluster", tmp_path)
    assert said.status == 1
    assert "cluster.json: is no state of a cluster; remove it" in said.err


def test_config_gives_other_clients_what_they_need(on: Dioscar, cluster: Cluster) -> None:
    facts = on("config", "--json").json
    assert facts == {
        "cluster_id": "dioscar",
        "api": cluster.facts["api"],
        "oscar_username": cluster.facts["oscar_username"],
        "oscar_password": cluster.facts["oscar_password"],
        "s3": cluster.facts["s3"],
        "minio_access_key": cluster.facts["minio_access_key"],
        "minio_secret_key": cluster.facts["minio_secret_key"],
        "region": "us-east-1",
    }
    assert f"oscar-cli cluster add dioscar {cluster.facts['api']} oscar" in on("config").out


def test_status_counts(on: Dioscar, cluster: Cluster) -> None:
    facts = on("status", "--json").json
    assert facts["cluster"] == cluster.facts["api"]
    assert {"version", "uptime_s", "services", "jobs", "objects", "bytes", "workers"} <= facts.keys()
    assert on("status").out.startswith(f"{cluster.facts['api']}: DiOSCAR 0.1.0, up ")


@pytest.mark.parametrize("command", ["status", "config", "ls", "jobs"])
def test_without_a_cluster_every_command_says_so(
    dioscar: Dioscar, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIOSCAR_DATA", str(tmp_path))
    said = dioscar(command)
    assert (said.status, said.out) == (69, "")
    assert said.err == f"dioscar: no cluster runs on {tmp_path}; start one with: dioscar up --detach\n"
