"""Validation: what is better is promoted, what is not is refused with its reasons, and no candidate is bad input."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.pulsar import classifier, score, versions
from functions.pulsar.features import SHAPES
from functions.pulsar.frames import FramesFile, FramesWriter
from functions.pulsar.gate import GATE, MODEL, macro_f1_of_rows
from functions.pulsar.labels import class_indices
from functions.pulsar.seen import hashes, with_frames
from functions.pulsar.tested import STREAM, Scoring, drawn, labelled
from layers.learning.registry import Manifest
from layers.quality.interval import interval
from layers.runtime import Input, InputError, models
from layers.runtime.testing import Outcome, call

onnx = pytest.importorskip("onnx", reason="onnx is not installed: ./dioscar install train")
from tests.functions.pulsar.candidates import SHIPPED, WEAK, given, variant, version, with_thresholds  # noqa: E402

SOME = {"frames": 135}


def validate(folder: Path, inputs: list[Input], request: dict[str, Any], serving: Path | None = None) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "v.json").write_text(json.dumps(request))
    settings = {models_variable(): str(serving)} if serving else {}
    return call("pulsar.validate", folder / "v.json", folder / "out", inputs=inputs, settings=settings)


def models_variable() -> str:
    return "DIOSCAR_MODEL_PULSAR_CLASSIFIER"


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out/v.json.report.json").read_text())


def failed(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(reason["metric"], reason["check"]) for reason in report["reasons"] if not reason["passed"]}


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A poor model that serves by promotion 7."""
    path = tmp_path_factory.mktemp("weak") / "model.onnx"
    path.write_bytes(with_thresholds(**WEAK))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    promotion = models.Promotion(MODEL, 7, models.version_of(digest), digest)
    path.with_name("promotion.json").write_bytes(promotion.to_bytes())
    return path


def test_a_truly_better_candidate_is_promoted(
    weak: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # as the twin's own gate, for fewer samples: with its own one a cluster promotes in test_validate_cluster.py
    rules = tuple(replace(rule, samples=50, floor=rule.floor and rule.floor - 0.1, bound=None) for rule in GATE.rules)
    monkeypatch.setattr("functions.pulsar.validate.GATE", replace(GATE, rules=rules))
    outcome = validate(tmp_path, version(tmp_path / "c", SHIPPED.read_bytes()), {"frames": 270}, weak)
    assert outcome.code == 0, outcome.message
    report = report_of(tmp_path)
    assert report["passed"] is True and failed(report) == set()
    assert report["serving"]["promotion"] == 7
    (path,) = (tmp_path / "out/promotions").iterdir()
    digest = classifier.load(SHIPPED).sha256
    assert path.name == f"00000008-{digest[:16]}.json"
    promotion = json.loads(path.read_text())
    before = json.loads(weak.with_name("promotion.json").read_text())
    assert (promotion["sha256"], promotion["previous"]) == (digest, before["version"])
    data = (tmp_path / "out/v.json.report.json").read_bytes()
    assert promotion["report"] == hashlib.sha256(data).hexdigest()
    (kept,) = (tmp_path / f"out/versions/{digest[:16]}/reports").iterdir()
    assert kept.read_bytes() == data
    assert f"version {digest[:16]} promoted as number 8: " in capfd.readouterr().out
    assert f"{MODEL}: passes" in (tmp_path / "out/v.json.report.html").read_text()


def test_a_worse_candidate_is_refused_and_report_and_log_say_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = validate(tmp_path, version(tmp_path / "c", with_thresholds(**WEAK)), SOME)
    assert outcome.code == 0, outcome.message
    assert not any("promotions/" in output.path for output in outcome.outputs)
    report = report_of(tmp_path)
    assert report["passed"] is False and ("exact_match", "better") in failed(report)
    assert report["metrics"][0]["difference"]["value"] < 0
    (told,) = [line for line in capfd.readouterr().out.splitlines() if " refused: " in line]
    assert all(reason["sentence"] in told for reason in report["reasons"] if not reason["passed"])
    assert f"{MODEL}: is refused" in (tmp_path / "out/v.json.report.html").read_text()


def test_one_that_is_better_within_noise_is_refused(tmp_path: Path) -> None:
    nearly = version(tmp_path / "c", with_thresholds(pulse=0.7))
    assert validate(tmp_path, nearly, {**SOME, "seed": 6}).code == 0
    report = report_of(tmp_path)
    (exact,) = [metric for metric in report["metrics"] if metric["metric"] == "exact_match"]
    assert exact["difference"]["low"] <= 0 < exact["difference"]["value"]
    (sentence,) = [reason["sentence"] for reason in report["reasons"] if reason["check"] == "better"]
    assert "it may be noise" in sentence and report["passed"] is False


def test_the_first_faces_the_shipped_model_which_does_not_replace_itself(tmp_path: Path) -> None:
    assert validate(tmp_path, version(tmp_path / "c", SHIPPED.read_bytes()), SOME).code == 0
    report = report_of(tmp_path)
    assert report["serving"] == {**report["serving"], "sha256": classifier.load(SHIPPED).sha256, "promotion": None}
    assert any("is the version that serves" in reason["sentence"] for reason in report["reasons"])
    assert ("exact_match", "samples") in failed(report), "135 frames are not enough for anything"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    (folder / "f.json").write_text(json.dumps({"kind": "frames", "frames": 27, "seed": 2}))
    assert call("pulsar.synthesise", folder / "f.json", folder).code == 0
    return folder / "f.json.h5"


@pytest.mark.parametrize("seen", [True, False])
def test_a_candidate_that_saw_the_test_data_is_refused(seen: bool, frames: Path, tmp_path: Path) -> None:
    test_data = given(frames)
    data = [{"bucket": "elsewhere", "key": "renamed.h5", "sha256": test_data.sha256 if seen else "0" * 64}]
    candidate = version(tmp_path / "c", with_thresholds(pulse=0.6), data=data)
    assert validate(tmp_path, [*candidate, test_data], {"frames": 0}).code == 0
    report = report_of(tmp_path)
    assert (("", "leak") in failed(report)) is seen
    assert report["data"]["files"][0]["sha256"] == test_data.sha256
    assert report["metrics"][0]["samples"] == 27


@pytest.mark.parametrize("seen", [True, False])
def test_frames_that_were_trained_on_are_known_again_in_another_file(seen: bool, frames: Path, tmp_path: Path) -> None:
    with FramesFile(frames) as file, FramesWriter(tmp_path / "some.h5", file.header) as some:
        labels = {name: file.column(name, 3, 9) for name in ("labels", "reference_mean", "reference_sigma", "snr")}
        some.append(file.read(3, 9), file.index[3:9], **labels)
    test_data = given(tmp_path / "some.h5")
    data = [{"bucket": "b", "key": "f.h5", "sha256": given(frames).sha256}]
    candidate = version(tmp_path / "c", SHIPPED.read_bytes(), data=with_frames(data, [frames]) if seen else data)
    assert validate(tmp_path, [*candidate, test_data], {"frames": 0}).code == 0
    (reason,) = [reason for reason in report_of(tmp_path)["reasons"] if reason["check"] == "leak"]
    assert reason["passed"] is not seen
    assert ("and 5 more" in reason["sentence"]) is seen


def test_a_manifest_lists_frames_while_there_is_room(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.pulsar.seen.MOST_FRAMES", 30)
    one, two = with_frames([{"sha256": "1" * 64}, {"sha256": "2" * 64}], [frames, frames])
    assert len(one["frames"]) == 27 * 16 and "frames" not in two
    assert len(set(hashes([one, two]))) == 27 + 2


def test_the_same_request_gives_the_same_report(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert validate(tmp_path / name, version(tmp_path / "c", with_thresholds(pulse=0.6)), {"frames": 27}).code == 0
    for name in ("v.json.report.json", "v.json.report.html"):
        assert (tmp_path / "a/out" / name).read_bytes() == (tmp_path / "b/out" / name).read_bytes()


# what is no candidate


def graph(shapes: dict[str, tuple[int, ...]] = SHAPES, outputs: int = 4, operation: str = "Sigmoid") -> bytes:
    """A model that reads every input and looks at the first column of `rows`."""
    make = onnx.helper
    inputs = [make.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", *shape]) for n, shape in shapes.items()]
    nodes = [
        make.make_node("ReduceMean", ["rows", "axes"], ["level"], keepdims=0),
        make.make_node("Reshape", ["level", "shape"], ["column"]),
        make.make_node("Expand", ["column", "wide"], ["columns_out"]),
        make.make_node(operation, ["columns_out"], ["probabilities"]),
    ]
    constants = [
        make.make_tensor("axes", onnx.TensorProto.INT64, [2], [1, 2]),
        make.make_tensor("shape", onnx.TensorProto.INT64, [2], [-1, 1]),
        make.make_tensor("wide", onnx.TensorProto.INT64, [2], [1, outputs]),
    ]
    out = make.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["n", outputs])
    model = make.make_model(
        make.make_graph(nodes, "g", inputs, [out], constants), opset_imports=[make.make_opsetid("", 18)], ir_version=9
    )
    make.set_model_props(model, dict(classifier.load(SHIPPED).metadata))
    return model.SerializeToString()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is no ONNX model"),
        (b"GIF89a", "is no ONNX model"),
        (variant(format="something else 1"), "is no pulsar classifier (metadata format)"),
        (variant(format=None), "is no pulsar classifier (metadata format)"),
        (variant(thresholds=None), "metadata thresholds or trigger: missing or no numbers"),
        (variant(thresholds="[1, 2]"), "metadata thresholds or trigger: missing or no numbers"),
        (variant(thresholds='{"pulse": 1}'), "metadata thresholds or trigger: missing or no numbers"),
        (variant(trigger="often"), "metadata thresholds or trigger: missing or no numbers"),
        (variant(trigger="nan"), "metadata thresholds or trigger: not between 0 and 1"),
        (variant(outputs="pulse,other,nbrfi,bbrfi"), "metadata outputs: is not pulse,nbrfi,bbrfi,other"),
        (graph({**SHAPES, "rows": (2, 128)}), "input rows: tensor(float) (2, 128) is not float (2, 256)"),
        (graph({name: shape for name, shape in SHAPES.items() if name != "image"}), "is no pulsar classifier"),
        (graph(outputs=3), "has no output probabilities of 4 numbers"),
        (graph(operation="Log"), "that are no probabilities"),
    ],
)
def test_a_candidate_that_is_no_classifier_is_bad_input(content: bytes, words: str, tmp_path: Path) -> None:
    outcome = validate(tmp_path, version(tmp_path / "c", content), {"frames": 9})
    assert outcome.code == 65 and words in outcome.message, outcome.message
    assert Manifest.of(MODEL, content).version in outcome.message, "the sentence names the version"
    assert not list((tmp_path / "out").iterdir())


def test_a_candidate_of_another_kind_that_runs_is_judged(tmp_path: Path) -> None:
    assert validate(tmp_path, version(tmp_path / "c", graph()), {"frames": 18}).code == 0
    assert ("exact_match", "floor") in failed(report_of(tmp_path))


def without_data(manifest: Manifest) -> bytes:
    return json.dumps(
        {name: value for name, value in json.loads(manifest.to_bytes()).items() if name != "data"}
    ).encode()


@pytest.mark.parametrize(
    "change, words",
    [
        ({}, "inputs: 0 of them end in .onnx"),
        ({"model.onnx": None}, "inputs: 0 of them end in .onnx"),
        ({"manifest.json": None}, "inputs: 0 of them end in manifest.json"),
        ({"manifest.json": b"{"}, "is no manifest"),
        ({"manifest.json": b'{"data": []}'}, "is no manifest"),
        (
            {"manifest.json": without_data(Manifest.of(MODEL, SHIPPED.read_bytes()))},
            "data: is missing, so nobody knows",
        ),
        ({"manifest.json": Manifest.of(MODEL, b"another").to_bytes()}, "is the manifest of pulsar-classifier"),
        ({"manifest.json": Manifest.of("toy", SHIPPED.read_bytes()).to_bytes()}, "is the manifest of toy"),
        ({"manifest.json": Manifest.of(MODEL, b"", data=[{"key": "x"}]).to_bytes()}, "is no manifest"),
        ({"notes.txt": b"good"}, "notes.txt is neither a version's file nor frames (.h5)"),
        ({"frames.h5": b"good"}, "frames.h5: is no HDF5 file"),
    ],
)
def test_a_request_that_names_no_candidate_is_bad_input(change: dict, words: str, tmp_path: Path) -> None:
    inputs = {item.path.name: item for item in version(tmp_path / "c", SHIPPED.read_bytes())} if change else {}
    for name, content in change.items():
        if content is None:
            del inputs[name]
        else:
            (tmp_path / "c" / name).write_bytes(content)
            inputs[name] = given(tmp_path / "c" / name)
    outcome = validate(tmp_path, list(inputs.values()), {"frames": 9})
    assert outcome.code == 65 and words in outcome.message, outcome.message


@pytest.mark.parametrize(
    "request_, words",
    [
        ({"frames": 0}, "there is nothing to test on"),
        ({"frames": -1}, "frames: -1 is not between"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"floor": 0.1}, '"floor" is no key of this request'),
    ],
)
def test_a_request_that_cannot_be_met_is_bad_input(request_: dict, words: str, tmp_path: Path) -> None:
    outcome = validate(tmp_path, version(tmp_path / "c", SHIPPED.read_bytes()), request_)
    assert outcome.code == 65 and words in outcome.message, outcome.message


def test_frames_without_labels_are_refused(tmp_path: Path) -> None:
    from tests.functions.pulsar.files import filterbank

    filterbank(tmp_path / "a.fil")
    assert call("pulsar.preprocess", tmp_path / "a.fil", tmp_path).code == 0
    with pytest.raises(InputError, match="labels is missing"):
        list(labelled(tmp_path / "a.fil.h5"))


# what it measures


def test_the_frames_of_a_seed_are_balanced_and_the_same_each_time() -> None:
    one, same, other = (list(drawn(180, seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0].frames[:9], other[0].frames[:9])
    truth = np.concatenate([block.truth for block in one])
    assert set(np.bincount(class_indices(truth), minlength=9)) == {20}
    assert len({block.sampling_time_s for block in one}) > 1, "other telescopes' bands are among them"


def test_no_training_draws_from_the_stream_of_the_test() -> None:
    from functions.pulsar.train import VALIDATION_STREAM

    first = {np.random.default_rng((8, STREAM, block)).random() for block in range(1, 9)}
    epochs = [*range(64), 7, VALIDATION_STREAM]
    others = {np.random.default_rng((8, epoch, chunk)).random() for epoch in epochs for chunk in range(16)}
    assert STREAM != VALIDATION_STREAM and not first & others


def test_macro_f1_of_rows_is_that_of_the_labels() -> None:
    rng = np.random.default_rng(1)
    truth, labels = rng.random((300, 4)) < 0.3, rng.random((300, 4)) < 0.3
    labels[:200] = truth[:200]
    rows = np.stack([class_indices(truth), class_indices(labels)], axis=1)
    assert macro_f1_of_rows(rows) == pytest.approx(score.macro_f1(truth, labels))
    assert macro_f1_of_rows(rows[:200]) == 1.0
    assert macro_f1_of_rows(rows[:, ::-1][200:]) < 0.7


def test_each_metric_falls_for_the_fault_that_it_is_for() -> None:
    shipped = classifier.load(SHIPPED)

    def deaf(features: Any) -> np.ndarray:
        return shipped(features) * np.array([0.0, 1, 1, 1], np.float32)

    def jumpy(features: Any) -> np.ndarray:
        return np.maximum(shipped(features), np.array([0.6, 0, 0, 0], np.float32))

    def mixed(features: Any) -> np.ndarray:
        return np.roll(shipped(features), 1, axis=0)

    runs = {"shipped": shipped, "deaf": deaf, "jumpy": jumpy, "mixed": mixed}
    scoring = Scoring({name: (shipped, run) for name, run in runs.items()})
    for block in drawn(54, 3):
        scoring.add(block)
    assert len(scoring) == 54
    value = {
        name: {rule.metric.name: rule.metric.value(scoring.scores(name)[rule.metric.name]) for rule in GATE.rules}
        for name in runs
    }
    assert value["shipped"]["exact_match"] > 0.85 and value["shipped"]["pulse_recall"] > 0.9
    assert value["deaf"]["pulse_recall"] == 0.0
    assert value["jumpy"]["pulse_recall"] == 1.0 and value["jumpy"]["exact_match"] < 0.6
    assert value["jumpy"]["false_events"] > value["shipped"]["false_events"]
    assert value["mixed"]["exact_match"] < 0.3 and value["mixed"]["macro_f1"] < 0.3
    bright = next(rule for rule in GATE.rules if rule.metric.name == "pulse_recall")
    assert interval(bright.metric, scoring.scores("deaf")["pulse_recall"]).high < (bright.floor or 0)


def test_validation_needs_no_torch() -> None:
    code = "import functions.pulsar.validate, sys; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# what a training hands over


def test_a_trained_model_becomes_a_version_with_all_that_it_comes_from(frames: Path, tmp_path: Path) -> None:
    source = tmp_path / "train.json"
    source.write_text('{"frames": 9}')
    content = SHIPPED.read_bytes()
    (tmp_path / "train.json.onnx").write_bytes(content)
    metrics = {"request": {"seed": 1, "validation_frames": 36}, "exact_match": 0.9, "recall": {"7-9": float("nan")}}
    more = {**metrics, "losses": [1.0]}
    told = versions.write_version(source, tmp_path, content, more, [given(frames)], "my-models")
    name = classifier.load(SHIPPED).sha256[:16]
    assert told == name
    folder = tmp_path / "versions" / name
    assert (folder / "model.onnx").read_bytes() == content
    manifest = Manifest.read((folder / "manifest.json").read_bytes(), "manifest.json")
    assert (manifest.version, manifest.metrics) == (name, {"exact_match": 0.9, "recall": {"7-9": None}})
    assert manifest.data_hashes == {given(frames).sha256} and manifest.code and manifest.training_range["dm_pc_cm3"]
    assert manifest.request["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    request = json.loads((tmp_path / "train.json.validate.json").read_text())
    assert request["frames"] == 900
    keys = [(item["bucket"], item["key"]) for item in request["inputs"]]
    assert keys == [("my-models", f"{MODEL}/versions/{name}/{file}") for file in ("model.onnx", "manifest.json")]
    for item in request["inputs"]:
        data = (folder / Path(item["key"]).name).read_bytes()
        assert item["sha256"] == hashlib.sha256(data).hexdigest()
