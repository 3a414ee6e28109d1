"""The score tells better models from worse ones, and an export that is not the network is found out."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import compare
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.training import data
from functions.calorimeter.training.parity import NotTheSame, check_parity
from functions.calorimeter.training.score import WORST, Scorer
from layers.learning.distributed import ALONE
from tests.functions.calorimeter.trainings import prepared

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    showers = prepared(tmp_path_factory.mktemp("showers"), showers=300)
    return data.read("r", [showers], 0.1, 0.5).part(data.WATCHING)


@pytest.fixture(scope="module")
def learner(watched: TrainingData) -> Any:
    """A model that has learned the mean shower."""
    from tests.functions.calorimeter.tiny_learner import Parameters, make

    torch.set_num_threads(1)
    torch.manual_seed(1)
    found = make(watched, Parameters(steps=80), 1, ALONE)
    for number in range(80):
        found.step(number)
    return found


def exported(learner: Any, path: Path, gain: float = 1.0) -> Path:
    """The model with all cells that much too bright."""
    state = {name: value.clone() for name, value in learner.network.state_dict().items()}
    with torch.no_grad():
        learner.network.outer.bias += math.log(gain)
    path.write_bytes(learner.export({}, "test"))
    learner.network.load_state_dict(state)
    return path


def test_the_score_grows_with_a_gain_error(watched: TrainingData, learner: Any, tmp_path: Path) -> None:
    scorer = Scorer(watched, seed=1)
    scores = [scorer(exported(learner, tmp_path / "m.onnx", gain)).score for gain in (1.0, 1.3, 1.7, 3.0)]
    assert scores == sorted(scores) and scores[3] > scores[0] + 0.5
    assert scorer(exported(learner, tmp_path / "m.onnx")).score == scores[0], "always the same random numbers"


def test_a_model_of_empty_showers_has_the_worst_score_there_is(
    watched: TrainingData, learner: Any, tmp_path: Path
) -> None:
    scorer = Scorer(watched, seed=1)
    empty, whole = (scorer(exported(learner, tmp_path / "m.onnx", gain)) for gain in (1e-9, 1.0))
    assert whole.score < empty.score <= math.log(WORST)
    assert empty.numbers["mean_visible"] == 1 and empty.numbers["separation_cells"] == math.inf


def test_what_is_as_good_as_monte_carlo_scores_about_nothing(watched: TrainingData) -> None:
    scorer = Scorer(watched, seed=1)
    scores = []
    for seed in range(10):
        halves = np.array_split(np.random.default_rng(seed).permutation(len(watched)), 2)
        numbers = compare.numbers(*(scorer._truth.rows(half) for half in halves))
        parts = [math.log(max(numbers[name] / floor, 1)) for name, floor in scorer.floors.items()]
        scores.append(sum(parts) / len(parts))
    assert 0 < np.mean(scores) < 0.4
    assert min(scorer.floors.values()) > 0


def test_an_export_that_is_not_the_network_is_found_out(watched: TrainingData, learner: Any, tmp_path: Path) -> None:
    path = exported(learner, tmp_path / "m.onnx")
    assert check_parity(path, learner.exported(), watched, seed=1) < 1e-6
    brighter = exported(learner, tmp_path / "brighter.onnx", 1.01)
    with pytest.raises(
        NotTheSame, match=r"brighter\.onnx: 0\.0\d+ of a shower's energy is in other cells than torch's"
    ):
        check_parity(brighter, learner.exported(), watched, seed=1)
