"""A generator is what its file says: the same shower however it is asked for, and nothing outside its training."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from functions.calorimeter.generator import FORMAT, Generator, kept
from functions.calorimeter.geometry import geometry_from_json
from functions.calorimeter.showers import Showers, join
from layers.learning.onnx import About, Tensor, export
from layers.runtime import InputError
from tests.functions.calorimeter.tiny_model import Tiny, tiny_model

LAYER = {"count": 3, "absorber": "W", "absorber_mm": 2, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 20}
SMALL = geometry_from_json({"name": "small", "cells": 15, "cell_mm": 5, "layers": [LAYER]}, "small")
ENERGY = np.linspace(10, 100, 40)
THETA = np.linspace(1.1, 2.0, 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(tiny_model(SMALL))
    return path


def same(one: Showers, other: Showers) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)


def test_a_generator_says_what_its_file_says(model: Path) -> None:
    generator = Generator(model)
    assert (generator.geometry, generator.particles, generator.family) == (SMALL, ("e-", "gamma"), "two-stage")
    assert (generator.energy_gev, generator.theta_deg) == ((10.0, 100.0), (60.0, 120.0))
    assert generator.threshold_mev == 0.1
    assert generator.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


def test_showers_follow_energy_angle_and_threshold(model: Path) -> None:
    generator = Generator(model)
    showers = join(list(generator.generate(np.full(200, 50.0), np.full(200, np.pi / 2), "e-", 1)))
    assert np.mean(showers.visible_mev) == pytest.approx(1000, rel=0.1)
    assert np.std(showers.visible_mev) > 20
    assert showers.edep_mev.min() >= np.float32(0.1)
    rows = np.arange(15)

    def slope(degrees: float) -> float:
        images = join(list(generator.generate(np.full(40, 50.0), np.full(40, np.radians(degrees)), "e-", 1)))
        y = images.dense(SMALL.shape).sum(axis=(0, 1))[:, 1:]
        centres = (y * rows[:, None]).sum(axis=0) / y.sum(axis=0)
        return float(centres[-1] - centres[0])

    assert slope(60) > 2 and abs(slope(90)) < 0.3 and slope(120) < -2


@pytest.mark.parametrize("batch", [1, 3, 16, 100])
def test_a_shower_is_the_same_in_every_batch(model: Path, batch: int) -> None:
    generator = Generator(model)
    whole = join(list(generator.generate(ENERGY, THETA, "e-", 1)))
    parts = list(generator.generate(ENERGY, THETA, "e-", 1, batch=batch))
    assert max(map(len, parts)) <= batch and same(whole, join(parts))


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (13, 20), (16, 33), (39, 40)])
def test_a_shower_is_the_same_in_every_piece(model: Path, start: int, stop: int) -> None:
    generator = Generator(model)
    whole = join(list(generator.generate(ENERGY, THETA, "e-", 1)))
    piece = generator.generate(ENERGY[start:stop], THETA[start:stop], "e-", 1, first=start)
    mine, its = whole.part(start, stop), join(list(piece))
    assert np.array_equal(mine.cell, its.cell)
    assert np.allclose(mine.edep_mev, its.edep_mev, rtol=1e-4)


def test_a_piece_of_whole_blocks_is_the_same_bit_for_bit(model: Path) -> None:
    generator = Generator(model)
    assert generator.block == 16
    whole = join(list(generator.generate(ENERGY, THETA, "e-", 1)))
    piece = generator.generate(ENERGY[16:], THETA[16:], "e-", 1, first=16)
    assert same(whole.part(16, len(whole)), join(list(piece)))


def test_seed_and_particle_make_other_showers(model: Path) -> None:
    generator = Generator(model)
    one, two = (join(list(generator.generate(ENERGY, THETA, "e-", seed))) for seed in (1, 2))
    photons = join(list(generator.generate(ENERGY, THETA, "gamma", 1)))
    assert not np.isclose(one.visible_mev, two.visible_mev, rtol=1e-3).all()
    assert not np.isclose(one.visible_mev, photons.visible_mev, rtol=1e-3).all()
    early = generator.generate(ENERGY[:20], THETA[:20], "e-", 1)
    assert not np.isclose(join(list(early)).visible_mev[1:], one.visible_mev[:19], rtol=1e-3).any()


@pytest.mark.parametrize(
    ("energy", "theta", "particle", "says"),
    [
        (9.0, 1.5, "e-", "energy_gev: 9 is outside of 10 to 100 GeV, which the model was trained on"),
        (np.nan, 1.5, "e-", "energy_gev: nan is outside of 10 to 100 GeV"),
        (50.0, np.radians(45), "e-", "theta_deg: 45 is outside of 60 to 120 degrees"),
        (50.0, 1.5, "e+", 'particle: "e+" is not what the model was trained on; write one of e-, gamma'),
        (50.0, 1.5, "pi-", 'particle: "pi-" is none of e-, gamma; hadrons need data sets of nuclear physics'),
    ],
)
def test_what_it_was_not_trained_on_is_refused(
    model: Path, energy: float, theta: float, particle: str, says: str
) -> None:
    generator = Generator(model)
    energies, angles = np.array([20.0, energy]), np.array([1.5, theta])
    with pytest.raises(InputError) as refused:
        generator.generate(energies, angles, particle, 1)
    assert says in str(refused.value)
    with pytest.raises(InputError) as refused:
        generator.check(energy, theta, particle)
    assert says in str(refused.value)


def test_it_extrapolates_where_that_is_asked_for(model: Path) -> None:
    generator = Generator(model)
    showers = join(list(generator.generate(np.full(20, 200.0), np.full(20, 1.5), "e-", 1, checked=False)))
    assert np.mean(showers.visible_mev) == pytest.approx(4000, rel=0.2)


def test_a_model_is_loaded_once_and_again_when_its_file_changes(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "serving.onnx"
    path.write_bytes(model.read_bytes())
    first = kept(path)
    assert kept(path) is first and kept(path, threads=2) is not first
    other = altered(model, tmp_path / "other.onnx", threshold_mev="0.2")
    other.replace(path)
    assert kept(path).threshold_mev == 0.2
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(InputError):
            kept(broken)


def altered(model: Path, path: Path, **metadata: str | None) -> Path:
    """The model with other metadata; None takes a key away."""
    found = onnx.load_from_string(model.read_bytes())
    told = {one.key: one.value for one in found.metadata_props} | metadata
    del found.metadata_props[:]
    onnx.helper.set_model_props(found, {name: text for name, text in told.items() if text is not None})
    path.write_bytes(found.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"format": "dioscar-pulsar-classifier 1"}, f'and not "{FORMAT}"'),
        ({"geometry": None}, "metadata's geometry is missing"),
        ({"geometry": "{}"}, "geometry.cells: None is no whole number"),
        ({"geometry": json.dumps({**SMALL.as_json(), "cells": 9})}, "are not those of a generator of showers"),
        ({"particles": "e-"}, "metadata's particles is missing or no JSON"),
        ({"threshold_mev": None}, "metadata's threshold_mev is missing"),
        ({"training_range": json.dumps({"energy_gev": [10, 100]})}, "training range of theta_deg is no"),
        ({"training_range": json.dumps({"energy_gev": [100, 10]})}, "training range of energy_gev is no"),
    ],
)
def test_a_model_of_something_else_is_refused(
    model: Path, tmp_path: Path, metadata: Mapping[str, str | None], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        Generator(altered(model, tmp_path / "strange.onnx", **metadata))
    assert says in str(refused.value) and str(refused.value).startswith("strange.onnx: ")


def test_what_is_no_model_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(model.read_bytes()[:500])
    with pytest.raises(InputError, match=r"^cut\.onnx: is no ONNX model"):
        Generator(path)


def test_cells_that_are_no_energies_are_refused(tmp_path: Path) -> None:
    class Broken(Tiny):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(*inputs) - 1

    shapes = {"normal_profile": (None, 4), "uniform_place": (None, *SMALL.shape)}
    conditions = (Tensor(name, (None,)) for name in ("energy_gev", "theta", "particle"))
    more: dict[str, Any] = {"family": "two-stage", "geometry": SMALL.as_json(), "particles": ["e-"], "threshold_mev": 0}
    about = About(
        FORMAT,
        (*conditions, *(Tensor(name, shape) for name, shape in shapes.items())),
        (Tensor("ecal", (None, *SMALL.shape)),),
        {"energy_gev": [10, 100], "theta_deg": [60, 120]},
        more={name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()},
    )
    path = tmp_path / "broken.onnx"
    path.write_bytes(export(Broken(SMALL, 0.1, 1.0), about))
    with pytest.raises(InputError, match=r"^broken\.onnx: gives cells that are no energies"):
        list(Generator(path).generate(ENERGY, THETA, "e-", 1))
