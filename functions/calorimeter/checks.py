"""What must be true of showers in any file: checks that rootfile and hdf5 share."""

import math

import numpy as np

from functions.calorimeter.showers import Floats
from layers.runtime import InputError


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
