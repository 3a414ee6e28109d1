"""The candidate of a validation: one model and its own manifest, or one sentence."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from layers.learning.candidate import read_version
from layers.learning.registry import Manifest
from layers.runtime import Input, InputError

CONTENT = b"a model"


def given(folder: Path, name: str, content: bytes) -> Input:
    path = folder / name
    path.write_bytes(content)
    return Input("models", f"toy/versions/1/{name}", hashlib.sha256(content).hexdigest(), path)


def manifest(model: str = "toy", content: bytes = CONTENT, **more: Any) -> bytes:
    return Manifest.of(model, content, data=[], **more).to_bytes()


def read(inputs: list[Input]) -> tuple[Input, Manifest]:
    return read_version("r.json", inputs, "toy", beside="some data", mend="train one")


def test_a_model_and_its_manifest_are_found_among_other_inputs(tmp_path: Path) -> None:
    inputs = [given(tmp_path, name, content) for name, content in (("a.h5", b"data"), ("model.onnx", CONTENT))]
    model, found = read([*inputs, given(tmp_path, "manifest.json", manifest())])
    assert model.path.read_bytes() == CONTENT
    assert found.version == hashlib.sha256(CONTENT).hexdigest()[:16]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (None, r"r\.json: inputs: 0 of them end in manifest\.json; name .* beside some data"),
        (manifest("other"), r"manifest\.json: is the manifest of other .*; train one"),
        (manifest(content=b"another"), r"is the manifest of toy .*, not of toy/versions/1/model\.onnx; train one"),
        (b"{}", r"models/toy/versions/1/manifest\.json"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, told: bytes | None, sentence: str) -> None:
    inputs = [given(tmp_path, "model.onnx", CONTENT)]
    inputs += [] if told is None else [given(tmp_path, "manifest.json", told)]
    with pytest.raises(InputError, match=sentence):
        read(inputs)


def test_a_manifest_that_does_not_tell_its_data_is_refused(tmp_path: Path) -> None:
    document = json.loads(manifest())
    del document["data"]
    inputs = [given(tmp_path, "model.onnx", CONTENT), given(tmp_path, "manifest.json", json.dumps(document).encode())]
    with pytest.raises(InputError, match="data: is missing, so nobody knows"):
        read(inputs)
