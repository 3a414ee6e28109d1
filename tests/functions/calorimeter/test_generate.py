"""Generated showers: what was asked for, the same ones each time, and a sentence for what the model cannot make."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from functions.calorimeter.geometry import Geometry, geometry_from_json
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.rootfile import ShowersFile
from functions.calorimeter.showers import Showers, join
from functions.calorimeter.simulate import Request, primaries
from layers.runtime.testing import Outcome, call
from tests.functions.calorimeter.tiny_model import tiny_model

MODEL = "DIOSCAR_MODEL_CALORIMETER_GENERATOR"
LAYER = {"count": 4, "absorber": "W", "absorber_mm": 2, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 20}
SMALL = geometry_from_json({"name": "small", "cells": 15, "cell_mm": 5, "layers": [LAYER]}, "small")
CALLED = {**SMALL.as_json(), "name": "mine", "title": "the same, called otherwise"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(tiny_model(SMALL))
    return path


def generate(model: Path, folder: Path, request: object, **settings: str) -> Outcome:
    folder.mkdir(exist_ok=True)
    source = folder / "request.json"
    source.write_text(request if isinstance(request, str) else json.dumps(request))
    variables = {MODEL: str(model), **settings}
    return call("calorimeter.generate", source, folder / "out", settings=variables)


def generated(model: Path, folder: Path, request: object, **settings: str) -> Path:
    outcome = generate(model, folder, request, **settings)
    assert outcome.code == 0, outcome.message
    return folder / "out" / "request.json.h5"


def of(path: Path) -> Showers:
    with ShowersHdf5(path) as file:
        return join(list(file.read()))


def same(one: Showers, other: Showers) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)


def test_showers_are_those_that_were_asked_for(model: Path, tmp_path: Path) -> None:
    request = {"energy_gev": [20, 50], "theta_deg": [80, 110], "particle": "gamma", "showers": 70, "seed": 5}
    path = generated(model, tmp_path, request)
    showers = of(path)
    simulated = Request(particle="gamma", energy_gev=(20, 50), theta_deg=(80, 110), showers=70, seed=5)
    energy, theta, _ = primaries(simulated)
    assert np.array_equal(showers.energy_gev, energy) and np.array_equal(showers.theta, theta)
    assert np.corrcoef(showers.visible_mev, energy)[0, 1] > 0.8
    with ShowersHdf5(path) as file:
        assert (file.geometry, file.particle, file.threshold_mev) == (SMALL, "gamma", 0.1)


def test_the_file_says_which_model_made_it(model: Path, tmp_path: Path) -> None:
    request = {"showers": 3, "seed": 2, "energy_gev": [50]}
    with ShowersHdf5(generated(model, tmp_path, request)) as file:
        about = file.about
    assert about["engine"] == "model"
    assert about["model"]["family"] == "two-stage"
    assert len(about["model"]["sha256"]) == 64 and about["model"]["sha256"].startswith(about["model"]["version"])
    assert about["model"]["training_range"] == {"energy_gev": [10, 100], "theta_deg": [60, 120]}
    assert {name: about["request"][name] for name in request} == request


def test_every_dataset_of_the_field_is_there(model: Path, tmp_path: Path) -> None:
    with h5py.File(generated(model, tmp_path, {"showers": 5})) as file:
        assert {name: file[name].shape[0] for name in file} == dict.fromkeys(
            ("ECAL", "energy", "theta", "mtheta", "eta", "sum"), 5
        )
        assert file["sum"][:] == pytest.approx(file["ECAL"][:].sum(axis=(1, 2, 3)), rel=1e-6)
        assert file["ECAL"][:][file["ECAL"][:] > 0].min() >= np.float32(0.1)


def test_the_same_request_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    request = {"showers": 20, "root": True}
    first, second = (generated(model, tmp_path / name, request) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".root").read_bytes() == second.with_suffix(".root").read_bytes()


@pytest.mark.parametrize("chunk", ["1", "7", "1000"])
def test_how_many_are_held_at_once_changes_no_shower(model: Path, tmp_path: Path, chunk: str) -> None:
    request = {"showers": 40, "spectrum": "log"}
    whole, other = generated(model, tmp_path / "a", request), generated(model, tmp_path / "b", request, CHUNK=chunk)
    assert same(of(whole), of(other))


def test_the_first_showers_are_those_of_a_request_for_fewer(model: Path, tmp_path: Path) -> None:
    many, few = (of(generated(model, tmp_path / str(n), {"showers": n})) for n in (40, 11))
    assert same(many.part(0, 11), few)


def test_root_holds_the_same_showers(model: Path, tmp_path: Path) -> None:
    path = generated(model, tmp_path, {"showers": 20, "root": True}, CHUNK="8")
    with ShowersFile(path.with_suffix(".root")) as file, ShowersHdf5(path) as other:
        assert same(join(list(file.read())), join(list(other.read())))
        assert file.about == other.about and file.geometry == SMALL


def test_showers_of_given_primaries_are_theirs(model: Path, tmp_path: Path) -> None:
    given = [[20, 80], [100, 90], [10, 120]]
    path = generated(model, tmp_path, {"primaries": given, "seed": 4}, CHUNK="2")
    showers = of(path)
    assert showers.energy_gev.tolist() == [20, 100, 10]
    assert np.degrees(showers.theta) == pytest.approx([80, 90, 120])
    with ShowersHdf5(path) as file:
        assert "primaries" not in file.about["request"] and file.about["request"]["seed"] == 4


def test_root_is_written_only_where_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    out = generated(model, tmp_path, {"showers": 2}).parent
    assert sorted(path.name for path in out.iterdir()) == ["_runs", "request.json.h5"]


@pytest.mark.parametrize("expected", [{"detector": SMALL.as_json()}, {"detector": CALLED}])
def test_the_model_s_own_geometry_may_be_named(model: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
    assert len(of(generated(model, tmp_path, {"showers": 2, **expected}))) == 2


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"energy_gev": [5, 50]}, "energy_gev: 5 is outside of 10 to 100 GeV, which the model was trained on"),
        ({"energy_gev": [50, 500]}, "energy_gev: 500 is outside of 10 to 100 GeV"),
        ({"energy_gev": [50, 10]}, "energy_gev: [50.0, 10.0] goes down; write [lowest, highest]"),
        ({"energy_gev": []}, "energy_gev: [] has 0 values; write [lowest, highest], or [one]"),
        ({"energy_gev": [10] * 10_000}, "... (60000 characters) has 10000 values; write [lowest, highest], or [one]"),
        ({"energy_gev": [-1, 50]}, "does not lie within 0.1 to 1000 GeV; write what does"),
        ({"energy_gev": "50"}, 'energy_gev: "50" is no list of numbers; write it in brackets, [...]'),
        ({"energy_gev": 50}, "energy_gev: 50 is no list of numbers; write it in brackets, [...]"),
        ({"theta_deg": [45, 90]}, "theta_deg: 45 is outside of 60 to 120 degrees"),
        ({"theta_deg": [0, 180]}, "does not lie within 30 to 150 degrees"),
        ({"particle": "pi-"}, "hadrons need data sets of nuclear physics"),
        ({"particle": "e+"}, '"e+" is not what the model was trained on; write one of e-, gamma'),
        ({"geometry": "siw30"}, "the model is of small, and siw30 is asked for"),
        ({"geometry": "siw31"}, 'there is no geometry "siw31"; write one of sipb25, siw25, siw30'),
        ({"detector": {**SMALL.as_json(), "cells": 13}}, "the model is of small, and small is asked for"),
        ({"detector": {"cells": 13}}, "geometry.layers: is no list"),
        ({"engine": "geant4"}, '"engine" is no key of this request'),
        ({"energies_gev": [10, 20]}, 'write "energy_gev"'),
        ({"shower": 3}, 'write "showers"'),
        ({"showers": 10**9}, "showers: 1000000000 is more than 1000000; split it into several requests"),
        ({"showers": 0}, "showers: 0 is less than 1"),
        ({"showers": 2.5}, "showers: 2.5 is no whole number; write digits, without quotes, point or exponent"),
        ({"seed": -1}, "seed: -1 is negative; write 0 or more"),
        ({"primaries": [[20, 90], [5, 90]]}, "energy_gev: 5 is outside of 10 to 100 GeV"),
        ({"primaries": [[20, 90], [20, 20]]}, "theta_deg: 20 is outside of 60 to 120 degrees"),
        ({"primaries": [[20, 90], [20]]}, "primaries[1]: [20.0] is no [energy in GeV, polar angle in degrees]"),
        ({"primaries": [20, 90]}, "primaries: [20, 90] is no list of lists of numbers"),
        ({"primaries": [[20, 90]], "showers": 5}, "showers: is told by primaries already; leave out one of them"),
        ({"primaries": []}, "primaries: is empty; write [energy in GeV, polar angle in degrees] of each, or leave it"),
        ({"root": "yes"}, 'root: "yes" is no true or false'),
        ("[]", "send a JSON object"),
        ("{", "is no JSON"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(
    model: Path, tmp_path: Path, request_: object, says: str
) -> None:
    outcome = generate(model, tmp_path, request_)
    assert outcome.code == 65 and outcome.error == "InputError"
    assert says in outcome.message and outcome.message.startswith("request.json: ") and "\n" not in outcome.message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"CHUNK": "0"}, "CHUNK: 0 is not from 1 to 4096"), ({"THREADS": "0"}, "THREADS: 0 is not from 1 to 256")],
)
def test_wrong_settings_are_refused(model: Path, tmp_path: Path, settings: dict[str, str], says: str) -> None:
    outcome = generate(model, tmp_path, {"showers": 2}, **settings)
    assert outcome.code == 65 and says in outcome.message


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "strange.onnx"
    path.write_bytes(b"no model")
    outcome = generate(path, tmp_path / "run", {"showers": 2})
    assert outcome.code == 65 and "strange.onnx: is no ONNX model" in outcome.message
    assert not list((tmp_path / "run" / "out").iterdir())


def test_a_generation_that_is_stopped_leaves_nothing_and_may_begin_anew(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "request.json"
    source.write_text(json.dumps({"showers": 200, "root": True}))
    stop = threading.Event()
    stop.set()
    settings = {MODEL: str(model)}
    outcome = call("calorimeter.generate", source, tmp_path / "out", settings=settings, stopping=stop)
    assert outcome.code == 75 and "64 of 200" in outcome.message
    assert not list((tmp_path / "out").iterdir())


MEMORY = """
import resource, sys
from pathlib import Path
from layers.runtime.testing import call

settings = {"CHUNK": "16", sys.argv[3]: sys.argv[4]}
outcome = call("calorimeter.generate", Path(sys.argv[1]), Path(sys.argv[2]), settings=settings)
assert outcome.code == 0, outcome.message
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(model: Path, folder: Path, showers: int) -> int:
    folder.mkdir()
    source = folder / "request.json"
    source.write_text(json.dumps({"showers": showers, "root": True}))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(source), str(folder / "out"), MODEL, str(model)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return int(done.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_the_number_of_showers(tmp_path: Path) -> None:
    wide: Geometry = geometry_from_json({**SMALL.as_json(), "cells": 51, "layers": [{**LAYER, "count": 25}]}, "wide")
    model = tmp_path / "wide.onnx"
    model.write_bytes(tiny_model(wide))
    few, many = (peak_kib(model, tmp_path / str(count), count) for count in (16, 208))
    held_kib = (208 - 16) * 51 * 51 * 25 * 4 / 1024
    assert many - few < held_kib / 4
