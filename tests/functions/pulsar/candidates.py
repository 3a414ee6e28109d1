"""Versions of the classifier for tests: the shipped network with other thresholds, and what is no version at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx

from functions.pulsar import classifier
from functions.pulsar.gate import MODEL
from layers.learning.registry import Manifest
from layers.runtime import Input

SHIPPED = Path(classifier.__file__).parent / f"{MODEL}.onnx"
WEAK = {"pulse": 0.97, "nbrfi": 0.05, "bbrfi": 0.2, "other": 0.97}
"""Thresholds with which a good network is a poor classifier."""


def variant(**metadata: str | None) -> bytes:
    """The shipped model with other metadata; None leaves a key out."""
    model = onnx.load(str(SHIPPED))
    kept = {entry.key: entry.value for entry in model.metadata_props} | metadata
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
    return model.SerializeToString()


def with_thresholds(**thresholds: float) -> bytes:
    """The shipped network with some thresholds replaced."""
    shipped = json.loads(classifier.load(SHIPPED).metadata["thresholds"])
    return variant(thresholds=json.dumps({**shipped, **thresholds}))


def version(folder: Path, content: bytes, **facts: Any) -> list[Input]:
    """A version's files in `folder`, as a request's inputs."""
    manifest = Manifest.of(MODEL, content, **facts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return [
        given(folder / name, f"{MODEL}/versions/{manifest.version}/{name}") for name in ("model.onnx", "manifest.json")
    ]


def given(path: Path, key: str = "") -> Input:
    """A file as a request's input."""
    return Input("models", key or path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path)
