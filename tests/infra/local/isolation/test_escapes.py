"""Runs that put links, pipes and other things where the cluster looks: it does not follow."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.beneath import open_file
from tests.cluster import Cluster, running_cluster
from tests.infra.local.isolation.walls import has_bubblewrap, outcome, ran, tried, walled


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("escapes") / "data"
    with walled(data) if has_bubblewrap() else running_cluster(data) as running:
        yield running


def secret(cluster: Cluster) -> str:
    return str(json.loads((cluster.data / "credentials.json").read_text())["oscar_password"])


@pytest.mark.parametrize("folder", ["$TMP_OUTPUT_DIR", "$TMPDIR/output"])
def test_a_link_in_the_place_of_the_output_folder_carries_nothing_off(cluster: Cluster, folder: str):
    name = f"output-{len(folder)}"
    script = f'rm -r "$TMP_OUTPUT_DIR"; ln -s {cluster.data} "{folder}"'
    job, _ = ran(cluster, name, script)
    assert (job["state"], job["outputs"]) == ("Dead", [])
    assert job["reason"] == "InputError: output: is a link; leave the run's folders where they are"
    answer = cluster.run(name, b"x")
    assert answer.status_code == 400 and secret(cluster) not in answer.text
    assert cluster.objects(name, "out/") == {}


def test_a_link_among_the_outputs_carries_nothing_off(cluster: Cluster):
    job, _ = ran(cluster, "link", f'ln -s {cluster.data}/credentials.json "$TMP_OUTPUT_DIR/a"')
    assert (job["state"], job["outputs"]) == ("Dead", [])


@pytest.mark.parametrize("how", ["ln -s {}/credentials.json", "mkfifo"])
def test_what_a_run_says_of_itself_is_no_link_and_no_pipe(cluster: Cluster, how: str):
    name = f"says-{how.split()[0]}"
    make = how.format(cluster.data)
    script = f'{make} "$TMPDIR/progress.json"; {make} "$TMPDIR/outcome.json"; sleep 1; exit 3'
    cluster.deploy(name, script=script, annotations={"dioscar/retries": "0"})
    cluster.put(name, "in/a", b"x")
    while cluster.jobs(service=name)[0]["state"] in ("Pending", "Running"):
        assert cluster.jobs(service=name)[0]["progress"] is None
    assert cluster.jobs(service=name)[0]["reason"] == "the script ended with status 3"


def test_what_a_call_prints_is_out_of_its_reach(cluster: Cluster):
    script = f'find "$TMPDIR" -name "*log*" -delete; ln -sf {cluster.data}/credentials.json "$TMPDIR/log"; echo printed'
    cluster.deploy("prints", script=script)
    assert cluster.run("prints", b"x").text == "printed\n"
    assert list(cluster.data.glob("run/*/*")) == []


@pytest.mark.skipif(not has_bubblewrap(), reason="there is no bubblewrap that works; infra/sandbox-env.sh")
@pytest.mark.parametrize("kind", ["process", "warm"])
def test_a_job_reads_nothing_of_others(cluster: Cluster, kind: str):
    """Runs, checkpoints and homes of other services and owners, the store, the keys, logs and sources of the cluster.

    A process sees of its own service its own run alone; a worker, which serves them all, sees all of them.
    """
    data, name = cluster.data, f"reads-{kind}"
    planted = [
        data / "run" / "other-service" / "job" / "input",
        data / "checkpoints" / "other-service" / "job",
        data / "checkpoints" / f"{name}~0123456789abcdef" / "job",
        data / "homes" / "other-service" / "kept",
        data / "volumes" / "oscar-svc" / "other",
        data / "models" / "0123456789abcdef" / "model.onnx",
    ]
    own_run = data / "run" / name / "another-job"
    for folder in (*planted, own_run):
        folder.mkdir(parents=True, exist_ok=True)
    hidden = [
        *planted,
        *(data / part for part in ("credentials.json", "cluster.json", "dioscar.db", "blobs", "logs", "volumes")),
        *(data / part for part in ("exposed", "homes", "sandbox", "cluster.log")),
        *(Path.home() / ".ssh", Path("/etc/shadow"), Path("/var/lib")),
    ]
    if kind == "warm":
        said = tried(cluster, name, *(f"list {path}" for path in (*hidden, own_run)))
        assert said.pop(f"list {own_run}") == ""
        assert set(said.values()) == {"FileNotFoundError"}, said
    else:
        script = "\n".join(f"[ -e '{path}' ] && echo 'sees {path}'" for path in (*hidden, own_run))
        job, log = ran(cluster, name, f"{script}\ntrue")
        assert (job["state"], log) == ("Succeeded", "")
    for folder in (*planted, own_run):
        shutil.rmtree(folder)


@pytest.mark.skipif(not has_bubblewrap(), reason="there is no bubblewrap that works; infra/sandbox-env.sh")
def test_a_warm_worker_does_not_see_its_logs(cluster: Cluster):
    cluster.deploy("unseen", variables={"DIOSCAR_FUNCTION": "isolation.trespass"})
    job, log = outcome(cluster, "unseen", f"list {cluster.data}\nlist {cluster.data}/logs".encode())
    assert job["state"] == "Succeeded" and "isolation.trespass" in log
    said = cluster.read("unseen", "out/said.txt").decode().splitlines()
    assert said[0].endswith(": checkpoints home models run") and said[1].endswith(": FileNotFoundError")


def test_a_file_is_opened_without_any_link_on_the_way(tmp_path: Path):
    (tmp_path / "run" / "mine").mkdir(parents=True)
    (tmp_path / "run" / "mine" / "a").write_text("a")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a").write_text("secret")
    (tmp_path / "run" / "link").symlink_to(tmp_path / "keys")
    (tmp_path / "run" / "mine" / "b").symlink_to(tmp_path / "keys" / "a")
    for path in ("run/link/a", "run/mine/b", "run/mine", "keys/a"):
        with pytest.raises(OSError):
            open_file(tmp_path / path, tmp_path / "run")
    with os.fdopen(open_file(tmp_path / "run" / "mine" / "a", tmp_path / "run")) as file:
        assert file.read() == "a"
