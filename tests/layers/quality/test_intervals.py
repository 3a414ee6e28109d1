"""Metrics and their intervals: right on cases whose answer is known, and wide where little is known."""

from math import inf

import numpy as np
import pytest

from layers.quality.interval import Interval, Sampling, difference, interval
from layers.quality.metric import Metric, mean

RATE = Metric("rate", "part that is right", "higher")


def auc(rows: np.ndarray) -> float:
    """Area under the ROC curve of rows (label, score)."""
    positive, negative = rows[rows[:, 0] == 1, 1], rows[rows[:, 0] == 0, 1]
    return float(np.mean(positive[:, None] > negative[None, :]))


def test_the_mean_of_rows_is_their_metric() -> None:
    assert mean(np.array([1.0, 0.0, 0.0, 1.0])) == 0.5


def test_which_way_is_better_must_be_said_in_words() -> None:
    with pytest.raises(ValueError, match='neither "higher" nor "lower"'):
        Metric("rate", "", "more")  # type: ignore[arg-type]


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    scores = np.random.default_rng(1).normal(3, 2, 4000)
    found = interval(Metric("level", "", "higher"), scores)
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert found.value == pytest.approx(scores.mean())
    assert (found.high - found.value, found.value - found.low) == pytest.approx((half, half), rel=0.1)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_95_of_100_intervals_cover_the_truth(method: str) -> None:
    rng = np.random.default_rng(2)
    sampling = Sampling(resamples=400, method=method)  # type: ignore[arg-type]
    found = [interval(RATE, rng.random(120) < 0.8, sampling) for _ in range(100)]
    assert 87 <= sum(one.low <= 0.8 <= one.high for one in found) <= 100


def test_bca_follows_a_skewed_statistic_and_the_percentile_does_not() -> None:
    scores = np.random.default_rng(3).exponential(1.0, 60)
    variance = Metric("variance", "", "lower", lambda rows: float(np.var(rows)))
    percentile = interval(variance, scores, Sampling())
    bca = interval(variance, scores, Sampling(method="BCa"))
    assert bca.high > percentile.high and bca.low > percentile.low


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    scores = np.random.default_rng(4).random(200)
    assert interval(RATE, scores, Sampling(seed=1)) == interval(RATE, scores, Sampling(seed=1))
    assert interval(RATE, scores, Sampling(seed=1)) != interval(RATE, scores, Sampling(seed=2))


def test_a_metric_of_rows_with_several_columns_is_resampled_by_rows() -> None:
    rng = np.random.default_rng(5)
    label = rng.integers(0, 2, 300)
    rows = np.stack([label, label + rng.normal(0, 1, 300)], axis=1)
    found = interval(Metric("auc", "", "higher", auc), rows, Sampling(resamples=300))
    assert 0.6 < found.low < found.value < found.high < 0.9
    shuffled = np.stack([rng.permutation(label), rows[:, 1]], axis=1)
    assert interval(Metric("auc", "", "higher", auc), shuffled, Sampling(resamples=300)).low < 0.5


def test_pairs_make_a_difference_visible_that_two_intervals_hide() -> None:
    rng = np.random.default_rng(6)
    hard = rng.normal(0, 5, 400)
    one, other = hard + rng.normal(0.2, 0.3, 400), hard
    level = Metric("level", "", "higher")
    assert interval(level, one).low < interval(level, other).high
    assert difference(level, one, other).low > 0.1


def test_a_difference_of_unequal_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="3 samples of the candidate and 2 of the serving model are no pairs"):
        difference(RATE, np.ones(3), np.ones(2))


@pytest.mark.parametrize("scores", [np.zeros(0), np.ones(1), np.array([1.0, np.nan, 0.0])])
def test_where_nothing_can_be_said_the_interval_is_infinite(scores: np.ndarray) -> None:
    found = interval(RATE, scores)
    assert (found.low, found.high) == (-inf, inf)


def test_a_resample_without_what_the_metric_needs_makes_the_interval_infinite() -> None:
    rows = np.array([[1, 0.9], [0, 0.1], [0, 0.2], [0, 0.3]])

    def fussy(rows: np.ndarray) -> float:
        return float("nan") if rows[:, 0].sum() in (0, len(rows)) else auc(rows)

    assert interval(Metric("auc", "", "higher", fussy), rows) == Interval(1.0, -inf, inf)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_equal_scores_have_an_interval_of_no_width(method: str) -> None:
    assert interval(RATE, np.ones(50), Sampling(method=method)) == Interval(1.0, 1.0, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"resamples": 10}, {"level": 1.0}, {"level": 0.1}])
def test_a_sampling_that_says_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Sampling(**wrong)  # type: ignore[arg-type]
