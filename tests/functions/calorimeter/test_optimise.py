"""Prototypes are scanned by a model that knows them better than GFLASH does, and Geant4 has the last word."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import geant4, gflash, optimise
from functions.calorimeter.prototyping.compared import beyond
from functions.calorimeter.prototyping.fast import MODEL, Prototype, resolution
from functions.calorimeter.prototyping.production import deepened, drawn, drawn_to_test, layer_sums
from functions.calorimeter.prototyping.scan import Point, front, knee
from functions.calorimeter.prototyping.stack import Stack
from functions.calorimeter.showers import from_dense
from layers.runtime import InputError
from layers.runtime.testing import Outcome, call

pytest.importorskip("matplotlib", reason="matplotlib is not installed: ./dioscar install calorimeter")

SHIPPED = Path(optimise.__file__).parent / f"{MODEL}.onnx"
IRON = Stack("Fe", 17.6, 18, 0.5, 2.0)
SMALL = {
    "absorbers": ["W", "Pb"],
    "layers": [8, 24, 4],
    "absorber_x0": [0.5, 1.0],
    "energy_gev": 2,
    "showers": 400,
    "confirm_showers": 50,
    "seed": 4,
}


def looked_for(folder: Path, request: dict[str, Any], **options: Any) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "r.json"
    source.write_text(json.dumps(request))
    return call("calorimeter.optimise", source, folder / "out", **options)


def found(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out/r.json.pareto.json").read_text()))


@pytest.fixture(scope="module")
def model() -> Prototype:
    return Prototype(SHIPPED)


def test_the_fast_model_sees_what_geant4_sees_where_gflash_does_not(model: Prototype) -> None:
    count, energy = 80, 3.0
    energies, theta, seeds = np.full(count, energy), np.full(count, math.pi / 2), np.arange(1, count + 1)
    there = IRON.geometry()
    full = np.concatenate(
        [p.visible_mev for p in geant4.simulate(there, geant4.Primaries("e-", energies, theta, seeds))]
    )
    old = np.concatenate([p.visible_mev for p in gflash.simulate(there, "e-", energies, theta, seeds)])
    fast = model.generate(IRON, "e-", np.full(2000, energy), 1).sum(axis=1)
    assert fast.mean() == pytest.approx(full.mean(), rel=0.08)
    assert old.mean() < 0.8 * full.mean()
    assert resolution(fast)[0] == pytest.approx(resolution(full)[0], rel=0.35)


def test_showers_depend_on_the_seed_alone_and_on_the_energy(model: Prototype) -> None:
    energies = np.array([3.0, 12.0] * 200)
    one, two, other = (model.generate(IRON, "e-", energies, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert one.shape == (400, 18) and (one >= 0).all()
    sums = one.sum(axis=1)
    assert sums[1::2].mean() / sums[::2].mean() == pytest.approx(4, rel=0.1)
    depth = one.mean(axis=0) @ np.arange(18) / one.mean(axis=0).sum()
    assert 3 < depth < 10


def test_fewer_layers_are_the_same_showers_cut_off(model: Prototype) -> None:
    energies = np.full(50, 5.0)
    few, many = (model.generate(replace(IRON, layers=count), "e-", energies, 3) for count in (6, 18))
    assert np.array_equal(few, many[:, :6])


def test_a_finer_calorimeter_resolves_more(model: Prototype) -> None:
    energies = np.full(1000, 10.0)
    widths = []
    for mm, layers in ((1.75, 50), (3.5, 25), (7.0, 13)):
        stack = Stack("W", mm, layers, 0.5, 2.0)
        widths.append(resolution(model.generate(stack, "e-", energies, 1).sum(axis=1))[0])
    assert widths[0] < 0.85 * widths[1] < 0.85**2 * widths[2]


def test_the_error_of_a_resolution_is_what_it_fluctuates_by() -> None:
    rng = np.random.default_rng(1)
    draws = [resolution(rng.gamma(30, 1, 300)) for _ in range(400)]
    widths, errors = np.array(draws).T
    assert np.mean(errors) == pytest.approx(np.std(widths), rel=0.12)
    assert np.mean(widths) == pytest.approx(30**-0.5, rel=0.02)


def test_nothing_on_the_front_is_beaten_and_the_knee_is_where_depth_stops_to_pay() -> None:
    stack = Stack("W", 3.5, 10, 0.5, 2.0)
    depths = [100.0, 150.0, 200.0, 300.0, 400.0, 250.0]
    points = [Point(stack, width, 0.0, 0.0, 1.0) for width in (0.4, 0.2, 0.1, 0.095, 0.09, 0.3)]
    assert front(points, depths) == [0, 1, 2, 3, 4]
    assert knee(points, depths, [0, 1, 2, 3, 4]) == 2


def test_the_optimum_is_simulated_by_geant4_and_the_page_says_so(tmp_path: Path) -> None:
    outcome = looked_for(tmp_path / "a", SMALL)
    assert outcome.code == 0, outcome.message
    document = found(tmp_path / "a")
    assert len(document["points"]) == 2 * 2 * 5
    front_mm = [document["points"][place] for place in document["front_mm"]]
    assert [p["depth_mm"] for p in front_mm] == sorted(p["depth_mm"] for p in front_mm)
    assert [p["resolution"] for p in front_mm] == sorted((p["resolution"] for p in front_mm), reverse=True)
    assert document["optimum"] in document["front_mm"]
    (told,) = document["confirmed"]
    assert told["place"] == document["optimum"] and told["showers"] == 50 and told["agrees"] == (abs(told["pull"]) <= 2)
    point = document["points"][told["place"]]
    assert told["fraction"] == pytest.approx(point["fraction"], rel=0.15)
    page = (tmp_path / "a/out/r.json.pareto.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "<script" not in page and "http" not in page
    assert ("not confirmed by Geant4" in page) != told["agrees"] and "statistical error" in page


def test_a_stopped_scan_goes_on_with_the_next_showers_and_ends_alike(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    kept = tmp_path / "kept"
    assert looked_for(tmp_path / "a", SMALL, checkpoint=kept, stopping=stop).code == 75
    assert looked_for(tmp_path / "a", SMALL, checkpoint=kept).code == 0
    assert looked_for(tmp_path / "b", SMALL).code == 0
    for name in ("json", "html"):
        one, two = ((tmp_path / folder / f"out/r.json.pareto.{name}").read_bytes() for folder in "ab")
        assert one == two


def test_what_geant4_does_not_see_is_not_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Geant4's part is played by showers that are three times as wide."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr(optimise, "_simulated", lambda *_: 100 * (1 + 0.5 * rng.standard_normal(400)))
    assert looked_for(tmp_path, {**SMALL, "confirm": 2}).code == 0
    document = found(tmp_path)
    assert "not confirmed by Geant4" in document["verdict"]
    assert document["confirmed"][0]["agrees"] is False


def test_a_depth_limits_the_optimum(tmp_path: Path) -> None:
    assert looked_for(tmp_path, {**SMALL, "confirm": 0, "max_depth_mm": 90}).code == 0
    document = found(tmp_path)
    best = document["points"][document["optimum"]]
    within = [point for point in document["points"] if point["depth_mm"] <= 90]
    assert best["resolution"] == min(point["resolution"] for point in within)
    assert document["confirmed"] == [] and "Geant4 was not asked" in document["verdict"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"absorbers": ["U"]}, "none of Fe, Cu, W, Pb"),
        ({"absorbers": []}, "absorbers: there is none"),
        ({"layers": [30, 10, 2]}, "no [least, most, step] from 1 to 100"),
        ({"layers": [10, 300]}, "no [least, most, step]"),
        ({"layers": []}, "layers: [] is no [least, most, step]"),
        ({"layers": [5, 9, 0]}, "layers: [5, 9, 0] is no [least, most, step]"),
        ({"absorber_mm": [2.0]}, "take one of them out"),
        ({"absorber_x0": [5.0]}, "absorber_x0: 5 (W) is beyond what the fast model has learned, 0.25 to 2.5"),
        ({"sensor_mm": 0.01}, "sensor_mm: 0.01 (W) is beyond"),
        ({"energy_gev": 100}, "energy_gev: 100 (W) is beyond what the fast model has learned, 2 to 20"),
        ({"particle": "pi-"}, 'particle: "pi-" is none of e-, gamma'),
        ({"showers": 10**9}, "showers: 1e+09 is not from 100 to 100000"),
        ({"confirm": 99}, "confirm: 99 is not from 0 to 20"),
        ({"max_depth_mm": 10}, "max_depth_mm: 10 is less than"),
        ({"max_depth_mm": -5}, "max_depth_mm: -5 is less than"),
        ({"layer": [1, 2]}, '"layer" is no key of this request'),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    outcome = looked_for(tmp_path, {**SMALL, **changes})
    assert outcome.code == 65 and says in outcome.message and "\n" not in outcome.message
    assert not list((tmp_path / "out").iterdir())


def test_drawn_stacks_are_within_what_is_said_to_be_learned(model: Prototype) -> None:
    for number in range(30):
        stack, particle = drawn(1, number)
        model.check(stack, 10.0)
        assert stack.depth_x0 >= 25 and stack.layers <= 100 and particle in ("e-", "gamma")
        cut, _, energy = drawn_to_test(1, number)
        assert cut.layers <= stack.layers and 3 <= energy <= 16


def test_layers_are_summed_over_their_cells() -> None:
    images = np.random.default_rng(1).random((3, 2, 2, 5)).astype(np.float32)
    assert layer_sums(from_dense(np.ones(3), np.ones(3), images), 5) == pytest.approx(images.sum(axis=(1, 2)))


def test_the_model_can_be_trained_again(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
    from functions.calorimeter.prototyping import judged
    from functions.calorimeter.prototyping.production import Sample, write
    from functions.calorimeter.prototyping.train import Parameters, about, train
    from layers.learning.onnx import export

    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    samples = []
    for number, (mm, particle) in enumerate(((2.0, "e-"), (4.0, "gamma"), (3.0, "e-"))):
        energies = rng.uniform(2, 20, 60)
        profile = np.arange(1, 13) * np.exp(-np.arange(12) / 2)
        seen = (15 + number) * energies[:, None] * rng.gamma(30, 1 / 30, (60, 12)) * profile / profile.sum()
        samples.append(Sample(Stack("W", mm, 12, 0.5, 2.0), particle, energies, seen.astype(np.float32)))
    parameters = Parameters(epochs=40, layer_epochs=3, layer_width=16, batch=32, layer_batch=256)
    models = []
    for _ in range(2):
        networks, losses = train(samples, parameters)
        models.append(export(networks, about(samples, parameters, losses)))
    assert models[0] == models[1]
    path = tmp_path / "m.onnx"
    path.write_bytes(models[0])
    made = Prototype(path).generate(deepened(samples[0].stack), "e-", np.full(500, 10.0), 1)
    assert made.sum(axis=1).mean() / 10 == pytest.approx(15, rel=0.15)
    with pytest.raises(InputError, match="does not say how wrong"):
        _ = Prototype(path).errors
    (tmp_path / "showers").mkdir()
    write(tmp_path / "showers/00000.npz", samples[0])
    assert judged.main([str(path), str(tmp_path / "showers")]) == 0
    told = Prototype(path).errors
    assert told.keys() == {"e-"} and told["e-"]["stacks"] == 1 and 0 <= told["e-"]["mean_error"] < 1


def test_errors_beyond_the_statistical_ones_are_found_and_are_none_where_there_are_none() -> None:
    rng = np.random.default_rng(2)
    noise = np.full(2000, 0.1)
    assert beyond(rng.normal(0, 0.1, 2000), noise) < 0.04
    assert beyond(rng.normal(0, np.hypot(0.1, 0.2), 2000), noise) == pytest.approx(0.2, abs=0.02)
