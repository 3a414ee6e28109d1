"""The images that the FDL files name: built here, and run by podman from the FDL itself."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdl.document import read_file
from fdl.model import dumps
from layers.runtime.testing import call
from tests.cluster import ROOT, Cluster, running_cluster
from tests.functions.pulsar.conftest import SMALL
from tests.infra.local.isolation.walls import outcome

BUILD = ROOT / "infra" / "cluster" / "images" / "build.sh"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("podman", "mmdebstrap"))),
        reason="there are no podman and mmdebstrap; infra/sandbox-env.sh",
    ),
]


@pytest.fixture(scope="module")
def image() -> str:
    """The image of the pulsar twin."""
    built = subprocess.run([BUILD, "pulsar"], check=False, capture_output=True, text=True, timeout=1800)
    assert built.returncode == 0, built.stderr
    return built.stdout.strip()


@pytest.fixture(scope="module")
def cluster(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("images") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Frames of a small observation."""
    folder = tmp_path_factory.mktemp("frames")
    request = folder / "request.json"
    request.write_text(dumps(SMALL))
    for function, source in (("synthesise", request), ("preprocess", folder / "request.json.fil")):
        made = call(f"pulsar.{function}", source, folder)
        assert made.code == 0, made.message
    return (folder / "request.json.fil.h5").read_bytes()


def inside(image: str, script: str) -> str:
    command = ["podman", "run", "--rm", "--pull=never", "--network=none", "--ulimit=nofile=4096:4096"]
    command += ["--ulimit=nproc=4096:4096", "--entrypoint=/bin/sh", image, "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def deploy(cluster: Cluster, image: str, executor: str) -> None:
    """Deploy the classifier as its FDL says, on an executor."""
    service = next(one for one in read_file(ROOT / "fdl" / "pulsar.yaml").services if one.name == "pulsar-classify")
    assert service.image == image
    document = service.model_dump(mode="json")
    document["annotations"] = {**document["annotations"], "dioscar/executor": executor, "dioscar/retries": "0"}
    there = cluster.http.get(cluster.url("/system/services/pulsar-classify")).status_code == 200
    answer = (cluster.http.put if there else cluster.http.post)(cluster.url("/system/services"), data=dumps(document))
    assert answer.status_code in (201, 204), answer.text


def test_the_classifier_says_in_its_image_what_it_says_in_a_process(cluster: Cluster, image: str, frames: bytes):
    labels = {}
    for executor in ("container", "process"):
        deploy(cluster, image, executor)
        key = f"in/{executor}/sky.h5"
        job, log = outcome(cluster, "pulsar-classify", frames, key)
        assert job["state"] == "Succeeded", log + job["reason"]
        labels[executor] = cluster.read("pulsar-classify", f"out/{executor}/sky.h5.labels.json")
    assert labels["container"] == labels["process"] and len(labels["process"]) > 1000


def test_a_call_of_the_classifier_is_answered_from_its_image(cluster: Cluster, image: str, frames: bytes):
    deploy(cluster, image, "container")
    answer = cluster.run("pulsar-classify", frames)
    assert answer.status_code == 200, answer.text
    bad = cluster.run("pulsar-classify", b"no frames")
    assert bad.status_code == 400 and "Traceback" not in bad.text


def test_an_image_holds_nothing_of_the_machine_that_built_it(image: str, tmp_path: Path):
    assert (
        inside(
            image, "ls /etc/pip.conf /run/build-ca.crt /etc/apt/sources.list 2>/dev/null; cat /etc/resolv.conf"
        ).strip()
        == ""
    )
    certificates = "md5sum </etc/ssl/certs/ca-certificates.crt"
    assert inside(image, certificates) == inside("localhost/dioscar-base:bookworm", certificates)
    said = inside(
        image, "python3 -P -c 'import layers.runtime.worker, functions.pulsar.classify, matplotlib; print(1)'"
    )
    assert said == "1\n"
    history = subprocess.run(["podman", "image", "inspect", image], check=True, capture_output=True, text=True).stdout
    assert str(ROOT) not in history and "proxy" not in history.lower()
