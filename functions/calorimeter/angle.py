"""The angle of a shower as its cells show it."""

import numpy as np

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.showers import Energies, Floats


def measured_theta(images: Energies, geometry: Geometry) -> Floats:
    """The polar angle, rad, of showers with the cells `images`, shape (n, x, y, layer); see `theta_of_centres`."""
    per_row = images.sum(axis=1, dtype=np.float64)
    layers = per_row.sum(axis=1)
    rows_mm = (np.arange(geometry.cells) + 0.5) * geometry.cell_mm
    with np.errstate(invalid="ignore", divide="ignore"):
        return theta_of_centres(layers, np.einsum("nyl,y->nl", per_row, rows_mm) / layers, geometry)


def theta_of_centres(layers: Floats, rows_mm: Floats, geometry: Geometry) -> Floats:
    """The polar angle, rad, from a line through the layers' centres of energy in y, weighted with their energies.

    `layers` are the energies and `rows_mm` the centres, both of shape (n, layers). The line is fitted in mm, so that,
    unlike the estimator in units of cells (Khattak et al., Eur. Phys. J. C 82 (2022) 386), it tells the true angle;
    NaN for a shower that has energy in fewer than two layers.
    """
    depth = np.array(geometry.middles_mm)
    filled = np.where(layers > 0, rows_mm, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = layers / layers.sum(axis=1, keepdims=True)
        off_depth = depth - (weight * depth).sum(axis=1, keepdims=True)
        off_row = filled - (weight * filled).sum(axis=1, keepdims=True)
        slope = (weight * off_depth * off_row).sum(axis=1) / (weight * off_depth**2).sum(axis=1)
    return np.where((layers > 0).sum(axis=1) > 1, np.pi / 2 - np.arctan(slope), np.nan)
