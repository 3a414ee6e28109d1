"""Showers are those of the physics, the same ones for the same request, whatever the order they are made in."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import uproot

from functions.calorimeter import geant4, gflash
from functions.calorimeter.geometry import known_geometries, load_geometry
from functions.calorimeter.rootfile import ShowersFile
from functions.calorimeter.showers import Showers, from_dense, join
from functions.calorimeter.simulate import Request, primaries
from functions.calorimeter.tables import scaled_bremsstrahlung_mb, write_tables
from layers.runtime.testing import call
from tests.functions.calorimeter.conftest import Simulate

SIW = load_geometry("siw25")


def shoot(energy_gev: float, theta_deg: float, count: int, particle: str = "e-") -> Showers:
    given = geant4.Primaries(
        particle, np.full(count, energy_gev), np.full(count, math.radians(theta_deg)), np.arange(1, count + 1)
    )
    return join(list(geant4.simulate(SIW, given)))


def of(path: Path) -> Showers:
    with ShowersFile(path) as file:
        return join(list(file.read()))


def test_the_tables_give_the_radiation_length_of_tungsten() -> None:
    kappa = np.linspace(1e-5, 1, 20_001)
    loss = np.trapezoid(scaled_bremsstrahlung_mb(74, 9e3, kappa), kappa) * 74**2 * 1e-27 * 6.02214e23 / 183.84
    assert 10 / (loss * 19.3) == pytest.approx(3.504, rel=0.02)


def test_electrons_leave_two_percent_in_the_silicon(electrons: Path) -> None:
    showers = of(electrons)
    assert len(showers) == 40
    sampling = showers.visible_mev / (1e3 * showers.energy_gev)
    assert np.mean(sampling) == pytest.approx(0.0215, rel=0.05)
    assert 0.04 < np.std(sampling) / np.mean(sampling) < 0.13


def test_a_shower_deepens_with_the_logarithm_of_its_energy() -> None:
    def depth(energy: float) -> float:
        layers = shoot(energy, 90, 12).dense(SIW.shape).sum(axis=(0, 1, 2))
        return float((layers * np.arange(25)).sum() / layers.sum())

    assert 1.2 < depth(8.0) - depth(1.0) < 3.6


def test_an_inclined_shower_crosses_the_middle_at_the_depth_that_is_said() -> None:
    images = shoot(5, 60, 20).dense(SIW.shape).sum(axis=(0, 1))
    rows_mm = (images * np.arange(51)[:, None]).sum(axis=0) / images.sum(axis=0) * SIW.cell_mm
    sensors_mm = np.array(SIW.middles_mm)
    slope, offset = np.polyfit(sensors_mm[2:14], rows_mm[2:14], 1)
    assert slope * 60 + offset == pytest.approx(25 * SIW.cell_mm, abs=4)
    assert math.degrees(math.atan(slope)) == pytest.approx(30, abs=5)


def test_an_installation_of_geant4_s_tables_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = shoot(1, 90, 3)
    data = tmp_path / "G4EMLOW"
    write_tables(data, (geant4.HYDROGEN, *SIW.elements))
    (data / "ENSDFSTATE.dat").unlink()  # which is of another data set
    monkeypatch.setenv("G4LEDATA", str(data))
    assert np.array_equal(shoot(1, 90, 3).edep_mev, own.edep_mev)
    (source := tmp_path / "r.json").write_text('{"energy_gev": [1, 2], "showers": 2, "seed": 1}')
    assert call("calorimeter.simulate", source, tmp_path / "out").code == 0
    with ShowersFile(tmp_path / "out/r.json.root") as file:
        assert file.about["tables"] == "the data sets that G4LEDATA names"
    for table in (data / "brem_SB").iterdir():
        table.write_text("1 1 1\n")
    with pytest.raises(geant4.SimulationError):
        shoot(1, 90, 3)


def test_a_folder_without_tables_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G4LEDATA", str(tmp_path))
    (source := tmp_path / "r.json").write_text('{"energy_gev": [1, 2], "showers": 2}')
    outcome = call("calorimeter.simulate", source, tmp_path / "out")
    assert (outcome.code, outcome.message.count("\n")) == (65, 0)
    assert "G4LEDATA:" in outcome.message and "name the folder of G4EMLOW" in outcome.message


def test_a_shower_does_not_depend_on_those_before_it() -> None:
    together = shoot(1, 90, 6)
    last = geant4.Primaries("e-", np.full(2, 1.0), np.full(2, math.pi / 2), np.array([5, 6]))
    alone = join(list(geant4.simulate(SIW, last, chunk=1)))
    assert np.array_equal(alone.cell, together.part(4, 6).cell)
    assert np.array_equal(alone.edep_mev, together.part(4, 6).edep_mev)


@pytest.mark.parametrize("engine", ["geant4", "gflash"])
def test_the_same_request_gives_the_same_bytes(simulate: Simulate, engine: str) -> None:
    request = {"engine": engine, "energy_gev": [1, 2], "showers": 5}
    assert simulate(**request).read_bytes() == simulate(**request).read_bytes()


def test_a_stopped_simulation_goes_on_with_the_next_shower(tmp_path: Path) -> None:
    source = tmp_path / "request.json"
    source.write_text(json.dumps({"energy_gev": [1], "showers": 6, "seed": 3}))
    stop = threading.Event()
    stop.set()
    settings = {"CHUNK": "2"}
    kept = tmp_path / "checkpoint"
    codes = [
        call("calorimeter.simulate", source, tmp_path / "a", settings=settings, checkpoint=kept, stopping=stop).code
        for _ in range(2)
    ]
    assert codes == [75, 75]
    assert call("calorimeter.simulate", source, tmp_path / "a", settings=settings, checkpoint=kept).code == 0
    assert call("calorimeter.simulate", source, tmp_path / "b", settings=settings).code == 0
    name = "request.json.root"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_file_says_which_engine_made_it(simulate: Simulate) -> None:
    with ShowersFile(simulate(engine="gflash", showers=2)) as file:
        assert file.about["engine"] == "gflash" and "Grindhammer" in file.about["physics"]
    with ShowersFile(simulate(engine="geant4", energy_gev=[1], showers=2)) as file:
        assert file.about["engine"] == "geant4" and file.about["physics"] == "G4EmStandardPhysics_option1"


def test_root_s_own_reader_finds_the_hits(electrons: Path) -> None:
    arrays = uproot.open(electrons)["showers"].arrays(library="np")
    assert len(arrays["energy"]) == 40
    assert sum(map(np.sum, arrays["hits_edep"])) == pytest.approx(of(electrons).visible_mev.sum(), rel=1e-6)


@pytest.mark.parametrize("geometry", known_geometries())
def test_gflash_sees_what_geant4_sees(geometry: str) -> None:
    there = load_geometry(geometry)
    energy, theta, seeds = np.full(60, 5.0), np.full(60, math.pi / 2), np.arange(1, 61)
    fast = join(list(gflash.simulate(there, "e-", energy, theta, seeds))).visible_mev
    given = geant4.Primaries("e-", energy[:20], theta[:20], seeds[:20])
    full = join(list(geant4.simulate(there, given))).visible_mev
    assert np.mean(fast) == pytest.approx(np.mean(full), rel=0.1)


def test_the_first_primaries_do_not_depend_on_how_many_there_are() -> None:
    few, many = primaries(Request(showers=5)), primaries(Request(showers=50))
    assert all(np.array_equal(a, b[:5]) for a, b in zip(few, many, strict=True))


def test_sparse_and_dense_are_the_same_showers() -> None:
    rng = np.random.default_rng(1)
    images = np.where(rng.random((4, 3, 3, 2)) < 0.5, rng.random((4, 3, 3, 2)), 0).astype(np.float32)
    images[2] = 0
    showers = from_dense(np.ones(4), np.ones(4), images)
    assert np.array_equal(showers.dense((3, 3, 2)), images)
    assert np.array_equal(join([showers.part(0, 1), showers.part(1, 4)]).dense((3, 3, 2)), images)
    assert showers.visible_mev == pytest.approx(images.sum(axis=(1, 2, 3), dtype=np.float64))
