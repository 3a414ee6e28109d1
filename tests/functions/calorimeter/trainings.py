"""Small samples of showers, and trainings on them with a family of models of the tests' own."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from functions.calorimeter import learners
from layers.runtime import Input
from layers.runtime.function import sha256_of
from layers.runtime.testing import Outcome, call

DETECTOR = {
    "name": "toy",
    "cells": 7,
    "cell_mm": 12,
    "layers": [{"count": 6, "absorber": "W", "absorber_mm": 8, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 1}],
}
THRESHOLD = "0.1"
TINY = {"family": "tiny", "parameters": {"steps": 60}, "seed": 3, "evaluate_every": 15}
SERVED = "DIOSCAR_MODEL_CALORIMETER_GENERATOR"


def register() -> None:
    """Have `train` know the family `tiny`, in this process."""
    learners.FAMILIES["tiny"] = "tests.functions.calorimeter.tiny_learner"


def prepared(folder: Path, name: str = "a", threshold: str = THRESHOLD, **request: Any) -> Input:
    """Showers by GFLASH as `preprocess` makes them, as an input of a request."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"engine": "gflash", "detector": DETECTOR, "energy_gev": [5, 20], "showers": 200, "seed": 1, **request}
    source = folder / f"{name}.json"
    source.write_text(json.dumps(asked))
    outcome = call("calorimeter.simulate", source, folder)
    assert outcome.code == 0, outcome.message
    outcome = call(
        "calorimeter.preprocess", folder / f"{name}.json.root", folder, settings={"THRESHOLD_MEV": threshold}
    )
    assert outcome.code == 0, outcome.message
    return as_input(folder / f"{name}.json.root.h5")


def as_input(path: Path, bucket: str = "data", key: str = "") -> Input:
    """A file as an object that a request names."""
    return Input(bucket, key or path.name, sha256_of(path), path)


def train(
    folder: Path,
    inputs: Sequence[Input],
    request: Mapping[str, Any] = TINY,
    settings: Mapping[str, str] | None = None,
    **options: Any,
) -> Outcome:
    """Run `calorimeter.train` on a request in `folder`, its outputs beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "r.json"
    whole(source, json.dumps(request))
    served = folder / "served.onnx"
    if not served.exists():
        whole(served, "no model")
    environ = {SERVED: str(served), "THREADS": "1", **(settings or {})}
    return call("calorimeter.train", source, folder / "out", settings=environ, inputs=inputs, **options)


def whole(path: Path, text: str) -> None:
    """Write a file that other ranks may be reading: they find all of it, or the one before."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)


def files(folder: Path) -> dict[str, bytes]:
    """The outputs of a training by their paths, without the records of runs."""
    out = folder / "out"
    paths = [path for path in out.rglob("*") if path.is_file() and "_runs" not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
