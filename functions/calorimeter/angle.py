"""The angle of a shower as its cells show it."""

import numpy as np

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.showers import Energies, Floats


def measured_theta(images: Energies, geometry: Geometry) -> Floats:
    """The polar angle, rad, from a line through the layers' centres of energy in y, weighted with their energies.

    `images` has the shape (n, x, y, layer). The line is fitted in mm, so that, unlike the estimator in units of cells
    (Khattak et al., Eur. Phys. J. C 82 (2022) 386), it tells the true angle; NaN for a shower that has energy in fewer
    than two layers.
    """
    per_row = images.sum(axis=1, dtype=np.float64)
    layers = per_row.sum(axis=1)
    rows_mm = (np.arange(geometry.cells) + 0.5) * geometry.cell_mm
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.einsum("nyl,y->nl", per_row, rows_mm) / layers
        depth = np.array(geometry.fronts_mm) + [one.absorber_mm + one.sensor_mm / 2 for one in geometry.layers]
        weight = layers / layers.sum(axis=1, keepdims=True)
        filled = np.where(layers > 0, centre, 0.0)
        mean_depth = (weight * depth).sum(axis=1, keepdims=True)
        mean_row = (weight * filled).sum(axis=1, keepdims=True)
        spread = (weight * (depth - mean_depth) ** 2).sum(axis=1)
        slope = (weight * (depth - mean_depth) * (filled - mean_row)).sum(axis=1) / spread
    theta = np.pi / 2 - np.arctan(slope)
    return np.where((layers > 0).sum(axis=1) > 1, theta, np.nan)
