"""Containers by podman, for real; by Apptainer, as far as its command line goes: it is stood in for by a script."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from infra.hpc.protocol import PodRefused
from tests.cluster import eventually
from tests.infra.hpc.slurm.pods import base64_of, bring, container, log, pod, run, start, status, written
from tests.infra.local.isolation.test_container import image, podman, works

__all__ = ["image"]
contained = pytest.mark.skipif(not works(), reason="there is no podman that works; infra/sandbox-env.sh")
QUOTES = "a'b\"c\n$HOME `id` \\ é\n\n"


def mounting(text: str, image: str, **more: Any) -> dict[str, Any]:
    """A pod with a ConfigMap at /config and a folder at /data."""
    mounts = [{"name": "c", "mountPath": "/config"}, {"name": "d", "mountPath": "/data"}]
    request = pod(
        {**container(text, volumeMounts=mounts, **more), "image": image},
        volumes=[{"name": "c", "configMap": {"name": "m"}}, {"name": "d", "emptyDir": {}}],
    )
    return bring(request, configMaps=[{"metadata": {"name": "m"}, "binaryData": {"file": base64_of(b"content\n")}}])


@contained
def test_a_container_of_podman_sees_what_a_process_does(tmp_path: Path, image: str) -> None:
    env = [
        {"name": "QUOTES", "value": QUOTES},
        {"name": "HOME", "value": "/somewhere"},
        {"name": "JSON", "value": '{"a": "#b"}  '},
        {"name": "EVENT", "value": "x" * 140_000},
    ]
    text = 'printf "%s|%s|%s|%s|" "$QUOTES" "$HOME" "$JSON" "${#EVENT}"; cat /config/file >/data/copy; id -u; exit 7'
    submission = written(tmp_path, mounting(text, f"docker://{image}", env=env), runtime="podman")
    assert run(submission) == 7, log(submission)
    assert log(submission) == f'{QUOTES}|/somewhere|{{"a": "#b"}}  |140000|0\n'
    assert (submission.folder / "volumes/d/copy").read_text() == "content\n"
    assert status(submission) == 7
    assert podman("ps", "--all", "--quiet", "--filter", f"name=dioscar-{submission.name}").stdout == ""


@contained
def test_what_runs_in_a_container_of_podman_hears_sigterm(tmp_path: Path, image: str) -> None:
    function = "trap 'echo saved; exit 75' TERM; touch /data/began; while :; do sleep 0.05; done"
    request = mounting(f"echo event | cat | sh -c {json.dumps(function)}", f"docker://{image}")
    submission = written(tmp_path, request, runtime="podman")
    process = start(submission)
    eventually((submission.folder / "volumes/d/began").exists, what=f"its start ({submission.folder})")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 75
    assert "saved" in log(submission) and status(submission) == 75


def test_a_variable_that_would_change_podman_itself_must_be_a_line(tmp_path: Path) -> None:
    env = [{"name": "PATH", "value": "/a\n/b"}]
    with pytest.raises(PodRefused, match="env PATH"):
        written(tmp_path, pod(container("true", env=env)), runtime="podman")


APPTAINER = """#!/bin/sh
# says how it was called, and runs what follows the image with the variables of the env-file
for word in "$@"; do printf '%s\\n' "$word"; done >{told}
while [ "$1" != {image} ]; do
    [ "$1" != --env-file ] || {{ set -a; . "$2"; set +a; }}
    shift
done
shift
exec "$@"
"""


def apptainer(folder: Path, image: str) -> tuple[Path, dict[str, str]]:
    """Where it will have said how it was called, and the settings that name it."""
    told, program = folder / "told", folder / "apptainer"
    program.write_text(APPTAINER.format(told=told, image=image))
    program.chmod(0o755)
    return told, {"runtime": "apptainer", "runtime_command": str(program)}


def test_apptainer_is_told_of_mounts_and_variables(tmp_path: Path) -> None:
    told, settings = apptainer(tmp_path, "docker://alpine:3")
    request = mounting('printf "%s" "$QUOTES"; exit 7', "alpine:3", env=[{"name": "QUOTES", "value": QUOTES}])
    request["pod"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    submission = written(tmp_path, request, runtime_options=("--cleanenv",), **settings)
    assert run(submission) == 7 and log(submission) == QUOTES
    words = told.read_text().splitlines()
    volumes = submission.folder / "volumes"
    assert words[:3] == ["exec", "--containall", "--no-eval"] and "--nv" in words and "--cleanenv" in words
    assert [words[n + 1] for n, word in enumerate(words) if word == "--bind"] == [
        f"{volumes}/c:/config:ro",
        f"{volumes}/d:/data",
    ]
    assert "a'b" not in told.read_text()


def test_apptainer_runs_an_image_of_its_own_command(tmp_path: Path) -> None:
    told, settings = apptainer(tmp_path, "/images/of.sif")
    request = pod({"name": "main", "image": "/images/of.sif", "args": ["echo", "an argument"]})
    submission = written(tmp_path, request, **settings)
    assert run(submission) == 0 and log(submission) == "an argument\n"
    assert told.read_text().split()[0] == "run"


@pytest.mark.parametrize("image, prefix, name", [
    ("alpine:3", {}, "docker://alpine:3"),
    ("alpine:3", {"slurm-job.vk.io/image-root": "docker://mirror/"}, "docker://mirror/alpine:3"),
    ("oras://x/y", {"slurm-job.vk.io/image-root": "docker://mirror/"}, "oras://x/y"),
])  # fmt: skip
def test_images_are_named_for_apptainer(tmp_path: Path, image: str, prefix: dict[str, str], name: str) -> None:
    told, settings = apptainer(tmp_path, name)
    request = pod({**container("true"), "image": image}, annotations=prefix)
    assert run(written(tmp_path, request, **settings)) == 0
    assert name in told.read_text().splitlines()


def test_annotations_add_options_and_allowed_mounts(tmp_path: Path) -> None:
    told, settings = apptainer(tmp_path, "docker://x")
    annotations = {
        "slurm-job.vk.io/singularity-options": "--no-home --nv",
        "job.vk.io/singularity-mounts": f"--bind {tmp_path}:/there:ro",
    }
    request = pod({**container("true"), "image": "x"}, annotations=annotations)
    assert run(written(tmp_path, request, host_paths=(str(tmp_path),), **settings)) == 0
    words = told.read_text().splitlines()
    assert "--no-home" in words and f"{tmp_path.resolve()}:/there:ro" in words
    with pytest.raises(PodRefused, match="singularity-mounts"):
        written(tmp_path, request, **settings)


@pytest.mark.parametrize("options", ["--bind /:/host", "--no-containall", "-B /", "--overlay x", "--env A=b", "image"])
def test_options_that_open_the_node_are_refused(tmp_path: Path, options: str) -> None:
    request = pod({**container("true"), "image": "x"}, annotations={"slurm-job.vk.io/singularity-options": options})
    with pytest.raises(PodRefused, match="singularity-options"):
        written(tmp_path, request, runtime="apptainer")


def test_a_node_without_the_runtime_says_so(tmp_path: Path) -> None:
    submission = written(tmp_path, pod({**container("true"), "image": "x"}), runtime="apptainer")
    assert run(submission, PATH="/usr/bin:/bin") == 127
    assert "no apptainer nor singularity on this node" in log(submission)
