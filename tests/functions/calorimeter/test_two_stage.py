"""The model that serves: what its stages promise each other, its symmetry, its training, and other geometries."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import gflash
from functions.calorimeter.geometry import Geometry, geometry_from_json
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.observables import Observables, observe
from functions.calorimeter.showers import from_dense, join
from layers.learning.distributed import ALONE
from layers.runtime import InputError
from tests.functions.calorimeter.tiny_model import tiny_model

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")

from functions.calorimeter.generator import Generator  # noqa: E402
from functions.calorimeter.learners import two_stage  # noqa: E402
from functions.calorimeter.learners.two_stage import centres, scaling, started  # noqa: E402
from functions.calorimeter.learners.two_stage.constraints import Drawn, agreed  # noqa: E402
from functions.calorimeter.learners.two_stage.context import Shower  # noqa: E402
from functions.calorimeter.learners.two_stage.quantities import ACROSS, layer_depths, quantities, whole  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = two_stage.Parameters(steps=30, batch=32, width=32, blocks=2, flow_steps=3, cells_every=2, cells_batch=8)
COUNT = 200


def detector(absorber_mm: float = 7.0, layers: int = 8, absorber: str = "W") -> Geometry:
    layer = {"absorber": absorber, "absorber_mm": absorber_mm, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 2.0}
    told = {"name": "small", "cells": 21, "cell_mm": 7.0, "layers": [{"count": layers, **layer}]}
    return geometry_from_json(told, "small")


def data_of(geometry: Geometry, count: int = COUNT, particles: tuple[str, ...] = ("e-", "gamma")) -> TrainingData:
    rng = np.random.default_rng(1)
    energy, theta = rng.uniform(5, 50, count), rng.uniform(math.radians(70), math.radians(110), count)
    each = count // len(particles)
    parts = [
        part
        for number, particle in enumerate(particles)
        for part in gflash.simulate(
            geometry,
            particle,
            energy[number * each : (number + 1) * each],
            theta[number * each : (number + 1) * each],
            rng.integers(1, 2**31, each),
        )
    ]
    return TrainingData(geometry, particles, join(parts), np.repeat(np.arange(len(particles)), each), 0.1)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return data_of(detector())


@pytest.fixture(scope="module")
def seen(data: TrainingData) -> Observables:
    return observe(data.showers, data.geometry)


@pytest.fixture(scope="module")
def learner(data: TrainingData) -> two_stage.Learner:
    learner = two_stage.make(data, SMALL, 1, ALONE)
    for number in range(learner.steps):
        learner.step(number)
    return learner


@pytest.fixture(scope="module")
def model(learner: two_stage.Learner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(learner.export({"seed": 1}, "a test"))
    return path


def noise_of(network: Any, count: int) -> list[Any]:
    torch.manual_seed(3)
    depth, places = network.depth, network.places
    return [
        torch.randn(count, network.quantities),
        torch.rand(count, depth),
        torch.randn(count, depth, 2),
        torch.rand(count, depth, network.cells**2),
        torch.rand(count, depth, places),
        torch.randn(count, depth, places),
    ]


def test_what_is_scaled_comes_back(seen: Observables) -> None:
    values = quantities(seen, 0.1, np.random.default_rng(1))
    slope = np.tan(np.pi / 2 - seen.theta)
    particle = np.repeat([0, 1], COUNT // 2)
    fitted = scaling.fit(values, seen.energy_gev, np.abs(slope), particle, 2)
    normal = fitted.forth(values, seen.energy_gev, np.abs(slope), particle)
    assert abs(float(normal.mean())) < 0.05
    assert 0.9 < float(normal.std()) < 1.1
    back = fitted.back(
        torch.from_numpy(normal).float(),
        torch.from_numpy(seen.energy_gev).float(),
        torch.from_numpy(slope).float(),
        torch.eye(2)[torch.from_numpy(particle)],
    )
    inner = np.abs(normal) < scaling.LEAST_REACH
    assert inner.mean() > 0.98
    assert np.allclose(back.numpy()[inner], values[inner], atol=2e-3)
    far = fitted.back(torch.full((1, values.shape[1]), 50.0), torch.tensor([20.0]), torch.zeros(1), torch.eye(2)[:1])
    assert (far[0].numpy() < values.max(axis=0) + 4 * values.std(axis=0)).all()


def test_what_bends_with_energy_and_particle_is_straightened() -> None:
    rng = np.random.default_rng(2)
    count = 8000
    energy, particle = np.exp(rng.uniform(np.log(10), np.log(100), count)), rng.integers(0, 2, count)
    tail = rng.exponential(size=(count, 1)) * np.log(energy / 10)[:, None] * np.where(particle == 0, -1, 1)[:, None]
    values = rng.standard_normal((count, 1)) + tail
    normal = scaling.fit(values, energy, np.zeros(count), particle, 2).forth(values, energy, np.zeros(count), particle)
    for kind in range(2):
        for low, high in ((10, 20), (40, 100)):
            some = normal[(particle == kind) & (energy > low) & (energy < high), 0]
            assert np.abs(np.quantile(some, [0.05, 0.5, 0.95]) - [-1.645, 0, 1.645]).max() < 0.2
            assert abs(np.mean((some - some.mean()) ** 3)) < 0.35


@pytest.mark.parametrize(("rare", "nodes"), [(4000, 4), (500, 2), (60, 1), (0, 4)])
def test_maps_are_as_fine_as_the_rarest_particle_bears(rare: int, nodes: int) -> None:
    rng = np.random.default_rng(2)
    count = 8000
    energy, particle = np.exp(rng.uniform(2, 4, count)), (np.arange(count) < rare).astype(np.int64)
    fitted = scaling.fit(rng.standard_normal((count, 1)), energy, np.zeros(count), particle, 2)
    assert len(fitted.nodes) == nodes


def test_energies_and_hits_come_back_from_their_quantities(learner: two_stage.Learner, seen: Observables) -> None:
    values = torch.from_numpy(quantities(seen, 0.1, np.random.default_rng(1))).float()
    energy, slope = (torch.from_numpy(a).float() for a in (seen.energy_gev, np.abs(np.tan(np.pi / 2 - seen.theta))))
    shower = learner.network.context.decode(energy, slope, torch.eye(2)[[0] * COUNT], values, learner.network.places)
    assert np.allclose(shower.layers.numpy(), seen.layers, rtol=1e-4)
    told, truth = shower.hits.numpy(), seen.layer_hits
    full = seen.layers >= 1.02 * 0.1 * np.maximum(truth, 1)  # where hits are hardly above the threshold, one may go
    assert (told[full] == truth[full]).mean() > 0.999
    assert (told[seen.layers == 0] == 0).all()


def shower_of(seen: Observables, count: int) -> Shower:
    slope = np.abs(np.tan(np.pi / 2 - seen.theta))
    arrays = (seen.energy_gev, slope, np.eye(2)[[0] * len(seen)], seen.layers, seen.layer_hits, whole(seen))
    return Shower(*(torch.from_numpy(np.asarray(a)[:count]).float() for a in arrays))


def test_second_stage_keeps_energies_and_hits_of_layers(learner: two_stage.Learner, seen: Observables) -> None:
    network, rows, shower = learner.network, slice(0, 40), shower_of(seen, 40)
    with torch.no_grad():
        column, row, energy = network.drawn(shower, *noise_of(network, 40)[1:])
    there = energy.numpy() > 0
    assert ((energy.numpy() >= 0.1 - 1e-6) == there).all()
    assert (there.sum(axis=2) == seen.layer_hits[rows]).all()
    assert np.allclose(energy.sum(dim=2).numpy(), seen.layers[rows], rtol=1e-4, atol=1e-3)
    cells = (column * network.cells + row).numpy()
    assert all(len(set(cells[0, layer][there[0, layer]])) == there[0, layer].sum() for layer in range(network.depth))


def test_cells_of_a_mirrored_shower_are_its_mirror_image(learner: two_stage.Learner, seen: Observables) -> None:
    network, shower = learner.network, shower_of(seen, 40)
    mirrored = shower.whole.clone()
    mirrored[:, list(ACROSS)] *= -1
    with torch.no_grad():
        column, row, energy = network.drawn(shower, *noise_of(network, 40)[1:])
        found = network.drawn(replace(shower, whole=mirrored), *noise_of(network, 40)[1:])
    assert float(shower.whole[:, ACROSS[0]].abs().min()) > 0
    there = energy > 0
    assert torch.equal(found[0][there], network.cells - 1 - column[there])
    assert torch.equal(found[1][there], row[there])
    assert torch.allclose(found[2], energy, rtol=1e-3, atol=1e-3)


def mixture_of(count: int) -> centres.Mixture:
    weights = torch.log(torch.tensor([0.7, 0.2, 0.1 - 1e-6, 1e-6])).expand(count, 1, 4)
    means = torch.tensor([[0.0, 1.0, -2.0, 9.0], [0.5, 0.0, 3.0, 9.0]]).expand(count, 1, 2, 4)
    widths = torch.log(torch.tensor([[0.1, 0.5, 1.0, 1.0], [0.2, 0.3, 0.5, 1.0]])).expand(count, 1, 2, 4)
    return weights, means, widths


def test_centres_are_drawn_as_their_mixture_says() -> None:
    torch.manual_seed(1)
    count = 20_000
    weights, means, widths = mixture = mixture_of(count)
    drawn = centres.drawn(mixture, torch.zeros(count, 1), torch.rand(count, 1), torch.randn(count, 1, 2))
    assert torch.allclose(drawn.mean(dim=(0, 1)), torch.tensor([0.0, 0.65]), atol=0.03)
    assert float(((drawn[:, 0, 0] < -1) & (drawn[:, 0, 1] > 2)).float().mean()) == pytest.approx(0.082, abs=0.008)
    likely = centres.log_likelihood(mixture, drawn)
    parts = [torch.distributions.Normal(means[0, 0, :, k], torch.exp(widths[0, 0, :, k])) for k in range(4)]
    told = torch.stack([weights[0, 0, k] + part.log_prob(drawn).sum(dim=2) for k, part in enumerate(parts)])
    assert torch.allclose(likely, torch.logsumexp(told, dim=0), atol=1e-3)


def test_what_is_drawn_with_blur_is_what_was_drawn_and_blurred() -> None:
    torch.manual_seed(1)
    count = 20_000
    mixture, ones = mixture_of(count), torch.ones(count, 1)
    sharp = centres.drawn(mixture, 0 * ones, torch.rand(count, 1), torch.randn(count, 1, 2))
    later = centres.blurred(mixture, sharp, torch.rand(count, 1), torch.randn(count, 1, 2))
    at_once = centres.drawn(mixture, ones, torch.rand(count, 1), torch.randn(count, 1, 2))
    for quantile in (0.01, 0.2, 0.5, 0.8, 0.99):
        one, other = (torch.quantile(drawn[:, 0], quantile, dim=0) for drawn in (later, at_once))
        assert torch.allclose(one, other, atol=0.25), quantile
    assert float((later - sharp).std()) > 0.3


def test_cells_agree_with_what_was_asked_for_of_the_shower() -> None:
    torch.manual_seed(1)
    count, depth, places = 50, 6, 40
    x, y = (3 * torch.randn(count, depth, places) for _ in range(2))
    there = (torch.arange(places) < 30).float().expand(count, depth, places)
    room = 5 + 20 * torch.rand(count, depth)
    above = torch.exp(-torch.hypot(x, y) + 0.5 * torch.randn_like(x)) * there
    cells = Drawn(x, y, there, room, 0.1)
    start = agreed(above, cells, torch.zeros(count, 10), torch.zeros(count, depth, 2), 0)
    start = start * (room / start.sum(dim=2))[..., None] + 0.1 * there
    total = start.sum(dim=(1, 2))
    parts = start.sum(dim=2) / total[:, None]
    moments = torch.stack([parts, parts * torch.linspace(-2, 2, depth)], dim=2)
    centre = torch.stack([(start * a).sum(dim=2) / start.sum(dim=2) for a in (x, y)], dim=2)
    was = torch.einsum("nlk,nlw->nkw", moments, centre).flatten(1)
    wanted = was + 0.05 * torch.randn(count, 4)
    widths = [torch.sqrt((start * a**2).sum(dim=(1, 2)) / total) * (1 + 0.05 * torch.randn(count)) for a in (x, y)]
    inside = ((x.abs() <= 1.5) & (y.abs() <= 1.5)).float()
    core = (start * inside).sum(dim=(1, 2)) / total
    hottest = start.amax(dim=(1, 2)) * 1.05 / total
    rest = [torch.log(widths[0] + 0.05), torch.log(widths[1] + 0.05), torch.log((core + 1e-3) / (1 - core + 1e-3))]
    radius = torch.full((count,), 4.5)
    numbers = torch.stack([*rest, torch.log(hottest), torch.log(radius + 0.3), *wanted.T, torch.zeros(count)], dim=1)
    energy = agreed(above, cells, numbers, moments, 24) + 0.1 * there
    centre = torch.stack([(energy * a).sum(dim=2) / energy.sum(dim=2) for a in (x, y)], dim=2)
    found = torch.einsum("nlk,nlw->nkw", moments, centre).flatten(1)
    assert float((found - wanted).abs().median()) < 0.003 < 0.02 < float((was - wanted).abs().median())
    beyond = (torch.hypot(x, y) > radius[:, None, None]).float()
    assert float(((energy * beyond).sum(dim=(1, 2)) / total - 0.1).abs().median()) < 0.01
    assert torch.allclose(energy.sum(dim=2), room + 3.0, rtol=1e-3)
    for measure, wanted in ((x, widths[0]), (y, widths[1])):
        found = torch.sqrt((energy * measure**2).sum(dim=(1, 2)) / total)
        assert float((found / wanted - 1).abs().median()) < 0.01
    assert float(((energy * inside).sum(dim=(1, 2)) / total - core).abs().median()) < 0.01
    assert float((energy.amax(dim=(1, 2)) / total / hottest - 1).abs().median()) < 0.01


def test_showers_of_opposite_angles_are_mirror_images(learner: two_stage.Learner) -> None:
    network, noise = learner.exported(), noise_of(learner.network, 6)
    energy, theta, particle = torch.full((6,), 20.0), torch.linspace(1.25, 1.5, 6), torch.tensor([0.0, 1.0] * 3)
    with torch.no_grad():
        one, other = network(energy, theta, particle, *noise), network(energy, math.pi - theta, particle, *noise)
    assert float(one.sum()) > 0
    assert torch.allclose(one.flip(2), other, rtol=1e-3, atol=1e-3)


def test_the_particle_matters(learner: two_stage.Learner) -> None:
    network, noise = learner.exported(), noise_of(learner.network, 50)
    energy, theta = torch.full((50,), 20.0), torch.full((50,), 1.5)
    depth = torch.arange(network.depth).float()
    with torch.no_grad():
        layers = [network(energy, theta, torch.full((50,), kind), *noise).sum(dim=(1, 2)) for kind in (0.0, 1.0)]
    electrons, photons = (((e * depth).sum(dim=1) / e.sum(dim=1)).mean() for e in layers)
    assert float(photons - electrons) > 0.05  # photons begin later


def test_training_lowers_losses_and_is_the_same_again(data: TrainingData, learner: two_stage.Learner) -> None:
    again = two_stage.make(data, SMALL, 1, ALONE)
    losses = [again.step(number) for number in range(again.steps)]
    assert np.mean([one["flow"] for one in losses[-8:]]) < np.mean([one["flow"] for one in losses[:4]])
    hits = [one["hits"] for one in losses if "hits" in one]
    assert hits[-1] < 0.8 * hits[0]
    middles = [one["centres"] for one in losses if "centres" in one]
    assert middles[-1] < middles[0] - 1
    for one, other in zip(again.average.parameters(), learner.average.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_training_goes_on_from_its_state(data: TrainingData, learner: two_stage.Learner) -> None:
    first, second = (two_stage.make(data, SMALL, 1, ALONE) for _ in range(2))
    for number in range(11):
        first.step(number)
    second.load(first.state())
    for number in range(11, SMALL.steps):
        second.step(number)
    for one, other in zip(second.average.parameters(), learner.average.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_exported_model_gives_what_torch_gives(learner: two_stage.Learner, model: Path) -> None:
    generator = Generator(model)
    assert (generator.family, generator.particles) == ("two-stage", ("e-", "gamma"))
    network = learner.exported()
    energy, theta, particle = torch.full((5,), 20.0), torch.full((5,), 1.5), torch.zeros(5)
    noise = noise_of(network, 5)
    from layers.learning.onnx import load

    session, told = load(model)
    feeds = dict(zip([t.name for t in told.inputs], (energy, theta, particle, *noise), strict=True))
    found = session.run(None, {name: value.numpy() for name, value in feeds.items()})[0]
    with torch.no_grad():
        expected = network(energy, theta, particle, *noise).numpy()
    agree = np.isclose(found, expected, rtol=1e-2, atol=1e-2)
    assert agree.mean() > 0.999  # two cells of nearly the same odds may change places
    assert np.allclose(found.sum(axis=(1, 2, 3)), expected.sum(axis=(1, 2, 3)), rtol=1e-3)


def test_showers_that_no_cell_sees_are_empty(model: Path) -> None:
    """Nor does a shower depend on what is generated beside it."""
    generator = Generator(model)
    energy, theta = np.array([1e-6, 20.0, 1e-6]), np.full(3, 1.5)
    showers = join(list(generator.generate(energy, theta, "e-", 1, checked=False)))
    assert showers.hits[0] == showers.hits[2] == 0 < showers.hits[1]
    alone = join(list(generator.generate(energy[:1], theta[:1], "e-", 1, checked=False)))
    assert alone.hits[0] == 0
    beside = join(list(generator.generate(energy[1:2], theta[1:2], "e-", 1, first=1)))
    assert np.array_equal(beside.cell, showers.cell) and np.allclose(beside.edep_mev, showers.edep_mev, rtol=1e-4)


def test_generated_showers_have_what_they_should(model: Path, seen: Observables, data: TrainingData) -> None:
    generator = Generator(model)
    made = join(list(generator.generate(seen.energy_gev[:100], seen.theta[:100], "e-", 1)))
    found, truth = observe(made, data.geometry), seen.sampling_fraction[:100]
    assert abs(found.sampling_fraction.mean() / truth.mean() - 1) < 0.05
    assert np.isfinite(made.edep_mev).all() and made.edep_mev.min() >= 0.1 - 1e-6


def test_a_model_starts_from_another_one(data: TrainingData, learner: two_stage.Learner, model: Path) -> None:
    fresh = two_stage.make(data, SMALL, 2, ALONE)
    fresh.start_from(model)
    for name, tensor in learner.average.named_parameters():
        assert torch.equal(dict(fresh.average.named_parameters())[name], tensor), name
    assert fresh.step(0)["flow"] < two_stage.make(data, SMALL, 2, ALONE).step(0)["flow"]


def test_layers_of_another_geometry_start_as_the_nearest_ones(learner: two_stage.Learner, model: Path) -> None:
    other = detector(3.5, 16)
    fresh = two_stage.make(data_of(other, 60, ("gamma",)), SMALL, 1, ALONE)
    fresh.start_from(model)
    old, new = (layer_depths(geometry)[0] for geometry in (learner.data.geometry, other))
    nearest = torch.tensor([int(np.argmin(np.abs(old - depth))) for depth in new])
    shares = torch.nn.functional.one_hot(nearest, 8).float()
    shares /= shares.sum(dim=0).clamp(min=1).sqrt()
    used = shares.sum(dim=0) > 0
    for weights, of in (
        (fresh.network.flow.values.weight, learner.average.flow.values.weight),
        (fresh.network.flow.velocity.weight.T, learner.average.flow.velocity.weight.T),
        (fresh.network.flow.velocity.bias[:, None], learner.average.flow.velocity.bias[:, None]),
    ):
        # noise that is normal stays so, and layers with the same nearest one are told apart
        assert torch.allclose((shares.T @ weights[:16])[used], of[:8][used], atol=1e-5)
        assert torch.allclose((shares.T @ weights[16:32])[used], of[8:16][used], atol=1e-5)
        assert torch.allclose(weights[32:], of[16:], atol=1e-5)
        assert len(torch.unique(weights[:16], dim=0)) == 16
    conditions, of = fresh.network.flow.conditions.weight, learner.average.flow.conditions.weight
    assert torch.equal(conditions[:3], of[[0, 1, 3]])  # energy, slope, photons


def test_maps_of_another_window_have_their_values_at_the_same_places(learner: two_stage.Learner, model: Path) -> None:
    told = {**detector().as_json(), "cells": 26}
    fresh = two_stage.make(data_of(geometry_from_json(told, "wide"), 60), SMALL, 1, ALONE)
    fresh.start_from(model)
    old, new = (net.hits.maps.unflatten(1, (net.hits.columns, -1)) for net in (learner.average, fresh.network))
    assert torch.allclose(new[:, 0], (old[:, 0] + old[:, 1]) / 2)  # half a cell from the middle
    assert torch.allclose(new[:, 9], (old[:, 9] + old[:, 10]) / 2)
    assert torch.equal(new[:, 10:], old[:, -1:].expand(-1, new.shape[1] - 10, -1))
    was, now = learner.average.hits.sides, fresh.network.hits.sides
    assert torch.allclose(now[:, 9], (was[:, 9] + was[:, 10]) / 2)
    assert torch.equal(now[:, 10:], was[:, -1:].expand(-1, now.shape[1] - 10))


def test_a_model_with_fewer_quantities_is_refused(
    data: TrainingData, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = two_stage.make(data, SMALL, 1, ALONE)
    monkeypatch.setattr(started, "WHOLE", (*started.WHOLE, "another"))
    with pytest.raises(InputError, match=r"model\.onnx: tells 10 quantities .* and not 11.*start from"):
        fresh.start_from(model)


def test_a_model_without_a_network_of_this_release_is_refused(
    data: TrainingData, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = two_stage.make(data, SMALL, 1, ALONE)
    told, found = started.read_start(model, "two-stage")
    older = {name: values for name, values in found.items() if not name.startswith("centres.")}
    monkeypatch.setattr(started, "read_start", lambda *_: (told, older))
    with pytest.raises(InputError, match=r"model\.onnx: has no weights centres\..*another release made it; start from"):
        fresh.start_from(model)


def test_what_does_not_fit_is_refused(data: TrainingData, model: Path, tmp_path: Path) -> None:
    wide = two_stage.Parameters(**{**SMALL.__dict__, "width": 48})
    with pytest.raises(InputError, match=r"model\.onnx: its flow.* give the same widths"):
        two_stage.make(data, wide, 1, ALONE).start_from(model)
    other = tmp_path / "tiny.onnx"
    other.write_bytes(tiny_model())
    with pytest.raises(InputError, match="start from scratch"):
        two_stage.make(data, SMALL, 1, ALONE).start_from(other)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 2.0}, {"average": 1.0}, {"warm_up": 0}])
def test_parameters_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        two_stage.Parameters(**wrong)


def test_the_architecture_makes_the_same_network(learner: two_stage.Learner) -> None:
    told = json.loads(json.dumps(learner.architecture()))
    network = two_stage.build(told)["generator"]
    network.load_state_dict(learner.networks()["generator"].state_dict())
    noise = noise_of(network, 2)
    given = (torch.full((2,), 20.0), torch.full((2,), 1.5), torch.zeros(2))
    with torch.no_grad():
        assert torch.equal(network.eval()(*given, *noise), learner.exported()(*given, *noise))


def test_dense_and_sparse_are_the_same_showers(model: Path) -> None:
    generator = Generator(model)
    energy, theta = np.full(4, 20.0), np.full(4, 1.5)
    made = join(list(generator.generate(energy, theta, "gamma", 1)))
    again = from_dense(energy, theta, made.dense(generator.geometry.shape))
    assert (again.cell == made.cell).all() and (again.edep_mev == made.edep_mev).all()
