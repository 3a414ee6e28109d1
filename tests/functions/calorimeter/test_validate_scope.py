"""A candidate that makes less than the model that serves would take it from its users, and says so."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
from functions.calorimeter.generator import Generator
from functions.calorimeter.geometry import geometry_from_json
from functions.calorimeter.validate import not_made
from tests.functions.calorimeter.tiny_model import tiny_model

LAYER = {"count": 4, "absorber": "W", "absorber_mm": 9, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 2}
SMALL = geometry_from_json({"name": "small", "cells": 7, "cell_mm": 10, "layers": [LAYER]}, "small")
THINNER = geometry_from_json({**SMALL.as_json(), "layers": [{**LAYER, "absorber_mm": 7}]}, "thinner")


def generator(folder: Path, name: str, geometry: Any = SMALL, **more: Any) -> Generator:
    path = folder / f"{name}.onnx"
    path.write_bytes(tiny_model(geometry, **more))
    return Generator(path)


def test_particles_and_ranges_that_would_be_lost_are_told(tmp_path: Path) -> None:
    serving = generator(tmp_path, "serving")
    electrons = generator(tmp_path, "electrons", particles=["e-"])
    narrow = {"energy_gev": [10.1, 50.0], "theta_deg": [60.5, 119.5]}
    assert list(not_made(electrons, serving)) == ["showers of gamma"]
    told = list(not_made(generator(tmp_path, "narrow", training_range=narrow), serving))
    assert told == ["energies from 10 to 100 GeV, but from 10.1 to 50"]


def test_what_makes_as_much_or_more_loses_nothing(tmp_path: Path) -> None:
    serving = generator(tmp_path, "serving", particles=["e-"])
    wide = {"energy_gev": [5.0, 200.0], "theta_deg": [50.0, 130.0]}
    assert not list(not_made(serving, serving))
    assert not list(not_made(generator(tmp_path, "wide", training_range=wide), serving))


def test_a_model_of_another_geometry_is_not_compared(tmp_path: Path) -> None:
    serving = generator(tmp_path, "serving")
    assert not list(not_made(generator(tmp_path, "other", THINNER, particles=["e-"]), serving))
