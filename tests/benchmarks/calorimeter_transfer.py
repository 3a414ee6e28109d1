"""What the 3DGAN's transfer is worth: a GAN pre-trained on a band of energies against one that begins cold.

Both take the same number of steps in all, each of which costs the same, and are scored on held-out showers.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import geant4, gflash
from functions.calorimeter.geometry import Geometry, load_geometry
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.learners import conv2d
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.rootfile import ShowersFile
from functions.calorimeter.showers import Showers, join
from functions.calorimeter.training.score import Scored, Scorer
from layers.learning.distributed import ALONE
from tests.benchmarks.report import show

PUBLISHED = 130 / 160
"""Part of the publication's epochs that are on the band."""
ENERGY_GEV, THETA_DEG = (10.0, 100.0), (60.0, 120.0)
TOLD = ("mean_visible", "resolution", "longitudinal_profile", "lateral_profile", "mean_hits", "separation_cells")


@dataclass(frozen=True)
class Trained:
    """A model, and what it took."""

    model: bytes
    steps: tuple[int, int]
    """On the band, and on all energies."""
    cpu_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=Path, nargs="*", help="showers in ROOT or HDF5, instead of making some")
    parser.add_argument("--engine", choices=("gflash", "geant4"), default="gflash", help="who makes them (gflash)")
    parser.add_argument("--showers", type=int, default=4000, help="to train on (4000)")
    parser.add_argument("--held-out", type=int, default=1000, help="to score on (1000)")
    parser.add_argument("--band", type=float, nargs=2, default=(20.0, 40.0), help="energies of the first stage, GeV")
    parser.add_argument("--shares", type=float, nargs="*", default=[PUBLISHED, 0.5], help="of the steps, on the band")
    parser.add_argument("--steps", type=int, default=600, help="of each training in all (600)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--channels", type=int, default=40)
    given = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    training, held_out = sample(given)
    scorer = Scorer(held_out, seed=1)
    arms = {"cold": 0.0, **{f"warm, {share:.0%} on the band": share for share in given.shares}}
    rows: list[dict[str, Any]] = []
    for seed in range(1, given.seeds + 1):
        cold_cpu_s = 0.0
        for name, share in arms.items():
            parameters = {"channels": given.channels, "epochs": 10_000}
            made = train(training, parameters, tuple(given.band), round(share * given.steps), given.steps, seed)
            cold_cpu_s = cold_cpu_s or made.cpu_s
            found = scored(scorer, made.model)
            rows.append(
                {
                    "start": name,
                    "seed": seed,
                    "steps band + all": "{} + {}".format(*made.steps),
                    "CPU s": made.cpu_s,
                    "CPU of cold": made.cpu_s / cold_cpu_s,
                    "score": found.score,
                    **{number: found.numbers[number] / scorer.floors[number] for number in TOLD},
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    low, high = given.band
    title = f"{len(training)} showers, band {low:g} to {high:g} GeV; score and numbers in floors, lower is better"
    show(title, rows)
    show("over seeds", list(summary(rows, list(arms))))
    return 0


def train(
    data: TrainingData, parameters: dict[str, Any], band: tuple[float, ...], first: int, steps: int, seed: int
) -> Trained:
    """`first` steps on the band, and the others on all energies, started from the model of those."""
    began = time.process_time()
    learner = conv2d.make(data, conv2d.Parameters(**parameters), seed, ALONE)
    if first:
        restricted = conv2d.make(data, conv2d.Parameters(**parameters, energy_gev=band), seed, ALONE)
        for number in range(first):
            restricted.step(number)
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, "band.onnx")
            model.write_bytes(restricted.export({}, "benchmark"))
            learner.start_from(model)
    for number in range(steps - first):
        learner.step(number)
    return Trained(learner.export({}, "benchmark"), (first, steps - first), time.process_time() - began)


def scored(scorer: Scorer, model: bytes) -> Scored:
    """The score of a model's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model)
        return scorer(path)


def summary(rows: Sequence[dict[str, Any]], arms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Mean and standard deviation of the scores, and the differences to the cold start of the same seed."""
    scores = {arm: [row["score"] for row in rows if row["start"] == arm] for arm in arms}
    for arm, found in scores.items():
        apart = [one - other for one, other in zip(found, scores["cold"], strict=True)]
        several = len(found) > 1
        yield {
            "start": arm,
            "score": statistics.mean(found),
            "deviation": statistics.stdev(found) if several else math.nan,
            "minus cold, same seed": statistics.mean(apart),
            "its error": statistics.stdev(apart) / math.sqrt(len(apart)) if several else math.nan,
            "as far off as cold (exp)": math.exp(statistics.mean(apart)),
        }


def sample(given: argparse.Namespace) -> tuple[TrainingData, TrainingData]:
    """Showers to train on, and others to score on."""
    wanted = given.showers + given.held_out
    geometry, showers = read(given.files, wanted) if given.files else made(given.engine, wanted)
    data = TrainingData(geometry, ("e-",), showers, np.zeros(len(showers), np.int64), 0.0, ENERGY_GEV, THETA_DEG)
    assert len(data) == wanted, f"{len(data)} showers are there, and {wanted} are asked for"
    return data.rows(np.arange(given.showers)), data.rows(np.arange(given.showers, wanted))


def read(files: Sequence[Path], wanted: int) -> tuple[Geometry, Showers]:
    """The first showers of the files, mixed."""
    parts = []
    for path in files:
        with ShowersHdf5(path) if path.suffix == ".h5" else ShowersFile(path) as file:
            geometry = file.geometry
            parts += list(file.read())
    showers = join(parts)
    return geometry, showers.rows(np.random.default_rng(1).permutation(len(showers))[:wanted])


def made(engine: str, wanted: int) -> tuple[Geometry, Showers]:
    """Fresh electrons in siw25."""
    geometry, rng = load_geometry("siw25"), np.random.default_rng(1)
    energy, theta = rng.uniform(*ENERGY_GEV, wanted), rng.uniform(*np.radians(THETA_DEG), wanted)
    seeds = rng.integers(1, 2**31 - 1, wanted)
    if engine == "gflash":
        return geometry, join(list(gflash.simulate(geometry, "e-", energy, theta, seeds)))
    return geometry, join(list(geant4.simulate(geometry, geant4.Primaries("e-", energy, theta, seeds))))


if __name__ == "__main__":
    sys.exit(main())
