"""What a shower costs on one core: Geant4, GFLASH, the published 3DGAN, and the model that serves, energy by energy.

CPU time, measured in turns, so that a busy moment of the machine hits all alike; medians over the rounds. Geant4's
start is measured, too, and taken off. The 3DGAN is the published network with random weights: what it costs does not
depend on them. All give sparse showers in memory; what it costs to write them as HDF5 is told beside.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import geant4, generator, gflash
from functions.calorimeter.generator import Generator
from functions.calorimeter.geometry import Geometry, load_geometry
from functions.calorimeter.hdf5 import Writer
from functions.calorimeter.showers import Floats, Showers, join
from tests.benchmarks.report import show

ENERGIES_GEV = (0.25, 1.0, 10.0, 20.0, 50.0, 100.0)
"""The first two are below what the models were trained on: they are for where ours costs as much as Geant4."""
SHIPPED = Path(generator.__file__).parent / f"{generator.MODEL}.onnx"
MODEL_SHOWERS = 64
GFLASH_SHOWERS = 64
GAN_SHOWERS = 16
GEANT4_GEV = 400.0
"""What Geant4 simulates at each energy in a round, in showers of at least four."""
START_GEV = 0.1
WRITING = "writing HDF5"
Made = tuple[float, Showers]
"""CPU seconds, and the showers."""
Engine = Callable[[float, int], Made]
"""Showers of an energy, with a seed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round in place of five, and no 3DGAN")
    parser.add_argument("--rounds", type=int, help="how many")
    parser.add_argument("--model", type=Path, default=SHIPPED, help="another model than the one that is shipped")
    arguments = parser.parse_args(argv)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engines, once = engines_of(folder, arguments.model, gan=not arguments.quick)
        seconds = measured(engines, rounds, folder)
    ours = [name for name in engines if name.startswith("ours")]
    rows = [row(name, seconds[name], seconds["Geant4"]) for name in (*engines, WRITING)]
    show(f"CPU ms for each shower on one core, e-, 60 to 120 degrees, siw25; medians of {rounds}", rows)
    show(
        "CPU s that are paid once in a process: the start",
        [{"engine": name, "CPU s": cost} for name, cost in once.items()],
    )
    if ours:
        meets = [
            {"ours against": other, "break-even at GeV": break_even(seconds[ours[0]], seconds[other])}
            for other in engines
            if other not in ours
        ]
        show("where ours costs as much, between the energies", meets)
    return 0


def engines_of(folder: Path, model: Path, *, gan: bool) -> tuple[dict[str, Engine], dict[str, float]]:
    """What is measured, by name, and the CPU seconds of its start; without a shipped model, all but ours."""
    geometry = load_geometry("siw25")
    engines: dict[str, Engine] = {"Geant4": full(geometry), "GFLASH": parametrised(geometry)}
    once = {"Geant4": shot(geometry, np.full(1, START_GEV), 1)[0]}
    models: dict[str, tuple[Path, int]] = {}
    if gan:
        path = folder / "3dgan.onnx"
        path.write_bytes(published(geometry))
        models["3DGAN, published"] = path, GAN_SHOWERS
    if model.exists():
        models["ours" if model == SHIPPED else f"ours, {model.name}"] = model, MODEL_SHOWERS
    else:
        print(f"{model.name} is not shipped yet: without ours; name a model with --model")
    import onnxruntime  # noqa: F401 - its import is not a model's start

    for name, (path, count) in models.items():
        began = time.process_time()
        serving = Generator(path)
        once[name] = time.process_time() - began
        engines[name] = learned(serving, count)
    return engines, once


def measured(engines: dict[str, Engine], rounds: int, folder: Path) -> dict[str, dict[float, float]]:
    """CPU seconds of a shower, by engine and energy, and of writing one: medians over the rounds."""
    geometry = load_geometry("siw25")
    costs: dict[str, dict[float, list[float]]] = {name: {e: [] for e in ENERGIES_GEV} for name in engines}
    writing: dict[float, list[float]] = {e: [] for e in ENERGIES_GEV}
    for name, engine in engines.items():
        if name != "Geant4":  # what is done once in this process, is done now
            engine(ENERGIES_GEV[0], 0)
    for number in range(rounds):
        for energy in ENERGIES_GEV:
            for name, engine in engines.items():
                cpu_s, showers = engine(energy, number + 1)
                costs[name][energy].append(cpu_s / len(showers))
                if name == "GFLASH":
                    writing[energy].append(written(showers, geometry, folder / "written.h5") / len(showers))
    return medians({**costs, WRITING: writing})


def written(showers: Showers, geometry: Geometry, path: Path) -> float:
    """CPU seconds that it takes to write them."""
    began = time.process_time()
    with Writer(path, geometry, {"geometry": geometry.as_json()}) as writer:
        writer.add(showers)
    return time.process_time() - began


def full(geometry: Geometry) -> Engine:
    """Geant4, of which the start is taken off."""

    def engine(energy_gev: float, seed: int) -> Made:
        start_s, _ = shot(geometry, np.full(1, START_GEV), seed)
        cpu_s, showers = shot(geometry, np.full(max(4, round(GEANT4_GEV / energy_gev)), energy_gev), seed)
        return cpu_s - start_s, showers

    return engine


def shot(geometry: Geometry, energies: Floats, seed: int) -> Made:
    """Showers by Geant4, with all that its process costs."""
    seeds = np.arange(1, len(energies) + 1) + 997 * seed
    given = geant4.Primaries("e-", energies, angles(len(energies), seed), seeds)
    began = children_s()
    showers = join(list(geant4.simulate(geometry, given)))
    return children_s() - began, showers


def parametrised(geometry: Geometry) -> Engine:
    """GFLASH."""

    def engine(energy_gev: float, seed: int) -> Made:
        seeds = np.arange(1, GFLASH_SHOWERS + 1) + 997 * seed
        began = time.process_time()
        energies = np.full(GFLASH_SHOWERS, energy_gev)
        showers = join(list(gflash.simulate(geometry, "e-", energies, angles(len(energies), seed), seeds)))
        return time.process_time() - began, showers

    return engine


def learned(model: Generator, count: int) -> Engine:
    """A generator by onnxruntime on one thread, with its noise."""

    def engine(energy_gev: float, seed: int) -> Made:
        began = time.process_time()
        showers = join(list(model.generate(np.full(count, energy_gev), angles(count, seed), "e-", seed, checked=False)))
        return time.process_time() - began, showers

    return engine


def published(geometry: Geometry) -> bytes:
    """The 3DGAN in ONNX, with random weights."""
    from functions.calorimeter.learners import family
    from functions.calorimeter.learners.learner import TrainingData
    from layers.learning.distributed import ALONE

    given = np.full(4, 50.0)
    showers = join(list(gflash.simulate(geometry, "e-", given, angles(4, 1), np.arange(1, 5))))
    data = TrainingData(geometry, ("e-",), showers, np.zeros(4, np.int64), 0.1)
    gan = family("3dgan")
    return gan.make(data, gan.Parameters(batch=2), 1, ALONE).export({}, "benchmark")


def angles(count: int, seed: int) -> Floats:
    """Polar angles, rad."""
    return np.radians(np.random.default_rng((seed, 1)).uniform(60, 120, count))


def children_s() -> float:
    """CPU seconds of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def medians(costs: dict[str, dict[float, list[float]]]) -> dict[str, dict[float, float]]:
    """Of each list."""
    return {name: {e: statistics.median(all_) for e, all_ in cost.items()} for name, cost in costs.items()}


def ms(cost: dict[float, float]) -> dict[str, float]:
    """Columns of a table."""
    return {f"{energy:g} GeV": 1e3 * seconds for energy, seconds in cost.items()}


def row(name: str, cost: dict[float, float], full_cost: dict[float, float]) -> dict[str, Any]:
    """What a shower costs, and how many times less than by Geant4."""
    ratios = {f"Geant4 / it, {energy:g}": full_cost[energy] / seconds for energy, seconds in cost.items()}
    return {"engine": name, **ms(cost), **ratios}


def break_even(ours: dict[float, float], other: dict[float, float]) -> str:
    """The energy at which both cost as much: the ratio of the costs is interpolated between energies, as logarithms.

    >>> break_even({0.1: 4.0, 10.0: 4.0, 100.0: 4.0}, {0.1: 1.0, 10.0: 100.0, 100.0: 1000.0})
    '0.4'
    >>> break_even({10.0: 4.0, 100.0: 4.0}, {10.0: 2.0, 100.0: 2.0})
    'none from 10 to 100: ours costs more'
    >>> break_even({10.0: 4.0, 100.0: 4.0}, {10.0: 20.0, 100.0: 20.0})
    'none from 10 to 100: ours costs less'
    """
    energy = np.array(list(ours))
    ratio = np.log([ours[one] / other[one] for one in ours])
    turns = np.flatnonzero(np.sign(ratio[:-1]) != np.sign(ratio[1:]))
    if not len(turns):
        return f"none from {energy[0]:g} to {energy[-1]:g}: ours costs {'less' if ratio[0] < 0 else 'more'}"
    low, high = turns[-1], turns[-1] + 1
    part = ratio[low] / (ratio[low] - ratio[high])
    return f"{energy[low] * (energy[high] / energy[low]) ** part:.2g}"


if __name__ == "__main__":
    raise SystemExit(main())
