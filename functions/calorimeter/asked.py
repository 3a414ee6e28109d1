"""What showers are asked for: the keys that a request for simulated and one for generated showers have in common."""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.particles import PARTICLES, refused
from functions.calorimeter.showers import Floats
from layers.runtime.parameters import cut

MOST_SHOWERS = 1_000_000
ENERGY_GEV = (0.1, 1000.0)
THETA_DEG = (30.0, 150.0)
PRIMARIES_STREAM = 1
SEEDS_STREAM = 2


@dataclass(frozen=True)
class Asked:
    """Which showers, and how many."""

    particle: str = "e-"
    energy_gev: tuple[float, ...] = (10.0, 100.0)
    """Lowest and highest energy."""
    spectrum: Literal["uniform", "log"] = "uniform"
    """How energies are spread: evenly, or evenly in their logarithm."""
    theta_deg: tuple[float, ...] = (60.0, 120.0)
    """Lowest and highest polar angle; 90 is perpendicular."""
    showers: int = 1000
    seed: int = 1

    def __post_init__(self) -> None:
        if self.showers < 1:
            raise ValueError(f"showers: {self.showers} is less than 1; write how many, from 1 to {MOST_SHOWERS}")
        if self.showers > MOST_SHOWERS:
            raise ValueError(f"showers: {self.showers} is more than {MOST_SHOWERS}; split it into several requests")
        _check_range("energy_gev", self.energy_gev, ENERGY_GEV, "GeV")
        _check_range("theta_deg", self.theta_deg, THETA_DEG, "degrees")
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative; write 0 or more")
        if self.particle not in PARTICLES:
            raise ValueError(refused(self.particle, PARTICLES, "this twin simulates"))


def drawn(asked: Asked, chunk: int) -> Iterator[tuple[Floats, Floats]]:
    """Energies in GeV and polar angles in rad, `chunk` at a time; which they are depends on the seed alone."""
    rng = np.random.default_rng((asked.seed, PRIMARIES_STREAM))
    low, high = asked.energy_gev[0], asked.energy_gev[-1]
    first, last = (math.radians(angle) for angle in (asked.theta_deg[0], asked.theta_deg[-1]))
    for start in range(0, asked.showers, chunk):
        at = rng.random((min(chunk, asked.showers - start), 2))
        energy = low * (high / low) ** at[:, 0] if asked.spectrum == "log" else low + (high - low) * at[:, 0]
        yield energy, first + (last - first) * at[:, 1]


def primaries(asked: Asked) -> tuple[Floats, Floats, "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """Energies in GeV, polar angles in rad and seeds of all showers; the first n do not depend on how many."""
    ((energy, theta),) = drawn(asked, asked.showers)
    seeds = np.random.default_rng((asked.seed, SEEDS_STREAM)).integers(1, 2**31 - 1, asked.showers)
    return energy, theta, seeds


def told(asked: Asked, geometry: Geometry) -> dict[str, Any]:
    """What a file of showers says of itself, whoever made them."""
    return {
        "geometry": geometry.as_json(),
        "particle": asked.particle,
        "request": json.loads(json.dumps(dataclasses.asdict(asked))),
        "units": {"energy": "GeV", "theta": "rad", "hits_edep": "MeV"},
        "cell": "(x cells + y) layers + layer",
    }


def _check_range(name: str, given: tuple[float, ...], allowed: tuple[float, float], unit: str) -> None:
    if len(given) not in (1, 2):
        raise ValueError(f"{name}: {cut(str(list(given)))} has {len(given)} values; write [lowest, highest], or [one]")
    if given[0] > given[-1]:
        raise ValueError(f"{name}: {list(given)} goes down; write [lowest, highest]")
    low, high = allowed
    if not low <= given[0] <= given[-1] <= high:  # what is no number is neither
        raise ValueError(f"{name}: {list(given)} does not lie within {low:g} to {high:g} {unit}; write what does")
