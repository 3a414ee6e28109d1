"""What a training learns from: which showers are for what, and which files do not go together."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from functions.calorimeter.showers import Showers
from functions.calorimeter.training import data
from functions.calorimeter.training.split import held_out
from layers.runtime import Input, InputError
from tests.functions.calorimeter.trainings import DETECTOR, as_input, prepared


@pytest.fixture(scope="module")
def showers(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return prepared(tmp_path_factory.mktemp("showers"))


def changed(showers: Input, path: Path, **about: Any) -> Input:
    """A copy of a file that says other things of its simulation."""
    path.write_bytes(showers.path.read_bytes())
    with h5py.File(path, "a") as file:
        told = {**json.loads(file.attrs["simulation"]), **about}
        file.attrs["simulation"] = json.dumps(told)
    return as_input(path)


def test_each_shower_is_for_one_thing_and_nothing_is_lost(showers: Input) -> None:
    found = data.read("r", [showers], 0.2, 0.1)
    parts = [found.part(use) for use in (data.TRAINING, data.WATCHING, data.HELD)]
    assert [len(part) for part in parts] == [144, 16, 40]
    energies = np.concatenate([part.showers.energy_gev for part in parts])
    assert np.array_equal(np.sort(energies), np.sort(found.files[0].showers.energy_gev))
    visible = sum(part.showers.visible_mev.sum() for part in parts)
    assert visible == pytest.approx(found.files[0].showers.visible_mev.sum(), rel=1e-12)


def test_what_is_held_out_has_all_energies_alike() -> None:
    energy = np.random.default_rng(1).uniform(10, 100, 1000)
    chosen = held_out("ab" * 32, energy, 0.2)
    assert chosen.sum() == 200
    rank = np.argsort(np.argsort(energy))[chosen]
    assert np.array_equal(np.sort(rank) // 5, np.arange(200)), "one of every five, by energy"
    assert not np.array_equal(chosen, held_out("cd" * 32, energy, 0.2)), "another file, other lots"
    assert not np.array_equal(chosen, held_out("ab" * 32, energy, 0.2, "watched"))


def test_particles_are_numbered_by_name_whatever_the_order_of_their_files(showers: Input, tmp_path: Path) -> None:
    photons = prepared(tmp_path, "g", particle="gamma", showers=100, seed=2)
    both = [data.read("r", files, 0.2, 0.1).part(data.TRAINING) for files in ([showers, photons], [photons, showers])]
    assert [part.particles for part in both] == [("e-", "gamma")] * 2
    for part in both:
        assert part.showers.energy_gev[part.particle == 0].sum() == pytest.approx(
            both[0].showers.energy_gev[both[0].particle == 0].sum()
        )
    assert [np.bincount(part.particle).tolist() for part in both] == [[144, 72], [144, 72]]


def test_the_range_is_what_was_asked_for_where_the_showers_reach_it(showers: Input, tmp_path: Path) -> None:
    assert data.read("r", [showers], 0.2, 0.1).part(data.HELD).training_range == {
        "energy_gev": [5.0, 20.0],
        "theta_deg": [60.0, 120.0],
    }
    wider = changed(showers, tmp_path / "wider.h5", request={"energy_gev": [1, 1000]})
    low, high = data.read("r", [wider], 0.2, 0.1).part(data.HELD).training_range["energy_gev"]
    assert 5 <= low < 5.3 and 19.7 < high <= 20, "the showers', for a cut may have taken the others"


def test_a_resample_has_some_showers_twice_and_others_not(showers: Input) -> None:
    whole = data.read("r", [showers], 0.2, 0.1).part(data.TRAINING)
    some, same, other = (data.resampled(whole, seed).showers.energy_gev for seed in (1, 1, 2))
    assert len(some) == len(whole) and np.array_equal(some, same) and not np.array_equal(some, other)
    assert 0.55 < len(np.unique(some)) / len(whole) < 0.72  # 1 - 1/e


def test_rows_of_showers_keep_their_cells() -> None:
    cells, edep = np.arange(5, dtype=np.uint32), np.arange(5, dtype=np.float32)
    three = Showers(np.arange(3.0), np.arange(3.0), np.array([0, 2, 2, 5]), cells, edep)
    found = three.rows(np.array([2, 1, 0, 2]))
    assert found.energy_gev.tolist() == [2, 1, 0, 2]
    assert found.offsets.tolist() == [0, 3, 3, 5, 8]
    assert found.cell.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert len(three.rows(np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"engine": "geant4"}, r"b\.h5 was simulated by geant4, and a\.json\.root\.h5 gflash; train a model on one"),
        (
            {"geometry": {**DETECTOR, "cell_mm": 13}},
            r"b\.h5 is of another detector \(toy\) than a\.json\.root\.h5 \(toy\); train a model on one of them",
        ),
        ({"particle": "../../x"}, r'^b\.h5: particle: "\.\./\.\./x" is none of e-, e\+, gamma; hadrons need'),
        ({"particle": ""}, r'^b\.h5: particle: "" is none of e-, e\+, gamma'),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    showers: Input, tmp_path: Path, about: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        data.read("r", [showers, changed(showers, tmp_path / "b.h5", **about)], 0.2, 0.1)


def test_each_particle_needs_showers_to_be_judged_by(showers: Input, tmp_path: Path) -> None:
    few = prepared(tmp_path, "g", particle="gamma", showers=20)
    with pytest.raises(InputError, match=r"^r: watched: leaves 2 of 20 showers of gamma; 8 are the least"):
        data.read("r", [showers, few], 0.2, 0.1)


def test_another_name_is_no_other_detector(showers: Input, tmp_path: Path) -> None:
    renamed = changed(showers, tmp_path / "b.h5", geometry={**DETECTOR, "name": "mine", "title": "of mine"})
    assert len(data.read("r", [showers, renamed], 0.2, 0.1).files) == 2
