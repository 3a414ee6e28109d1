"""How well a generator of one detector learns another: a geometry drawn by lot, and three models of it to compare."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import compare, generator
from functions.calorimeter.generator import Generator
from functions.calorimeter.geometry import Layer
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.materials import MATERIALS
from functions.calorimeter.observables import observe
from functions.calorimeter.showers import from_dense, join
from functions.calorimeter.training.data import TRAINING, read
from functions.calorimeter.training.score import WORST, Scorer
from functions.calorimeter.two_sample import Auc, auc_of_features
from layers.learning.onnx import load
from layers.runtime import Input
from tests.functions.calorimeter.trainings import as_input, train

ABSORBERS = ("W", "Pb", "Cu", "Fe")
SENSOR_MM = (0.3, 0.6)
GAP_MM = (1.5, 3.0)
LAYERS = (18, 32)
DEPTH_X0 = (17.0, 24.0)
SHIPPED = Path(generator.__file__).parent / f"{generator.MODEL}.onnx"


def drawn_detector(seed: int, cells: int = 51, cell_mm: float = 5.1) -> dict[str, Any]:
    """A sampling calorimeter drawn by lot: absorber, its thickness, sensors, gaps and number of layers."""
    rng = np.random.default_rng((seed, 61))
    absorber = MATERIALS[ABSORBERS[rng.integers(len(ABSORBERS))]]
    count = int(rng.integers(LAYERS[0], LAYERS[1] + 1))
    each_x0 = rng.uniform(*DEPTH_X0) / count
    return {
        "name": f"drawn-{seed}",
        "cells": cells,
        "cell_mm": cell_mm,
        "layers": [
            {
                "count": count,
                "absorber": absorber.name,
                "absorber_mm": round(each_x0 * absorber.radiation_length_mm, 2),
                "sensor": "Si",
                "sensor_mm": round(rng.uniform(*SENSOR_MM), 2),
                "gap_mm": round(rng.uniform(*GAP_MM), 2),
            }
        ],
    }


def contained_deg(detector: dict[str, Any]) -> tuple[float, float]:
    """Polar angles, at most 60 to 120, at which the axis of a shower stays in the window of a detector."""
    (layers,) = detector["layers"]
    depth = layers["count"] * (layers["absorber_mm"] + layers["sensor_mm"] + layers["gap_mm"])
    reach = 0.4 * detector["cells"] * detector["cell_mm"]
    lean = min(30.0, math.degrees(math.atan(reach / max(depth - 60.0, 60.0))))
    return (math.ceil(90 - lean), math.floor(90 + lean))


@dataclass(frozen=True)
class Task:
    """A new detector to be learned: showers of it to learn from, and others to judge by."""

    learn: Input
    judge: Path
    parameters: Mapping[str, Any]
    """Of the two-stage family."""
    seed: int
    evaluations: int = 10

    @property
    def request(self) -> dict[str, Any]:
        """What `train` is asked for, wherever it starts from; next to nothing is held out."""
        steps = int(self.parameters["steps"])
        return {
            "family": "two-stage",
            "parameters": dict(self.parameters),
            "seed": self.seed,
            "held_out": 0.08,
            "watched": 0.2,
            "evaluate_every": max(1, steps // self.evaluations),
        }


def sizes(model: Path) -> dict[str, int]:
    """The sizes of a model's networks, which another one must have to start from it."""
    told = json.loads(load(model)[1].more["architecture"])["parameters"]
    return {name: told[name] for name in told if name.endswith("width") or name == "blocks"}


def learned(task: Task, folder: Path, base: Path | None) -> Path:
    """The model that `train` makes for the task, from the weights of `base` or from scratch."""
    given = [] if base is None else [as_input(base)]
    request = {**task.request, "start": "scratch" if base is None else "given"}
    outcome = train(folder, [task.learn, *given], request)
    assert outcome.code == 0, outcome.message
    return folder / "out/r.json.onnx"


def rescaled(task: Task, folder: Path, base: Path) -> Path:
    """What `train` begins with: the weights of `base`, the scales of the new showers, and no step of learning."""
    from functions.calorimeter.learners import family, parameters_of
    from layers.learning.distributed import ALONE

    data = read("task", [task.learn], task.request["held_out"], task.request["watched"]).part(TRAINING)
    learner = family("two-stage").make(data, parameters_of("two-stage", task.parameters, "task"), task.seed, ALONE)
    learner.start_from(base)
    path = folder / "rescaled.onnx"
    path.write_bytes(learner.export({}, "tests"))
    return path


@dataclass(frozen=True)
class Judgement:
    """How far a model's showers are from simulated ones: by boosted trees (0.5 is best), and by train's score (0)."""

    auc: Auc
    score: float


def judged(model: Path, judge: Path, seed: int) -> Judgement:
    """Compare a model with the simulated showers in `judge`.

    A model of another detector stands as it is: each layer of the new one reads what the old one's reads that is
    nearest to its depth in radiation lengths. Both detectors have the same cells.
    """
    made_by = Generator(model)
    with ShowersHdf5(judge) as file:
        truth, particle, geometry = join(list(file.read())), file.particle, file.geometry
    depths = [np.cumsum([pitch_x0(layer) for layer in one.layers]) for one in (made_by.geometry, geometry)]
    nearest = np.abs(depths[0][None] - depths[1][:, None]).argmin(axis=1)
    made = join(
        [
            from_dense(part.energy_gev, part.theta, part.dense(made_by.geometry.shape)[..., nearest])
            for part in made_by.generate(truth.energy_gev, truth.theta, particle, seed, checked=False)
        ]
    )
    real, drawn = (observe(showers, geometry) for showers in (truth, made))
    data = TrainingData(geometry, (particle,), truth, np.zeros(len(truth), np.int64), made_by.threshold_mev)
    floors = Scorer(data, seed=seed).floors
    edges = np.array([truth.energy_gev.min(), truth.energy_gev.max()])
    found = compare.numbers(compare.Sample(real, edges), compare.Sample(drawn, edges))
    parts = [math.log(min(max(found[name] / floor, 1.0), WORST)) for name, floor in floors.items()]
    return Judgement(auc_of_features(real, drawn, seed=seed), sum(parts) / len(parts))


def pitch_x0(layer: Layer) -> float:
    """A layer in radiation lengths."""
    return layer.absorber_mm / layer.absorber.radiation_length_mm + layer.sensor_mm / layer.sensor.radiation_length_mm
