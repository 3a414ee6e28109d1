"""Faults that generators are known for, each by its name: what is wrong, and not only that something is.

Each is one number with the limits that it must keep; Monte Carlo against Monte Carlo gives its floor.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from functions.calorimeter.compare import LEAST_LAYER
from functions.calorimeter.observables import Observables
from functions.calorimeter.plain import plain
from functions.calorimeter.showers import Floats, Showers
from layers.quality import Reason

SLICES = 10
FLUCTUATING = ("sampling_fraction", "depth", "depth_width", "width_x", "width_y", "core")
"""Observables by which showers of the same energy and angle differ."""


@dataclass(frozen=True)
class Fault:
    """A fault's number, the limits that it must keep, and what Monte Carlo against Monte Carlo gives."""

    name: str
    value: float
    low: float
    high: float
    meaning: str
    says: str
    """What is wrong where the limits are not kept."""
    floor: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the limits are kept; what is no number keeps none."""
        return bool(self.low <= self.value <= self.high)

    def reason(self, particle: str = "") -> Reason:
        """The check as a sentence."""
        limits = (
            f"from {self.low:g} to {self.high:g}"
            if np.isfinite([self.low, self.high]).all()
            else (f"at most {self.high:g}" if np.isfinite(self.high) else f"at least {self.low:g}")
        )
        told = f"{self.name}{f' ({particle})' if particle else ''}: {self.value:.4g}, {self.meaning}, is to be {limits}"
        return Reason(self.name, "other", self.passed, told if self.passed else f"{told}: {self.says}")

    def to_json(self) -> dict[str, Any]:
        """For the report; what is not finite is null."""
        facts = {**vars(self), "passed": self.passed}
        return {name: plain(value) for name, value in facts.items()}


Measure = Callable[[Observables, Observables], float]


def faults(truth: Observables, made: Observables, floor: tuple[Observables, Observables]) -> Iterator[Fault]:
    """All faults that show in the observables of one particle; `made` is at the conditions of `truth`.

    `floor` are two samples of Monte Carlo.
    """
    layer, _ = _weakest_layer(truth, made)
    known: list[tuple[str, Measure, float, float, str, str]] = [
        ("gain", _gain, 0.98, 1.02, "mean S/E over that of Monte Carlo", "all energies are too low or too high"),
        (
            "spread",
            _spread,
            0.85,
            1.15,
            "spread of S/E at one energy over that of Monte Carlo",
            "the resolution is squeezed or blown up",
        ),
        (
            "energy_labels",
            _energy_slope,
            0.9,
            1.1,
            "growth of the visible energy with the primary's over that of Monte Carlo",
            "showers do not follow the energy that they were asked for: labels are shuffled or not used",
        ),
        (
            "angle_labels",
            _angle_slope,
            0.9,
            1.1,
            "growth of the measured angle with the true one over that of Monte Carlo",
            "showers do not follow the angle that they were asked for: labels are shuffled or not used",
        ),
        (
            "cells",
            _core,
            0.8,
            1.2,
            "energy near the axis over that of Monte Carlo",
            "the energy is not where the axis is: cells are permuted, or showers blurred",
        ),
        (
            "weakest_layer",
            lambda one, two: _weakest_layer(one, two)[1],
            0.5,
            inf,
            "smallest energy of a layer over that of Monte Carlo",
            f"layer {layer} is dead or weak",
        ),
        (
            "diversity",
            _diversity,
            0.8,
            1.25,
            "difference of showers of nearly the same energy and angle over that in Monte Carlo",
            "below 1, such showers are nearly the same: a mean image, or noise not used; above, they are too unlike",
        ),
        (
            "empty",
            lambda _, two: float(np.mean(two.visible <= 0)),
            -inf,
            0.001,
            "part of the showers without any energy",
            "showers are empty",
        ),
    ]
    for name, measure, low, high, meaning, says in known:
        yield Fault(name, measure(truth, made), low, high, meaning, says, measure(*floor))


def repeated(made: Showers) -> Fault:
    """Showers that another one is equal to, cell by cell."""
    prints = _prints(made)
    part = 1 - len(set(prints)) / max(len(prints), 1)
    return Fault("repeated", part, -inf, 0.0, "part of the showers that equal another one", "showers are repeated", 0.0)


def copied(made: Showers, learned: Showers) -> Fault:
    """Showers that are those of the training, cell by cell."""
    known = set(_prints(learned))
    part = float(np.mean([one in known for one in _prints(made)])) if len(made) else 0.0
    says = "the training set is replayed"
    return Fault("copied", part, -inf, 0.0, "part of the showers that are one of the training's", says, 0.0)


def replay(part: float, chance: float, showers: int) -> Fault:
    """Showers that lie nearer to one of the training's than nearly all unseen Monte Carlo does; see `two_sample`."""
    noise = 3 * float(np.sqrt(2 * chance * (1 - chance) / showers))
    says = "the training set is replayed, or learned by heart"
    meaning = f"part of the showers nearer to one of the training's than {100 * chance:g} % of unseen Monte Carlo"
    return Fault("replay", part, -inf, round(2 * chance + noise, 4), meaning, says, chance)


def _prints(showers: Showers) -> list[bytes]:
    """What tells one shower from another: its cells with their energies; empty ones are all the same."""
    bounds = zip(showers.offsets[:-1], showers.offsets[1:], strict=True)
    return [showers.cell[a:b].tobytes() + showers.edep_mev[a:b].tobytes() for a, b in bounds]


def _gain(truth: Observables, made: Observables) -> float:
    return _over(made.sampling_fraction.mean(), truth.sampling_fraction.mean())


def _spread(truth: Observables, made: Observables) -> float:
    edges = np.quantile(truth.energy_gev, np.linspace(0, 1, SLICES + 1)[1:-1])
    return _over(_spread_of(made, edges), _spread_of(truth, edges))


def _spread_of(seen: Observables, edges: Floats) -> float:
    """Root mean square of S/E about its mean in slices of energy."""
    number = np.searchsorted(edges, seen.energy_gev)
    count = np.maximum(np.bincount(number, minlength=SLICES), 1)
    mean = np.bincount(number, seen.sampling_fraction, SLICES) / count
    return float(np.sqrt(np.mean((seen.sampling_fraction - mean[number]) ** 2)))


def _energy_slope(truth: Observables, made: Observables) -> float:
    return _over(_slope(made.energy_gev, made.visible), _slope(truth.energy_gev, truth.visible))


def _angle_slope(truth: Observables, made: Observables) -> float:
    return _over(_slope(made.theta, made.measured_theta), _slope(truth.theta, truth.measured_theta))


def _slope(given: Floats, found: Floats) -> float:
    there = np.isfinite(found)
    off = given[there] - given[there].mean() if there.any() else np.zeros(0)
    return _over(float(np.sum(off * found[there])), float(np.sum(off**2)))


def _core(truth: Observables, made: Observables) -> float:
    return _over(made.core.mean(), truth.core.mean())


def _weakest_layer(truth: Observables, made: Observables) -> tuple[int, float]:
    """Number and relative energy of the layer, among those that hold 1 % of the energy, that has too little."""
    real, other = (np.mean(seen.layers / seen.energy_gev[:, None], axis=0) for seen in (truth, made))
    parts = np.where(real > LEAST_LAYER * real.sum(), other / np.where(real > 0, real, 1), inf)
    return int(np.argmin(parts)), float(parts.min())


def _diversity(truth: Observables, made: Observables) -> float:
    return _over(_apart(made, truth), _apart(truth, truth))


def _apart(seen: Observables, by: Observables) -> float:
    """Median distance, in units of the spread of `by`, of each shower from the one that is nearest in conditions."""
    from scipy.spatial import cKDTree

    if len(seen) < 3:
        return float("nan")
    conditions = np.stack(
        [
            getattr(seen, name) / max(float(np.ptp(getattr(by, name))), 1e-9 * float(getattr(by, name).max()))
            for name in ("energy_gev", "theta")
        ],
        axis=1,
    )
    _, nearest = cKDTree(conditions).query(conditions, k=2)
    rows = np.stack([getattr(seen, name) / max(float(getattr(by, name).std()), 1e-12) for name in FLUCTUATING], axis=1)
    return float(np.median(np.sqrt(((rows - rows[nearest[:, 1]]) ** 2).sum(axis=1))))


def _over(value: float, by: float) -> float:
    return float(value / by) if by else float("nan")
