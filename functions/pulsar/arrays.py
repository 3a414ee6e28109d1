"""Names of the array types of this twin."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]
"""Real numbers; single precision where there are many."""
Samples = npt.NDArray[Any]
"""Quantised power, unsigned integers of 8 or 16 bits."""
Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
