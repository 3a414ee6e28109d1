"""A request that cannot be meant is refused in one sentence that says what to write, and leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from layers.runtime.testing import call

LAYER = {"absorber": "W", "absorber_mm": 2, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 1}


def detector(**changes: Any) -> dict[str, Any]:
    return {"detector": {"cells": 9, "cell_mm": 5, "layers": [LAYER], **changes}}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"particle": "pi-"}, "hadrons need data sets"),
        ({"particel": "e-"}, 'write "particle"'),
        ({"showers": 10**9}, "split it into several"),
        ({"showers": 0}, "showers: 0 is less than 1; write how many"),
        ({"energy_gev": [50, 10]}, "write [lowest, highest]"),
        ({"energy_gev": [-1, 10]}, "within 0.1 to 1000"),
        ({"theta_deg": [0, 180]}, "within 30 to 150"),
        ({"engine": "geant5"}, "one of geant4, gflash"),
        ({"geometry": "siw26"}, "write one of sipb25, siw25, siw30"),
        (detector(layers=[]), "geometry.layers: is no list"),
        (detector(layers=[{**LAYER, "absorber": "U"}]), 'geometry.layers[0].absorber: "U" is no known material'),
        (detector(layers=[{**LAYER, "absorber_mm": -1}]), "geometry.layers[0].absorber_mm: -1 is no length"),
        (detector(layers=[{**LAYER, "count": 101}]), "at most 100 layers"),
        (detector(layers=[{**LAYER, "thickness": 1}]), 'unknown field "thickness"'),
        (detector(cells=10_000), "geometry.cells"),
        (detector(cell_mm="5"), "geometry.cell_mm"),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(tmp_path: Path, request_: dict[str, Any], says: str) -> None:
    source = tmp_path / "request.json"
    source.write_text(json.dumps(request_))
    outcome = call("calorimeter.simulate", source, tmp_path / "out")
    assert outcome.code == 65 and outcome.error == "InputError"
    assert says in outcome.message and "\n" not in outcome.message
    assert not list((tmp_path / "out").iterdir())
