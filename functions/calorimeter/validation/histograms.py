"""Curves with statistical errors: means over showers, histograms, moments in slices, ratios, a fitted resolution."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from functions.calorimeter.showers import Floats

LEAST = 5
"""Showers of a slice, below which it has no mean and no width."""


@dataclass(frozen=True)
class Curve:
    """Values in bins with errors of one sigma; NaN where there is nothing to tell."""

    value: Floats
    error: Floats


def averaged(rows: Floats) -> Curve:
    """The mean over showers of each column of (n, bins)."""
    count = max(len(rows), 1)
    return Curve(rows.mean(axis=0), rows.std(axis=0) / np.sqrt(count))


def binned(values: Floats, edges: Floats) -> Curve:
    """A histogram, normalised to one, with Poisson's errors."""
    counts = np.histogram(values, edges)[0].astype(np.float64)
    total = max(len(values), 1)
    return Curve(counts / total, np.sqrt(counts) / total)


def moments(at: Floats, values: Floats, edges: Floats, *, relative: bool = True) -> tuple[Curve, Curve]:
    """Mean and standard deviation of `values` in slices of `at`; the latter over the former if `relative`.

    The error of a standard deviation is s sqrt((k + 2) / (4 n)), with the excess kurtosis k.
    """
    rows = []
    for low, high in pairwise(edges):
        some = values[(at >= low) & (at < high)]
        if len(some) < LEAST or some.std() == 0:
            rows.append((np.nan,) * 4)
            continue
        mean, width = some.mean(), some.std()
        kurtosis = max(float(np.mean(((some - mean) / width) ** 4)) - 3, -1.9)
        error = width * np.sqrt((kurtosis + 2) / (4 * len(some)))
        by = mean if relative else 1.0
        rows.append((mean, width / np.sqrt(len(some)), width / by, error / by))
    table = np.array(rows)
    return Curve(table[:, 0], table[:, 1]), Curve(table[:, 2], table[:, 3])


def ratio(one: Curve, by: Curve) -> Curve:
    """One curve over another, with the errors of the first alone."""
    with np.errstate(invalid="ignore", divide="ignore"):
        there = by.value != 0
        return Curve(np.where(there, one.value / by.value, np.nan), np.where(there, one.error / by.value, np.nan))


def fitted(energy_gev: Floats, width: Curve) -> tuple[float, float]:
    """a and b of sigma/E = a / sqrt(E) (+) b, by least squares of the squares; E in GeV.

    >>> e = np.array([10.0, 40.0, 90.0])
    >>> s = np.hypot(0.18 / np.sqrt(e), 0.01)
    >>> [round(x, 4) for x in fitted(e, Curve(s, 0.01 * s))]
    [0.18, 0.01]
    """
    there = np.isfinite(width.value) & (width.error > 0)
    if there.sum() < 2:
        return float("nan"), float("nan")
    square, error = width.value[there] ** 2, 2 * width.value[there] * width.error[there]
    design = np.stack([1 / energy_gev[there], np.ones(int(there.sum()))], axis=1)
    found = np.linalg.lstsq(design / error[:, None], square / error, rcond=None)[0]
    if found[1] < 0:  # no constant term: the other one alone
        found = np.array([np.sum(design[:, 0] * square / error**2) / np.sum((design[:, 0] / error) ** 2), 0.0])
    if found[0] < 0:
        found = np.array([0.0, np.sum(square / error**2) / np.sum(1 / error**2)])
    return float(np.sqrt(found[0])), float(np.sqrt(found[1]))
