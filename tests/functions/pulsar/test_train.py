"""Training learns, stops, goes on, and gives the same model for the same request."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.pulsar import classifier, score
from functions.pulsar.features import Features
from functions.pulsar.train import (
    Examples,
    Request,
    draw_examples,
    population,
    read_labelled,
    trigger_threshold,
)
from layers.runtime import Input, InputError
from layers.runtime.testing import Outcome, call

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")

TINY = {"frames": 96, "epochs": 2, "validation_frames": 36, "batch": 24, "other_bands": 0.0, "seed": 3}
CHUNK = {"CHUNK": "48", "THREADS": "1"}


def train(folder: Path, request: dict[str, Any] = TINY, **options: Any) -> Outcome:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "request.json").write_text(json.dumps(request))
    return call("pulsar.train", folder / "request.json", folder, settings=CHUNK, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    outcome = train(folder)
    assert outcome.code == 0, outcome.message
    return folder


def test_a_training_gives_a_model_that_serves_and_its_metrics(trained: Path) -> None:
    model = classifier.load(trained / "request.json.onnx")
    metrics = json.loads((trained / "request.json.metrics.json").read_text())
    assert metrics["request"] == {**metrics["request"], **TINY}
    assert 0 <= metrics["exact_match"] <= 1 and len(metrics["losses"]) == 4
    assert model.metadata["outputs"] == "pulse,nbrfi,bbrfi,other"
    assert json.loads(model.metadata["request"]) == metrics["request"]


def test_the_same_request_gives_the_same_model(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path).code == 0
    version = classifier.load(trained / "request.json.onnx").sha256[:16]
    assert f"version {version}: pulsar-validate decides" in capfd.readouterr().out
    assert (tmp_path / "request.json.onnx").read_bytes() == (trained / "request.json.onnx").read_bytes()


def test_a_stopped_training_goes_on_to_the_same_model(trained: Path, tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    stopped = train(tmp_path / "run", checkpoint=tmp_path / "kept", stopping=stopping)
    assert stopped.code == 75
    assert not list((tmp_path / "run").glob("*.onnx"))
    outcome = train(tmp_path / "run", checkpoint=tmp_path / "kept")
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "run/request.json.onnx").read_bytes() == (trained / "request.json.onnx").read_bytes()


def test_the_exported_graph_computes_what_the_network_does(tmp_path: Path) -> None:
    from functions.pulsar.network import Network, to_onnx
    from functions.pulsar.train import as_tensors

    torch.manual_seed(0)
    network = Network()
    examples = draw_examples(population(Request()), 40, (9, 9))
    network.train()
    network(as_tensors(examples.features, np.arange(40)))  # moves the running statistics off their start
    network.eval()
    with torch.no_grad():
        expected = torch.sigmoid(network(as_tensors(examples.features, np.arange(40)))).numpy()
    metadata = {
        "format": classifier.FORMAT,
        "thresholds": '{"pulse": 0.5, "nbrfi": 0.5, "bbrfi": 0.5, "other": 0.5}',
        "trigger": "0.1",
    }
    (tmp_path / "m.onnx").write_bytes(to_onnx(network, metadata))
    values = Features(*(v.astype(np.float32) for v in examples.features.as_inputs().values()))
    assert np.allclose(classifier.load(tmp_path / "m.onnx")(values), expected, atol=1e-4)


def test_a_network_learns_what_it_is_shown() -> None:
    from functions.pulsar.train import Settings, Trainer

    class Stub:
        inputs = ()
        stopping = False
        checkpoint = Path()

        def progress(self, done: float, total: float) -> None: ...

    examples = draw_examples(population(Request(other_bands=0)), 90, (1, 2))
    trainer = Trainer(Request(batch=30), Settings(chunk=90), Stub())  # type: ignore[arg-type]
    losses = [trainer._learn(examples, 100) for _ in range(18)]
    assert losses[-1] < 0.5 * losses[0]
    labels = score.decide(trainer.probabilities(examples), np.full(4, 0.5))
    assert score.exact_match(examples.truth, labels) > 0.5


def test_labelled_files_are_learned_from(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(json.dumps({"kind": "frames", "frames": 27, "seed": 2}))
    assert call("pulsar.synthesise", tmp_path / "f.json", tmp_path).code == 0
    (examples,) = read_labelled(tmp_path / "f.json.h5", 64)
    assert examples.truth.sum() > 0 and len(examples.truth) == 27
    given = Input("b", "f.json.h5", "0" * 64, tmp_path / "f.json.h5")
    outcome = train(tmp_path / "run", {**TINY, "epochs": 1}, inputs=[given])
    assert outcome.code == 0, outcome.message
    assert len(json.loads((tmp_path / "run/request.json.metrics.json").read_text())["losses"]) == 3


def test_frames_without_labels_are_refused(tmp_path: Path) -> None:
    from tests.functions.pulsar.files import filterbank

    filterbank(tmp_path / "a.fil")
    assert call("pulsar.preprocess", tmp_path / "a.fil", tmp_path).code == 0
    with pytest.raises(InputError, match="labels is missing"):
        list(read_labelled(tmp_path / "a.fil.h5", 64))


def test_examples_depend_on_their_seed_only() -> None:
    one, same, other = (draw_examples(population(Request()), 18, seed) for seed in ((1, 0, 0), (1, 0, 0), (1, 0, 1)))
    assert isinstance(one, Examples)
    assert np.array_equal(one.features.tracks, same.features.tracks)
    assert not np.array_equal(one.features.tracks, other.features.tracks)


def test_the_trigger_lets_one_frame_in_a_hundred_through() -> None:
    truth = np.zeros((2000, 4), bool)
    truth[1000:, 1] = True
    pulse = np.linspace(0, 1, 1000).tolist() * 2
    trigger = trigger_threshold(truth, np.array(pulse), 0.999)
    assert trigger == pytest.approx(0.98, abs=0.02)
    assert trigger_threshold(truth, np.array(pulse), 0.4) == 0.4


def test_without_torch_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    outcome = train(tmp_path)
    assert outcome.code == 65 and "dioscar install train" in outcome.message
