"""Pods as interLink sends them, for tests of what is made of them."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.hpc.batch import Submission
from infra.hpc.protocol import CreateRequest
from infra.hpc.script import write
from infra.hpc.settings import Settings

UID = "6b1d1c1e-0000-4000-8000-000000000001"


def container(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """One that runs a few lines of shell."""
    return {"name": name, "image": "docker://any", "command": ["/bin/sh", "-c"], "args": [script], **more}


def pod(
    *containers: dict[str, Any], uid: str = UID, annotations: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """A request that mounts nothing that comes with it; see `bring`."""
    metadata = {"name": "a-pod", "namespace": "default", "uid": uid, "annotations": annotations}
    nothing = {"configMaps": None, "projectedvolumemaps": None, "secrets": None, "emptyDirs": None}
    all_containers = [*spec.get("initContainers", []), *containers]
    return {
        "pod": {"metadata": metadata, "spec": {"containers": list(containers), "restartPolicy": "Never", **spec}},
        "container": [{"name": one["name"], **nothing} for one in all_containers],
        "jobConfig": {"SingularityHubProxy": "", "ApptainerOptions": {}, "Volumes": []},
    }


def bring(request: dict[str, Any], **objects: Any) -> dict[str, Any]:
    """The same request, the first container's data with these objects."""
    request["container"][0].update(objects)
    return request


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def settings_for(root: Path, **more: Any) -> Settings:
    return Settings(**{"root": root, "runtime": "process", **more})


def written(root: Path, request: dict[str, Any], **settings: Any) -> Submission:
    """The pod's submission, its folder made and filled."""
    uid = request["pod"]["metadata"]["uid"]
    folder = root / f"default-{uid}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return write(CreateRequest.model_validate(request), folder, settings_for(root, **settings))


def start(submission: Submission, job: str = "1", **environ: str) -> subprocess.Popen[bytes]:
    """The job's script, as a batch system starts it: a session of its own."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    output = (submission.folder / "job.out").open("ab")
    with output:
        return subprocess.Popen(
            ["/bin/sh", submission.script],
            env={"PATH": path, "HOME": str(submission.folder), "DIOSCAR_HPC_JOB": job, **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def run(submission: Submission, **environ: str) -> int:
    """Its exit status."""
    return start(submission, **environ).wait(60)


def log(submission: Submission, name: str = "main") -> str:
    return (submission.folder / f"{name}.log").read_text()


def status(submission: Submission, name: str = "main") -> int | None:
    path = submission.folder / f"{name}.status"
    return int(path.read_text()) if path.exists() else None
