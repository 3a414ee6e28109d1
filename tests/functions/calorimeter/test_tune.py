"""A study tries parameters, ends what is worse, goes on where it was, and hands its best to a training."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import learners
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.training import score
from functions.calorimeter.training.split import held_out
from functions.calorimeter.tuning.space import SPACES, default_space, read_space
from layers.learning.registry import Manifest
from layers.runtime import Input
from layers.runtime.testing import Outcome, call
from tests.functions.calorimeter.trainings import files, prepared, register, train

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
pytest.importorskip("optuna", reason="optuna is not installed: ./dioscar install train")
pytestmark = pytest.mark.filterwarnings("ignore::optuna._experimental.ExperimentalWarning")

RATES = {"learning_rate": {"low": 1e-5, "high": 0.1, "log": True}}
REQUEST = {"family": "tiny", "trials": 6, "steps": 12, "evaluations": 3, "startup": 2, "space": RATES, "seed": 3}


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    register()
    yield
    learners.FAMILIES.pop("tiny")


@pytest.fixture(scope="module")
def showers(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return prepared(tmp_path_factory.mktemp("showers"))


def tune(folder: Path, showers: Input, request: Mapping[str, Any] = REQUEST, **options: Any) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "s.json"
    source.write_text(json.dumps(request))
    return call("calorimeter.tune", source, folder / "out", inputs=[showers], **options)


def study_of(folder: Path) -> Any:
    text = (folder / "out/s.json.study.json").read_text()
    return json.loads(text, parse_constant=pytest.fail)  # no other language reads NaN and Infinity


@pytest.fixture(scope="module")
def tuned(showers: Input, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    outcome = tune(folder, showers)
    assert outcome.code == 0, outcome.message
    return folder


def test_a_study_has_all_trials_and_names_the_best_of_those_that_came_to_their_end(tuned: Path, showers: Input) -> None:
    study = study_of(tuned)
    trials = study["trials"]
    assert [trial["number"] for trial in trials] == list(range(6))
    assert trials[0]["parameters"] == {"learning_rate": 0.05}, "the defaults are tried first"
    assert len({trial["parameters"]["learning_rate"] for trial in trials}) == 6
    done = [trial for trial in trials if trial["state"] == "done"]
    assert [[step for step, _ in trial["scores"]] for trial in done] == [[4, 8, 12]] * len(done)
    assert all(trial["score"] == min(value for _, value in trial["scores"]) for trial in trials)
    assert study["best"] == min(done, key=lambda trial: trial["score"])["number"]
    assert study["data"] == [{"bucket": showers.bucket, "key": showers.key, "sha256": showers.sha256}]
    assert study["showers"] == {"training": 144, "watched": 16, "held_out": 40}
    assert study["space"] == RATES and study["request"]["trials"] == 6 and "mean_hits" in trials[0]["numbers"]


def test_what_is_worse_than_others_at_the_same_step_is_ended(tuned: Path) -> None:
    trials = study_of(tuned)["trials"]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned, [trial["state"] for trial in trials]
    for trial in pruned:
        step, value = trial["scores"][-1]
        before = [dict(map(tuple, one["scores"])).get(step) for one in trials[: trial["number"]]]
        assert value > np.median([one for one in before if one is not None])
        assert len(trial["scores"]) <= 3 and trial["number"] >= 2


def test_the_same_request_gives_the_same_bytes_and_another_seed_another_study(
    tuned: Path, showers: Input, tmp_path: Path
) -> None:
    assert tune(tmp_path / "again", showers).code == 0
    assert files(tmp_path / "again") == files(tuned)
    assert tune(tmp_path / "other", showers, {**REQUEST, "seed": 4, "trials": 2}).code == 0
    assert study_of(tmp_path / "other")["trials"][1] != study_of(tuned)["trials"][1]


@pytest.mark.parametrize("every", [5, 17])
def test_a_study_that_is_stopped_again_and_again_is_the_same(
    tuned: Path, showers: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    from tests.functions.calorimeter.tiny_learner import TinyLearner

    steps, kept, stop = 0, TinyLearner.step, threading.Event()

    def step(self: TinyLearner, number: int) -> Mapping[str, float]:
        nonlocal steps
        steps += 1
        if steps % every == 0:
            stop.set()
        return kept(self, number)

    monkeypatch.setattr(TinyLearner, "step", step)
    codes = []
    while not codes or codes[-1] == 75:
        stop.clear()
        outcome = tune(tmp_path, showers, kept=tmp_path / "kept", stopping=stop)
        codes.append(outcome.code)
    assert codes[-1] == 0 and len(codes) > 2, (codes, outcome.message)
    assert files(tmp_path) == files(tuned)
    assert steps == sum(trial["scores"][-1][0] for trial in study_of(tuned)["trials"]), "no step is done twice"


def test_a_study_whose_process_dies_repeats_what_was_not_saved_and_is_the_same(
    tuned: Path, showers: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.functions.calorimeter.tiny_learner import TinyLearner

    steps, kept = 0, TinyLearner.step

    def step(self: TinyLearner, number: int) -> Mapping[str, float]:
        nonlocal steps
        steps += 1
        if steps in (7, 21):
            raise OSError("the disk is full")
        return kept(self, number)

    monkeypatch.setattr(TinyLearner, "step", step)
    codes = []
    for _ in range(3):
        codes.append(tune(tmp_path, showers, checkpoint=tmp_path / "checkpoint").code)
        left = list((tmp_path / "checkpoint").rglob("trial-*"))
        assert len(left) <= 1, "checkpoints of trials that have ended are removed"
    assert codes == [1, 1, 0]
    assert files(tmp_path) == files(tuned)


def test_values_that_diverge_or_are_refused_fail_a_trial_and_not_the_study(showers: Input, tmp_path: Path) -> None:
    space = {"diverge_at": {"choices": [0, 3]}, "learning_rate": {"choices": [0.05, 0.01]}}
    outcome = tune(tmp_path, showers, {**REQUEST, "space": space, "startup": 6, "evaluations": 1})
    assert outcome.code == 0, outcome.message
    failed = [trial for trial in study_of(tmp_path)["trials"] if trial["parameters"]["diverge_at"] == 3]
    assert failed and all(trial["state"] == "failed" and "diverged" in trial["reason"] for trial in failed)
    assert study_of(tmp_path)["trials"][study_of(tmp_path)["best"]]["parameters"]["diverge_at"] == 0


def test_a_study_of_which_no_trial_comes_to_its_end_says_why(showers: Input, tmp_path: Path) -> None:
    space = {"diverge_at": {"choices": [2, 3]}}
    outcome = tune(tmp_path, showers, {**REQUEST, "trials": 2, "space": space, "parameters": {"learning_rate": 0.1}})
    assert outcome.code == 65
    assert "none of 2 trials has come to its end (the loss " in outcome.message
    assert files(tmp_path) == {}


def test_nothing_that_is_held_out_is_learned_or_scored(
    showers: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.functions.calorimeter import tiny_learner

    seen: dict[str, set[float]] = {"learned": set(), "scored": set()}
    make, scorer = tiny_learner.make, score.Scorer.__init__

    def making(data: Any, *rest: Any) -> Any:
        seen["learned"] |= set(data.showers.energy_gev.tolist())
        return make(data, *rest)

    def scoring(self: score.Scorer, watched: Any, **rest: Any) -> None:
        seen["scored"] |= set(watched.showers.energy_gev.tolist())
        scorer(self, watched, **rest)

    monkeypatch.setattr(tiny_learner, "make", making)
    monkeypatch.setattr(score.Scorer, "__init__", scoring)
    assert tune(tmp_path, showers, {**REQUEST, "trials": 1}).code == 0
    with ShowersHdf5(showers.path) as file:
        (whole,) = file.read()
    kept = set(whole.energy_gev[held_out(showers.sha256, whole.energy_gev, 0.2)].tolist())
    assert len(kept) == 40 and len(seen["learned"]) == 144 and len(seen["scored"]) == 16
    assert not kept & (seen["learned"] | seen["scored"]) and not seen["learned"] & seen["scored"]


def test_the_best_parameters_are_trained_and_their_version_names_the_study(
    tuned: Path, showers: Input, tmp_path: Path
) -> None:
    request = json.loads((tuned / "out/s.json.train.json").read_text())
    study = study_of(tuned)
    assert request["parameters"] == study["trials"][study["best"]]["parameters"], "and the family's own steps"
    assert request["inputs"] == study["data"]
    outcome = train(tmp_path, [showers], request)
    assert outcome.code == 0, outcome.message
    (path,) = (tmp_path / "out/versions").glob("*/manifest.json")
    manifest = Manifest.read(path.read_bytes(), "manifest")
    sha256 = manifest.request["parameters"]["study"]
    kept = (tuned / f"out/studies/{sha256[:16]}.json").read_bytes()
    assert kept == (tuned / "out/s.json.study.json").read_bytes()
    assert sha256 == hashlib.sha256(kept).hexdigest()
    assert manifest.request["parameters"]["parameters"]["learning_rate"] == request["parameters"]["learning_rate"]


@pytest.mark.parametrize("name", SPACES)
def test_the_space_of_a_family_has_its_parameters_and_holds_its_defaults(name: str) -> None:
    parameters = learners.family(name).Parameters
    axes = read_space(default_space(name, parameters), parameters, {}, "space")
    assert {axis.name for axis in axes} == SPACES[name].keys()
    assert all(axis.holds(getattr(parameters(), axis.name)) for axis in axes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"family": "gan"}, 'family: there is no family "gan"'),
        ({"trials": 0}, "trials: 0 is not from 1 to 10000"),
        ({"trails": 3}, '"trails" is no key of this request; write "trials"'),
        (
            {"space": {"learning_rat": {}}},
            'space.learning_rat: is no parameter that can be tuned; write "learning_rate"',
        ),
        ({"space": {"steps": {"low": 1, "high": 9}}}, "space.steps: is no parameter that can be tuned"),
        ({"space": {"learning_rate": [1, 2]}}, "space.learning_rate: is no object"),
        ({"space": {"learning_rate": {"low": 1, "hi": 2}}}, "space.learning_rate.hi: is no key of a range"),
        ({"space": {"learning_rate": {"low": 2, "high": 1}}}, "low (2) is not below high (1)"),
        ({"space": {"learning_rate": {"low": 0, "high": 1, "log": True}}}, "low (0) has no logarithm"),
        ({"space": {"learning_rate": {"low": "a", "high": 1}}}, "space.learning_rate.low: 'a' is no number"),
        ({"space": {"batch": {"low": 1.5, "high": 4}}}, "space.batch.low: 1.5 is no whole number"),
        ({"space": {"batch": {"choices": [8]}}}, "space.batch.choices: is no list of different values"),
        ({"space": {"batch": {"choices": [8, 0.5]}}}, "space.batch.choices: 0.5 is no value like 32"),
        ({"parameters": {"learning_rate": 0.1}}, "space.learning_rate: is in parameters, too"),
        ({"parameters": {"rate": 0.1}}, '"rate" is no key of the family tiny'),
        ({"parameters": {"steps": 5}}, "parameters.steps: is of the training after the trials"),
        ({"held_out": 0.9}, "held_out: 0.9 is no part above 0, up to 0.5"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence(
    showers: Input, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    outcome = tune(tmp_path, showers, {**REQUEST, **change})
    assert outcome.code == 65 and sentence in outcome.message and outcome.message.startswith("s.json: ")
    assert files(tmp_path) == {}
