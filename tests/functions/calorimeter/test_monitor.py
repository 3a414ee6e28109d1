"""A file that has drifted is reported with its cause and starts a training; one that has not starts nothing."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.calorimeter import hdf5
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.rootfile import write_showers
from functions.calorimeter.showers import Showers
from functions.calorimeter.training.data import read
from layers.runtime import Input
from layers.runtime.function import sha256_of
from layers.runtime.testing import Outcome, call

pytest.importorskip("onnx", reason="onnx is not installed: ./dioscar install train")
from tests.functions.calorimeter import bank_model
from tests.functions.calorimeter.bank_model import TOY

LAYERS = len(TOY.layers)
ABOUT = {"engine": "gflash", "particle": "e-", "geometry": TOY.as_json()}
Monitor = Callable[..., tuple[Outcome, Path]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bank_model.write(tmp_path_factory.mktemp("model") / "bank.onnx")


@pytest.fixture
def monitor(tmp_path: Path, model: Path) -> Monitor:
    """Runs `calorimeter.monitor` on a file; gives the outcome and where its outputs are."""

    def run(source: Path, **settings: Any) -> tuple[Outcome, Path]:
        folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        environ = {
            "DIOSCAR_MODEL_CALORIMETER_GENERATOR": str(model),
            **{k.upper(): str(v) for k, v in settings.items()},
        }
        return call("calorimeter.monitor", source, folder, settings=environ), folder

    return run


def written(path: Path, showers: Showers, **about: Any) -> Path:
    """A file of showers, in ROOT or in HDF5 as its name says."""
    if path.suffix == ".root":
        write_showers(path, {**ABOUT, **about}, [showers])
    else:
        with hdf5.Writer(path, TOY, {**ABOUT, **about}, threshold_mev=0.1) as writer:
            writer.add(showers)
    return path


def scaled(showers: Showers, factor: float) -> Showers:
    return dataclasses.replace(showers, edep_mev=showers.edep_mev * np.float32(factor))


def without(showers: Showers, layer: int) -> Showers:
    edep = np.where(showers.cell % LAYERS == layer, 0, showers.edep_mev)
    return dataclasses.replace(showers, edep_mev=edep.astype(np.float32))


def report_of(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.drift.json").read_text()))


def files(folder: Path) -> list[str]:
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return [name for name in found if not name.startswith("_runs/")]


def test_an_unchanged_stream_starts_nothing(monitor: Monitor, tmp_path: Path) -> None:
    for seed in range(8):
        source = written(tmp_path / f"new-{seed}.root", bank_model.showers(200, seed))
        outcome, folder = monitor(source)
        assert outcome.code == 0, outcome.message
        report = report_of(folder, source.name)
        assert (report["judged"], report["alarm"], report["causes"]) == (True, False, [])
        assert report["showers"] == 200 and len(report["deviations"]) > 20
        assert files(folder) == [f"{source.name}.drift.json"]


@pytest.mark.parametrize("suffix", ["root", "h5"])
def test_a_gain_of_minus_five_per_cent_starts_a_training_with_the_file(
    monitor: Monitor, tmp_path: Path, suffix: str
) -> None:
    source = written(tmp_path / f"new.{suffix}", scaled(bank_model.showers(500, 21), 0.95))
    outcome, folder = monitor(source, train='{"parameters": {"batch": 32}, "held_out": 0.3}')
    assert outcome.code == 0, outcome.message
    report = report_of(folder, source.name)
    (cause,) = report["causes"]
    assert report["alarm"] and cause.startswith("all layers read ") and cause.endswith(" % low: gain")
    assert float(cause.split()[3]) == pytest.approx(5, abs=2)
    request = json.loads((folder / f"{source.name}.train.json").read_text())
    (item,) = request.pop("inputs")
    assert request.pop("seed") == report["seed"] % 2**31
    assert request == {"family": "two-stage", "start": "serving", "parameters": {"batch": 32}, "held_out": 0.3}
    sent = folder / "drifted" / item["key"].removeprefix("calorimeter-generator/drifted/")
    assert item["bucket"] == "models" and item["sha256"] == sha256_of(sent)
    assert files(folder) == sorted([f"drifted/{sent.name}", f"{source.name}.drift.json", f"{source.name}.train.json"])
    taken = read("new.train.json", [Input("b", item["key"], item["sha256"], sent)], 0.2, 0.1)
    assert sum(len(file.showers) for file in taken.files) == 500, "it is a file that train reads"


def test_a_dead_layer_starts_a_training_and_is_named(monitor: Monitor, tmp_path: Path) -> None:
    source = written(tmp_path / "new.h5", without(bank_model.showers(200, 22), 7))
    outcome, folder = monitor(source)
    assert outcome.code == 0, outcome.message
    assert report_of(folder, source.name)["causes"] == ["layer 7 reads nothing"]
    assert (folder / "new.h5.train.json").exists()


def test_the_same_file_gives_the_same_bytes(monitor: Monitor, tmp_path: Path) -> None:
    source = written(tmp_path / "new.root", scaled(bank_model.showers(150, 23), 0.8))
    contents = []
    for _ in range(2):
        _, folder = monitor(source)
        contents.append({name: (folder / name).read_bytes() for name in files(folder)})
    assert contents[0] == contents[1] and len(contents[0]) == 3


def test_of_a_large_file_showers_are_judged_evenly(monitor: Monitor, tmp_path: Path) -> None:
    changed = scaled(bank_model.showers(900, 24), 0.8)
    source = written(tmp_path / "new.root", changed)
    _, folder = monitor(source, most_showers=200)
    report = report_of(folder, source.name)
    assert (report["showers"], report["file"]["showers"], report["alarm"]) == (180, 900, True)
    request = json.loads((folder / f"{source.name}.train.json").read_text())
    with ShowersHdf5(folder / request["inputs"][0]["key"].removeprefix("calorimeter-generator/")) as kept:
        assert len(kept) == 900, "what is learned from is all of them"


@pytest.mark.parametrize("energy, count", [(8.0, 119), (9.0, 300)])
def test_too_few_showers_in_the_models_range_are_not_judged(
    monitor: Monitor, tmp_path: Path, energy: float, count: int
) -> None:
    few = dataclasses.replace(scaled(bank_model.showers(count, 25), 0.5), energy_gev=np.full(count, energy))
    source = written(tmp_path / "few.root", few)
    outcome, folder = monitor(source)
    assert outcome.code == 0, outcome.message
    report = report_of(folder, source.name)
    assert (report["judged"], report["alarm"], report["deviations"]) == (False, False, [])
    inside = count if energy == 8 else 0
    told = f"{inside} showers lie in the model's range (8 to 8 GeV, 90 to 90 degrees), and 120 are wanted"
    assert report["not_judged"] == told and report["outside_range"] == count - inside
    assert files(folder) == ["few.root.drift.json"]


def other_geometry(path: Path) -> Path:
    siw = load_geometry("siw25")
    write_showers(path, {**ABOUT, "geometry": siw.as_json()}, [bank_model.showers(120, 1)])
    return path


def another_particle(path: Path) -> Path:
    return written(path, bank_model.showers(120, 1), particle="gamma")


def generated(path: Path) -> Path:
    return written(path, bank_model.showers(120, 1), engine="model")


def no_showers(path: Path) -> Path:
    path.write_text("{}")
    return path


def truncated(path: Path) -> Path:
    whole = written(path, bank_model.showers(120, 1)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            other_geometry,
            "new.root: its showers are of the geometry siw25, and the serving model of toy; train a model",
        ),
        (another_particle, 'new.root: its particle is "gamma", and the serving model knows e-; train it with'),
        (generated, "new.root: its showers are generated by a model, which shows no drift"),
        (no_showers, "new.root: is neither HDF5 nor ROOT; send showers as calorimeter-simulate"),
        (truncated, "new.root: is truncated or damaged"),
    ],
)
def test_what_the_model_is_not_about_is_refused_in_one_sentence(
    monitor: Monitor, tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    outcome, folder = monitor(make(tmp_path / "new.root"))
    assert (outcome.code, outcome.error) == (65, "InputError")
    assert says in outcome.message and "\n" not in outcome.message
    assert files(folder) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"false_alarms": 0}, "FALSE_ALARMS: 0.0 is not between 0 and 1"),
        ({"least_showers": 2000}, "LEAST_SHOWERS: 2000 is not from 2 to MOST_SHOWERS"),
        ({"per_shower": 0}, "PER_SHOWER: 0 is not from 1 to 64"),
        ({"train": "[]"}, "TRAIN: [] is no JSON object"),
    ],
)
def test_wrong_settings_are_refused(monitor: Monitor, tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    outcome, _ = monitor(no_showers(tmp_path / "new.root"), **settings)
    assert outcome.code == 65 and says in outcome.message
