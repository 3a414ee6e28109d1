"""What the fast model learns from, and what it is tested on: Geant4 showers in stacks that are drawn at random.

To learn from, a stack is so deep that showers end in it. A shower in a deep stack is one in every stack that is cut off
behind one of its layers, but for what comes back from there, which is little; so one simulation teaches all depths. To
test on, a stack has the depth of a real calorimeter, and all its showers one energy, so that it has a resolution.

    python3 -P -m functions.calorimeter.prototyping.production TRAINING --stacks 160 --showers 80 --seed 1
    python3 -P -m functions.calorimeter.prototyping.production TEST --stacks 24 --showers 400 --seed 2 --test

write a file for each stack, and go on where they were stopped.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter import geant4
from functions.calorimeter.geometry import MOST_LAYERS
from functions.calorimeter.prototyping.stack import ABSORBERS, Stack, layers_for, thickness_mm
from functions.calorimeter.showers import Floats, Showers

ENERGY_GEV = (2.0, 20.0)
"""Energies are even in their logarithm."""
ABSORBER_X0 = (0.25, 2.5)
SENSOR_MM = (0.2, 2.0)
GAP_MM = (0.0, 6.0)
DEEP_X0 = 30.0
PARTICLES = ("e-", "gamma")
GAMMAS = 1 / 3
"""Part of the stacks that photons are shot at."""
TEST_X0 = (12.0, 26.0)
TEST_GEV = (3.0, 16.0)
_STACKS, _SHOWERS, _TEST = 21, 22, 23
"""Streams of random numbers."""


@dataclass(frozen=True)
class Sample:
    """Showers of one stack."""

    stack: Stack
    particle: str
    energy_gev: Floats
    """Shape (n,)."""
    layers_mev: NDArray[np.float32]
    """Energy in each layer's sensor, (n, layers)."""


def drawn(seed: int, number: int) -> tuple[Stack, str]:
    """A stack and what is shot at it; absorber, thicknesses and gap are independent of each other."""
    rng = np.random.default_rng((seed, _STACKS, number))
    absorber = ABSORBERS[int(rng.integers(len(ABSORBERS)))]
    x0, sensor = (low * (high / low) ** rng.random() for low, high in (ABSORBER_X0, SENSOR_MM))
    one = Stack(absorber, thickness_mm(absorber, x0), 1, round(sensor, 3), round(rng.uniform(*GAP_MM), 2))
    return deepened(one), PARTICLES[int(rng.random() < GAMMAS)]


def deepened(stack: Stack) -> Stack:
    """The stack with so many layers that a shower ends in it, as far as a geometry may have layers."""
    return replace(stack, layers=layers_for(DEEP_X0, stack, MOST_LAYERS))


def drawn_to_test(seed: int, number: int) -> tuple[Stack, str, float]:
    """A stack of a depth within `TEST_X0`, what is shot at it, and with which energy in GeV."""
    deep, particle = drawn(seed, number)
    rng = np.random.default_rng((seed, _TEST, number))
    layers = max(3, min(deep.layers, round(rng.uniform(*TEST_X0) / deep.layer_x0)))
    low, high = TEST_GEV
    return replace(deep, layers=layers), particle, round(low * (high / low) ** rng.random(), 2)


def simulated(stack: Stack, particle: str, energy_gev: Floats, seed: int) -> Sample:
    """Geant4's showers of these energies, perpendicular, each with a seed that derives from `seed`."""
    seeds = np.random.default_rng((seed, _SHOWERS)).integers(1, 2**31 - 1, len(energy_gev))
    given = geant4.Primaries(particle, energy_gev, np.full(len(energy_gev), math.pi / 2), seeds)
    parts = [layer_sums(part, stack.layers) for part in geant4.simulate(stack.geometry(), given)]
    return Sample(stack, particle, energy_gev, np.concatenate(parts))


def layer_sums(showers: Showers, layers: int) -> NDArray[np.float32]:
    """Energy in each layer, MeV, shape (n, layers)."""
    place = np.repeat(np.arange(len(showers)), showers.hits) * layers + showers.cell.astype(np.int64) % layers
    sums = np.bincount(place, showers.edep_mev, minlength=len(showers) * layers)
    return sums.reshape(len(showers), layers).astype(np.float32)


def energies(count: int, seed: int) -> Floats:
    """Energies in GeV, even in their logarithm over `ENERGY_GEV`."""
    low, high = ENERGY_GEV
    return np.asarray(low * (high / low) ** np.random.default_rng(seed).random(count))


def write(path: Path, sample: Sample) -> None:
    """Write a sample, whole or not at all."""
    fresh = path.with_suffix(".part")
    with fresh.open("wb") as stream:
        np.savez_compressed(
            stream,
            stack=json.dumps(asdict(sample.stack)),
            particle=sample.particle,
            energy_gev=sample.energy_gev,
            layers_mev=sample.layers_mev,
        )
    fresh.rename(path)


def read(folder: Path) -> Iterator[Sample]:
    """The samples of a folder, in the order of their numbers."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            stack = Stack(**json.loads(str(arrays["stack"])))
            yield Sample(stack, str(arrays["particle"]), arrays["energy_gev"], arrays["layers_mev"])


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stacks", type=int, default=160)
    parser.add_argument("--showers", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="stacks to test on")
    given = parser.parse_args(argv)
    given.folder.mkdir(parents=True, exist_ok=True)
    for number in range(given.stacks):
        path = given.folder / f"{number:05d}.npz"
        if path.exists():
            continue
        seeds = [int(seed) for seed in np.random.SeedSequence((given.seed, number)).generate_state(2)]
        if given.test:
            stack, particle, energy = drawn_to_test(given.seed, number)
            energy_gev = np.full(given.showers, energy)
        else:
            stack, particle = drawn(given.seed, number)
            energy_gev = energies(given.showers, seeds[0])
        write(path, simulated(stack, particle, energy_gev, seeds[1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
