"""The transformer learns, is the same in ONNX as in torch, and goes on where it was."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import learners
from functions.calorimeter.generator import Generator
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.gflash import simulate
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.showers import Showers, join
from functions.calorimeter.training.parity import check_parity
from functions.calorimeter.training.score import Scorer
from layers.learning.distributed import ALONE
from layers.runtime import InputError
from tests.functions.calorimeter.trainings import DETECTOR

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"steps": 40, "batch": 32, "width": 16, "blocks": 1, "heads": 2, "steps_of_flow": 3, "cell_layers": 24}


@pytest.fixture(scope="module")
def family() -> Any:
    return learners.family("transformer")


def sample(particle: str, count: int, seed: int) -> Showers:
    rng = np.random.default_rng(seed)
    energy, theta = rng.uniform(5, 20, count), np.radians(rng.uniform(60, 120, count))
    geometry = load_geometry(DETECTOR)
    return join(list(simulate(geometry, particle, energy, theta, rng.integers(0, 2**31, count))))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    showers = join([sample("e-", 90, 1), sample("gamma", 60, 2)])
    kinds = np.repeat(np.array([0, 1]), [90, 60])
    return TrainingData(load_geometry(DETECTOR), ("e-", "gamma"), showers, kinds, 0.1, (5, 20), (60, 120))


@pytest.fixture(scope="module")
def trained(family: Any, data: TrainingData) -> Any:
    learner = family.make(data, family.Parameters(**SMALL), 7, ALONE)
    learner.losses = [learner.step(number) for number in range(40)]
    return learner


@pytest.fixture(scope="module")
def model(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(trained.export({"seed": 7}, "a test"))
    return path


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_its_losses_fall(trained: Any) -> None:
    for name in ("flow", "hits", "energies"):
        losses = [step[name] for step in trained.losses]
        assert np.mean(losses[-8:]) < np.mean(losses[:8]), name
        assert all(math.isfinite(loss) for loss in losses)


def test_showers_have_the_shape_of_the_geometry_and_cells_above_the_threshold(model: Path) -> None:
    generator = Generator(model)
    assert (generator.family, generator.particles, generator.geometry.shape) == (
        "transformer",
        ("e-", "gamma"),
        (7, 7, 6),
    )
    energy, theta = np.linspace(5, 20, 40), np.linspace(np.radians(60), np.radians(120), 40)
    made = join(list(generator.generate(energy, theta, "gamma", 3)))
    assert len(made) == 40 and (made.hits > 0).all()
    assert made.edep_mev.min() >= np.float32(generator.threshold_mev) == np.float32(0.1)


def test_training_brings_showers_nearer_to_those_it_learned_from(
    family: Any, data: TrainingData, tmp_path: Path
) -> None:
    learner = family.make(data, family.Parameters(**{**SMALL, "steps": 200, "learning_rate": 5e-3}), 7, ALONE)
    scorer, scores, path = Scorer(data, seed=1), [], tmp_path / "model.onnx"
    for number in range(201):
        if number in (0, 200):
            path.write_bytes(learner.export({}, ""))
            scores.append(scorer(path).score)
        else:
            learner.step(number)
    assert scores[1] < 0.8 * scores[0], scores


def test_the_onnx_model_makes_the_showers_that_torch_makes(model: Path, trained: Any, data: TrainingData) -> None:
    assert check_parity(model, trained.exported(), data, seed=1) < 1e-5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    family: Any, data: TrainingData, trained: Any
) -> None:
    again, other = (family.make(data, family.Parameters(**SMALL), seed, ALONE) for seed in (7, 8))
    for number in range(40):
        again.step(number)
    other.step(0)
    assert again.export({}, "") == trained.export({}, "")
    assert other.step(1) != trained.losses[1]


def test_it_goes_on_from_its_state_as_if_it_had_not_stopped(
    family: Any, data: TrainingData, trained: Any, tmp_path: Path
) -> None:
    first = family.make(data, family.Parameters(**SMALL), 7, ALONE)
    for number in range(25):
        first.step(number)
    torch.save(first.state(), tmp_path / "state.pt")
    torch.manual_seed(99)
    second = family.make(data, family.Parameters(**SMALL), 7, ALONE)
    second.load(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in range(25, 40):
        second.step(number)
    assert same(second.networks()["generator"].state_dict(), trained.networks()["generator"].state_dict())


def test_the_network_is_built_again_from_its_architecture(family: Any, trained: Any) -> None:
    told = json.loads(json.dumps(trained.architecture()))
    again = family.build(told)["generator"]
    again.load_state_dict(trained.networks()["generator"].state_dict())
    assert same(again.state_dict(), trained.networks()["generator"].state_dict())


def test_it_starts_from_another_model_and_refuses_one_of_another_family(
    family: Any, data: TrainingData, trained: Any, model: Path, tmp_path: Path
) -> None:
    other = family.make(data.rows(np.arange(40)), family.Parameters(**SMALL), 8, ALONE)
    other.start_from(model)
    wanted = dict(trained.networks()["generator"].named_parameters())
    taken = dict(other.networks()["generator"].named_parameters())
    assert all(torch.equal(taken[name], wanted[name]) for name in wanted)
    import onnx

    changed = onnx.load(model)
    for entry in changed.metadata_props:
        if entry.key == "family":
            entry.value = "conv2d"
    onnx.save(changed, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r'other\.onnx: is "conv2d", and a training of "transformer" starts'):
        other.start_from(tmp_path / "other.onnx")
    (tmp_path / "none.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"none\.onnx: is no ONNX model"):
        other.start_from(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"width": 30}, r"width: 30 is no multiple of heads \(4\)"),
        ({"steps": 0}, "steps: 0 is less than 1"),
        ({"learning_rate": 2.0}, "learning_rate is between 0 and 1"),
    ],
)
def test_wrong_parameters_are_told(family: Any, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        family.Parameters(**values)
