"""A trained generator as a version of the registry, and the request that has it validated."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from functions.calorimeter.generator import MODEL
from functions.calorimeter.plain import plain
from functions.calorimeter.training.data import HELD, Collection
from functions.calorimeter.validation.samples import LEAST_SHOWERS
from layers.learning import registry
from layers.runtime import Input
from layers.runtime.function import load, sha256_of

STREAMS = {
    "batches": "(seed, 11, epoch)",
    "score": "(seed, shower), (seed, 1)",
    "steps": "the learner's, all from the seed",
}
"""What seeds the random numbers of a training."""


def write_version(
    source: Path,
    destination: Path,
    model: bytes,
    about: Mapping[str, Any],
    metrics: Mapping[str, Any],
    request: Mapping[str, Any],
    collection: Collection,
    *,
    parent: str,
    bucket: str,
) -> str:
    """Write `versions/<version>/`, with what is held out, and `<request>.validate.json`; returns the version.

    Where less is held out than a validation can work on, the request is left out: its job would only fail.
    `about` are the model's `training_range` and `units`, `parent` the version that it was started from.
    """
    files = [file.item for file in collection.files]
    manifest = registry.Manifest.of(
        MODEL,
        model,
        parent=parent,
        code=load("calorimeter.train").version,
        metrics=plain(metrics),
        data=[_named(item) for item in files],
        units=about["units"],
        training_range=about["training_range"],
        request={
            "name": source.name,
            "sha256": sha256_of(source),
            "parameters": request,
            "streams": STREAMS,
            "simulated_by": collection.engine,
        },
    )
    written = registry.version_files(manifest, model)
    registry.write(destination, written)
    folder = destination / next(iter(written))
    held_out = list(collection.write_held_out(folder.parent))
    names = [*written, *(path.relative_to(destination).as_posix() for path in held_out)]
    version = [{"bucket": bucket, "key": f"{MODEL}/{name}", "sha256": sha256_of(destination / name)} for name in names]
    if collection.count(HELD) >= LEAST_SHOWERS:
        validate = {"inputs": [*version, *(_named(item) for item in files)]}
        (destination / f"{source.name}.validate.json").write_text(json.dumps(validate, indent=1) + "\n")
    return manifest.version


def _named(item: Input) -> dict[str, str]:
    return {"bucket": item.bucket, "key": item.key, "sha256": item.sha256}
