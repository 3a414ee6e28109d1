"""Showers as tokens: of each layer its energy, energies and hits of regions about the axis, and its centre of energy.

A region is a square ring of cells about the one that the axis passes through, so that what the regions hold tells
core, hottest cell and widths well, whatever the angle. Counts get uniform noise and empty regions an energy below the
threshold (dequantisation): a flow learns densities, and has no use for peaks.
"""

import math
from dataclasses import dataclass

import numpy as np

from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry
from functions.calorimeter.showers import Counts, Floats, Showers

RADII = (0, 1, 2, 4)
"""Outer radii of all regions but the last, in cells, by the larger one of the distances in x and in y."""
REGIONS = len(RADII) + 1
VALUES = 2 * REGIONS + 2
"""Of each layer: log energies of the regions, roots of the hits of all but the first one, centre in x and in y, and
the log energy of all regions: what a classifier looks at is to be right, and no sum of many small errors."""


@dataclass(frozen=True)
class Tokens:
    """`n` showers as `layers` + 1 tokens."""

    layers: Floats
    """(n, layers, `VALUES`)."""
    shower: Floats
    """(n, 2): log of visible over primary energy, log of the layers' summed squares of the roots of hits."""


@dataclass(frozen=True)
class Hits:
    """The cells above the threshold, one entry a hit."""

    shower: Counts
    layer: Counts
    column: Counts
    row: Counts
    region: Counts
    ratio: Floats
    """Energy above the threshold over its mean among the region's hits."""


def axis_cells(theta: Floats, geometry: Geometry) -> Floats:
    """Rows from the middle of the window to the axis in each layer, (n, layers)."""
    slope = np.tan(math.pi / 2 - theta)[:, None]
    return np.asarray(slope * (np.array(geometry.middles_mm) - AXIS_DEPTH_MM) / geometry.cell_mm)


def tokens_of(
    showers: Showers, geometry: Geometry, threshold_mev: float, rng: np.random.Generator
) -> tuple[Tokens, Hits]:
    """The tokens of `showers`, and the hits that they were made from; cells below the threshold are left out."""
    cells, _, depth = geometry.shape
    count, middle = len(showers), (cells - 1) / 2
    found = showers.above(threshold_mev, geometry.shape)
    shower, column, row, layer, energy = found.shower, found.column, found.row, found.layer, found.edep_mev
    axis = axis_cells(showers.theta, geometry)[shower, layer]
    away = np.maximum(np.abs(column - math.floor(middle + 0.5)), np.abs(row - np.floor(middle + axis + 0.5)))
    region = np.searchsorted(RADII, away)
    place = (shower * depth + layer) * REGIONS + region
    size = (count, depth, REGIONS)
    hits = np.bincount(place, minlength=math.prod(size)).reshape(size).astype(np.float64)
    sums = np.bincount(place, energy, minlength=math.prod(size)).reshape(size)
    above = (sums - threshold_mev * hits).ravel()[place] / hits.ravel()[place]
    ratio = (energy - threshold_mev) / np.maximum(above, 1e-9)

    roots = np.sqrt(hits + rng.uniform(size=size))[..., 1:]
    logs = np.where(hits > 0, np.log(np.maximum(sums, 1e-9) / threshold_mev), -rng.uniform(size=size))
    total = sums.sum(axis=-1)
    centres = []
    for offset in (column - middle, row - middle - axis):
        moments = np.bincount(shower * depth + layer, energy * offset, minlength=count * depth).reshape(count, depth)
        centres.append(np.where(total > 0, moments / np.where(total > 0, total, 1), rng.standard_normal(total.shape)))
    visible = np.maximum(total.sum(axis=1), threshold_mev)
    whole = np.stack([np.log(visible / showers.energy_gev), np.log((roots**2).sum(axis=(1, 2)))], axis=1)
    whole_layer = np.where(total > 0, np.log(np.maximum(total, 1e-9) / threshold_mev), -rng.uniform(size=total.shape))
    values = np.concatenate([logs, roots, np.stack([*centres, whole_layer], axis=-1)], axis=-1)
    return Tokens(values, whole), Hits(shower, layer, column, row, region, ratio)
