"""Generated showers against Monte Carlo: the numbers that a validation is made of.

Every number is computed from sums over showers, so that a bootstrap is a change of weights, and from two halves of
the Monte Carlo alone, which is its floor: what a perfect generator would reach with as many showers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from functions.calorimeter.observables import Observables
from functions.calorimeter.showers import Floats

LEAST_LAYER = 0.01
"""Layers with less of the energy are not compared one by one."""
LEAST_STRIP = 0.005
LEAST_IN_SLICE = 50
"""Showers in an energy slice, below which it is not looked at."""
VISIBLE_BINS = np.linspace(0.0, 0.05, 101)
"""Edges of the bins of S/E."""
LAYER_BINS = 20


@dataclass(frozen=True)
class Band:
    """What a number must not exceed, and what it should reach."""

    must: float
    aim: float


BANDS = {
    "mean_visible": Band(0.02, 0.005),
    "resolution": Band(0.15, 0.05),
    "longitudinal_profile": Band(0.10, 0.03),
    "lateral_profile": Band(0.15, 0.05),
    "mean_hits": Band(0.10, 0.03),
    "width_hits": Band(0.20, 0.10),
    "separation_cells": Band(0.02, 0.004),
    "separation_visible": Band(0.02, 0.004),
    "separation_layers": Band(0.01, 0.002),
    "layer_correlation": Band(0.15, 0.05),
    "angle_bias_deg": Band(1.0, 0.3),
    "angle_resolution": Band(0.25, 0.05),
    "extreme_quantiles": Band(0.25, 0.10),
}
MEANING = {
    "mean_visible": "largest relative error of the mean S/E in an energy slice",
    "resolution": "largest relative error of the width of S/E in an energy slice",
    "longitudinal_profile": "largest relative error of the mean energy of a layer that holds 1 % of it",
    "lateral_profile": "largest relative error of the mean energy in a strip, in x or in y, that holds 0.5 % of it",
    "mean_hits": "relative error of the mean number of cells hit",
    "width_hits": "largest relative error of the width of the number of cells hit, in an energy slice",
    "separation_cells": "separation power of the cells' spectrum above 0.1 MeV",
    "separation_visible": "separation power of S/E",
    "separation_layers": "mean separation power of the layers' energies",
    "layer_correlation": "largest difference of the correlation of two layers' energies",
    "angle_bias_deg": "difference of the mean error of the measured angle, degrees",
    "angle_resolution": "relative error of the spread of the measured angle",
    "extreme_quantiles": "largest relative error of the 1e-3 and 1 - 1e-3 quantiles of S/E and of the hottest cell",
}
"""What each number says; all are better when they are smaller."""
_COLUMNS = ("fraction", "slice", "layers", "parts", "strips", "hits", "spectrum", "hottest", "angle")


@dataclass(frozen=True)
class Number:
    """A number of a comparison, with its bootstrap interval and its floor."""

    name: str
    value: float
    low: float
    high: float
    floor: float
    must: float
    aim: float

    @property
    def verdict(self) -> str:
        """`aim`, `must` or `fail`; what is no number fails."""
        return "aim" if self.value <= self.aim else "must" if self.value <= self.must else "fail"


class Sample:
    """Showers as rows of what the numbers need; `edges_gev` are those of the energy slices."""

    def __init__(self, seen: Observables, edges_gev: Floats) -> None:
        self.fraction = seen.sampling_fraction
        self.slice = np.clip(np.searchsorted(edges_gev, seen.energy_gev, "right") - 1, 0, len(edges_gev) - 2)
        self.slices = len(edges_gev) - 1
        self.layers = seen.layers
        self.parts = seen.layers / seen.energy_gev[:, None]
        self.strips = np.concatenate([seen.profile_x, seen.profile_y], axis=1)
        self.hits = seen.hits
        self.spectrum = seen.spectrum
        self.hottest = seen.hottest / seen.energy_gev
        self.angle = np.degrees(seen.measured_theta - seen.theta)

    def __len__(self) -> int:
        return len(self.fraction)

    def rows(self, chosen: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> "Sample":
        """The chosen showers, of which some may be there several times."""
        return self._with({name: getattr(self, name)[chosen] for name in _COLUMNS})

    def joined(self, other: "Sample") -> "Sample":
        """These showers, and then the other's."""
        return self._with({name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS})

    def _with(self, columns: Mapping[str, Any]) -> "Sample":
        made = object.__new__(Sample)
        made.slices = self.slices
        for name, column in columns.items():
            setattr(made, name, column)
        return made


def compare(
    reference: Observables,
    generated: Observables,
    edges_gev: Floats,
    *,
    seed: int,
    resamples: int = 100,
    spare: Observables | None = None,
) -> list[Number]:
    """All numbers of generated showers against Monte Carlo, with 68 % intervals and floors.

    The floor is the median over random pairs of samples of the Monte Carlo: halves of the reference, which have half as
    many showers, so that it is on the safe side; with enough `spare` Monte Carlo, pairs of full size. All samples
    should have the same distribution of energy and angle.
    """
    rng = np.random.default_rng(seed)
    truth, made = Sample(reference, edges_gev), Sample(generated, edges_gev)
    values = numbers(truth, made)
    drawn = [
        numbers(truth.rows(rng.integers(0, len(truth), len(truth))), made.rows(rng.integers(0, len(made), len(made))))
        for _ in range(resamples)
    ]
    pool = truth if spare is None else truth.joined(Sample(spare, edges_gev))
    floors = [numbers(*_pair(pool, len(truth), rng)) for _ in range(max(11, resamples // 5))]
    found = []
    for name, value in values.items():
        low, high = interval(value, [one[name] for one in drawn])
        floor = float(np.median([one[name] for one in floors]))
        found.append(Number(name, value, low, high, floor, BANDS[name].must, BANDS[name].aim))
    return found


def interval(value: float, drawn: Sequence[float]) -> tuple[float, float]:
    """A 68 % bootstrap interval about a value that is not negative, from its values on resampled showers.

    Resampling adds the noise of a second sample, which lifts every maximum and every distance; so the resamples'
    quantiles are laid about the value by their own median. What cannot be told is its own interval.

    >>> interval(1.0, [1.5, 2.0, 4.0])
    (0.5, 3.0)
    """
    low, middle, high = (float(edge) for edge in np.quantile(drawn, [0.16, 0.5, 0.84], method="nearest"))
    if not np.isfinite([value, low, middle, high]).all():
        return value, value
    return max(value + low - middle, 0.0), value + high - middle


def numbers(truth: Sample, made: Sample) -> Mapping[str, float]:
    """The numbers of one pair of samples; infinite where they cannot be told."""
    found = dict(_numbers(truth, made))
    return {name: value if np.isfinite(value) else np.inf for name, value in found.items()}


def separation(first: Floats, second: Floats) -> float:
    """Separation power of two histograms: half the sum of (h1 - h2)^2 / (h1 + h2), both normalised; from 0 to 1.

    Diefenbacher et al., arXiv:2009.03796; infinite where one is empty.

    >>> separation(np.array([1.0, 0.0]), np.array([0.0, 2.0]))
    1.0
    """
    if first.sum() <= 0 or second.sum() <= 0:
        return float("inf")
    one, two = first / first.sum(), second / second.sum()
    both = one + two
    return float(0.5 * np.sum((one - two)[both > 0] ** 2 / both[both > 0]))


def _numbers(truth: Sample, made: Sample) -> Iterator[tuple[str, float]]:
    slices = list(_slices(truth, made))
    yield "mean_visible", _worst(_off(made.fraction[m].mean(), truth.fraction[t].mean()) for t, m in slices)
    yield "resolution", _worst(_off(_width(made.fraction[m]), _width(truth.fraction[t])) for t, m in slices)
    yield "longitudinal_profile", _profile(truth.parts.mean(axis=0), made.parts.mean(axis=0), LEAST_LAYER)
    half = truth.strips.shape[1] // 2
    yield (
        "lateral_profile",
        max(
            _profile(truth.strips[:, side].mean(axis=0), made.strips[:, side].mean(axis=0), LEAST_STRIP)
            for side in (slice(half), slice(half, None))
        ),
    )
    yield "mean_hits", _off(made.hits.mean(), truth.hits.mean())
    yield "width_hits", _worst(_off(_width(made.hits[m]), _width(truth.hits[t])) for t, m in slices)
    yield "separation_cells", separation(truth.spectrum.sum(axis=0), made.spectrum.sum(axis=0))
    yield "separation_visible", _separation_of(truth.fraction, made.fraction, VISIBLE_BINS)
    yield "separation_layers", float(np.mean([_layers_apart(truth, made, i) for i in range(truth.layers.shape[1])]))
    yield "layer_correlation", float(np.max(np.abs(_correlation(truth) - _correlation(made))))
    yield "angle_bias_deg", abs(_mean(made.angle) - _mean(truth.angle))
    yield "angle_resolution", _off(_robust_width(made.angle), _robust_width(truth.angle))
    edges = [1e-3, 1 - 1e-3]
    pairs = [(made.fraction, truth.fraction, edges), (made.hottest, truth.hottest, edges[1:])]
    yield "extreme_quantiles", _worst(_off(np.quantile(a, q), np.quantile(b, q)) for a, b, qs in pairs for q in qs)


def _slices(truth: Sample, made: Sample) -> Iterator[tuple[Floats, Floats]]:
    for number in range(truth.slices):
        one, two = truth.slice == number, made.slice == number
        if one.sum() >= LEAST_IN_SLICE:
            yield one, two


def _worst(values: Iterator[float]) -> float:
    """The largest; what cannot be told is the worst of all."""
    found = list(values)
    return max(found) if found and np.isfinite(found).all() else float("inf")


def _off(value: float, truth: float) -> float:
    return abs(float(value) / float(truth) - 1) if truth else float("inf")


def _width(values: Floats) -> float:
    return float(np.std(values)) if len(values) > 1 else float("nan")


def _mean(values: Floats) -> float:
    """Of those that are numbers."""
    return float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else float("nan")


def _robust_width(values: Floats) -> float:
    if not np.isfinite(values).any():
        return float("nan")
    low, high = np.nanquantile(values, [0.16, 0.84])
    return float(high - low)


def _profile(truth: Floats, made: Floats, least: float) -> float:
    chosen = truth > least * truth.sum()
    return float(np.max(np.abs(made[chosen] / truth[chosen] - 1)))


def _separation_of(truth: Floats, made: Floats, edges: Floats) -> float:
    histograms = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] for values in (truth, made)]
    return separation(*(histogram.astype(np.float64) for histogram in histograms))


def _layers_apart(truth: Sample, made: Sample, layer: int) -> float:
    one, two = (np.log10(sample.layers[:, layer] + 0.05) for sample in (truth, made))
    return _separation_of(one, two, np.linspace(one.min(), max(one.max(), one.min() + 1e-9), LAYER_BINS + 1))


def _correlation(sample: Sample) -> Floats:
    """Pearson's, of the layers' parts of the primary energy."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nan_to_num(np.corrcoef(sample.parts.T)))


def _pair(pool: Sample, most: int, rng: np.random.Generator) -> tuple[Sample, Sample]:
    """Two samples of the pool that share no shower, each with `most` showers or half of all."""
    order = rng.permutation(len(pool))
    size = min(most, len(order) // 2)
    return pool.rows(order[:size]), pool.rows(order[size : 2 * size])
