"""What physicists look at in showers: the same code for simulated and for generated ones.

All is computed from cells above a threshold; a shower's axis is that of its primary particle, known from its polar
angle, so that inclined showers can be compared with perpendicular ones.
"""

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.angle import theta_of_centres
from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry
from functions.calorimeter.showers import Counts, Floats, Showers

THRESHOLD_MEV = 0.1
"""About half of what a minimum-ionising particle leaves in 0.5 mm of silicon."""
START_PART = 0.01
"""A shower starts in the first layer with this part of its energy."""
LAST_LAYERS = 3
SPECTRUM_MEV = np.geomspace(0.1, 1000, 41)
"""Edges of the bins of the cells' spectrum: ten for each decade."""
CONTAINED = 0.9
FEATURES = ("log_energy", "theta", "log_visible", "log_hits", "depth", "depth_width", "width_x", "width_y", "start")
"""The features of one number, before those of each layer."""


@dataclass(frozen=True)
class Observables:
    """Observables of `n` showers; arrays of shape (n,) but where another shape is said. Energies in MeV."""

    geometry: Geometry
    energy_gev: Floats
    theta: Floats
    layers: Floats
    """Energy in each layer, (n, layers)."""
    layer_hits: Floats
    """Cells that were hit in each layer, (n, layers)."""
    layer_x: Floats
    """Centre of energy in each layer from the axis, in cells, (n, layers); NaN in an empty one."""
    layer_y: Floats
    hottest: Floats
    """Energy of the hottest cell."""
    width_x: Floats
    """Root mean square distance from the axis, weighted with energy, in cells."""
    width_y: Floats
    core: Floats
    """Part of the energy within 1.5 cells of the axis in x and in y."""
    radius_90: Floats
    """Radius about the axis, in cells, that holds 90 % of the energy."""
    spectrum: Floats
    """Cells with an energy in each bin of `SPECTRUM_MEV`, (n, bins)."""
    profile_x: Floats
    """Energy in strips of one cell about the axis, (n, cells)."""
    profile_y: Floats
    profile_r: Floats
    """Energy in rings of one cell about the axis, (n, cells // 2)."""

    def __len__(self) -> int:
        return len(self.energy_gev)

    def rows(self, chosen: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> "Observables":
        """The chosen showers, by their numbers, of which some may be there several times, or by a mask."""
        names = (field.name for field in fields(self) if field.name != "geometry")
        return Observables(geometry=self.geometry, **{name: getattr(self, name)[chosen] for name in names})

    @cached_property
    def visible(self) -> Floats:
        """Energy in all layers."""
        return np.asarray(self.layers.sum(axis=1))

    @cached_property
    def sampling_fraction(self) -> Floats:
        """S/E, what is seen over the energy of the primary."""
        return np.asarray(self.visible / (1e3 * self.energy_gev))

    @cached_property
    def hits(self) -> Floats:
        """Cells that were hit."""
        return np.asarray(self.layer_hits.sum(axis=1))

    @cached_property
    def parts(self) -> Floats:
        """Part of the visible energy in each layer, (n, layers); 0 in an empty shower."""
        return np.asarray(self.layers / np.where(self.visible > 0, self.visible, 1)[:, None])

    @cached_property
    def depth(self) -> Floats:
        """Centre of energy in depth, in layers."""
        return np.asarray(self.parts @ np.arange(self.layers.shape[1]))

    @cached_property
    def depth_width(self) -> Floats:
        """Root mean square in depth about the centre, in layers."""
        squares = self.parts @ np.arange(self.layers.shape[1]) ** 2
        return np.sqrt(np.maximum(squares - self.depth**2, 0))

    @cached_property
    def start(self) -> Floats:
        """The first layer with `START_PART` of the energy."""
        return np.asarray((self.parts >= START_PART).argmax(axis=1), np.float64)

    @cached_property
    def leakage(self) -> Floats:
        """Part of the energy in the last three layers."""
        return np.asarray(self.parts[:, -LAST_LAYERS:].sum(axis=1))

    @cached_property
    def measured_theta(self) -> Floats:
        """The polar angle, rad, that the layers' centres of energy show; NaN where there are fewer than two."""
        middles = np.array(self.geometry.middles_mm)
        axis = np.tan(np.pi / 2 - self.theta)[:, None] * (middles - AXIS_DEPTH_MM)
        return theta_of_centres(self.layers, self.layer_y * self.geometry.cell_mm + axis, self.geometry)

    def features(self) -> Floats:
        """One row a shower: `FEATURES`, energy and hits of each layer, hottest cell, core; what a classifier sees.

        Energies are logarithms with 10 keV in the place of nothing.
        """
        scalars = {
            "log_energy": np.log10(self.energy_gev),
            "theta": self.theta,
            "log_visible": np.log10(self.visible + 0.01),
            "log_hits": np.log10(self.hits + 1),
            "depth": self.depth,
            "depth_width": self.depth_width,
            "width_x": self.width_x,
            "width_y": self.width_y,
            "start": self.start,
        }
        rows = [np.stack([scalars[name] for name in FEATURES], axis=1), np.log10(self.layers + 0.01), self.layer_hits]
        rows += [np.log10(self.hottest + 0.01)[:, None], self.core[:, None]]
        return np.concatenate(rows, axis=1)

    def centres(self) -> Floats:
        """One row a shower: the centre of energy of each layer in x, then in y; 0 in an empty layer."""
        return np.asarray(np.nan_to_num(np.concatenate([self.layer_x, self.layer_y], axis=1)))


def observe(showers: Showers, geometry: Geometry, threshold_mev: float = THRESHOLD_MEV) -> Observables:
    """The observables of `showers`; in the time of a pass over their hits, without a dense array."""
    cells, _, depth = geometry.shape
    count = len(showers)
    hits = showers.above(threshold_mev, geometry.shape)
    shower, layer, edep = hits.shower, hits.layer, hits.edep_mev
    slope = np.tan(math.pi / 2 - showers.theta)
    axis = slope[:, None] * (np.array(geometry.middles_mm) - AXIS_DEPTH_MM) / geometry.cell_mm
    x = hits.column - (cells - 1) / 2
    y = hits.row - (cells - 1) / 2 - axis[shower, layer]
    place = shower * depth + layer

    def per_layer(weights: Floats | None) -> Floats:
        return np.bincount(place, weights, minlength=count * depth).reshape(count, depth).astype(np.float64)

    def per_shower(weights: Floats) -> Floats:
        return np.bincount(shower, weights, minlength=count).astype(np.float64)

    def histograms(place: Floats | Counts, weights: Floats, bins: int) -> Floats:
        """Sums in bins 0 to `bins` - 1; what lies beyond counts in the last ones."""
        inside = shower * bins + np.clip(place, 0, bins - 1).astype(np.int64)
        return np.bincount(inside, weights, minlength=count * bins).reshape(count, bins).astype(np.float64)

    layers = per_layer(edep)
    visible = np.where(layers.sum(axis=1) > 0, layers.sum(axis=1), 1)
    hottest = np.zeros(count)
    np.maximum.at(hottest, shower, edep)
    radius = np.hypot(x, y)
    bins = len(SPECTRUM_MEV) - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        layer_x, layer_y = per_layer(edep * x) / layers, per_layer(edep * y) / layers
    return Observables(
        geometry=geometry,
        energy_gev=showers.energy_gev,
        theta=showers.theta,
        layers=layers,
        layer_hits=per_layer(None),
        layer_x=layer_x,
        layer_y=layer_y,
        hottest=hottest,
        width_x=np.sqrt(per_shower(edep * x**2) / visible),
        width_y=np.sqrt(per_shower(edep * y**2) / visible),
        core=per_shower(np.where((np.abs(x) <= 1.5) & (np.abs(y) <= 1.5), edep, 0.0)) / visible,
        radius_90=_radius_of(CONTAINED, shower, radius, edep, count),
        spectrum=histograms(np.searchsorted(SPECTRUM_MEV, edep, "right") - 1, np.ones_like(edep), bins),
        profile_x=histograms(hits.column, edep, cells),
        profile_y=histograms(np.rint(y + (cells - 1) / 2), edep, cells),
        profile_r=histograms(np.floor(radius), edep, cells // 2),
    )


def _radius_of(part: float, shower: Counts, radius: Floats, edep: Floats, count: int) -> Floats:
    """The radius that holds this part of each shower's energy; 0 for an empty shower."""
    order = np.lexsort((radius, shower))
    sums = np.cumsum(edep[order])
    hits = np.bincount(shower, minlength=count)
    ends = np.cumsum(hits)
    before = np.concatenate([[0.0], sums])[ends - hits]
    after = np.concatenate([[0.0], sums])[ends]
    wanted = before + part * (after - before)
    place = np.minimum(np.searchsorted(sums, wanted * (1 - 1e-12)), np.maximum(ends - 1, 0))
    found = radius[order][place] if len(radius) else np.zeros(count)
    return np.where(hits > 0, found, 0.0)
