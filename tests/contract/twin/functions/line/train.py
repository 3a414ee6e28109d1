"""A request in; a version, and a request to validate it, out."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from functions.line import fit
from layers.learning.manifest import Manifest, version_files, write
from layers.runtime import Checkpointed, Job, read_request
from layers.runtime.function import sha256_of


@dataclass(frozen=True)
class Request:
    points: int
    seed: int = 1
    parts: int = 1
    pause_s: float = 0.0
    """After each part: time for somebody to stop it."""


@dataclass(frozen=True)
class Settings:
    pass


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    request = read_request(Request, source)
    for number, part in enumerate(np.array_split(fit.points(request.points, (request.seed, 0)), request.parts)):
        path = job.checkpoint / f"{number:03d}.npy"
        if path.exists():
            continue
        np.save(path, part)
        job.keep()
        job.progress(number + 1, request.parts)
        time.sleep(request.pause_s)
        if job.stopping and number + 1 < request.parts:
            raise Checkpointed(f"stopped after {number + 1} parts")
    model = fit.fitted(np.concatenate([np.load(path) for path in sorted(job.checkpoint.glob("*.npy"))]))
    data = [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in job.inputs]
    manifest = Manifest.of(fit.MODEL, model, data=data, request=vars(request))
    files = version_files(manifest, model)
    write(destination, files)
    inputs = [
        {"bucket": "models", "key": f"{fit.MODEL}/{name}", "sha256": sha256_of(destination / name)} for name in files
    ]
    (destination / f"{source.name}.validate.json").write_text(json.dumps({"inputs": inputs}))
