"""Models that say what they are: kept through export and load, checked, and the same bytes whenever they are made."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layers.learning.onnx import About, ModelError, Tensor, described, export, load, read_about

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnx") is None,
    reason="training is not installed; ./dioscar install train",
)

FORM = "tiny-regression 1"
ABOUT = About(
    format=FORM,
    inputs=(Tensor("energy", (None, 3), "GeV", "of the three layers"),),
    outputs=(Tensor("sum", (None, 2), "GeV"), Tensor("hidden", (None, 4))),
    training_range={"energy": [0.5, 100]},
    request={"seed": 7, "name": "größer.json"},
    producer="tiny.train 0.1.0+abc",
    more={"thresholds": "[0.5]"},
)

MAKE = """
import sys, torch
from layers.learning.onnx import export
from tests.layers.learning.test_onnx import ABOUT, network
sys.stdout.buffer.write(export(network(), ABOUT))
"""


def network():
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, energy):
            hidden = torch.relu(self.norm(self.first(energy)))
            return self.last(hidden), hidden

    torch.manual_seed(1)
    return Tiny()


@pytest.fixture(scope="module")
def model() -> bytes:
    return export(network(), ABOUT)


def test_a_model_computes_what_the_network_does_and_says_what_it_is(model: bytes, tmp_path: Path):
    import torch

    path = tmp_path / "tiny.onnx"
    path.write_bytes(model)
    session, about = load(path, FORM)

    assert about == ABOUT
    energy = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network().eval()(torch.from_numpy(energy))
    for found, wanted in zip(session.run(["sum", "hidden"], {"energy": energy}), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_another_process_makes_the_same_bytes(model: bytes):
    again = subprocess.run([sys.executable, "-c", MAKE], check=True, capture_output=True, cwd=Path.cwd())
    assert again.stdout == model
    assert str(Path.cwd()).encode() not in model and b"pytorch" not in model


def test_what_it_is_said_to_take_and_what_it_takes_are_compared(model: bytes, tmp_path: Path):
    wrong = replace(ABOUT, inputs=(Tensor("energy", (None, 4), "GeV"),))
    with pytest.raises(ModelError, match=r"its inputs are energy\[n, 3\], and it is said to have energy\[n, 4\]"):
        described(model, wrong)
    with pytest.raises(ModelError, match=r"its outputs are sum\[n, 2\], hidden\[n, 4\], and it is said to have sum"):
        described(model, replace(ABOUT, outputs=ABOUT.outputs[:1]))
    with pytest.raises(ModelError, match="metadata: producer says what is known already"):
        described(model, replace(ABOUT, more={"producer": "me"}))
    path = tmp_path / "tiny.onnx"
    path.write_bytes(model)
    with pytest.raises(ModelError, match=r'tiny\.onnx: its format is "tiny-regression 1" and not "another 1"'):
        load(path, "another 1")


def test_what_is_no_such_model_is_told(model: bytes, tmp_path: Path):
    import onnx

    path = tmp_path / "bad.onnx"
    path.write_bytes(b"3")
    with pytest.raises(ModelError, match=r"bad\.onnx: is no ONNX model"):
        load(path)
    with pytest.raises(ModelError, match="is no ONNX model"):
        described(b"\x08\x01nothing", ABOUT)
    bare = onnx.load_from_string(model)
    del bare.metadata_props[:]
    path.write_bytes(bare.SerializeToString())
    with pytest.raises(ModelError, match="its metadata has no format"):
        load(path)
    onnx.helper.set_model_props(bare, {**ABOUT.as_metadata(), "inputs": '{"energy": {"shape": [null, 5]}}'})
    path.write_bytes(bare.SerializeToString())
    with pytest.raises(ModelError, match=r"bad\.onnx: its inputs are energy\[n, 3\]"):
        load(path)


@pytest.mark.parametrize("key, text, why", [("request", "{", "no JSON object"), ("inputs", '{"x": 3}', "no shapes")])
def test_metadata_that_is_malformed_is_named(key: str, text: str, why: str):
    with pytest.raises(ModelError, match=why):
        read_about({**ABOUT.as_metadata(), key: text}, "a.onnx")
