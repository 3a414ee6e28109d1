"""Metrics, each with a case in which it must be bad."""

import numpy as np
import pytest

from functions.pulsar import score
from functions.pulsar.labels import CLASSES, class_indices, class_name, components_of

TRUTH = np.stack([components_of(name) for name in CLASSES])
WRONG = np.roll(TRUTH, 1, axis=0)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_its_components(name: str) -> None:
    assert class_name(components_of(name)) == name


def test_exact_match_is_one_for_the_truth_and_zero_for_its_shift() -> None:
    assert score.exact_match(TRUTH, TRUTH) == 1.0
    assert score.exact_match(TRUTH, WRONG) == 0.0


def test_one_missed_component_is_no_match() -> None:
    given = TRUTH.copy()
    given[CLASSES.index("pulse+nbrfi"), 1] = False
    assert score.exact_match(TRUTH, given) == pytest.approx(8 / 9)


def test_macro_f1_of_an_all_none_labeller_is_low_at_the_natural_mix() -> None:
    truth = np.repeat(TRUTH[[0, 1, 2]], [948, 2, 50], axis=0)
    nothing = np.zeros_like(truth)
    assert score.exact_match(truth, nothing) == pytest.approx(0.948)
    assert score.macro_f1(truth, nothing) < 0.33
    assert score.macro_f1(truth, truth) == 1.0


def test_the_confusion_matrix_counts_every_frame_once() -> None:
    matrix = score.confusion(TRUTH, WRONG)
    assert matrix.sum() == 9 and np.trace(matrix) == 0
    assert matrix[CLASSES.index("pulse"), class_indices(WRONG)[1]] == 1


def test_recall_and_false_alarm_fail_as_they_should() -> None:
    truth = np.array([True, True, False, False])
    assert score.recall(truth, ~truth) == 0.0 and score.false_alarm(truth, ~truth) == 1.0
    assert score.recall(truth, truth) == 1.0 and score.false_alarm(truth, truth) == 0.0
    assert np.isnan(score.recall(np.zeros(2, bool), np.ones(2, bool)))


def test_recall_by_snr_tells_faint_from_bright() -> None:
    snr = np.array([7.5, 8.0, 15.0, 40.0])
    bands = score.recall_by_snr(snr, np.ones(4, bool), snr > 10)
    assert bands["7-9"] == 0.0 and bands["12-20"] == bands["20-50"] == 1.0 and np.isnan(bands["9-12"])


def test_other_excludes_the_rest() -> None:
    assert score.decide(np.ones((1, 4)), np.full(4, 0.5)).tolist() == [[False, False, False, True]]


def test_thresholds_are_found_between_the_classes() -> None:
    rng = np.random.default_rng(0)
    truth = TRUTH[rng.integers(0, 9, 2000)]
    probabilities = np.where(truth, 0.25, 0.15) + rng.normal(0, 0.01, truth.shape)
    thresholds = score.best_thresholds(truth, probabilities)
    assert ((thresholds > 0.15) & (thresholds < 0.25)).all()
    assert score.exact_match(truth, score.decide(probabilities, thresholds)) > 0.95
    assert score.exact_match(truth, score.decide(probabilities, np.full(4, 0.5))) < 0.2
