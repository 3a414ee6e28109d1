"""The fast model and GFLASH against Geant4, in stacks that neither was made for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from functions.calorimeter import gflash
from functions.calorimeter.prototyping.fast import Prototype, resolution
from functions.calorimeter.prototyping.production import TEST_X0, Sample
from functions.calorimeter.showers import Floats

HELD_OUT = 6
"""One stack of so many is not learned from."""
TIMES = 10
"""Fast showers for each of Geant4's, so that Geant4's statistical error decides."""
TIMES_GFLASH = 3
_CUTS = 33
"""A stream of random numbers."""


@dataclass(frozen=True)
class Seen:
    """What a simulation sees of the energy: mean of S/E, and its standard deviation over it; with errors."""

    mean: float
    mean_error: float
    resolution: float
    resolution_error: float


@dataclass(frozen=True)
class Row:
    """One stack by three simulations, at the same energies."""

    absorber: str
    layer_x0: float
    sensor_mm: float
    layers: int
    particle: str
    energy_gev: float
    """The mean."""
    showers: int
    geant4: Seen
    fast: Seen
    gflash: Seen


def compared(samples: Sequence[Sample], model: Prototype) -> list[Row]:
    """One row for each sample."""
    return [_row(sample, number, model) for number, sample in enumerate(samples)]


def cut(sample: Sample, number: int) -> Sample:
    """A deep sample as one of a calorimeter of usual depth, evenly drawn from `TEST_X0`."""
    depth = np.random.default_rng((number, _CUTS)).uniform(*TEST_X0)
    layers = max(1, min(sample.stack.layers, round(depth / sample.stack.layer_x0)))
    return replace(sample, stack=replace(sample.stack, layers=layers), layers_mev=sample.layers_mev[:, :layers])


def errors(rows: Sequence[Row], which: str) -> dict[str, float]:
    """Relative errors of a simulation over the stacks, beyond the statistical ones; and how many stacks there were."""
    found: dict[str, float] = {"stacks": len(rows)}
    for name in ("mean", "resolution"):
        pairs = [(getattr(row, which), row.geant4) for row in rows]
        off = np.array([getattr(a, name) / getattr(b, name) - 1 for a, b in pairs])
        noise = np.array(
            [math.hypot(*(getattr(one, f"{name}_error") / getattr(one, name) for one in pair)) for pair in pairs]
        )
        found[f"{name}_error"] = round(beyond(off, noise), 4)
    return found


def beyond(off: Floats, noise: Floats) -> float:
    """The most likely width of what scatters by a width of its own and by known noise about zero.

    >>> rng = np.random.default_rng(1)
    >>> noise = rng.uniform(0.02, 0.2, 4000)
    >>> round(beyond(rng.normal(0, np.hypot(0.1, noise)), noise), 2)
    0.1
    """
    low, high = 0.0, float(np.abs(off).max())
    for _ in range(50):
        width = (low + high) / 2
        variance = noise**2 + width**2
        rises = float(((off**2 - variance) / variance**2).sum()) > 0
        low, high = (width, high) if rises else (low, width)
    return high


def _row(sample: Sample, number: int, model: Prototype) -> Row:
    stack, energies = sample.stack, sample.energy_gev
    many = np.tile(energies, TIMES)
    return Row(
        stack.absorber,
        round(stack.layer_x0, 3),
        stack.sensor_mm,
        stack.layers,
        sample.particle,
        round(float(energies.mean()), 2),
        len(energies),
        _seen(sample.layers_mev.sum(axis=1, dtype=np.float64) / energies),
        _seen(model.generate(stack, sample.particle, many, number).sum(axis=1) / many),
        _gflash(sample, np.tile(energies, TIMES_GFLASH), number),
    )


def _gflash(sample: Sample, energies: Floats, seed: int) -> Seen:
    seeds = np.random.default_rng((seed, 32)).integers(1, 2**31 - 1, len(energies))
    theta = np.full(len(energies), math.pi / 2)
    parts = gflash.simulate(sample.stack.geometry(), sample.particle, energies, theta, seeds)
    return _seen(np.concatenate([part.visible_mev for part in parts]) / energies)


def _seen(fractions: Floats) -> Seen:
    width, error = resolution(fractions)
    mean = float(fractions.mean())
    return Seen(mean, width * mean / math.sqrt(len(fractions)), width, error)
