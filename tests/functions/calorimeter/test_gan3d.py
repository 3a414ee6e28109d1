"""The 3DGAN is the published one: its networks, its losses and its steps, without what is wrong in its public ports."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import gflash
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.showers import join
from layers.learning.distributed import ALONE
from layers.learning.onnx import load
from layers.runtime import InputError
from tests.functions.calorimeter.trainings import as_input, prepared, train

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")

from functions.calorimeter.generator import Generator as Served  # noqa: E402
from functions.calorimeter.learners import gan3d, gan_losses  # noqa: E402
from functions.calorimeter.learners.gan3d_networks import (  # noqa: E402
    Discriminator,
    Generator,
    measured_angle,
    to_cells,
    to_images,
    visible,
)
from functions.calorimeter.learners.gan_batches import batch_of, in_range  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
PARAMETERS = gan3d.Parameters(epochs=1, batch=2)


def data_of(count: int, geometry: str = "siw25", low: float = 2.0, high: float = 5.0) -> TrainingData:
    detector, rng = load_geometry(geometry), np.random.default_rng(1)
    energy, theta = rng.uniform(low, high, count), rng.uniform(math.radians(60), math.radians(120), count)
    showers = join(list(gflash.simulate(detector, "e-", energy, theta, rng.integers(1, 2**31, count))))
    return TrainingData(detector, ("e-",), showers, np.zeros(count, np.int64), 0.1)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return data_of(4)


@pytest.fixture(scope="module")
def before(data: TrainingData) -> gan3d.Gan3d:
    return gan3d.make(data, PARAMETERS, 1, ALONE)


@pytest.fixture(scope="module")
def learner(data: TrainingData) -> gan3d.Gan3d:
    """After the first step, whose losses are its `losses`."""
    made = gan3d.make(data, PARAMETERS, 1, ALONE)
    made.losses = made.step(0)
    return made


@pytest.fixture(scope="module")
def exported(learner: gan3d.Gan3d, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("3dgan") / "model.onnx"
    path.write_bytes(learner.export({"seed": 1}, "test"))
    return path


def weights_of(network: Any) -> dict[str, Any]:
    return {name: value for name, value in network.state_dict().items() if "num_batches" not in name}


def same(one: Any, other: Any) -> bool:
    pairs = zip(weights_of(one).values(), weights_of(other).values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_the_networks_have_the_published_weights_and_shapes(before: gan3d.Gan3d) -> None:
    assert sum(value.numel() for value in before.generator.parameters()) == 1_364_983
    assert sum(value.numel() for value in before.generator.dense.parameters()) == 1_332_288
    assert sum(value.numel() for value in before.discriminator.parameters()) == 87_354
    shapes: list[tuple[int, ...]] = []
    network = copy.deepcopy(before.generator).eval()
    for layer in (network.grow, *network.convolutions):
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        images = network(torch.zeros(1, 256))
    assert shapes == [
        (8, 54, 54, 48),
        (8, 49, 49, 41),
        (6, 50, 50, 38),
        (6, 51, 51, 35),
        (6, 52, 52, 32),
        (6, 52, 52, 28),
        (6, 52, 52, 26),
        (1, 51, 51, 25),
    ]
    assert images.shape == (1, 51, 51, 25) and images.min() == 0
    with torch.no_grad():
        assert [value.shape for value in before.discriminator(images)] == [(1,)] * 4


def test_showers_are_conditioned_on_energy_and_angle_beside_the_noise() -> None:
    given = gan3d.conditions(torch.tensor([50.0]), torch.tensor([1.5]), torch.full((1, 254), 7.0))
    assert given[0, :3].tolist() == [0.5, 1.5, 7.0] and given.shape == (1, 256)


def test_images_are_a_power_of_energies_and_sums_are_those_of_energies() -> None:
    cells = torch.tensor([[[[2.0, 20.0]]]])
    assert to_images(cells)[0, 0, 0].tolist() == pytest.approx([0.1**0.85, 1.0])
    assert 20 * visible(to_cells(to_images(cells))) == pytest.approx(22.0)
    assert to_cells(torch.tensor([-1.0, 0.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("theta_deg", [70.0, 90.0, 115.0])
def test_the_angle_in_cells_is_that_of_a_line_of_cells(theta_deg: float) -> None:
    cells = torch.zeros(1, 51, 51, 25)
    for layer in range(25):
        row = 25 + (layer - 12) / math.tan(math.radians(theta_deg))
        energy = (layer + 1) ** 2  # so that no layer lies at the shower's centre, where there is no slope
        cells[0, 25, math.floor(row), layer] = energy * (1 - row % 1)
        cells[0, 25, math.floor(row) + 1, layer] = energy * (row % 1)
    assert math.degrees(measured_angle(cells)[0]) == pytest.approx(theta_deg, abs=0.05)


def test_the_angle_of_nothing_is_none_and_has_a_gradient_everywhere() -> None:
    cells = torch.zeros(2, 51, 51, 25)
    cells[1, 20, 20, 3] = 1.0
    cells.requires_grad_()
    angle = measured_angle(cells)
    angle.sum().backward()
    assert angle.tolist() == pytest.approx([math.pi / 2] * 2)
    assert torch.isfinite(cells.grad).all()


def test_the_sigmoid_is_there_once() -> None:
    """With a second one, the loss of a sure discriminator could not fall below 0.31."""
    assert gan_losses.adversarial(torch.tensor([20.0]), torch.ones(1)) < 1e-6
    network = Discriminator().eval()
    with torch.no_grad():
        network.real.weight.zero_()
        network.real.bias.fill_(-30.0)
        assert network(torch.zeros(1, 51, 51, 25))[0].item() == -30.0


def test_percentages_are_of_the_truth() -> None:
    """Of the prediction, they would explode where it is nothing."""
    prediction = torch.tensor([1e-6, 3.0], requires_grad=True)
    loss = gan_losses.percentage_error(prediction, torch.tensor([1.0, 2.0]))
    loss.backward()
    assert loss.item() == pytest.approx(75.0, rel=1e-4)
    assert prediction.grad.tolist() == pytest.approx([-50.0, 25.0])


def test_running_statistics_are_those_of_many_batches(before: gan3d.Gan3d) -> None:
    """0.01 in torch's convention; 0.99 would keep the last batch alone."""
    norm = copy.deepcopy(before.generator.norms[0]).train()
    norm(torch.full((2, 8, 2, 2, 2), 5.0))
    assert norm.running_mean[0].item() == pytest.approx(0.05)
    momenta = {layer.momentum for net in (before.generator, before.discriminator) for layer in net.norms}
    assert momenta == {0.01}


def test_layers_that_the_ports_changed_are_the_originals(before: gan3d.Gan3d) -> None:
    assert before.generator.grow.mode == "nearest"
    assert before.discriminator.slope(torch.tensor(-1.0)).item() == pytest.approx(-0.3)
    assert [layer.eps for layer in before.generator.norms] == [1e-6] * 5


def test_nothing_flows_back_from_the_discriminators_step_into_the_generator(data: TrainingData) -> None:
    learner = gan3d.make(data, PARAMETERS, 1, ALONE)
    statistics = copy.deepcopy(weights_of(learner.generator))
    made = learner.made(torch.zeros(1, 256))
    assert not made.requires_grad and learner.generator.training
    assert all(torch.equal(statistics[name], value) for name, value in weights_of(learner.generator).items())
    batch = batch_of(data, 2, 0, 1, ALONE)
    cells = torch.from_numpy(batch.showers.dense((51, 51, 25)))
    truth = gan3d.Truth(batch.energy_gev / 100, measured_angle(cells), visible(cells / 20))
    learner._teach(to_images(cells), truth, real=True)
    assert all(value.grad is None for value in learner.generator.parameters())
    assert all(value.grad is not None for value in learner.discriminator.parameters())


def test_some_labels_are_turned_round() -> None:
    torch.manual_seed(1)
    labels = gan_losses.labels(20_000, real=True)
    assert 1 - labels.mean().item() == pytest.approx(0.05, abs=0.01)
    assert gan_losses.labels(20_000, real=False).mean().item() == pytest.approx(0.05, abs=0.01)


def test_the_losses_have_the_published_weights() -> None:
    assert vars(gan_losses.WEIGHTS) == {"adversarial": 3.0, "energy": 0.1, "angle": 25.0, "visible": 0.1}
    truth = gan3d.Truth(*(torch.tensor([value]) for value in (0.5, 1.5, 10.0)))
    found = tuple(torch.tensor([value]) for value in (0.0, 0.4, 1.6, 12.0))
    losses = gan3d.losses_of(found, torch.ones(1), truth)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        {"adversarial": math.log(2), "energy": 20.0, "angle": 0.1, "visible": 20.0}, rel=1e-5
    )
    assert gan3d.weighted(losses).item() == pytest.approx(3 * math.log(2) + 2 + 2.5 + 2)


def test_a_step_teaches_both_networks_with_the_published_optimiser(
    before: gan3d.Gan3d, learner: gan3d.Gan3d, data: TrainingData
) -> None:
    assert learner.steps == 2
    assert {name for name in learner.losses if name.startswith("generator_")} == {
        f"generator_{name}" for name in ("adversarial", "energy", "angle", "visible")
    }
    assert all(math.isfinite(value) and value > 0 for value in learner.losses.values())
    assert not same(before.generator, learner.generator) and not same(before.discriminator, learner.discriminator)
    for name, count in {"discriminator": 2, "generator": 2}.items():
        optimiser = learner.optimisers[name]
        assert type(optimiser) is torch.optim.RMSprop
        options = optimiser.param_groups[0]
        assert {key: options[key] for key in ("lr", "alpha", "eps")} == {"lr": 1e-3, "alpha": 0.9, "eps": 1e-7}
        assert {int(state["step"]) for state in optimiser.state.values()} == {count}
    assert all(value.requires_grad for value in learner.discriminator.parameters())


def test_the_published_schedule_is_the_default() -> None:
    parameters = gan3d.Parameters()
    assert (parameters.epochs, parameters.batch, parameters.learning_rate) == (130, 64, 1e-3)


def test_the_model_makes_what_torch_makes(learner: gan3d.Gan3d, exported: Path) -> None:
    session, about = load(exported, "dioscar-calorimeter-generator-1")
    rng = np.random.default_rng(1)
    feed = {
        "energy_gev": np.array([2.5, 4.0], np.float32),
        "theta": np.array([1.2, 1.7], np.float32),
        "particle": np.zeros(2, np.float32),
        "normal_latent": rng.standard_normal((2, 254), np.float32),
    }
    cells = session.run(None, feed)[0]
    assert not learner.exported().training
    with torch.no_grad():
        wanted = learner.exported()(*(torch.from_numpy(feed[tensor.name]) for tensor in about.inputs)).numpy()
    assert np.isfinite(cells).all() and cells.shape == (2, 51, 51, 25)
    assert np.abs(cells - wanted).max() <= 1e-4 * wanted.max() and wanted.max() > 0
    assert about.more["threshold_mev"] == "0.1" and cells[cells > 0].min() >= np.float32(0.1)
    images = to_images(torch.from_numpy(cells))
    with torch.no_grad():
        raw = learner.generator.eval()(
            gan3d.conditions(*(torch.from_numpy(feed[name]) for name in ("energy_gev", "theta", "normal_latent")))
        )
    learner.generator.train()
    kept = images > 0
    assert torch.allclose(images[kept], raw[kept], rtol=1e-3)


def test_the_model_says_what_it_is_as_whoever_serves_it_reads_it(exported: Path) -> None:
    model = Served(exported)
    assert (model.family, model.particles, model.threshold_mev) == ("3dgan", ("e-",), 0.1)
    assert model.geometry.name == "siw25"
    model.check(3.0, 1.5, "e-")


def test_a_second_training_starts_from_both_networks(learner: gan3d.Gan3d, exported: Path, data: TrainingData) -> None:
    other = gan3d.make(data, PARAMETERS, 2, ALONE)
    assert not same(other.generator, learner.generator)
    other.start_from(exported)
    assert same(other.generator, learner.generator) and same(other.discriminator, learner.discriminator)
    assert not any(optimiser.state for optimiser in other.optimisers.values())


def test_a_state_is_gone_on_from(learner: gan3d.Gan3d, data: TrainingData, tmp_path: Path) -> None:
    torch.save(learner.state(), tmp_path / "state.pt")
    other = gan3d.make(data, PARAMETERS, 2, ALONE)
    other.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(other.generator, learner.generator) and same(other.discriminator, learner.discriminator)
    assert int(next(iter(other.optimisers["generator"].state.values()))["step"]) == 2


def test_the_networks_are_built_again_from_their_architecture(learner: gan3d.Gan3d) -> None:
    network = gan3d.build(learner.architecture())["generator"]
    network.load_state_dict(learner.networks()["generator"].state_dict())
    assert isinstance(network, Generator) and same(network, learner.generator)


def test_a_generator_that_makes_nothing_ends_the_training(data: TrainingData) -> None:
    learner = gan3d.make(data, PARAMETERS, 1, ALONE)
    with torch.no_grad():
        learner.generator.convolutions[-1].bias.fill_(-1e6)
    with pytest.raises(InputError, match=r"^seed: with 1, the generator makes empty showers only after 11 steps"):
        learner.step(11)


def test_a_band_of_energies_is_trained_on_alone_and_told() -> None:
    data = in_range(data_of(40, low=2, high=6), (3.0, 5.0), 2)
    assert 0 < len(data) < 40
    assert data.showers.energy_gev.min() >= 3 and data.showers.energy_gev.max() <= 5
    assert data.training_range["energy_gev"] == [3.0, 5.0]


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"epochs": 0}, "epochs: 0 is less than 1"),
        ({"batch": 1}, "batch: 1 is not from 2 to 4096"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0 is not above 0"),
        ({"energy_gev": (5.0,)}, "energy_gev: [5.0] is no range"),
        ({"energy_gev": (50.0, 10.0)}, "energy_gev: [50.0, 10.0] is no range"),
    ],
)
def test_wrong_parameters_are_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        gan3d.Parameters(**change)
    assert sentence in str(error.value)


def test_what_it_is_not_made_for_is_refused(data: TrainingData, tmp_path: Path, exported: Path) -> None:
    with pytest.raises(InputError, match=r'51 x 51 cells in 25 layers, and geometry "siw30" has 51 x 51 x 30'):
        gan3d.make(data_of(2, "siw30"), PARAMETERS, 1, ALONE)
    two = TrainingData(data.geometry, ("e-", "gamma"), data.showers, data.particle, 0.1)
    with pytest.raises(InputError, match="one particle, and inputs have e- and gamma"):
        gan3d.make(two, PARAMETERS, 1, ALONE)
    with pytest.raises(InputError, match=r"hold 0 showers from 80 to 90 GeV to train on, and a batch has 2"):
        gan3d.make(data, gan3d.Parameters(batch=2, energy_gev=(80.0, 90.0)), 1, ALONE)
    nothing = tmp_path / "nothing.onnx"
    nothing.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"nothing.onnx: is no"):
        gan3d.make(data, PARAMETERS, 1, ALONE).start_from(nothing)


@pytest.mark.slow
def test_the_published_transfer_is_two_requests(tmp_path: Path) -> None:
    """An epoch on a band of energies, then one on all that starts from the first one's model."""
    showers = prepared(tmp_path / "showers", detector=None, geometry="siw25", energy_gev=[2, 5], showers=80)
    band = {"family": "3dgan", "parameters": {"epochs": 1, "batch": 8, "energy_gev": [2, 3.5]}, "watched": 0.2}
    outcome = train(tmp_path / "band", [showers], band)
    assert outcome.code == 0, outcome.message
    first = tmp_path / "band/out/r.json.onnx"
    assert load(first)[1].training_range["energy_gev"] == [2.0, 3.5]
    everything = {**band, "parameters": {"epochs": 1, "batch": 8}, "start": "given"}
    outcome = train(tmp_path / "all", [showers, as_input(first)], everything)
    assert outcome.code == 0, outcome.message
    made = Served(tmp_path / "all/out/r.json.onnx")
    assert (made.family, made.energy_gev) == ("3dgan", (2.0, 5.0))
    assert len(join(list(made.generate(np.full(2, 3.0), np.full(2, 1.5), "e-", 1)))) == 2
