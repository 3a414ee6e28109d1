"""From ROOT to HDF5: nothing is lost but what is said, and a file of something else is refused in a sentence."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import awkward
import h5py
import numpy as np
import pytest
import uproot

from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.rootfile import ShowersFile, write_showers
from functions.calorimeter.showers import Showers, join
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


def root(path: Path, about: Any, **branches: Any) -> Path:
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
        (ABOUT, {}, 'has no tree "showers"; write it with calorimeter-simulate'),
        (None, {**GOOD, **HITS}, 'has no text "simulation"; write it with calorimeter-simulate'),
        (ABOUT, GOOD, 'has no branch "hits_cell"'),
        ({**ABOUT, "geometry": {}}, {**GOOD, **HITS}, "simulation.geometry.cells"),
        ([], {**GOOD, **HITS}, "simulation: is no JSON object with a geometry"),
        ({**ABOUT, "geometry": "siw25"}, {**GOOD, **HITS}, "simulation: is no JSON object with a geometry"),
        ({**ABOUT, "particle": None}, {**GOOD, **HITS}, "simulation.particle does not say what was shot"),
        (ABOUT, {**GOOD, **HITS, "energy": np.array([-1.0])}, "shower 0 has no positive energy"),
        (ABOUT, {**GOOD, **HITS, "energy": np.array([np.nan])}, "shower 0 has no positive energy"),
        (ABOUT, {**GOOD, **HITS, "hits_edep": awkward.Array([[0.5, -0.5]])}, "a negative energy"),
        (ABOUT, {**GOOD, **HITS, "hits_edep": awkward.Array([[0.5, np.nan]])}, "a negative energy or none"),
        (ABOUT, {**GOOD, **HITS, "hits_cell": awkward.Array([[1, 70_000]])}, "of another detector"),
        (ABOUT, {**GOOD, **HITS, "hits_cell": awkward.Array([[1, -2]])}, "has a cell -2, and its geometry 65025"),
        (ABOUT, {**GOOD, **HITS, "hits_edep": awkward.Array([[0.5]])}, "a cell and no energy"),
        (ABOUT, {**GOOD, **HITS, "hits_cell": awkward.Array([[1.5, 2.5]])}, "and hits_cell whole numbers; write it"),
        (
            ABOUT,
            {**GOOD, "hits_cell": np.array([1]), "hits_edep": np.array([0.5])},
            "its branches hold no numbers; write it with calorimeter-simulate",
        ),
        (ABOUT, {**GOOD, **HITS, "theta": np.array([90.0])}, "no polar angle from 0 to pi (90); write it in rad"),
        (ABOUT, {**GOOD, **HITS, "theta": np.array([np.nan])}, "no polar angle from 0 to pi (nan)"),
    ],
)
def test_what_is_no_file_of_showers_is_refused(tmp_path: Path, about: Any, branches: dict[str, Any], says: str) -> None:
    source = root(tmp_path / "strange.root", about, **branches)
    outcome = call("calorimeter.preprocess", source, tmp_path / "out")
    assert outcome.code == 65, outcome
    assert says in outcome.message and "strange.root" in outcome.message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "x.root: is empty; send what calorimeter-simulate writes"),
        (b"\x89HDF\r\n", "x.root: is an HDF5 file, no ROOT file; showers in HDF5 are prepared already"),
        (b"energy,theta\n1,2\n", "x.root: is no ROOT file; send what calorimeter-simulate writes"),
        (b"root" + b"\xff" * 200, "x.root: is truncated or damaged"),
    ],
)
def test_what_is_no_root_file_is_told_by_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    (source := tmp_path / "x.root").write_bytes(content)
    outcome = call("calorimeter.preprocess", source, tmp_path / "out")
    assert outcome.code == 65 and outcome.message.startswith(says), outcome
    assert str(tmp_path) not in outcome.message and not list((tmp_path / "out").iterdir())


def test_hits_of_one_cell_are_added_and_no_energy_is_lost(tmp_path: Path) -> None:
    hits = {"hits_cell": awkward.Array([[9, 4, 9, 7], [], [3]]), "hits_edep": awkward.Array([[1.0, 2, 3, 0], [], [5]])}
    source = root(tmp_path / "r.root", ABOUT, energy=np.full(3, 1.0), theta=np.full(3, 1.5), **hits)
    with ShowersFile(source) as file:
        (showers,) = file.read()
    assert showers.cell.tolist() == [4, 9, 3] and showers.offsets.tolist() == [0, 2, 2, 3]
    with h5py.File(prepared(source, tmp_path / "out")) as made:
        assert made["sum"][:].tolist() == [6, 0, 5]
        assert made["ECAL"][:].reshape(3, -1)[0, [4, 7, 9]].tolist() == [2, 0, 4]


def test_showers_of_another_geometry_than_is_expected_are_refused(electrons: Path, tmp_path: Path) -> None:
    assert prepared(electrons, tmp_path / "its", GEOMETRY="siw25").exists()
    outcome = call("calorimeter.preprocess", electrons, tmp_path / "out", settings={"GEOMETRY": "siw30"})
    assert outcome.code == 65 and not list((tmp_path / "out").iterdir())
    assert "its showers are of the geometry siw25, and this service takes siw30" in outcome.message


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"THRESHOLD_MEV": "-1"}, "THRESHOLD_MEV: -1.0 is no energy from 0 MeV up"),
        ({"THRESHOLD_MEV": "nan"}, "THRESHOLD_MEV: nan is no energy"),
        ({"VISIBLE_MIN_MEV": "inf"}, "VISIBLE_MIN_MEV: inf is no energy"),
        ({"CHUNK": "0"}, "CHUNK: 0 is not from 1 to 4096"),
        ({"GEOMETRY": "siw26"}, "GEOMETRY: siw26 is none of sipb25, siw25, siw30"),
    ],
)
def test_wrong_settings_are_refused(electrons: Path, tmp_path: Path, settings: dict[str, str], says: str) -> None:
    outcome = call("calorimeter.preprocess", electrons, tmp_path / "out", settings=settings)
    assert outcome.code == 65 and says in outcome.message


MEMORY = """
import resource, sys
from pathlib import Path
from layers.runtime.testing import call

outcome = call("calorimeter.preprocess", Path(sys.argv[1]), Path(sys.argv[2]), settings={"CHUNK": "16"})
assert outcome.code == 0, outcome.message
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak_kib(count: int) -> int:
        source = tmp_path / f"{count}.root"
        ones = np.ones(64)
        cells = np.tile(np.arange(0, 65025, 650, dtype=np.uint32), 64)
        hits = len(cells) // 64 * np.arange(65)
        part = Showers(ones, ones, hits, cells, np.ones(len(cells), np.float32))
        write_showers(source, ABOUT, (part for _ in range(count // 64)))
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(source), str(tmp_path / str(count))],
            check=True,
            capture_output=True,
            text=True,
        )
        return int(done.stdout.splitlines()[-1])

    few, many = peak_kib(64), peak_kib(448)
    held_kib = (448 - 64) * 65025 * 4 / 1024
    assert many - few < held_kib / 4


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
