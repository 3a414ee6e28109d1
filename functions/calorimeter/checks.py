"""What must be true of showers in any file: checks that rootfile and hdf5 share."""

import json
import math
from typing import Any

import numpy as np

from functions.calorimeter.geometry import Geometry, geometry_from_json
from functions.calorimeter.showers import Floats
from layers.runtime import InputError


def read_about(text: object, where: str) -> tuple[dict[str, Any], Geometry]:
    """What a file says of how its showers were made, a JSON object, and the geometry in it. Raises InputError."""
    try:
        about = json.loads(text) if isinstance(text, str | bytes) else None
    except ValueError:
        about = None
    if not isinstance(about, dict) or not isinstance(about.get("geometry"), dict):
        raise InputError(f"{where}: is no JSON object with a geometry; write the file with calorimeter-simulate")
    return about, geometry_from_json(about["geometry"], f"{where}.geometry")


def alike(one: Geometry, other: Geometry) -> bool:
    """Whether two geometries are of the same cells and layers, whatever they are called."""
    return (one.cells, one.cell_mm, one.layers) == (other.cells, other.cell_mm, other.layers)


def check_primaries(energy_gev: Floats, theta: Floats, first: int, name: str) -> None:
    """Refuse primaries that cannot be; `first` is the number of the first one in the file `name`.

    Raises InputError, which names file and shower.
    """
    wrong = ~(np.isfinite(energy_gev) & (energy_gev > 0))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise InputError(
            f"{name}: shower {first + place} has no positive energy ({energy_gev[place]:g} GeV); simulate it again"
        )
    wrong = ~((theta > 0) & (theta < math.pi))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise InputError(
            f"{name}: shower {first + place} has no polar angle from 0 to pi ({theta[place]:g}); write it in rad"
        )
