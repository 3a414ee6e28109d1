"""How far the centre of energy of each layer strays from the shower's axis, and whether its neighbour goes with it.

A generator that spreads each layer's energy about the axis cell by cell keeps every mean, and its centres stray too
little: what a real layer's centre strays by are its single secondaries. No number of `compare` sees that; so it is
told here, beside its floor. What judges it is the classifier that sees each centre (`gate.AUC_CENTRES`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from functions.calorimeter.compare import LEAST_LAYER
from functions.calorimeter.observables import Observables
from functions.calorimeter.plain import plain
from functions.calorimeter.showers import Counts, Floats
from functions.calorimeter.validation.distances import Measured, splits

AXES = ("x", "y")
LEAST = 30
"""Showers with energy in a layer, below which its centre is not looked at."""


@dataclass(frozen=True)
class Centres:
    """Of one particle's showers, along one axis, in the layers that hold 1 % of the energy."""

    axis: str
    layers: Counts
    spread: Measured
    """Largest relative error of the standard deviation of a layer's centre."""
    correlation: Measured
    """Largest difference of the correlation of a layer's centre with the next one's."""
    spreads: Floats
    """Standard deviation of each layer's centre over Monte Carlo's."""
    correlations: Floats
    """Generated and Monte Carlo's, (2, layers - 1)."""

    def to_json(self) -> dict[str, Any]:
        """For the report; what cannot be told is null."""
        made, real = plain(self.correlations.round(4).tolist())
        return {
            "axis": self.axis,
            "layers": self.layers.tolist(),
            "spread": self.spread.to_json(),
            "correlation": self.correlation.to_json(),
            "spreads": plain(self.spreads.round(4).tolist()),
            "correlations": {"generated": made, "monte_carlo": real},
        }


def centres(
    truth: Observables, made: Observables, floor: tuple[Observables, Observables], seed: int, resamples: int = 100
) -> Iterator[Centres]:
    """Along x and along y; nothing where fewer than two layers can be looked at. `floor` are two of Monte Carlo."""
    rng = np.random.default_rng(seed)
    mean = truth.parts.mean(axis=0)
    for axis in AXES:
        real, generated, first, second = (getattr(seen, f"layer_{axis}") for seen in (truth, made, *floor))
        there = [np.isfinite(rows).sum(axis=0) >= LEAST for rows in (real, generated, first, second)]
        layers = np.flatnonzero((mean > LEAST_LAYER) & np.all(there, axis=0))
        if len(layers) < 2:
            continue
        real, generated, first, second = (rows[:, layers] for rows in (real, generated, first, second))
        spreads, correlations = _spreads(generated) / _spreads(real), np.stack([with_next(generated), with_next(real)])
        value = _apart(real, generated)
        lowest = np.median([_apart(*pair) for pair in splits(first, second, rng)], axis=0).tolist()
        drawn = [
            _apart(*(rows[rng.integers(0, len(rows), len(rows))] for rows in (real, generated)))
            for _ in range(resamples)
        ]
        spread, correlation = map(Measured.of, value, zip(*drawn, strict=True), lowest)
        yield Centres(axis, layers, spread, correlation, spreads, correlations)


def with_next(centre: Floats) -> Floats:
    """The correlation of each layer's centre with the next one's, (layers - 1), over showers that have both."""
    found = []
    for one, two in zip(centre.T[:-1], centre.T[1:], strict=True):
        both = np.isfinite(one) & np.isfinite(two)
        with np.errstate(invalid="ignore", divide="ignore"):  # centres that never move
            found.append(np.corrcoef(one[both], two[both])[0, 1] if both.sum() > 2 else np.nan)
    return np.array(found)


def _apart(real: Floats, made: Floats) -> tuple[float, float]:
    spread = np.max(np.abs(_spreads(made) / _spreads(real) - 1))
    return float(spread), float(np.max(np.abs(with_next(made) - with_next(real))))


def _spreads(centre: Floats) -> Floats:
    return np.asarray(np.nanstd(centre, axis=0))
