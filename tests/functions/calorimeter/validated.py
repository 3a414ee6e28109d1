"""A small detector whose nature is a small model, so that a whole validation takes seconds; and what spoils showers."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from functions.calorimeter import hdf5
from functions.calorimeter.generator import Generator
from functions.calorimeter.geometry import Geometry, load_geometry
from functions.calorimeter.showers import Showers, from_dense, join
from functions.calorimeter.validation.comparison import Comparison, Progress
from functions.calorimeter.validation.samples import Population, Samples
from layers.learning.registry import Manifest
from layers.runtime import Input
from layers.runtime.testing import Outcome, call
from tests.functions.calorimeter.tiny_model import tiny_model

LAYER = {"absorber": "W", "absorber_mm": 6.0, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 2.5}
SMALL = load_geometry({"name": "small", "cells": 9, "cell_mm": 8.0, "layers": [{"count": 10, **LAYER}]})
RANGE = {"energy_gev": [10.0, 40.0], "theta_deg": [75.0, 105.0]}


def small_model(gain: float = 1.0, particles: Sequence[str] = ("e-",)) -> bytes:
    """A generator of the small detector's showers."""
    return tiny_model(SMALL, particles=particles, gain=gain, training_range=RANGE)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies and angles of the small detector's range."""
    rng = np.random.default_rng(seed)
    low, high = (math.radians(angle) for angle in RANGE["theta_deg"])
    return rng.uniform(*RANGE["energy_gev"], count), rng.uniform(low, high, count)


def nature(path: Path, count: int, seed: int, **about: Any) -> Path:
    """A file of showers that the model of gain 1 has made; it says that it is a measurement."""
    model = path.with_suffix(".onnx")
    model.write_bytes(small_model())
    energy, theta = drawn(count, seed)
    told = {"engine": "test beam", "particle": "e-", "geometry": SMALL.as_json(), **about}
    with hdf5.Writer(path, SMALL, told) as writer:
        for part in Generator(model).generate(energy, theta, "e-", seed):
            writer.add(part)
    return path


def given(path: Path, key: str = "") -> Input:
    """A file as a request's input."""
    return Input("b", key or path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path)


def version(folder: Path, content: bytes, trained: Sequence[Path] = (), **facts: Any) -> list[Input]:
    """A version's files, and those that it was trained on, as a request's inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    data = [{"bucket": "b", "key": path.name, "sha256": given(path).sha256} for path in trained]
    manifest = Manifest.of("calorimeter-generator", content, **{"data": data, **facts})
    (folder / "model.onnx").write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return [given(folder / name) for name in ("model.onnx", "manifest.json")] + [given(path) for path in trained]


def validate(
    folder: Path,
    inputs: Sequence[Input],
    request: dict[str, Any],
    serving: bytes | None = None,
    geometry: str = "small",
) -> Outcome:
    """Run `calorimeter.validate`; what serves is a model of a wrong gain, unless another is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "v.json").write_text(json.dumps(request))
    (folder / "serving.onnx").write_bytes(small_model(0.9) if serving is None else serving)
    settings = {"DIOSCAR_MODEL_CALORIMETER_GENERATOR": str(folder / "serving.onnx"), "GEOMETRY": geometry}
    return call("calorimeter.validate", folder / "v.json", folder / "out", inputs=list(inputs), settings=settings)


def report_of(folder: Path) -> dict[str, Any]:
    """The JSON report of `validate`."""
    return json.loads((folder / "out/v.json.report.json").read_text())


def refusals(report: dict[str, Any]) -> list[str]:
    """Why it refuses."""
    return [reason["sentence"] for reason in report["reasons"] if not reason["passed"]]


def compared(truth: Showers, made: Showers, spare: Showers, learned: Showers, geometry: Geometry) -> Comparison:
    """A comparison of given showers, by a candidate that gives no others; GFLASH stands in for what serves."""
    energy = (float(truth.energy_gev.min()), float(truth.energy_gev.max()))
    generator = SimpleNamespace(
        geometry=geometry, particles=("e-",), energy_gev=energy, theta_deg=(60.0, 120.0), sha256="candidate"
    )
    other = SimpleNamespace(geometry=load_geometry("sipb25"), particles=("e-",), sha256="serving")

    def population(showers: Showers) -> Population:
        return Population(showers, np.zeros(len(showers), np.int64))

    def candidate(*_: Any) -> Showers:
        return made

    candidate.generator = generator  # type: ignore[attr-defined]
    samples = Samples(*map(population, (truth, spare, learned)), ("geant4",), 0, 0, {})
    return Comparison(candidate, other, samples, 1, Progress(lambda *_: None))  # type: ignore[arg-type]


# what spoils showers


def scaled(showers: Showers, factor: np.ndarray | float) -> Showers:
    """All energies of each shower times its factor."""
    factors = np.broadcast_to(factor, (len(showers),))
    edep = (showers.edep_mev * np.repeat(factors, showers.hits)).astype(np.float32)
    return Showers(showers.energy_gev, showers.theta, showers.offsets, showers.cell, edep)


def mean_image(showers: Showers, geometry: Geometry) -> Showers:
    """The mean of all showers, scaled to the energy of each."""
    images = showers.dense(geometry.shape) / showers.energy_gev[:, None, None, None]
    made = images.mean(axis=0)[None] * showers.energy_gev[:, None, None, None]
    return from_dense(showers.energy_gev, showers.theta, made.astype(np.float32))


def permuted(showers: Showers, geometry: Geometry) -> Showers:
    """The same permutation of the cells of every layer."""
    side, layers = geometry.cells**2, len(geometry.layers)
    order = np.random.default_rng(1).permutation(side)
    cell = order[showers.cell.astype(np.int64) // layers] * layers + showers.cell % layers
    made = Showers(showers.energy_gev, showers.theta, showers.offsets, cell.astype(np.uint32), showers.edep_mev)
    return from_dense(made.energy_gev, made.theta, made.dense(geometry.shape))


def squeezed(showers: Showers) -> Showers:
    """Half of the spread of S/E, about its mean."""
    fraction = showers.visible_mev / showers.energy_gev
    return scaled(showers, (fraction.mean() + fraction) / 2 / fraction)


def relabelled(showers: Showers) -> Showers:
    """Energies and angles of other showers."""
    order = np.random.default_rng(1).permutation(len(showers))
    energy, theta = showers.energy_gev[order], showers.theta[order]
    return Showers(energy, theta, showers.offsets, showers.cell, showers.edep_mev)


def without_layer(showers: Showers, geometry: Geometry, layer: int) -> Showers:
    """A dead layer."""
    dead = showers.cell % len(geometry.layers) == layer
    edep = np.where(dead, 0, showers.edep_mev).astype(np.float32)
    return Showers(showers.energy_gev, showers.theta, showers.offsets, showers.cell, edep)


def joined(*parts: Showers) -> Showers:
    """The showers of all parts."""
    return join(list(parts))
