"""A trained model as a version of the registry, and the request that has it validated."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from functions.pulsar import classifier, seen
from functions.pulsar.gate import LEAST_FRAMES, MODEL
from layers.learning import registry
from layers.runtime import Input
from layers.runtime.function import load, sha256_of

STREAMS = {
    "training": "(seed, epoch, chunk)",
    "order": "(seed, 7, step)",
    "thresholds": "(seed, 2^30, 0)",
    "metrics": "(seed, 2^30, 1)",
}
"""What seeds the random numbers of a training; `functions.pulsar.tested` has one of its own."""


def write_version(
    source: Path, destination: Path, model: bytes, metrics: Mapping[str, Any], inputs: Sequence[Input], bucket: str
) -> str:
    """Write `versions/<version>/` and `<request>.validate.json`; `source` is what `model` was asked for by.

    Returns the version.
    """
    metadata = classifier.load(destination / f"{source.name}.onnx").metadata
    manifest = registry.Manifest.of(
        MODEL,
        model,
        code=load("pulsar.train").version,
        metrics=_plain({name: value for name, value in metrics.items() if name not in ("request", "losses")}),
        data=seen.with_frames(
            [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in inputs],
            [item.path for item in inputs],
        ),
        units={"inputs": metadata["units"]},
        training_range=json.loads(metadata["training_range"]),
        request={
            "name": source.name,
            "sha256": sha256_of(source),
            "parameters": metrics["request"],
            "streams": STREAMS,
        },
    )
    files = registry.version_files(manifest, model)
    registry.write(destination, files)
    request = {
        "frames": max(LEAST_FRAMES, metrics["request"]["validation_frames"]),
        "inputs": [
            {"bucket": bucket, "key": f"{MODEL}/{name}", "sha256": sha256_of(destination / name)} for name in files
        ],
    }
    (destination / f"{source.name}.validate.json").write_text(json.dumps(request, indent=1) + "\n")
    return manifest.version


def _plain(value: Any) -> Any:
    """What is not finite, such as the recall of pulses where there were none, as null."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value
