"""Distances of generated showers from simulated ones: of each observable, and of all features at once.

They judge nothing; the report tells them, each with its floor, because the field compares models by them.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from functions.calorimeter.observables import Observables
from functions.calorimeter.showers import Floats

BINS = 30
LEAST_IN_BIN = 5
"""Showers of both samples in a bin of chi2; bins with fewer are left out."""
BATCHES = 10
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
class Distance:
    """Of one observable."""

    observable: str
    chi2_ndf: float
    chi2_p: float
    ks: float
    ks_p: float
    w1: float
    """Wasserstein distance over the standard deviation in Monte Carlo."""
    separation: float
    floor_w1: float
    floor_ks: float
    floor_chi2_ndf: float

    def to_json(self) -> dict[str, Any]:
        """For the report; what is not finite is null."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def distances(truth: Observables, made: Observables, floor: tuple[Observables, Observables]) -> Iterator[Distance]:
    """Distances of all observables; `floor` are two samples of Monte Carlo."""
    for name, of in OBSERVABLES.items():
        chi2, ks, w1, separation = _measured(_finite(of(truth)), _finite(of(made)))
        floor_chi2, floor_ks, floor_w1, _ = _measured(*(_finite(of(sample)) for sample in floor))
        yield Distance(name, *chi2, *ks, w1, separation, floor_w1, floor_ks[0], floor_chi2[0])


def _measured(real: Floats, made: Floats) -> tuple[tuple[float, float], tuple[float, float], float, float]:
    from scipy.stats import chi2 as chi2_law
    from scipy.stats import ks_2samp, wasserstein_distance

    from functions.calorimeter.compare import separation

    nan = float("nan")
    if len(real) < 2 or len(made) < 2:
        return (nan, nan), (nan, nan), nan, nan
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
    chi2 = (total / free, float(chi2_law.sf(total, free)))
    return chi2, (float(ks.statistic), float(ks.pvalue)), w1, separation(one, two)


def _finite(values: Floats) -> Floats:
    return np.asarray(values[np.isfinite(values)])


def frechet(truth: Floats, made: Floats, rng: np.random.Generator) -> float:
    """FPD: the squared Frechet distance of two Gaussians with the samples' means and covariances, for N to infinity.

    Of features over the largest of their values in `truth`; at ten sample sizes, equally spaced in 1/N from a fifth of
    the showers on, of which a line's intercept is taken (Kansal et al., Phys. Rev. D 107 (2023) 076017).
    """
    real, other = _scaled(truth, made)
    most = min(len(real), len(other))
    inverse = np.linspace(1 / most, 5 / most, BATCHES)
    found = [
        _frechet(*(sample[rng.permutation(len(sample))[: int(1 / part)]] for sample in (real, other)))
        for part in inverse
    ]
    return float(np.polyfit(inverse, found, 1)[1])


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
