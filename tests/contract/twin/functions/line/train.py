"""A request in; a version, and a request to validate it, out."""

import json
from dataclasses import dataclass
from pathlib import Path

from functions.line import fit
from layers.learning.manifest import Manifest, version_files, write
from layers.runtime import Job, read_request
from layers.runtime.function import sha256_of


@dataclass(frozen=True)
class Request:
    points: int
    seed: int = 1


@dataclass(frozen=True)
class Settings:
    pass


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    request = read_request(Request, source)
    model = fit.fitted(fit.points(request.points, (request.seed, 0)))
    data = [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in job.inputs]
    manifest = Manifest.of(fit.MODEL, model, data=data, request=vars(request))
    files = version_files(manifest, model)
    write(destination, files)
    inputs = [
        {"bucket": "models", "key": f"{fit.MODEL}/{name}", "sha256": sha256_of(destination / name)} for name in files
    ]
    (destination / f"{source.name}.validate.json").write_text(json.dumps({"inputs": inputs}))
