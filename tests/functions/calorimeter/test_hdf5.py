"""Showers in HDF5 come back as they went in, and a file of anything else is refused in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from functions.calorimeter.geometry import geometry_from_json, load_geometry
from functions.calorimeter.hdf5 import ShowersHdf5, Writer, rows_held
from functions.calorimeter.showers import Showers, from_dense, join
from layers.runtime import InputError

LAYER = {"count": 3, "absorber": "W", "absorber_mm": 2, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 1}
SMALL = geometry_from_json({"name": "small", "cells": 5, "cell_mm": 5, "layers": [LAYER]}, "small")
ABOUT = {"engine": "gflash", "geometry": SMALL.as_json(), "particle": "gamma"}


def showers(count: int = 10, seed: int = 1) -> Showers:
    rng = np.random.default_rng(seed)
    images = np.where(rng.random((count, *SMALL.shape)) < 0.4, rng.exponential(size=(count, *SMALL.shape)), 0)
    images[0] = 0
    return from_dense(rng.uniform(1, 9, count), rng.uniform(1, 2, count), images.astype(np.float32))


def written(path: Path, given: Showers, **options: Any) -> Path:
    with Writer(path, SMALL, ABOUT, **options) as writer:
        writer.add(given)
    return path


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_showers_come_back_as_they_went_in(tmp_path: Path, chunk: int) -> None:
    given = showers()
    with ShowersHdf5(written(tmp_path / "a.h5", given, chunk=4)) as file:
        assert (file.geometry, file.particle, file.about) == (SMALL, "gamma", ABOUT)
        assert len(file) == 10 and file.threshold_mev == 0
        parts = list(file.read(chunk))
    assert max(map(len, parts)) <= chunk
    read = join(parts)
    assert all(np.array_equal(getattr(read, name), getattr(given, name)) for name in given.__dataclass_fields__)


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    given = showers()
    path = written(tmp_path / "a.h5", given, threshold_mev=1.0, visible_min_mev=0.01)
    images = given.dense(SMALL.shape)
    images[images < 1] = 0
    with ShowersHdf5(path) as file:
        assert file.threshold_mev == 1.0 and len(file) == 9
        assert np.array_equal(join(list(file.read())).dense(SMALL.shape), images[1:])
    with h5py.File(path) as raw:
        assert (raw.attrs["showers"], raw.attrs["left_out"], raw.attrs["visible_min_mev"]) == (9, 1, 0.01)
        assert raw.attrs["scaling"] == "none: cells in MeV"


def test_the_parts_in_which_showers_came_do_not_change_a_byte(tmp_path: Path) -> None:
    given = showers()
    with Writer(tmp_path / "b.h5", SMALL, ABOUT, chunk=4) as writer:
        for start in range(0, 10, 3):
            writer.add(given.part(start, start + 3))
    assert (tmp_path / "b.h5").read_bytes() == written(tmp_path / "a.h5", given, chunk=4).read_bytes()


def test_what_is_too_long_for_an_attribute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^a: what it says of its simulation has 70\d\d\d characters"):
        Writer(tmp_path / "a.h5", SMALL, {**ABOUT, "title": "x" * 70_000})
    with Writer(tmp_path / "b.h5", SMALL, {**ABOUT, "title": "x" * 59_000}) as writer:
        writer.add(showers())
    with ShowersHdf5(tmp_path / "b.h5") as file:
        assert len(file.about["title"]) == 59_000


def test_bytes_changed_at_random_are_refused_or_do_no_harm(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.h5", showers(), chunk=4).read_bytes()
    rng = np.random.default_rng(1)
    refused = []
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
        (tmp_path / "spoilt.h5").write_bytes(data.tobytes())
        try:
            with ShowersHdf5(tmp_path / "spoilt.h5") as file:
                list(file.read(4))
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(said.startswith("spoilt.h5: ") and "\n" not in said for said in refused)


def test_large_geometries_are_held_in_fewer_showers() -> None:
    large = geometry_from_json(
        {"name": "large", "cells": 200, "cell_mm": 5, "layers": [{**LAYER, "count": 100}]}, "large"
    )
    assert rows_held(large) == 2 and rows_held(load_geometry("siw25")) >= 64


def change(name: str, value: Any) -> Callable[[h5py.File], None]:
    def changed(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return changed


def cell(value: float) -> Callable[[h5py.File], None]:
    def changed(file: h5py.File) -> None:
        file["ECAL"][4, 1, 1, 1] = value

    return changed


def attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    def changed(file: h5py.File) -> None:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return changed


def scaled(file: h5py.File) -> None:
    file["ECAL"][...] = file["ECAL"][...] * 0.05


def primary(name: str, value: float) -> Callable[[h5py.File], None]:
    def changed(file: h5py.File) -> None:
        file[name][7] = value

    return changed


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (attribute("simulation", None), "simulation: is no JSON object with a geometry"),
        (attribute("simulation", "{"), "simulation: is no JSON object with a geometry"),
        (attribute("simulation", json.dumps({"particle": "e-"})), "simulation: is no JSON object with a geometry"),
        (attribute("simulation", json.dumps({"geometry": {}})), "simulation.geometry.cells"),
        (attribute("threshold_mev", -1.0), "threshold_mev (-1.0) is no energy"),
        (lambda file: file.__delitem__("ECAL"), 'has no dataset "ECAL"'),
        (lambda file: file.__delitem__("theta"), 'has no dataset "theta"'),
        (change("ECAL", np.zeros((10, 5, 5, 4), np.float32)), "asks for (n, 5, 5, 3); it is of another detector"),
        (change("ECAL", np.zeros((10, 75), np.float32)), "has the shape (10, 75)"),
        (change("ECAL", np.zeros((10, 5, 5, 3), np.int32)), "holds int32 and no floating-point numbers"),
        (change("energy", np.ones(9)), "ECAL has 10 showers, and energy 9"),
        (change("sum", np.ones(11)), "ECAL has 10 showers, and sum 11"),
        (change("theta", np.ones((10, 2))), "theta is no list of numbers"),
        (change("energy", [b"1"] * 10), "energy is no list of numbers"),
        (primary("energy", -3), "shower 7 has no positive energy (-3 GeV)"),
        (primary("energy", np.nan), "shower 7 has no positive energy (nan GeV)"),
        (primary("theta", 90), "shower 7 has no polar angle from 0 to pi (90); write it in rad"),
        (cell(-1), "shower 4 has a cell with a negative energy or none"),
        (cell(np.nan), "shower 4 has a cell with a negative energy or none"),
        (cell(np.inf), "shower 4 has a cell with a negative energy or none"),
        (scaled, "write both in MeV"),
    ],
)
def test_what_is_no_file_of_showers_is_refused(tmp_path: Path, spoil: Callable[[h5py.File], None], says: str) -> None:
    path = written(tmp_path / "strange.h5", showers(), chunk=4)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(InputError) as refused, ShowersHdf5(path) as opened:
        list(opened.read())
    assert says in str(refused.value) and str(refused.value).startswith("strange.h5: ")
    assert "\n" not in str(refused.value)


def test_what_is_no_whole_hdf5_file_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.h5", showers(400), chunk=16).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 100):
        path = tmp_path / "cut.h5"
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"^cut\.h5: is no whole HDF5 file"):
            ShowersHdf5(path)


def test_a_file_whose_cells_are_damaged_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.h5", showers(40), chunk=16)
    with h5py.File(path) as file:
        place = file["ECAL"].id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"^bad\.h5: is a broken HDF5 file"), ShowersHdf5(path) as file:
        list(file.read())
