"""A training of a generator learns, stops at its best, goes on where it was, and depends on its request alone."""

import json
import re
import threading
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from functions.calorimeter import learners
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.training.split import held_out
from functions.calorimeter.training.weights import read_networks
from layers.learning import onnx
from layers.learning.registry import Manifest
from layers.runtime import Input, InputError, read_request
from tests.functions.calorimeter.trainings import DETECTOR, TINY, as_input, files, prepared, register, train

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Any:
    register()
    yield
    learners.FAMILIES.pop("tiny")


@pytest.fixture(scope="module")
def showers(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return prepared(tmp_path_factory.mktemp("showers"))


@pytest.fixture(scope="module")
def photons(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return prepared(tmp_path_factory.mktemp("photons"), "g", particle="gamma", seed=2)


@pytest.fixture(scope="module")
def trained(showers: Input, photons: Input, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    outcome = train(folder, [photons, showers])
    assert outcome.code == 0, outcome.message
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out/r.json.metrics.json").read_text())


def test_a_training_gives_a_model_a_version_and_what_else_belongs_to_it(
    trained: Path, showers: Input, photons: Input
) -> None:
    found = files(trained)
    session, about = onnx.load(trained / "out/r.json.onnx", "dioscar-calorimeter-generator-1")
    version = Manifest.of("calorimeter-generator", found["r.json.onnx"]).version
    assert found.keys() == {
        "r.json.onnx",
        "r.json.weights.h5",
        "r.json.architecture.json",
        "r.json.metrics.json",
        "r.json.validate.json",
        "r.json.tensorboard/events.out.tfevents.training",
        *(f"versions/{version}/{name}" for name in ("model.onnx", "manifest.json")),
        *(f"versions/{version}/held_out-{particle}.h5" for particle in ("e-", "gamma")),
    }
    manifest = Manifest.read(found[f"versions/{version}/manifest.json"], "manifest")
    assert manifest.data_hashes == {showers.sha256, photons.sha256}
    assert manifest.request["parameters"]["held_out"] == 0.2
    assert manifest.request["parameters"]["parameters"]["learning_rate"] == 0.05, "the defaults are told, too"
    assert about.training_range == manifest.training_range == {"energy_gev": [5, 20], "theta_deg": [60, 120]}
    assert json.loads(about.more["particles"]) == ["e-", "gamma"], "by name, in whichever order their files come"
    validate = json.loads(found["r.json.validate.json"])["inputs"]
    assert [one["key"] for one in validate] == [
        *(f"calorimeter-generator/versions/{version}/{name}" for name in ("model.onnx", "manifest.json")),
        *(f"calorimeter-generator/versions/{version}/held_out-{particle}.h5" for particle in ("e-", "gamma")),
        photons.key,
        showers.key,
    ]
    assert len(session.get_outputs()) == 1


def test_what_is_held_out_is_found_again_and_was_not_learned(trained: Path, showers: Input) -> None:
    with ShowersHdf5(showers.path) as file:
        (all_of_them,) = file.read()
    chosen = held_out(showers.sha256, all_of_them.energy_gev, 0.2)
    (path,) = (trained / "out/versions").glob("*/held_out-e-.h5")
    with ShowersHdf5(path) as file:
        (kept,) = file.read()
        assert (file.particle, file.threshold_mev, file.geometry.name) == ("e-", 0.1, "toy")
    assert np.array_equal(kept.energy_gev, all_of_them.energy_gev[chosen])
    assert np.array_equal(kept.edep_mev, all_of_them.rows(np.flatnonzero(chosen)).edep_mev)
    counts = metrics_of(trained)["showers"]
    assert counts == {"training": 288, "watched": 32, "held_out": 80}


def test_the_networks_are_built_again_from_both_files(trained: Path) -> None:
    networks = read_networks(trained / "out/r.json.weights.h5", trained / "out/r.json.architecture.json")
    from tests.functions.calorimeter.tiny_learner import Exported

    session, about = onnx.load(trained / "out/r.json.onnx")
    rng = np.random.default_rng(1)
    feed = {
        "energy_gev": np.array([6, 19], np.float32),
        "theta": np.array([1.2, 1.6], np.float32),
        "particle": np.array([0, 1], np.float32),
        "normal_cells": rng.standard_normal((2, 7 * 7 * 6), np.float32),
    }
    assert list(feed) == [tensor.name for tensor in about.inputs]
    with torch.no_grad():
        again = Exported(networks["cells"], 0.1)(*(torch.from_numpy(value) for value in feed.values())).numpy()
    assert again.sum() > 0
    assert np.allclose(again, session.run(None, feed)[0], rtol=1e-5, atol=1e-6)


def test_weights_of_another_training_are_refused(trained: Path, tmp_path: Path) -> None:
    architecture = json.loads((trained / "out/r.json.architecture.json").read_text())
    architecture["architecture"]["particles"] = 1
    (tmp_path / "a.json").write_text(json.dumps(architecture))
    with pytest.raises(InputError, match=r"has not the weights that a\.json tells of"):
        read_networks(trained / "out/r.json.weights.h5", tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="is no architecture"):
        read_networks(trained / "out/r.json.weights.h5", tmp_path / "a.json")


def test_curves_are_what_tensorboard_reads(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "out/r.json.tensorboard"))
    events.Reload()
    losses, scores = events.Scalars("loss/poisson"), events.Scalars("score")
    assert [event.step for event in losses] == list(range(1, 61))
    assert [event.step for event in scores] == [15, 30, 45, 60]
    assert losses[-1].value < losses[0].value and scores[-1].value < scores[0].value
    assert all(event.wall_time == event.step for event in losses), "no clock"
    assert "number/mean_hits" in events.Tags()["scalars"]


def test_the_same_request_gives_the_same_bytes(trained: Path, showers: Input, photons: Input, tmp_path: Path) -> None:
    assert train(tmp_path, [photons, showers]).code == 0
    assert files(tmp_path) == files(trained)


def test_a_stopped_training_goes_on_to_the_same_bytes(
    trained: Path, showers: Input, photons: Input, tmp_path: Path
) -> None:
    stopping = threading.Event()
    stopping.set()
    attempts = 0
    while (outcome := train(tmp_path, [photons, showers], checkpoint=tmp_path / "kept", stopping=stopping)).code == 75:
        assert not files(tmp_path)
        attempts += 1
        if attempts == 20:  # across the first score
            stopping.clear()
    assert outcome.code == 0, outcome.message
    assert attempts == 20 and files(tmp_path) == files(trained)


def test_a_curve_has_means_of_the_steps_that_had_the_loss(
    showers: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functions.calorimeter.training import loop

    monkeypatch.setattr(loop, "ROWS", 4)
    assert train(tmp_path, [showers], {**TINY, "parameters": {"steps": 16}, "evaluate_every": 16}).code == 0
    rows = metrics_of(tmp_path)["curves"]
    losses = [(step, values["loss/seldom"]) for step, values in rows if "loss/poisson" in values]
    assert losses == [(4, 2.0), (8, 2.0), (12, 2.0), (16, 2.0)]


@pytest.mark.slow
def test_the_model_that_serves_goes_on_to_the_same_bytes(showers: Input, photons: Input, tmp_path: Path) -> None:
    small = {"batch": 32, "width": 32, "blocks": 1, "flow_steps": 2, "hits_width": 16, "energies_width": 16}
    parameters = {**small, "steps": 12, "cells_every": 4, "cells_batch": 8}
    request = {"family": "two-stage", "parameters": parameters, "evaluate_every": 6, "seed": 2}
    assert train(tmp_path / "whole", [showers, photons], request).code == 0
    stopping = threading.Event()
    stopping.set()
    for _ in range(8):  # across the first score, and steps of both stages
        options = {"checkpoint": tmp_path / "kept", "stopping": stopping}
        assert train(tmp_path / "stopped", [showers, photons], request, **options).code == 75
    assert train(tmp_path / "stopped", [showers, photons], request, checkpoint=tmp_path / "kept").code == 0
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    weights, architecture = (tmp_path / f"whole/out/r.json.{end}" for end in ("weights.h5", "architecture.json"))
    assert read_networks(weights, architecture).keys() == {"generator"}


def test_curves_can_be_watched_while_they_grow(showers: Input, tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    settings = {"CURVES": str(tmp_path / "watched")}
    options = {"settings": settings, "checkpoint": tmp_path / "kept"}
    assert train(tmp_path, [showers], stopping=stopping, **options).code == 75
    (grown,) = (tmp_path / "watched").rglob("*tfevents*")
    begun = grown.read_bytes()
    assert train(tmp_path, [showers], **options).code == 0
    assert grown.parent.name == "r.json"
    assert grown.read_bytes().startswith(begun)
    assert grown.read_bytes() == files(tmp_path)["r.json.tensorboard/events.out.tfevents.training"]


def test_a_training_that_gets_no_better_stops_and_gives_its_best(showers: Input, tmp_path: Path) -> None:
    forgetful = {**TINY, "parameters": {"steps": 120, "forget_from": 45}, "patience": 2}
    assert train(tmp_path / "early", [showers], forgetful).code == 0
    told = metrics_of(tmp_path / "early")
    scores = {step: values["score"] for step, values in told["curves"] if "score" in values}
    assert list(scores) == [15, 30, 45, 60, 75]
    assert told["best_step"] == min(scores, key=scores.__getitem__) == 45
    assert (told["score"], told["steps"], told["stopped_early"]) == (scores[45], 75, True)
    assert train(tmp_path / "short", [showers], {**TINY, "parameters": {"steps": 45}}).code == 0
    early, short = (h5py.File(tmp_path / name / "out/r.json.weights.h5") for name in ("early", "short"))
    with early, short:
        assert np.array_equal(early["cells/outer.weight"], short["cells/outer.weight"]), "the weights of step 45"


def test_without_patience_it_goes_to_its_end_and_still_gives_its_best(showers: Input, tmp_path: Path) -> None:
    forgetful = {**TINY, "parameters": {"steps": 90, "forget_from": 45}, "patience": 0}
    assert train(tmp_path, [showers], forgetful).code == 0
    told = metrics_of(tmp_path)
    assert (told["best_step"], told["steps"], told["stopped_early"]) == (45, 90, False)


def test_a_training_may_start_from_the_model_that_serves(trained: Path, showers: Input, tmp_path: Path) -> None:
    other = prepared(tmp_path / "other", "b", detector={**DETECTOR, "cell_mm": 13}, seed=5)
    (tmp_path / "warm").mkdir()
    (tmp_path / "warm/served.onnx").write_bytes((trained / "out/r.json.onnx").read_bytes())
    few = {**TINY, "parameters": {"steps": 3}, "evaluate_every": 1}
    assert train(tmp_path / "warm", [other], {**few, "start": "serving"}).code == 0
    assert train(tmp_path / "cold", [other], few).code == 0
    warm, cold = metrics_of(tmp_path / "warm"), metrics_of(tmp_path / "cold")
    assert warm["score"] < cold["score"]
    (manifest,) = (tmp_path / "warm/out/versions").glob("*/manifest.json")
    version = Manifest.of("calorimeter-generator", (trained / "out/r.json.onnx").read_bytes()).version
    assert json.loads(manifest.read_text())["parent"] == version
    given = as_input(trained / "out/r.json.onnx", "models", "some/model.onnx")
    assert train(tmp_path / "given", [other, given], {**few, "start": "given"}).code == 0
    assert files(tmp_path / "given")["r.json.weights.h5"] == files(tmp_path / "warm")["r.json.weights.h5"]


def test_a_start_that_training_only_spoils_is_what_goes_out(trained: Path, showers: Input, tmp_path: Path) -> None:
    (tmp_path / "served.onnx").write_bytes((trained / "out/r.json.onnx").read_bytes())
    worse = {**TINY, "parameters": {"steps": 2, "learning_rate": 1.0}, "evaluate_every": 2, "start": "serving"}
    assert train(tmp_path, [showers], worse).code == 0
    told = metrics_of(tmp_path)
    assert (told["best_step"], told["steps"]) == (0, 2)
    assert [row[0] for row in told["curves"] if "score" in row[1]] == [0, 2]


def test_a_loss_that_is_no_number_ends_the_training_in_a_sentence(showers: Input, tmp_path: Path) -> None:
    outcome = train(tmp_path, [showers], {**TINY, "parameters": {"steps": 9, "diverge_at": 4}})
    assert outcome.code == 65 and outcome.message == (
        "r.json: the loss poisson is nan at step 4 of 9; the training has diverged, so lower the learning rate in"
        " parameters"
    )
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"famly": "tiny"}, 'r.json: "famly" is no key of this request; write "family"'),
        ({"family": "gan"}, 'r.json: family: there is no family "gan"; write one of two-stage, 3dgan, '),
        ({"parameters": {"step": 1}}, 'r.json: parameters: "step" is no key of the family tiny; write "steps"'),
        ({"parameters": {"steps": 1.5}}, "r.json: parameters: steps: 1.5 is no whole number"),
        ({"parameters": {"steps": 0}}, "r.json: parameters: steps: 0 is less than 1"),
        ({"parameters": [1]}, "r.json: parameters: [1] is no "),
        ({"held_out": 0}, "r.json: held_out: 0.0 is no part above 0, up to 0.5"),
        ({"watched": 0.7}, "r.json: watched: 0.7 is no part above 0, up to 0.5"),
        ({"watched": 0.03}, "r.json: watched: leaves 5 of 200 showers of e-; 8 are the least, so name more files of"),
        ({"patience": -1}, "r.json: patience: -1 is negative; 0 is the least"),
        ({"seed": -1}, "r.json: seed: -1 is negative"),
        ({"start": "given"}, 'r.json: inputs: 0 of them are models; "start": "given" needs one .onnx'),
        ({"start": "warm"}, 'r.json: start: "warm" is no one of scratch, serving, given'),
    ],
)
def test_a_wrong_request_is_one_sentence(
    showers: Input, tmp_path: Path, request_: dict[str, Any], sentence: str
) -> None:
    outcome = train(tmp_path, [showers], {**TINY, **request_})
    assert outcome.code == 65 and outcome.message.startswith(sentence), outcome.message
    assert not files(tmp_path)


def test_inputs_that_cannot_be_learned_from_are_refused(showers: Input, tmp_path: Path) -> None:
    def refused(*inputs: Input) -> str:
        outcome = train(tmp_path / "run", inputs)
        assert outcome.code == 65 and not files(tmp_path / "run")
        return outcome.message

    assert "names no showers" in refused()
    few = prepared(tmp_path / "few", "few", showers=30)
    assert refused(few) == "r.json: inputs: hold 30 showers; 50 are the least to train on"
    other = prepared(tmp_path / "other", "other", detector={**DETECTOR, "cells": 9, "name": "fine"}, showers=20)
    assert refused(showers, other) == (
        "r.json: inputs: other.json.root.h5 is of another detector (fine) than a.json.root.h5 (toy); train a model on"
        " one of them"
    )
    higher = prepared(tmp_path / "higher", "higher", threshold="0.2", showers=20)
    assert "has cells from a threshold, in MeV, of 0.2, and a.json.root.h5 0.1" in refused(showers, higher)
    empty = tmp_path / "empty.h5"
    empty.write_bytes(showers.path.read_bytes())
    with h5py.File(empty, "a") as file:
        for name in file:
            file[name].resize(0, axis=0)
    assert refused(showers, as_input(empty)) == "empty.h5: holds no showers; take it out of inputs"
    (tmp_path / "no.h5").write_bytes(b"")
    assert "no.h5: is no whole HDF5 file" in refused(as_input(tmp_path / "no.h5"))
    (made := tmp_path / "made.h5").write_bytes(showers.path.read_bytes())
    with h5py.File(made, "a") as file:
        file.attrs["simulation"] = json.dumps({**json.loads(file.attrs["simulation"]), "engine": "model"})
    assert "made.h5: its showers are generated by a model, from which nothing is to be learned" in refused(
        as_input(made)
    )
    model = as_input(tmp_path / "no.h5", key="x/model.onnx")
    assert 'x/model.onnx is a model; write "start": "given"' in refused(showers, model)


def test_where_little_is_held_out_no_validation_is_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = prepared(tmp_path / "few", "few", showers=100)
    outcome = train(tmp_path / "run", [few], {**TINY, "parameters": {"steps": 2}, "evaluate_every": 2})
    assert outcome.code == 0, outcome.message
    assert not [name for name in files(tmp_path / "run") if name.endswith(".validate.json")]
    assert (
        "20 showers are held out, too few for calorimeter-validate (60), which is not asked" in capfd.readouterr().out
    )


def test_a_file_that_is_there_twice_is_taken_once(
    trained: Path, showers: Input, photons: Input, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    twin = as_input(showers.path, key="again.h5")
    assert train(tmp_path, [photons, showers, twin]).code == 0
    assert "again.h5: is there twice, and taken once" in capfd.readouterr().out
    assert files(tmp_path)["r.json.onnx"] == files(trained)["r.json.onnx"]


def test_without_tensorboard_the_mend_is_named(showers: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    outcome = train(tmp_path, [showers])
    assert outcome.code == 65 and outcome.message == (
        "r.json: training needs tensorboard, which is not here; run ./dioscar install train"
    )


def test_every_key_and_variable_is_told_with_its_default() -> None:
    from functions.calorimeter.train import Request, Settings

    text = (Path(__file__).parents[3] / "docs/calorimeter-train.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE))
    for one in fields(Request):
        value = {} if one.default is MISSING else one.default
        assert rows.pop(one.name) == f"`{json.dumps(value)}`"
    for one in fields(Settings):
        assert rows.pop(one.name.upper()) == (f"`{one.default}`" if one.default != "" else "none")
    assert not rows


def test_the_examples_are_requests(tmp_path: Path) -> None:
    from functions.calorimeter.train import Request

    folder = Path(__file__).parents[3]
    text = (folder / "docs/calorimeter-train.md").read_text()
    examples = re.findall(r"^    (\{.*?\})\n(?=\n)", text, re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    for example in (*examples, (folder / "functions/calorimeter/train_request.json").read_text()):
        (tmp_path / "r.json").write_text(example)
        request = read_request(Request, tmp_path / "r.json")
        learners.parameters_of(request.family, request.parameters, "parameters")
