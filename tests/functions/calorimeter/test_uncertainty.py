"""From members and held-out showers to bands on a page; what is no ensemble is refused in one sentence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter.geometry import Geometry, load_geometry
from functions.calorimeter.hdf5 import Writer
from functions.calorimeter.showers import join
from layers.learning.manifest import Manifest
from layers.runtime import Input
from layers.runtime.testing import Outcome, call
from tests.functions.calorimeter.trainings import DETECTOR, as_input

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: ./dioscar install calorimeter")

GEOMETRY = load_geometry(DETECTOR)
RANGE = {"energy_gev": [20.0, 60.0], "theta_deg": [60.0, 120.0]}
REQUEST = {"repeats": 1, "energy_gev": [10, 20, 40, 60, 100], "theta_deg": [60, 90, 120], "seed": 5}


def member(folder: Path, gain: float, geometry: Geometry = GEOMETRY, **changes: Any) -> Input:
    """A model that has learned another gain."""
    from tests.functions.calorimeter.tiny_model import tiny_model

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{gain:g}-{geometry.name}-{len(changes)}.onnx"
    path.write_bytes(tiny_model(geometry, gain=gain, **{"training_range": RANGE, **changes}))
    return as_input(path, "models")


def held_out(folder: Path, truth: Input, geometry: Geometry = GEOMETRY, count: int = 480) -> Input:
    """Showers of another such model, in the place of Monte Carlo."""
    from functions.calorimeter.generator import Generator

    rng = np.random.default_rng(3)
    energy, theta = rng.uniform(10, 100, count), np.radians(rng.uniform(60, 120, count))
    showers = join(list(Generator(truth.path).generate(energy, theta, "e-", 99, checked=False)))
    path = folder / f"held-{geometry.name}.h5"
    with Writer(path, geometry, {"geometry": geometry.as_json(), "particle": "e-"}, threshold_mev=0.1) as writer:
        writer.add(showers)
    return as_input(path)


def manifest(folder: Path, model: Input, *learned: Input) -> Input:
    """A member's manifest, which names what it has learned from."""
    data = [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in learned]
    path = folder / f"{model.sha256[:16]}.manifest.json"
    path.write_bytes(Manifest.of("calorimeter-generator", model.path.read_bytes(), data=data).to_bytes())
    return as_input(path, "models")


def told(folder: Path, inputs: Sequence[Input], request: dict[str, Any] | None = None, **options: Any) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "r.json"
    source.write_text(json.dumps(REQUEST if request is None else request))
    return call("calorimeter.uncertainty", source, folder / "out", inputs=inputs, **options)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Input], Input]:
    folder = tmp_path_factory.mktemp("ensemble")
    members = [member(folder, gain) for gain in (0.96, 0.99, 1.01, 1.04)]
    return members, held_out(folder, member(folder, 1.02))


def test_bands_are_told_in_json_and_on_a_page_that_needs_nothing_else(
    tmp_path: Path, ensemble: tuple[list[Input], Input]
) -> None:
    members, truth = ensemble
    known = manifest(tmp_path, members[0], member(tmp_path, 1.03))
    outcomes = [told(tmp_path / name, [*members, known, truth]) for name in ("a", "b")]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[0].message
    files = {name: (tmp_path / f"a/out/r.json.uncertainty.{name}").read_bytes() for name in ("json", "html")}
    assert all((tmp_path / f"b/out/r.json.uncertainty.{name}").read_bytes() == data for name, data in files.items())
    document = json.loads(files["json"])
    assert document["unchecked"] == [item.key for item in members[1:]]
    roles = {tuple(one["energy_gev"]): one["role"] for one in document["slices"]}
    assert roles[10, 20] == roles[60, 100] == "outside" and "outside" not in (roles[20, 40], roles[40, 60])
    for name in ("longitudinal", "lateral_y", "spectrum"):
        assert document["observables"][name]["factor"] > 0
        assert 0.5 < document["observables"][name]["tested"]["coverage"]["value"] <= 1
    band = document["slices"][3]["observables"]["longitudinal"]
    assert all(low <= mean <= high for low, mean, high in zip(band["low"], band["mean"], band["high"], strict=True))
    page = files["html"].decode()
    assert "was not checked" in page and f"Whether {members[1].key}, " in page
    assert page.count("data:image/png;base64,") >= 3 and "http" not in page and "<script" not in page


def test_an_ensemble_that_knows_less_than_it_shows_is_told_to_cover_too_little(
    tmp_path: Path, ensemble: tuple[list[Input], Input]
) -> None:
    """Outside the range the truth is another detector: the factor of the inside does not cover it."""
    from functions.calorimeter.hdf5 import ShowersHdf5

    members, truth = ensemble
    with ShowersHdf5(truth.path) as file:
        showers = join(list(file.read()))
    far = (showers.energy_gev < 20) | (showers.energy_gev > 60)
    showers.edep_mev[np.repeat(far, showers.hits)] *= 1.5
    path = tmp_path / "other.h5"
    with Writer(path, GEOMETRY, {"geometry": GEOMETRY.as_json(), "particle": "e-"}) as writer:
        writer.add(showers)
    assert told(tmp_path, [*members, as_input(path)]).code == 0
    found = json.loads((tmp_path / "out/r.json.uncertainty.json").read_text())["observables"]["longitudinal"]
    assert found["outside"]["coverage"]["value"] < 0.3 < found["tested"]["coverage"]["value"]


def test_a_stopped_run_goes_on_with_the_next_member(tmp_path: Path, ensemble: tuple[list[Input], Input]) -> None:
    import threading

    members, truth = ensemble
    stop = threading.Event()
    stop.set()
    kept = tmp_path / "kept"
    assert told(tmp_path / "a", [*members, truth], checkpoint=kept, stopping=stop).code == 75
    assert told(tmp_path / "a", [*members, truth], checkpoint=kept).code == 0
    assert told(tmp_path / "b", [*members, truth]).code == 0
    name = "out/r.json.uncertainty.json"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_no_ensemble_is_refused(tmp_path: Path, ensemble: tuple[list[Input], Input]) -> None:
    members, truth = ensemble
    other = load_geometry({**DETECTOR, "cells": 5})
    odd = member(tmp_path, 1.0, other)
    narrow = member(tmp_path, 1.0, training_range={"energy_gev": [20.0, 50.0], "theta_deg": [60.0, 120.0]})
    photons = member(tmp_path, 1.1, particles=("gamma",))
    text = tmp_path / "notes.txt"
    text.write_text("none")
    cases: list[tuple[list[Input], dict[str, Any] | None, str]] = [
        ([*members[:3], truth], None, "an ensemble needs 4 models (.onnx), and these are 3; train more seeds"),
        ([*members, members[0], truth], None, "the same model twice"),
        (members, None, "name no held-out showers"),
        ([*members, odd, truth], None, "of another geometry"),
        ([*members, narrow, truth], None, "another range of energies"),
        ([*members, truth, as_input(text)], None, "neither a model (.onnx), nor its manifest.json, nor showers (.h5)"),
        ([*members, truth, as_input(text, key="x/manifest.json")], None, "x/manifest.json: is no manifest"),
        ([*members, truth, manifest(tmp_path, members[1], truth)], None, f"has learned from {truth.key}; name showers"),
        ([*members, held_out(tmp_path, odd, other, 20)], None, "of the geometry toy, and the models of toy"),
        ([photons, *members, truth], None, "the models know gamma"),
        ([*members, truth], {"energy_gev": [30, 20]}, "no ascending edges"),
        ([*members, truth], {"energy_gev": [300, 400]}, "fill no slice within the models"),
        ([*members, truth], {"repeats": 0}, "repeats: 0 is not from 1 to 100"),
        ([*members, truth], {"slices": 3}, '"slices" is no key of this request'),
    ]
    for number, (inputs, request, says) in enumerate(cases):
        outcome = told(tmp_path / str(number), inputs, request)
        assert outcome.code == 65 and says in outcome.message, (says, outcome.message)
        assert not list((tmp_path / str(number) / "out").iterdir())
