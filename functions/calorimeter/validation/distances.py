"""Distances of generated showers from simulated ones: of each observable, and of all features at once.

They judge nothing; the report tells them, each with its floor, because the field compares models by them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from functions.calorimeter.compare import interval, separation
from functions.calorimeter.observables import Observables
from functions.calorimeter.plain import plain
from functions.calorimeter.showers import Floats

BINS = 30
LEAST_IN_BIN = 5
"""Showers of both samples in a bin of chi2; bins with fewer are left out."""
BATCHES = 10
PAIRS = 11
OBSERVABLES: dict[str, Callable[[Observables], Floats]] = {
    "S/E": lambda seen: seen.sampling_fraction,
    "hits": lambda seen: seen.hits,
    "hottest cell / E": lambda seen: seen.hottest / seen.energy_gev,
    "depth": lambda seen: seen.depth,
    "depth width": lambda seen: seen.depth_width,
    "start layer": lambda seen: seen.start,
    "energy in the last 3 layers": lambda seen: seen.leakage,
    "width in x": lambda seen: seen.width_x,
    "width in y": lambda seen: seen.width_y,
    "core": lambda seen: seen.core,
    "R90": lambda seen: seen.radius_90,
    "angle error": lambda seen: np.degrees(seen.measured_theta - seen.theta),
}


@dataclass(frozen=True)
class Measured:
    """A number with its 68 % bootstrap interval, and what it is between two samples of Monte Carlo."""

    value: float
    low: float
    high: float
    floor: float

    @classmethod
    def of(cls, value: float, drawn: Sequence[float], floor: float) -> "Measured":
        """With the interval that its values on resampled showers give."""
        return cls(value, *interval(value, drawn), floor)

    def to_json(self) -> dict[str, Any]:
        """For the report; what is not finite is null."""
        return dict(plain(vars(self)))


@dataclass(frozen=True)
class Distance:
    """Of one observable: chi2 over its degrees of freedom, Kolmogorov-Smirnov, Wasserstein over the standard deviation
    in Monte Carlo, separation power; and the probabilities of the first two."""

    observable: str
    chi2_ndf: Measured
    ks: Measured
    w1: Measured
    separation: Measured
    chi2_p: float
    ks_p: float

    def to_json(self) -> dict[str, Any]:
        """For the report; what is not finite is null."""
        return {
            name: value.to_json() if isinstance(value, Measured) else plain(value) for name, value in vars(self).items()
        }


def distances(
    truth: Observables, made: Observables, floor: tuple[Observables, Observables], seed: int, resamples: int = 100
) -> Iterator[Distance]:
    """Distances of all observables; `floor` are two samples of Monte Carlo."""
    rng = np.random.default_rng(seed)
    for name, of in OBSERVABLES.items():
        real, generated = _finite(of(truth)), _finite(of(made))
        values, probabilities = _measured(real, generated)
        first, second = (_finite(of(sample)) for sample in floor)
        least = np.median([_measured(*pair)[0] for pair in splits(first, second, rng)], axis=0).tolist()
        drawn = [_measured(_again(real, rng), _again(generated, rng))[0] for _ in range(resamples)]
        chi2, ks, w1, apart = map(Measured.of, values, zip(*drawn, strict=True), least)
        yield Distance(name, chi2, ks, w1, apart, *probabilities)


def splits(one: Floats, two: Floats, rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
    """Two samples put together, and `PAIRS` times split by lot into two of their sizes: a floor is their median."""
    pool = np.concatenate([one, two])
    for _ in range(PAIRS):
        order = rng.permutation(len(pool))
        yield pool[order[: len(one)]], pool[order[len(one) :]]


def _measured(real: Floats, made: Floats) -> tuple[tuple[float, float, float, float], tuple[float, float]]:
    """chi2/ndf, KS, W1 over sigma, separation power; and the probabilities of the first two."""
    from scipy.stats import chi2 as chi2_law
    from scipy.stats import ks_2samp, wasserstein_distance

    nan = float("nan")
    if len(real) < 2 or len(made) < 2:
        return (nan,) * 4, (nan, nan)
    edges = np.unique(np.quantile(real, np.linspace(0, 1, BINS + 1)))
    edges = edges if len(edges) > 1 else np.array([edges[0] - 0.5, edges[0] + 0.5])
    one, two = (np.histogram(np.clip(sample, edges[0], edges[-1]), edges)[0].astype(float) for sample in (real, made))
    used = one + two >= LEAST_IN_BIN
    # Poisson errors of both samples, made alike in size (Gagunashvili, arXiv:physics/0605123, for unweighted counts)
    ratio = np.sqrt(one.sum() / two.sum())
    terms = (one[used] / ratio - two[used] * ratio) ** 2 / (one[used] + two[used])
    free = max(int(used.sum()) - 1, 1)
    total = float(terms.sum())
    ks = ks_2samp(real, made, method="asymp")  # the exact one fails on equal values, and costs much on many
    w1 = float(wasserstein_distance(real, made) / real.std()) if real.std() > 0 else nan
    values = (total / free, float(ks.statistic), w1, separation(one, two))
    return values, (float(chi2_law.sf(total, free)), float(ks.pvalue))


def _again(values: Floats, rng: np.random.Generator) -> Floats:
    """As many of them, drawn with replacement."""
    return np.asarray(rng.choice(values, len(values)))


def _finite(values: Floats) -> Floats:
    return np.asarray(values[np.isfinite(values)])


def frechet(truth: Floats, made: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """FPD: the squared Frechet distance of two Gaussians with the samples' means and covariances, for N to infinity.

    Of features over the largest of their values in `truth`; at ten sample sizes, equally spaced in 1/N from a fifth of
    the showers on. The intercept of a line through them, and its error (Kansal et al., Phys. Rev. D 107 (2023) 076017).
    """
    real, other = _scaled(truth, made)
    most = min(len(real), len(other))
    inverse = np.linspace(1 / most, 5 / most, BATCHES)
    found = [
        _frechet(*(sample[rng.permutation(len(sample))[: int(1 / part)]] for sample in (real, other)))
        for part in inverse
    ]
    line, covariance = np.polyfit(inverse, found, 1, cov=True)
    return float(line[1]), float(np.sqrt(covariance[1, 1]))


def _frechet(one: Floats, two: Floats) -> float:
    first, second = np.cov(one.T), np.cov(two.T)
    shift = one.mean(axis=0) - two.mean(axis=0)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * cross)


def kernel(truth: Floats, made: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """KPD: unbiased squared MMD with the kernel (x y / d + 1)^4, median of ten batches and half its 16-84 % range.

    Batches are a fifth of the showers, 1,000 at most, drawn anew each (Kansal et al., Phys. Rev. D 107 (2023) 076017).
    """
    real, other = _scaled(truth, made)
    size = min(1000, max(2, min(len(real), len(other)) // 5))
    found = [_mmd(*(sample[rng.permutation(len(sample))[:size]] for sample in (real, other))) for _ in range(BATCHES)]
    low, middle, high = np.quantile(found, [0.16, 0.5, 0.84])
    return float(middle), float((high - low) / 2)


def _mmd(one: Floats, two: Floats) -> float:
    def of(x: Floats, y: Floats) -> Floats:
        return np.asarray((x @ y.T / x.shape[1] + 1) ** 4)

    n, m = len(one), len(two)
    same, other = of(one, one), of(two, two)
    inner = (same.sum() - np.trace(same)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(inner - 2 * of(one, two).mean())


def _scaled(truth: Floats, made: Floats) -> tuple[Floats, Floats]:
    largest = np.abs(truth).max(axis=0)
    by = np.where(largest > 0, largest, 1)
    return truth / by, made / by
