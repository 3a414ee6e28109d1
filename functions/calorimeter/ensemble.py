"""An ensemble of generators: what it predicts of showers, and how far that can be trusted.

The members learned from bootstrap resamples, with seeds of their own; where they differ, the showers that they learned
from do not say what is right. In each slice of energy and angle, and in each bin of an observable, the band has three
parts that are added in squares: the spread of the members, times Student's t for as few of them and times a factor that
is calibrated; the statistical error of what they generated; and that of the Monte Carlo which it is compared with.

The factor is found on one half of the slices, like the squares of one colour of a chessboard, and the coverage that is
told is that of the other half, which the factor has not seen.

Deep ensembles: Lakshminarayanan et al., arXiv:1612.01474.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.observables import SPECTRUM_MEV, Observables
from functions.calorimeter.showers import Counts, Floats
from layers.runtime import InputError

Flags = NDArray[np.bool_]

COVERAGE = 0.6827
"""What a band of one sigma promises."""
LEAST_MEMBERS = 4
LEAST_SHOWERS = 30
"""Monte Carlo showers in a slice, below which it is not looked at."""
LEAST_HITS = 10
"""Monte Carlo showers of a slice that have anything in a bin, below which its error is no Gaussian one."""
LEAST_PART = 2e-3
"""Bins with a smaller part of an observable's sum are left out."""
VISIBLE = np.geomspace(1e-3, 0.5, 201)
"""Edges of the bins of S/E, 3 % wide, for any calorimeter."""


@dataclass(frozen=True)
class Observable:
    """A histogram of one shower, whose mean over showers is predicted."""

    title: str
    axis: str
    unit: str
    bins: Callable[[Observables], Floats]
    """One row for each shower."""


def _visible(seen: Observables) -> Floats:
    place = np.searchsorted(VISIBLE, seen.sampling_fraction, "right") - 1
    inside = (place >= 0) & (place < len(VISIBLE) - 1)
    rows = np.zeros((len(seen), len(VISIBLE) - 1))
    rows[np.flatnonzero(inside), place[inside]] = 1.0
    return rows


def _for_each_gev(name: str) -> Callable[[Observables], Floats]:
    return lambda seen: np.asarray(getattr(seen, name) / seen.energy_gev[:, None])


OBSERVABLES: Mapping[str, Observable] = {
    "longitudinal": Observable("longitudinal profile", "layer", "MeV/GeV", _for_each_gev("layers")),
    "lateral_x": Observable("lateral profile in x", "cells from the axis", "MeV/GeV", _for_each_gev("profile_x")),
    "lateral_y": Observable("lateral profile in y", "cells from the axis", "MeV/GeV", _for_each_gev("profile_y")),
    "spectrum": Observable("spectrum of the cells", "energy, MeV", "cells", lambda seen: seen.spectrum),
    "visible": Observable("visible energy", "S/E", "part of the showers", _visible),
}


def places(name: str, bins: int) -> Floats:
    """The middle of each bin of an observable on its axis."""
    if name == "spectrum":
        return np.exp((np.log(SPECTRUM_MEV[1:]) + np.log(SPECTRUM_MEV[:-1])) / 2)
    if name == "visible":
        return np.asarray((VISIBLE[1:] + VISIBLE[:-1]) / 2)
    middle = (bins - 1) / 2 if name.startswith("lateral") else 0.0
    return np.arange(bins, dtype=np.float64) - middle


@dataclass(frozen=True)
class Slices:
    """A grid of energies and polar angles."""

    energy_gev: tuple[float, ...]
    """Edges, ascending."""
    theta_deg: tuple[float, ...]

    def __len__(self) -> int:
        return (len(self.energy_gev) - 1) * (len(self.theta_deg) - 1)

    def of(self, energy_gev: Floats, theta: Floats) -> Counts:
        """The number of each shower's slice; -1 beyond the grid. The last edges belong to the last slices."""
        rows = _bin(energy_gev, self.energy_gev)
        columns = _bin(np.degrees(theta), self.theta_deg)
        return np.where((rows < 0) | (columns < 0), -1, rows * (len(self.theta_deg) - 1) + columns)

    def place(self, number: int) -> tuple[int, int]:
        """Row (energy) and column (angle) of a slice."""
        return divmod(number, len(self.theta_deg) - 1)

    def edges(self, number: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """The range of energies, GeV, and of angles, degrees, of a slice."""
        row, column = self.place(number)
        low, angle = self.energy_gev, self.theta_deg
        return (low[row], low[row + 1]), (angle[column], angle[column + 1])

    def even(self, number: int) -> bool:
        """The colour of a slice on the chessboard."""
        return sum(self.place(number)) % 2 == 0

    def within(self, number: int, energy_gev: Sequence[float], theta_deg: Sequence[float]) -> bool:
        """Whether the slice lies wholly within these ranges."""
        energies, angles = self.edges(number)
        near = 1e-6
        return all(
            low * (1 - near) <= edge <= high * (1 + near)
            for (low, high), pair in (
                ((energy_gev[0], energy_gev[-1]), energies),
                ((theta_deg[0], theta_deg[-1]), angles),
            )
            for edge in pair
        )


@dataclass
class Sums:
    """Sums over showers of each slice's histograms, so that no shower has to be kept."""

    slices: Slices
    count: Counts = field(init=False)
    """Showers in each slice."""
    first: dict[str, Floats] = field(default_factory=dict)
    """Sum of each bin, (slices, bins)."""
    second: dict[str, Floats] = field(default_factory=dict)
    """Sum of squares."""
    filled: dict[str, Floats] = field(default_factory=dict)
    """Showers that have anything in a bin."""

    def __post_init__(self) -> None:
        self.count = np.zeros(len(self.slices), np.int64)

    def add(self, seen: Observables) -> None:
        """Count showers in; those beyond the slices are left out."""
        number = self.slices.of(seen.energy_gev, seen.theta)
        inside = number >= 0
        which = (number[inside] == np.arange(len(self.slices))[:, None]).astype(float)
        self.count += which.sum(axis=1).astype(np.int64)
        for name, observable in OBSERVABLES.items():
            rows = observable.bins(seen)[inside]
            for sums, values in ((self.first, rows), (self.second, rows**2), (self.filled, (rows > 0).astype(float))):
                sums[name] = sums.get(name, 0.0) + which @ values

    def mean(self, name: str) -> Floats:
        """The mean of each bin, (slices, bins); NaN in an empty slice."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.first[name] / self.count[:, None])

    def error(self, name: str) -> Floats:
        """The statistical error of the mean."""
        with np.errstate(invalid="ignore", divide="ignore"):
            count = self.count[:, None].astype(np.float64)
            variance = np.maximum(self.second[name] / count - self.mean(name) ** 2, 0) * count / (count - 1)
            return np.sqrt(variance / count)


@dataclass(frozen=True)
class Bands:
    """Prediction and Monte Carlo of one observable; arrays (slices, bins)."""

    mean: Floats
    """The mean of the members."""
    spread: Floats
    """Their standard deviation without its statistics, times Student's t, before calibration."""
    generated: Floats
    """Statistical error of `mean`."""
    truth: Floats
    truth_error: Floats
    used: Flags
    """Bins that are looked at."""

    def sigma(self, factor: float, *, with_truth: bool) -> Floats:
        """Half the width of the band: around the prediction, or for its difference to the Monte Carlo."""
        square = (factor * self.spread) ** 2 + self.generated**2
        return np.sqrt(square + self.truth_error**2 if with_truth else square)

    def covered(self, factor: float) -> Flags:
        """Where the Monte Carlo lies in the band."""
        return np.asarray(np.abs(self.truth - self.mean) <= self.sigma(factor, with_truth=True))


def bands(truth: Sums, members: Sequence[Sums]) -> dict[str, Bands]:
    """The bands of each observable. Raises InputError for fewer than `LEAST_MEMBERS`."""
    if len(members) < LEAST_MEMBERS:
        raise InputError(
            f"inputs: an ensemble of {len(members)} has no spread to speak of; name {LEAST_MEMBERS} versions"
        )
    factor = student_t(len(members))
    found = {}
    for name in OBSERVABLES:
        means = np.stack([member.mean(name) for member in members])
        errors = np.stack([member.error(name) for member in members])
        expected = truth.mean(name)
        with np.errstate(invalid="ignore"):
            large = expected > LEAST_PART * np.nansum(expected, axis=1, keepdims=True)
        found[name] = Bands(
            mean=means.mean(axis=0),
            spread=factor * _apart(means, errors),
            generated=np.sqrt((errors**2).sum(axis=0)) / len(members),
            truth=expected,
            truth_error=truth.error(name),
            used=(truth.count >= LEAST_SHOWERS)[:, None] & (truth.filled[name] >= LEAST_HITS) & large,
        )
    return found


def _apart(means: Floats, errors: Floats) -> Floats:
    """How far members differ, with the statistics of their means taken off, down to half of what is seen.

    Of few members, some differ by less than their statistics; no spread at all could not be calibrated.
    """
    seen = means.var(axis=0, ddof=1)
    return np.asarray(np.sqrt(np.maximum(seen - (errors**2).mean(axis=0), seen / 4)))


def calibrated(found: Bands, rows: Flags) -> float:
    """The factor of the spread with which `COVERAGE` of the bins of these slices are covered.

    Raises InputError where no factor does it, or where there is no bin.
    """
    used = found.used & rows[:, None]
    if not used.any():
        raise InputError(
            "inputs: the held-out showers fill no slice to calibrate on; hold out more, or take wider slices"
        )
    statistics = (found.generated**2 + found.truth_error**2)[used]
    missing = np.maximum((found.truth - found.mean)[used] ** 2 - statistics, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(missing > 0, np.sqrt(missing) / found.spread[used], 0.0)
    factor = float(np.quantile(needed, COVERAGE, method="higher"))
    if not math.isfinite(factor):
        raise InputError("inputs: the members do not differ from each other; name versions of different seeds")
    return factor


def student_t(members: int) -> float:
    """By how much the standard deviation of so few must be stretched for 68 %: Student's t of n - 1 degrees.

    >>> [round(student_t(n), 2) for n in (2, 5, 1000)]
    [1.84, 1.14, 1.0]
    """
    from scipy.stats import t

    return float(t.ppf((1 + COVERAGE) / 2, members - 1))


def coverage(
    found: Bands, factor: float, rows: Flags, seed: int, resamples: int = 200
) -> dict[str, float | int | None]:
    """The part of these slices' bins that is covered, with a 95 % interval by a bootstrap over slices.

    Bins of a slice are not independent: they are of the same showers. One slice has no interval.
    """
    used = found.used & rows[:, None]
    hits, bins = (found.covered(factor) & used).sum(axis=1)[rows], used.sum(axis=1)[rows]
    if not bins.sum():
        return {"value": None, "low": None, "high": None, "bins": 0, "slices": 0}
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(bins), (resamples, len(bins)))
    total = bins[drawn].sum(axis=1)
    values = hits[drawn].sum(axis=1)[total > 0] / total[total > 0]
    slices = int((bins > 0).sum())
    low, high = (float(np.quantile(values, edge)) if slices > 1 else None for edge in (0.025, 0.975))
    return {
        "value": float(hits.sum() / bins.sum()),
        "low": low,
        "high": high,
        "bins": int(bins.sum()),
        "slices": slices,
    }


def width(found: Bands, factor: float, rows: Flags) -> float | None:
    """The median over these slices' bins of the calibrated spread over the prediction; None without a bin."""
    used = found.used & rows[:, None] & (found.mean > 0)
    if not used.any():
        return None
    return float(np.median(factor * found.spread[used] / found.mean[used]))


def _bin(values: Floats, edges: Sequence[float]) -> Counts:
    """The bin of each value, -1 beyond them; what lies on the outer edges, but for rounding, is inside."""
    near = 1e-9 * edges[-1]
    last = len(edges) - 2
    found = np.clip(np.searchsorted(np.asarray(edges) - near, values, "right") - 1, -1, last)
    return np.where(values > edges[-1] + near, -1, found)
