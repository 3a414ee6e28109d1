"""What the first stage generates of a shower: energy and hits of each layer, and ten numbers of the whole.

All are logarithms or centres, so that a flow has no edges to learn. Showers with an inclined axis are mirrored to one
side first: the generator is exactly symmetric.
"""

import numpy as np

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.observables import Observables
from functions.calorimeter.showers import Floats

WHOLE = (
    "width_x",
    "width_y",
    "core",
    "hottest",
    "radius_90",
    "centre_x",
    "centre_y",
    "slope_x",
    "slope_y",
    "visible",
)
"""Of the whole shower, after energies and hits of the layers."""
ACROSS = (WHOLE.index("centre_x") - len(WHOLE), WHOLE.index("slope_x") - len(WHOLE))
"""Columns that change sign where a shower is mirrored across the plane of its axis."""
MOMENTS = slice(WHOLE.index("centre_x"), WHOLE.index("slope_y") + 1)
"""Centre and slope, each across and along."""
EMPTY_MEV = 0.005
"""Empty layers are told as an energy from here to the threshold, drawn evenly in it: nothing has no logarithm."""
HITS_SHIFT = 0.3
WIDTH_SHIFT = 0.05
CORE_ROOM = 1e-3
RADIUS_SHIFT = 0.3
SLOPE_MM = 50.0
"""Slopes of the axis are told in cells for this depth."""


def quantities(seen: Observables, threshold_mev: float, rng: np.random.Generator) -> Floats:
    """One row a shower: log(L / E), log(hits + u), then `WHOLE`; shape (n, 2 layers + 10).

    Empty layers and whole numbers of hits are spread evenly (by `rng`), so that they have a density.
    """
    layers = np.where(seen.layers > 0, seen.layers, rng.uniform(EMPTY_MEV, threshold_mev, seen.layers.shape))
    hits = seen.layer_hits + rng.uniform(0, 1, seen.layer_hits.shape)
    return np.concatenate([np.log(layers / seen.energy_gev[:, None]), np.log(hits + HITS_SHIFT), whole(seen)], axis=1)


def whole(seen: Observables) -> Floats:
    """The numbers `WHOLE`, shape (n, 10): widths, radius and centres in cells, core and hottest cell as parts, S/E.

    What lies across the plane of the axis is as it is; in that plane, it is mirrored to the side of theta < 90 degrees.
    """
    side = np.where(np.cos(seen.theta) < 0, -1.0, 1.0)
    x, y = (np.nan_to_num(centres) for centres in (seen.layer_x, seen.layer_y))
    depth = np.array(seen.geometry.middles_mm)
    off = depth - (seen.parts @ depth)[:, None]
    spread = np.maximum((seen.parts * off**2).sum(axis=1), 1e-6) / SLOPE_MM
    core = np.clip(seen.core, 0, 1)
    return np.stack(
        [
            np.log(seen.width_x + WIDTH_SHIFT),
            np.log(seen.width_y + WIDTH_SHIFT),
            np.log((core + CORE_ROOM) / (1 - core + CORE_ROOM)),
            np.log((seen.hottest + EMPTY_MEV) / (seen.visible + EMPTY_MEV)),
            np.log(seen.radius_90 + RADIUS_SHIFT),
            (seen.parts * x).sum(axis=1),
            (seen.parts * y).sum(axis=1) * side,
            (seen.parts * off * x).sum(axis=1) / spread,
            (seen.parts * off * y).sum(axis=1) / spread * side,
            np.log((seen.visible + EMPTY_MEV) / seen.energy_gev),
        ],
        axis=1,
    )


def layer_depths(geometry: Geometry) -> tuple[Floats, Floats]:
    """Depth of each layer's sensor, and thickness of its absorber and sensor, in radiation lengths."""
    width = np.array([layer.radiation_lengths for layer in geometry.layers])
    return np.cumsum(width), width
