"""The GAN whose channels are layers: windows about the axis, its losses and steps, and its transfer by two requests."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import gflash
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.showers import Showers, from_dense, join
from layers.learning.distributed import ALONE
from layers.learning.onnx import load
from layers.learning.registry import Manifest
from layers.runtime import Input, InputError
from tests.functions.calorimeter.attempts import task
from tests.functions.calorimeter.trainings import DETECTOR, as_input, files, prepared, train

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")

from functions.calorimeter.generator import Generator as Served  # noqa: E402
from functions.calorimeter.learners import conv2d  # noqa: E402
from functions.calorimeter.learners.conv2d_begin import fitted  # noqa: E402
from functions.calorimeter.learners.conv2d_networks import (  # noqa: E402
    Axis,
    Cut,
    Form,
    windows_of,
)
from functions.calorimeter.learners.gan_losses import in_order, percentage_error  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {"epochs": 1, "batch": 16, "channels": 8, "latent": 12}
PARAMETERS = conv2d.Parameters(**SMALL)


def showers_of(count: int, geometry: str | dict[str, Any] = "siw25", low: float = 5.0, high: float = 20.0) -> Showers:
    detector, rng = load_geometry(geometry), np.random.default_rng(1)
    energy, theta = rng.uniform(low, high, count), rng.uniform(math.radians(60), math.radians(120), count)
    return join(list(gflash.simulate(detector, "e-", energy, theta, rng.integers(1, 2**31, count))))


def data_of(showers: Showers, geometry: str | dict[str, Any], particles: tuple[str, ...] = ("e-",)) -> TrainingData:
    particle = np.arange(len(showers), dtype=np.int64) % len(particles)
    return TrainingData(load_geometry(geometry), particles, showers, particle, 0.0)


def form_of(geometry: str | dict[str, Any] = "siw25", window: int = 25) -> Form:
    return Form.of(load_geometry(geometry), window, particles=1, channels=8, latent=12, threshold_mev=0.1)


@pytest.fixture(scope="module")
def electrons() -> Showers:
    return showers_of(60)


@pytest.fixture(scope="module")
def toy() -> TrainingData:
    return data_of(showers_of(200, DETECTOR), DETECTOR)


@pytest.fixture(scope="module")
def taught(toy: TrainingData) -> conv2d.Conv2d:
    made = conv2d.make(toy, PARAMETERS, 1, ALONE)
    for number in range(made.steps):
        made.step(number)
    return made


@pytest.fixture(scope="module")
def exported(taught: conv2d.Conv2d, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conv2d") / "model.onnx"
    path.write_bytes(taught.export({"seed": 1}, "test"))
    return path


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_windows_follow_the_axis_and_come_back_to_where_they_were(electrons: Showers) -> None:
    form = form_of()
    windows = windows_of(electrons, form)
    theta = torch.from_numpy(electrons.theta.astype(np.float32))
    cells = Axis(form).place(torch.from_numpy(windows), theta).numpy()
    whole = electrons.dense((51, 51, 25))
    whole[whole < 0.1] = 0
    sums = whole.sum(axis=(1, 2, 3))
    factor = (cells.sum(axis=(1, 2, 3)) / sums)[:, None, None, None]
    assert windows.shape == (60, 25, 25, 25)
    assert factor.ravel() == pytest.approx(np.ones(60), rel=1e-4)
    inside = cells > 0
    ratio = cells[inside] / whole[inside]
    lost = 1 - whole[inside].sum() / whole.sum()
    assert not (inside & (whole == 0)).any()
    assert 0 < lost < 0.04 and 1 <= ratio.min() <= ratio.max() < 1.2
    centre = windows[:, :, 10:15, 10:15].sum() / windows.sum()
    assert centre > 0.7


def test_a_window_that_holds_all_loses_nothing() -> None:
    showers = showers_of(10, DETECTOR)
    straight = Showers(showers.energy_gev, np.full(10, math.pi / 2), showers.offsets, showers.cell, showers.edep_mev)
    form = form_of(DETECTOR)
    assert (form.window, form.layers, form.margin) == (7, 6, 0)
    cells = Axis(form).place(torch.from_numpy(windows_of(straight, form)), torch.full((10,), math.pi / 2))
    whole = straight.dense((7, 7, 6))
    whole[whole < 0.1] = 0
    assert np.allclose(cells, whole)


@pytest.mark.parametrize("cells, window, got, margin", [(51, 25, 25, 13), (50, 25, 24, 13), (31, 40, 31, 0)])
def test_a_window_is_in_the_middle_of_any_readout(cells: int, window: int, got: int, margin: int) -> None:
    form = form_of({**DETECTOR, "cells": cells}, window)
    assert (form.window, form.margin) == (got, margin) and form.window + 2 * form.margin == cells


def test_cells_begin_with_how_often_and_how_much_they_are_hit() -> None:
    """Drawn from the closed form itself, whose numbers are found again."""
    rng = np.random.default_rng(1)
    u = rng.normal(0, 1, (6000, 1))
    at = u[:, :, None, None]
    hit = rng.normal(size=(6000, 1, 3, 3)) > 0.5 - 0.8 * at
    log = -1.0 + 0.4 * at + 0.6 * rng.normal(size=(6000, 1, 3, 3))
    cells = fitted(np.where(hit, np.exp(log), 0).astype(np.float32), u)
    found = {name: float(values.mean()) for name, values in vars(cells).items()}
    # what is hit at one u and at another is told from the means over halves, where the curve is a little flatter
    expected = {"gate": 0.5, "gate_slope": -0.8, "middle": -1.0, "middle_slope": 0.4, "spread": 0.6}
    assert found == pytest.approx(expected, abs=0.15)


def test_a_cell_below_the_threshold_is_empty_and_can_be_filled_again() -> None:
    cells = torch.tensor([0.05, 0.2], requires_grad=True)
    cut = Cut.apply(cells, 0.1)
    cut.sum().backward()
    assert cut.tolist() == pytest.approx([0.0, 0.2]) and cells.grad.tolist() == [1.0, 1.0]


def test_quantiles_are_compared_and_not_showers() -> None:
    """Else the spread of sums would cost as much as a wrong mean, and the resolution would be trained away."""
    truth = torch.tensor([1.0, 2.0, 4.0])
    assert percentage_error(in_order(truth.flip(0)), in_order(truth)) == 0
    assert percentage_error(in_order(torch.full((3,), 2.0)), in_order(truth)) == pytest.approx(50)


def test_it_begins_with_the_sums_of_its_showers() -> None:
    showers = showers_of(300, DETECTOR)
    learner = conv2d.make(data_of(showers, DETECTOR), PARAMETERS, 1, ALONE)
    energy, theta = (torch.from_numpy(one.astype(np.float32)) for one in (showers.energy_gev, showers.theta))
    torch.manual_seed(1)
    with torch.no_grad():
        cells = learner.exported()(energy, theta, torch.zeros(300), torch.randn(300, 12), torch.randn(300, 12, 7, 7))
    made, wanted = cells.sum(dim=(1, 2, 3)).numpy(), showers.visible_mev
    assert (made / wanted).mean() == pytest.approx(1, abs=0.15)
    assert np.std(made / energy.numpy()) == pytest.approx(np.std(wanted / showers.energy_gev), rel=0.5)


def test_what_it_begins_with_holds_beyond_a_narrow_band() -> None:
    """Energy and its logarithm are nearly the same there, and must not cancel each other elsewhere."""
    band = data_of(showers_of(300, DETECTOR, 20, 40), DETECTOR)
    serving = conv2d.make(band, PARAMETERS, 1, ALONE).exported()
    torch.manual_seed(1)
    energy = torch.tensor([30.0, 100.0]).repeat_interleave(200)
    with torch.no_grad():
        given = (energy, torch.full((400,), math.pi / 2), torch.zeros(400), torch.randn(400, 12))
        cells = serving(*given, torch.randn(400, 12, 7, 7))
    inside, beyond = (cells.sum(dim=(1, 2, 3)) / energy).reshape(2, 200).mean(dim=1)
    assert beyond / inside == pytest.approx(1, abs=0.15)


def test_steps_teach_both_networks_and_the_average_follows(toy: TrainingData, taught: conv2d.Conv2d) -> None:
    before = conv2d.make(toy, PARAMETERS, 1, ALONE)
    assert taught.steps == 200 // 16
    assert not same(before.generator, taught.generator) and not same(before.discriminator, taught.discriminator)
    assert not same(taught.average, taught.generator) and not same(taught.average, before.generator)
    losses = before.step(0)
    assert {"discriminator_penalty", "generator_visible", "generator_angle", "generator_energy"} <= losses.keys()
    assert "discriminator_penalty" not in before.step(1)
    assert all(math.isfinite(value) for value in losses.values())


def test_training_mends_a_wrong_sum(toy: TrainingData) -> None:
    learner = conv2d.make(toy, conv2d.Parameters(**{**SMALL, "epochs": 5, "learning_rate": 3e-3}), 1, ALONE)
    with torch.no_grad():
        learner.generator.direct.bias[-1] += 0.5
    losses = [learner.step(number)["generator_visible"] for number in range(learner.steps)]
    assert losses[0] > 40 and np.mean(losses[-10:]) < 15


def test_a_step_depends_on_its_number_and_the_state_alone(toy: TrainingData, tmp_path: Path) -> None:
    learner = conv2d.make(toy, PARAMETERS, 1, ALONE)
    learner.step(0)
    torch.save(learner.state(), tmp_path / "state.pt")
    other = conv2d.make(toy, PARAMETERS, 1, ALONE)
    other.load(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.manual_seed(99)
    assert other.step(1) == learner.step(1)
    assert same(other.generator, learner.generator) and same(other.average, learner.average)
    assert same(other.discriminator, learner.discriminator)


def test_the_model_makes_what_torch_makes(taught: conv2d.Conv2d, exported: Path) -> None:
    session, about = load(exported, "dioscar-calorimeter-generator-1")
    rng = np.random.default_rng(1)
    feed = {
        "energy_gev": np.array([6.0, 15.0, 19.0], np.float32),
        "theta": np.radians(np.array([62.0, 90.0, 118.0])).astype(np.float32),
        "particle": np.zeros(3, np.float32),
        "normal_latent": rng.standard_normal((3, 12), np.float32),
        "normal_cells": rng.standard_normal((3, 12, 7, 7), np.float32),
    }
    cells = session.run(None, feed)[0]
    with torch.no_grad():
        wanted = taught.exported()(*(torch.from_numpy(feed[tensor.name]) for tensor in about.inputs)).numpy()
    assert cells.shape == (3, 7, 7, 6) and np.isfinite(cells).all()
    assert np.abs(cells - wanted).max() <= 1e-4 * wanted.max()
    assert cells[cells > 0].min() >= np.float32(0.1) and (cells == 0).any()


def test_the_model_serves(exported: Path) -> None:
    model = Served(exported)
    assert (model.family, model.threshold_mev, model.geometry.name) == ("conv2d", 0.1, "toy")
    energy, theta = np.linspace(6, 19, 40), np.linspace(1.1, 2.0, 40)
    made = join(list(model.generate(energy, theta, "e-", 1)))
    assert made.visible_mev / energy == pytest.approx(np.full(40, np.mean(made.visible_mev / energy)), rel=0.9)


def test_several_particles_are_told_apart() -> None:
    """Photons that leave half as much, in the same training."""
    showers = showers_of(200, DETECTOR)
    images = showers.dense((7, 7, 6))
    images[1::2] *= 0.5
    data = data_of(from_dense(showers.energy_gev, showers.theta, images), DETECTOR, ("e-", "gamma"))
    serving = conv2d.make(data, PARAMETERS, 1, ALONE).exported()
    torch.manual_seed(1)
    noise = (torch.randn(100, 12), torch.randn(100, 12, 7, 7))
    ten, straight = torch.full((100,), 10.0), torch.full((100,), math.pi / 2)
    with torch.no_grad():
        electron, photon = (serving(ten, straight, torch.full((100,), kind), *noise).sum() for kind in (0.0, 1.0))
    assert photon / electron == pytest.approx(0.5, abs=0.15)


def test_it_starts_from_what_fits_of_another_geometry(exported: Path, taught: conv2d.Conv2d) -> None:
    deeper = copy.deepcopy(DETECTOR)
    deeper["layers"][0]["count"] = 8
    learner = conv2d.make(data_of(showers_of(50, deeper), deeper), PARAMETERS, 2, ALONE)
    learner.start_from(exported)
    for number, fits in ((1, True), (3, False)):
        taken, given = (one.convolutions[number].weight for one in (learner.generator, taught.average))
        assert (taken.shape == given.shape and torch.equal(taken, given)) is fits
    assert same(learner.average, learner.generator)
    learner.step(0)


def test_a_model_of_another_family_is_no_start(toy: TrainingData, exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(exported.read_bytes().replace(b"conv2d", b"conv3d"))
    with pytest.raises(InputError, match=r'other.onnx: is "conv3d", and a training of "conv2d" starts from "conv2d"'):
        conv2d.make(toy, PARAMETERS, 1, ALONE).start_from(other)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"window": 2}, "window: 2 is not from 3 to 199"),
        ({"channels": 0}, "channels: 0 is not from 1 to 512"),
        ({"discriminator_rate": 2.0}, "discriminator_rate: 2.0 is not above 0"),
        ({"penalty": -1.0}, "penalty: -1.0 is negative"),
        ({"penalty_every": 0}, "penalty_every: 0 is less than 1"),
        ({"average": 1.0}, "average: 1.0 is not from 0 to below 1"),
    ],
)
def test_wrong_parameters_are_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        conv2d.Parameters(**change)
    assert sentence in str(error.value)


@pytest.fixture(scope="module")
def showers(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return prepared(tmp_path_factory.mktemp("showers"), showers=600)


def test_the_transfer_is_two_requests(showers: Input, tmp_path: Path) -> None:
    """A training on a band of energies, then one on all that starts from the first one's model."""
    band = {
        "family": "conv2d",
        "parameters": {**SMALL, "energy_gev": [8, 14]},
        "seed": 3,
        "watched": 0.2,
        "evaluate_every": 12,
    }
    outcome = train(tmp_path / "band", [showers], band)
    assert outcome.code == 0, outcome.message
    first = tmp_path / "band/out/r.json.onnx"
    assert load(first)[1].training_range["energy_gev"] == [8.0, 14.0]
    everything = {**band, "parameters": SMALL, "start": "given"}
    outcome = train(tmp_path / "all", [showers, as_input(first)], everything)
    assert outcome.code == 0, outcome.message
    assert load(tmp_path / "all/out/r.json.onnx")[1].training_range["energy_gev"] == [5.0, 20.0]
    told = [data for name, data in files(tmp_path / "all").items() if name.endswith("manifest.json")]
    assert json.loads(told[0])["parent"] == Manifest.of("calorimeter-generator", first.read_bytes()).version


@pytest.mark.slow
def test_two_ranks_train_the_same_model_each_time(showers: Input, tmp_path: Path) -> None:
    request = {"family": "conv2d", "parameters": SMALL, "seed": 3}
    models = []
    for name in ("one", "two"):
        folder = task(tmp_path / name, showers, request)
        module = ["-m", "tests.functions.calorimeter.attempts", str(folder)]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *module]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        models.append(next(folder.rglob("r.json.onnx")).read_bytes())
    assert models[0] == models[1]
