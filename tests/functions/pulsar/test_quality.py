"""The bars that the shipped classifier must pass, on random streams that no training has used."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from functions.pulsar import classifier, score
from functions.pulsar.features import Features
from functions.pulsar.labelled import Population
from functions.pulsar.train import draw_examples
from layers.runtime.testing import call

MODEL = Path(classifier.__file__).parent / "pulsar-classifier.onnx"


@pytest.fixture(scope="module")
def judged() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities and in-frame S/N of 1,080 fresh balanced frames."""
    model = classifier.load(MODEL)
    examples = draw_examples(Population(), 1080, (987_654, 1))
    parts = []
    for start in range(0, 1080, 60):
        some = {n: v[start : start + 60].astype(np.float32) for n, v in examples.features.as_inputs().items()}
        parts.append(model(Features(**some)))
    return examples.truth, np.concatenate(parts), examples.snr


def test_exact_match_over_nine_balanced_classes_is_at_least_0_90(judged: tuple) -> None:
    truth, probabilities, _ = judged
    labels = score.decide(probabilities, classifier.load(MODEL).thresholds)
    assert score.exact_match(truth, labels) >= 0.90
    assert score.macro_f1(truth, labels) >= 0.90


def test_the_score_falls_when_labels_belong_to_other_frames(judged: tuple) -> None:
    truth, probabilities, _ = judged
    labels = score.decide(np.roll(probabilities, 1, axis=0), classifier.load(MODEL).thresholds)
    assert score.exact_match(truth, labels) < 0.2


def test_the_score_falls_without_the_thresholds(judged: tuple) -> None:
    truth, probabilities, _ = judged
    assert score.exact_match(truth, score.decide(probabilities, np.full(4, 0.001))) < 0.5


def test_bright_pulses_are_seen_and_empty_frames_are_not_pulses(judged: tuple) -> None:
    truth, probabilities, snr = judged
    labels = score.decide(probabilities, classifier.load(MODEL).thresholds)
    assert score.recall(truth[:, 0] & (snr >= 12), labels[:, 0]) >= 0.95
    assert score.false_alarm(truth.any(axis=1), labels[:, 0]) <= 0.04


@pytest.mark.slow
def test_at_the_natural_mix_pulses_are_kept_and_little_else(synthesise: Callable[..., Path], tmp_path: Path) -> None:
    rates = {"pulses": 1.5, "nbrfi": 22, "bbrfi": 40, "other": 0.3, "dm_pc_cm3": [50, 65], "pulse_snr": [12, 50]}
    folder = synthesise(seed=31, duration_s=240, **rates)
    assert call("pulsar.preprocess", folder / "request.json.fil", tmp_path).code == 0
    frames = tmp_path / "request.json.fil.h5"
    assert call("pulsar.classify", frames, tmp_path, settings={"PICTURE": "no"}).code == 0
    labels = json.loads(Path(f"{frames}.labels.json").read_text())["frames"]
    truth = json.loads((folder / "request.json.truth.json").read_text())["frames"]
    bright = np.array([frame.get("pulse_snr", 0) >= 12 and "pulse" in frame["labels"] for frame in truth])
    labelled = np.array(["pulse" in frame["labels"] for frame in labels])
    assert bright.sum() >= 8
    assert score.recall(bright, labelled) >= 0.9
    assert np.mean([frame["kept"] for frame in labels]) <= 0.015
