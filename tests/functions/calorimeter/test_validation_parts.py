"""Parts of the validation, each alone: the cells' classifier, distances, curves, and when a classifier is believed."""

import math

import numpy as np
import pytest

from functions.calorimeter.gate import area_of_pairs
from functions.calorimeter.showers import Showers
from functions.calorimeter.two_sample import Auc
from functions.calorimeter.validation import cells, distances
from functions.calorimeter.validation.classifiers import CANDIDATE, GFLASH, MONTE_CARLO, Found
from functions.calorimeter.validation.histograms import averaged, binned, moments

CELLS = 400


def showers(seed: int, count: int, shift: int = 0) -> Showers:
    """Ten hits each, about the same cells; a `shift` moves one of them."""
    rng = np.random.default_rng(seed)
    cell = np.sort(rng.choice(60, (count, 10)) * 6 % (CELLS - 1), axis=1)
    cell[:, 0] = shift
    offsets = np.arange(0, 10 * count + 1, 10)
    edep = rng.exponential(20.0, 10 * count).astype(np.float32)
    return Showers(rng.uniform(10, 20, count), np.full(count, 1.5), offsets, cell.ravel().astype(np.uint32), edep)


def test_the_cells_classifier_tells_what_can_be_told_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(cells, "HIDDEN", 32)
    monkeypatch.setattr(cells, "RATE", 2e-3)
    real = showers(1, 1000)
    same = cells.scores(real, showers(2, 1000), CELLS, seed=1)
    other = cells.scores(real, showers(3, 1000, shift=5), CELLS, seed=1)
    assert same.rows.shape == (200, 2) and same.showers == 600
    assert abs(area_of_pairs(same.rows) - 0.5) < 4 * 0.029
    assert area_of_pairs(other.rows) > 0.95
    assert np.array_equal(cells.scores(real, showers(3, 1000, shift=5), CELLS, seed=1).rows, other.rows)


def found(floor: Auc, poor: float) -> Found:
    rows = np.tile([[0.4, 0.6]], (10, 1))
    areas = {CANDIDATE: Auc(0.7, 0.01, 10), GFLASH: Auc(poor, 0.01, 10), MONTE_CARLO: floor}
    return Found("auc_features", areas, dict.fromkeys(areas, rows))


@pytest.mark.parametrize(
    ("floor", "poor", "valid"),
    [
        (Auc(0.50, 0.01, 10), 0.97, True),
        (Auc(0.53, 0.01, 10), 0.97, True),
        (Auc(0.56, 0.01, 10), 0.97, False),
        (Auc(0.46, 0.01, 10), 0.97, False),
        (Auc(0.50, 0.01, 10), 0.94, False),
        (Auc(math.nan, 0.01, 10), 0.97, False),
    ],
)
def test_a_classifier_is_believed_where_floor_and_gflash_say_so(floor: Auc, poor: float, valid: bool) -> None:
    classifier = found(floor, poor)
    assert classifier.valid is valid
    assert all(reason.passed for reason in classifier.reasons()) is valid
    assert classifier.to_json()["valid"] is valid


def test_a_candidate_must_be_better_than_gflash() -> None:
    classifier = found(Auc(0.5, 0.01, 10), 0.96)
    classifier.areas[CANDIDATE] = Auc(0.97, 0.01, 10)
    (failed,) = [reason for reason in classifier.reasons() if not reason.passed]
    assert "is no less than GFLASH's" in failed.sentence


def test_distances_grow_with_what_is_wrong() -> None:
    rng = np.random.default_rng(1)
    truth, same = rng.normal(5, 1, (2, 2000, 3))
    shifted, wide = same + np.array([1.5, 0, 0]), 5 + 2 * (same - 5)
    for of in (distances.frechet, distances.kernel):
        (none, error), *wrong = (of(truth, other, rng) for other in (same, shifted, wide))
        assert abs(none) < 0.2 * min(value for value, _ in wrong) and 0 < error < 0.1
    fpd, error = distances.frechet(truth, truth + np.abs(truth).max(axis=0), rng)
    assert fpd == pytest.approx(3, rel=0.05) and error < 0.1, "three shifts of one, squared"


def test_chi2_ks_and_w1_of_one_observable() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.normal(0, 2, (2, 4000))
    (chi2, _, w1, separation), (p, ks_p) = distances._measured(one, two)
    assert 0.4 < chi2 < 1.8 and p > 0.01 and ks_p > 0.01 and w1 < 0.08 and separation < 0.01
    (chi2, ks, w1, separation), (p, _) = distances._measured(one, two + 1)
    assert chi2 > 5 and p < 1e-6 and ks > 0.15 and w1 == pytest.approx(0.5, abs=0.06) and separation > 0.03


def test_curves_have_the_errors_of_their_showers() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(2, 0.5, (400, 3))
    assert averaged(rows).error == pytest.approx(0.5 / 20, rel=0.1)
    histogram = binned(np.array([0.5, 0.5, 1.5]), np.array([0.0, 1.0, 2.0]))
    assert histogram.value == pytest.approx([2 / 3, 1 / 3]) and histogram.error == pytest.approx([2**0.5 / 3, 1 / 3])
    energy = rng.uniform(0, 10, 4000)
    mean, width = moments(energy, rng.normal(5, 1, 4000), np.array([0.0, 5.0, 10.0, 20.0]))
    assert mean.value[:2] == pytest.approx([5, 5], abs=0.1) and width.value[:2] == pytest.approx([0.2, 0.2], rel=0.1)
    assert width.error[:2] == pytest.approx(0.2 / math.sqrt(2 * 2000), rel=0.2)
    assert np.isnan([mean.value[2], width.value[2]]).all(), "where there are no showers nothing is told"
