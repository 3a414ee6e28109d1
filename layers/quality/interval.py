"""Bootstrap confidence intervals of a metric, and of its paired difference between two models.

Rows are drawn with replacement; of a difference both models get the same rows, so what makes a sample hard for both
cancels. The bootstrap is scipy's; see
Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from layers.quality.metric import Metric, Scores

Numbers = NDArray[Any]
CELLS = 1 << 20
"""Row numbers that are drawn at once, which bounds the memory of many samples."""
Method = Literal["percentile", "BCa"]


@dataclass(frozen=True)
class Sampling:
    """How intervals are made: the same seed gives the same ones."""

    seed: int = 0
    resamples: int = 2000
    level: float = 0.95
    method: Method = "percentile"
    """`BCa` is corrected for bias and skewness, at the cost of one evaluation a row on top."""

    def __post_init__(self) -> None:
        if self.resamples < 100 or not 0.5 <= self.level < 1 or self.seed < 0:
            raise ValueError("seed must be >= 0, resamples >= 100 and level between 0.5 and 1")


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; infinite where there are too few samples to say anything."""

    value: float
    low: float
    high: float


def interval(metric: Metric, scores: Scores, sampling: Sampling = Sampling()) -> Interval:
    """The metric of one model's scores."""
    return _bootstrap(lambda rows: metric.value(scores[rows]), len(scores), sampling)


def difference(
    metric: Metric,
    candidate: Scores,
    serving: Scores,
    sampling: Sampling = Sampling(),
) -> Interval:
    """Candidate minus serving model, both scored on the same samples in the same order.

    Raises ValueError where the scores are not of the same samples.
    """
    if len(candidate) != len(serving):
        raise ValueError(
            f"{metric.name}: {len(candidate)} samples of the candidate and {len(serving)} of the serving model are no "
            "pairs; score both on the same samples"
        )
    return _bootstrap(
        lambda rows: metric.value(candidate[rows]) - metric.value(serving[rows]), len(candidate), sampling
    )


def _bootstrap(statistic: Callable[[Numbers], float], count: int, sampling: Sampling) -> Interval:
    from scipy.stats import DegenerateDataWarning, bootstrap

    rows = np.arange(count)
    value = statistic(rows) if count else float("nan")
    if count < 2 or not np.isfinite(value):
        return Interval(value, -inf, inf)

    def statistics(drawn: Numbers, axis: int) -> Numbers:
        drawn = np.moveaxis(drawn, axis, -1)
        values = [statistic(some) for some in drawn.reshape(-1, drawn.shape[-1])]
        return np.array(values).reshape(drawn.shape[:-1])

    batch = max(1, CELLS // count)
    how: dict[str, Any] = {"vectorized": True, "confidence_level": sampling.level, "batch": batch}
    rng = np.random.default_rng(sampling.seed)
    with warnings.catch_warnings():  # what it warns of has an interval that is not finite, or no width
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap((rows,), statistics, n_resamples=sampling.resamples, method="percentile", rng=rng, **how)
        spread = found.bootstrap_distribution
        if sampling.method == "BCa" and np.ptp(spread) > 0:  # without any spread there is nothing to correct
            found = bootstrap((rows,), statistics, n_resamples=0, method="BCa", bootstrap_result=found, **how)
    low, high = (float(edge) for edge in found.confidence_interval)
    # a resample may lack what the metric needs
    if not (np.isfinite(spread).all() and np.isfinite(low) and np.isfinite(high)):
        return Interval(value, -inf, inf)
    return Interval(value, low, high)
