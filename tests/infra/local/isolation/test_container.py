"""Runs in containers: OSCAR's contract, their limits, and nothing left when they end, by podman."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from layers.learning.registry import Manifest, Registry
from tests.cluster import SANDBOX, Cluster, eventually
from tests.infra.local.isolation.walls import outcome, ran

IMAGE = "ghcr.io/dioscar/test:0"
EXECUTOR = {"dioscar/executor": "container"}


def podman(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *arguments], check=False, capture_output=True, text=True, timeout=300, **options)


def works() -> bool:
    """Whether containers can be run here: tried with an image that has nothing but a busybox or a dash."""
    return shutil.which("podman") is not None and podman("info").returncode == 0


pytestmark = pytest.mark.skipif(not works(), reason="there is no podman that works; infra/sandbox-env.sh")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image of this machine's shell and a few of its tools: small, and made without a network."""
    root = tmp_path_factory.mktemp("image")
    tools = [found for name in TOOLS if (found := shutil.which(name))]
    files: set[str] = set()
    for tool in tools:
        listed = subprocess.run(["ldd", tool], check=False, capture_output=True, text=True).stdout
        files |= set(re.findall(r"/[^ ()]+", listed))
    for tool in tools:
        target = root / "bin" / Path(tool).name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(tool, target)
    for file in files:
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(file), target)
    for folder in ("tmp", "proc", "dev", "sys", "etc"):
        (root / folder).mkdir()
    (root / "tmp").chmod(0o1777)
    archive = root.with_suffix(".tar")
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    imported = podman("import", "--change", "ENV PATH=/bin", "--change", "ENV OF_IMAGE=yes", str(archive), IMAGE)
    assert imported.returncode == 0, imported.stderr
    yield IMAGE
    podman("rmi", "--force", IMAGE)


TOOLS = (
    "sh",
    "cat",
    "cp",
    "sleep",
    "touch",
    "ls",
    "id",
    "env",
    "head",
    "tail",
    "sort",
    "tr",
    "true",
    "ps",
    "kill",
    "mkdir",
)


@pytest.fixture(scope="module")
def cluster(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("containers") / "data")
    running.environ = {SANDBOX: "off"}
    running.start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


@contextmanager
def running_cluster_of(data: Path, **environ: str) -> Iterator[Cluster]:
    cluster = Cluster(data)
    cluster.environ = environ
    cluster.start()
    try:
        yield cluster
    finally:
        if cluster.process is not None and cluster.process.poll() is None:
            cluster.stop()


def contained(cluster: Cluster, name: str, script: str, **more: Any) -> tuple[dict[str, Any], str]:
    annotations = {**EXECUTOR, **more.pop("annotations", {})}
    return ran(cluster, name, script, **{"image": IMAGE, "annotations": annotations, **more})


def containers() -> list[str]:
    return podman("ps", "--all", "--quiet", "--filter", "label=dioscar.cluster").stdout.split()


def test_a_script_has_oscar_s_contract_in_its_image(cluster: Cluster):
    script = """
    cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copied"
    mkdir "$TMP_OUTPUT_DIR/below"; printf "%s\\n" "$MANY" > "$TMP_OUTPUT_DIR/below/many"
    cat /oscar/config/script.sh | head -n 2; echo "$STORAGE_OBJECT_KEY $OF_IMAGE $PATH"; env
    """
    many = "two lines\nof 'text' $HOME `id` \\n ä"
    job, log = contained(cluster, "contract", script, environment={"variables": {"MANY": many}})
    assert job["state"] == "Succeeded", log + job["reason"]
    assert cluster.read("contract", "out/copied") == b"x"
    assert cluster.read("contract", "out/below/many").decode() == many + "\n"
    lines = log.splitlines()
    assert "in/a yes /bin" in lines and 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copied"' in log
    assert "DIOSCAR_CLUSTER" not in log and "PYTHONPATH" not in log
    reply = cluster.run("contract", b"called")
    assert reply.status_code == 200, reply.text


def test_a_container_is_closed_read_only_and_nobody(cluster: Cluster):
    script = """
    id -u; for file in /x /bin/x /etc/x; do touch $file && echo wrote; done
    touch /tmp/x "$TMPDIR/x" "$HOME/x" && echo mine
    cat /proc/self/status /proc/net/dev; ls / /oscar/config
    """
    job, log = contained(cluster, "closed", script)
    lines = log.splitlines()
    assert job["state"] == "Succeeded" and "wrote" not in lines and "mine" in lines
    assert "CapEff:\t0000000000000000" in lines and "NoNewPrivs:\t1" in lines and lines[0] == str(os.getuid() or 1000)
    assert [line.split(":")[0].strip() for line in lines if re.match(r" *\w+: +\d+ +\d+ +\d+ +\d+", line)] == ["lo"]


def test_the_network_is_there_for_a_service_that_asks(cluster: Cluster):
    _, log = contained(cluster, "open", "cat /proc/net/dev", annotations={"dioscar/network": "true"})
    assert log.splitlines() != [] and "lo:" in log
    ours = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}
    assert {line.split(":")[0].strip() for line in log.splitlines()[2:]} == ours


def test_memory_processor_and_processes_are_limited(cluster: Cluster):
    job, _ = contained(cluster, "hungrier", "x=$(head -c 300m /dev/zero | tr '\\0' x); echo kept", memory="64Mi")
    assert (job["exit_code"], job["state"]) == (137, "Dead")
    assert job["reason"] == (
        "OutOfMemory: was killed, most likely for more than its 64 MiB (memory in the FDL); give it more"
    )
    script = "n=0; while [ $n -lt 700 ]; do n=$((n+1)); sleep 30 & done; echo started"
    job, log = contained(cluster, "forks", script)
    assert job["state"] == "Dead" and "fork" in log.lower(), log[-500:]
    assert not containers()


def test_an_end_is_told_as_it_was(cluster: Cluster):
    job, _ = contained(cluster, "fails", "echo why >&2; exit 7")
    assert (job["exit_code"], job["reason"]) == (7, "the script ended with status 7: why")
    job, _ = contained(cluster, "fails", "echo mine; exit 125")
    assert (job["exit_code"], job["reason"]) == (125, "the script ended with status 125: mine")


def test_an_image_that_is_missing_is_one_sentence(cluster: Cluster):
    job, _ = contained(cluster, "absent", "true", image="docker://ghcr.io/dioscar/absent:1")
    assert job["reason"] == (
        'ContainerError: image "ghcr.io/dioscar/absent:1" is not on this machine; build it, or get it with '
        "`podman pull ghcr.io/dioscar/absent:1`"
    )


def test_a_container_ends_with_its_time_and_with_its_job(cluster: Cluster):
    script = 'trap "echo told; exit 0" TERM; echo ready; while :; do sleep 0.1; done'
    job, log = contained(cluster, "late", script, annotations={"dioscar/timeout": "3"})
    assert job["reason"].startswith("Timeout: took longer than 3 s") and "told" in log
    began = time.monotonic()
    job, log = contained(cluster, "later", "sleep 600", annotations={"dioscar/timeout": "1"})
    assert job["reason"].startswith("Timeout: took longer than 1 s") and time.monotonic() - began < 600
    cluster.deploy("cancelled", script="echo ready; exec sleep 600", image=IMAGE, annotations=EXECUTOR)
    cluster.put("cancelled", "in/a", b"x")
    job = eventually(lambda: cluster.jobs(service="cancelled", state="Running"))[0]
    eventually(lambda: "ready" in cluster.job_log(job), what="its first line")
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel"))
    eventually(lambda: not containers(), what="the end of its container")


def test_a_container_reads_the_model_that_serves_and_cannot_change_it(cluster: Cluster, tmp_path: Path):
    cluster.http.post(cluster.url("/system/buckets"), json={"bucket_name": "its-models"}).raise_for_status()
    (tmp_path / "model").write_text("weights")
    manifest = Manifest.of("tiny-model", b"weights")
    registry = Registry(cluster.s3, "its-models")
    registry.promote("tiny-model", registry.add(manifest, tmp_path / "model"), force=True, reason="a test")
    variables = {"DIOSCAR_FUNCTION": "contract.serve", "DIOSCAR_REGISTRY": "its-models"}
    script = 'cat "$DIOSCAR_MODEL_TINY_MODEL"; echo; touch "$DIOSCAR_MODEL_TINY_MODEL" || echo not mine'
    job, log = contained(cluster, "served", script, variables=variables)
    assert job["state"] == "Succeeded"
    assert log.splitlines()[0] == "weights" and "not mine" in log.splitlines()


def test_what_a_killed_cluster_left_is_removed_at_the_next_start(image: str, tmp_path: Path):
    cluster = Cluster(tmp_path / "data")
    cluster.start()
    cluster.deploy(
        "orphan",
        script='[ -e "$HOME/seen" ] && exit 0; touch "$HOME/seen"; exec sleep 600',
        image=IMAGE,
        annotations=EXECUTOR,
    )
    cluster.put("orphan", "in/a", b"x")
    eventually(lambda: list(cluster.data.glob("homes/orphan/seen")), what="the container's first step")
    cluster.kill()
    assert containers()
    cluster.start()
    assert cluster.ended("orphan", patience_s=120)[0]["state"] == "Succeeded"
    assert not containers()
    cluster.stop()


def test_a_cluster_can_have_containers_for_all(image: str, tmp_path: Path):
    with running_cluster_of(tmp_path / "data", DIOSCAR_EXECUTOR="container") as cluster:
        for name, annotations in (("says-nothing", {}), ("says-process", {"dioscar/executor": "process"})):
            cluster.deploy(name, script='echo "$OF_IMAGE"', image=IMAGE, annotations=annotations)
            assert outcome(cluster, name)[1].strip() == "yes"


def test_what_is_no_name_of_an_image_is_no_option_either(cluster: Cluster):
    images = (
        "--privileged",
        "--volume=/:/host",
        "dir:/etc",
        "docker-archive:/etc/passwd",
        "oci:x",
        "a b",
        "-",
        "http://x/y",
    )
    for number, image in enumerate(images):
        job, _ = contained(cluster, f"no-image-{number}", "true", image=image)
        assert job["reason"] == "ContainerError: image: is no name of an image; write HOST/NAME:TAG"
