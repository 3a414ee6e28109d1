"""From ROOT to HDF5: nothing is lost but what is said, and a file of something else is refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import awkward
import h5py
import numpy as np
import pytest
import uproot

from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.rootfile import ShowersFile
from functions.calorimeter.showers import join
from layers.runtime.testing import call
from tests.functions.calorimeter.conftest import Simulate

SIW = load_geometry("siw25")


def prepared(source: Path, destination: Path, **settings: str) -> Path:
    outcome = call("calorimeter.preprocess", source, destination, settings=settings)
    assert outcome.code == 0, outcome.message
    return destination / f"{source.name}.h5"


def test_every_shower_keeps_its_energy(electrons: Path, tmp_path: Path) -> None:
    with ShowersFile(electrons) as file:
        showers = join(list(file.read()))
    with h5py.File(prepared(electrons, tmp_path, CHUNK="7")) as made:
        assert made["ECAL"].shape == (40, 51, 51, 25) and made["ECAL"].dtype == np.float32
        images = made["ECAL"][:]
        assert images.sum(axis=(1, 2, 3), dtype=np.float64) == pytest.approx(showers.visible_mev, rel=1e-6)
        assert made["sum"][:] == pytest.approx(showers.visible_mev, rel=1e-6)
        assert np.array_equal(made["energy"][:], showers.energy_gev)
        assert np.array_equal(made["theta"][:], showers.theta)
        assert json.loads(made.attrs["simulation"])["engine"] == "geant4"
        assert (made.attrs["geometry"], made.attrs["particle"]) == ("siw25", "e-")


def test_every_dataset_says_what_it_is(electrons: Path, tmp_path: Path) -> None:
    with h5py.File(prepared(electrons, tmp_path)) as made:
        units = {name: made[name].attrs["unit"] for name in made}
        axes = {name: [axis.label for axis in made[name].dims] for name in made}
        assert all(len(made[name].attrs["description"]) > 15 for name in made)
    assert units == {"ECAL": "MeV", "energy": "GeV", "theta": "rad", "mtheta": "rad", "eta": "1", "sum": "MeV"}
    assert axes == {**{name: ["shower"] for name in units}, "ECAL": ["shower", "x", "y", "layer"]}


def test_the_measured_angle_is_the_true_one(electrons: Path, tmp_path: Path) -> None:
    with h5py.File(prepared(electrons, tmp_path)) as made:
        off = np.degrees(made["mtheta"][:] - made["theta"][:])
    assert abs(np.median(off)) < 2 and np.std(off) < 8


def test_the_threshold_and_the_cut_are_said(electrons: Path, tmp_path: Path) -> None:
    whole = prepared(electrons, tmp_path / "whole")
    cut = prepared(electrons, tmp_path / "cut", THRESHOLD_MEV="0.1", VISIBLE_MIN_MEV="100")
    with h5py.File(whole) as before, h5py.File(cut) as after:
        images = before["ECAL"][:]
        images[images < np.float32(0.1)] = 0
        kept = images.sum(axis=(1, 2, 3), dtype=np.float64) >= 100
        assert np.array_equal(after["ECAL"][:], images[kept])
        assert (after.attrs["threshold_mev"], after.attrs["visible_min_mev"]) == (0.1, 100.0)
        assert after.attrs["left_out"] == int((~kept).sum())
        assert 0.98 < images.sum() / before["ECAL"][:].sum() < 1


def test_the_same_file_gives_the_same_bytes(electrons: Path, tmp_path: Path) -> None:
    assert prepared(electrons, tmp_path / "a").read_bytes() == prepared(electrons, tmp_path / "b").read_bytes()


def root(path: Path, about: dict[str, Any] | None, **branches: Any) -> Path:
    with uproot.recreate(path) as file:
        if about is not None:
            file["simulation"] = json.dumps(about)
        if branches:
            file["showers"] = branches
    return path


GOOD = {"energy": np.array([1.0]), "theta": np.array([1.5])}
HITS = {"hits_cell": awkward.Array([[1, 2]]), "hits_edep": awkward.Array([[0.5, 0.5]])}
ABOUT = {"geometry": SIW.as_json(), "engine": "geant4", "particle": "e-"}


@pytest.mark.parametrize(
    ("about", "branches", "says"),
    [
        (ABOUT, {}, 'no ROOT file with a tree "showers"'),
        (None, {**GOOD, **HITS}, 'no ROOT file with a tree "showers"'),
        (ABOUT, GOOD, 'has no branch "hits_cell"'),
        ({**ABOUT, "geometry": {}}, {**GOOD, **HITS}, "simulation.geometry.cells"),
        (ABOUT, {**GOOD, **HITS, "energy": np.array([-1.0])}, "shower 0 has no positive energy"),
        (ABOUT, {**GOOD, **HITS, "energy": np.array([np.nan])}, "shower 0 has no positive energy"),
        (ABOUT, {**GOOD, **HITS, "hits_edep": awkward.Array([[0.5, -0.5]])}, "a negative energy"),
        (ABOUT, {**GOOD, **HITS, "hits_edep": awkward.Array([[0.5, np.nan]])}, "a negative energy or none"),
        (ABOUT, {**GOOD, **HITS, "hits_cell": awkward.Array([[1, 70_000]])}, "of another detector"),
        (ABOUT, {**GOOD, **HITS, "hits_edep": awkward.Array([[0.5]])}, "a cell and no energy"),
    ],
)
def test_what_is_no_file_of_showers_is_refused(
    tmp_path: Path, about: dict[str, Any] | None, branches: dict[str, Any], says: str
) -> None:
    source = root(tmp_path / "strange.root", about, **branches)
    outcome = call("calorimeter.preprocess", source, tmp_path / "out")
    assert outcome.code == 65, outcome
    assert says in outcome.message and "strange.root" in outcome.message
    assert not list((tmp_path / "out").iterdir())


def test_a_truncated_file_is_refused(electrons: Path, tmp_path: Path) -> None:
    data = electrons.read_bytes()
    for part in (0, 10, len(data) // 3, len(data) - 200):
        source = tmp_path / f"cut-{part}.root"
        source.write_bytes(data[:part])
        outcome = call("calorimeter.preprocess", source, tmp_path / "out")
        assert outcome.code == 65 and source.name in outcome.message, (part, outcome)
        assert not list((tmp_path / "out").iterdir())


def test_showers_of_which_nothing_is_left_are_refused(simulate: Simulate, tmp_path: Path) -> None:
    source = simulate(engine="gflash", showers=2)
    outcome = call("calorimeter.preprocess", source, tmp_path / "out", settings={"VISIBLE_MIN_MEV": "1e6"})
    assert outcome.code == 65 and "lower VISIBLE_MIN_MEV" in outcome.message
