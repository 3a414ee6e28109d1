"""The plots that people in the field look at: Monte Carlo, generated showers and GFLASH, with ratios to Monte Carlo.

Monte Carlo has statistical errors of one sigma; the grey band of a ratio is by how much two samples of Monte Carlo of
that size differ, one sigma too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from functions.calorimeter.observables import SPECTRUM_MEV, Observables
from functions.calorimeter.showers import Floats
from functions.calorimeter.validation.centres import with_next
from functions.calorimeter.validation.histograms import Curve, averaged, binned, fitted, moments, ratio
from functions.calorimeter.webpage import figure as page_figure

REAL, MADE, POOR = "Monte Carlo", "generated", "GFLASH"
COLOURS = {REAL: "#1c1e21", MADE: "#0072b2", POOR: "#d55e00"}
DOTS = 80
"""For each inch."""
SLICES = 9
BINS = 40
FEW = 2000
"""Showers below which a histogram has half as many bins."""


@dataclass(frozen=True)
class Compared:
    """Observables of the same conditions, by whose they are."""

    samples: dict[str, Observables]
    particle: str
    edges_gev: Floats
    """Of the bands."""

    def bands(self) -> Iterator[tuple[str, dict[str, Observables]]]:
        """Name and samples of each band."""
        for low, high in pairwise(self.edges_gev):
            chosen = {
                name: seen.rows((seen.energy_gev >= low) & (seen.energy_gev <= high))
                for name, seen in self.samples.items()
            }
            if all(len(seen) > 1 for seen in chosen.values()):
                yield f"{self.particle}, {low:g}-{high:g} GeV", chosen


def longitudinal(data: Compared, log: bool) -> Any:
    """Mean energy of each layer over that of the primary."""
    bands = list(data.bands())
    made = figure(4.0 * max(len(bands), 1), 3.9)
    columns = _columns(made, len(bands))
    for (title, samples), axes in zip(bands, columns, strict=True):
        curves = {name: averaged(seen.layers / seen.energy_gev[:, None]) for name, seen in samples.items()}
        _draw(axes, np.arange(len(curves[REAL].value) + 1, dtype=np.float64) - 0.5, curves, log=log)
        _told(axes, title, "layer", "energy / E  [MeV/GeV]")
    _legend(columns)
    return made


def lateral(data: Compared) -> Any:
    """Mean energy in strips in x and y, and in rings, about the axis."""
    made = figure(12.0, 3.9)
    columns = _columns(made, 3)
    told = (
        ("in x", "profile_x", "x from the axis  [cells]"),
        ("in y", "profile_y", "y from the axis  [cells]"),
        ("in r", "profile_r", "distance from the axis  [cells]"),
    )
    for axes, (name, profile, xlabel) in zip(columns, told, strict=True):
        curves = {
            whose: averaged(getattr(seen, profile) / seen.energy_gev[:, None]) for whose, seen in data.samples.items()
        }
        size = len(curves[REAL].value)
        if profile == "profile_r":  # what lies beyond counts in the last ring
            size -= 1
            curves = {whose: Curve(curve.value[:-1], curve.error[:-1]) for whose, curve in curves.items()}
        edges = np.arange(size + 1, dtype=np.float64) - (0 if profile == "profile_r" else size / 2)
        _draw(axes, edges, curves, log=True, within=0.5)
        _told(axes, f"{data.particle}, {name}", xlabel, "energy / E  [MeV/GeV]")
    _legend(columns)
    return made


def visible(data: Compared) -> Any:
    """The spectrum of S/E in each band."""
    bands = list(data.bands())
    made = figure(4.0 * max(len(bands), 1), 3.9)
    columns = _columns(made, len(bands))
    for (title, samples), axes in zip(bands, columns, strict=True):
        _histogram(axes, {name: 100 * seen.sampling_fraction for name, seen in samples.items()})
        _told(axes, title, "S / E  [%]", "showers / bin, normalised")
    _legend(columns)
    return made


def response(data: Compared) -> Any:
    """Linearity, S/E against E, and resolution, sigma/E against E with its fit."""
    made = figure(12.0, 4.2)
    columns = _columns(made, 2)
    edges = np.linspace(data.edges_gev[0], data.edges_gev[-1], SLICES + 1)
    linear, wide = {}, {}
    for name, seen in data.samples.items():
        linear[name], wide[name] = moments(seen.energy_gev, 100 * seen.sampling_fraction, edges)
    _draw(columns[0], edges, linear, within=0.04)
    _told(columns[0], f"{data.particle}: linearity", "E  [GeV]", "mean S / E  [%]")
    fits = {}
    middles = (edges[:-1] + edges[1:]) / 2
    for name, curve in wide.items():
        a, b = fitted(middles, curve)
        fits[name] = f"{100 * a:.1f} %/√E ⊕ {100 * b:.2f} %"
        columns[1][0].plot(middles, 100 * np.sqrt(a**2 / middles + b**2), color=COLOURS[name], lw=0.8, ls=":")
    _draw(columns[1], edges, {name: Curve(100 * curve.value, 100 * curve.error) for name, curve in wide.items()})
    _told(columns[1], f"{data.particle}: resolution, fit a/√E ⊕ b", "E  [GeV]", "σ(S) / S  [%]")
    _legend(columns[:1])
    handles = columns[1][0].get_legend_handles_labels()
    names = [f"{label}: {fits[label]}" for label in handles[1]]
    columns[1][0].legend(handles[0], names, fontsize=8, frameon=False)
    return made


def cells(data: Compared) -> Any:
    """The cells' spectrum, hits of a shower, and its hottest cell."""
    made = figure(12.0, 3.9)
    columns = _columns(made, 3)
    widths = np.diff(np.log10(SPECTRUM_MEV))
    curves = {}
    for name, seen in data.samples.items():
        curve = averaged(seen.spectrum)
        curves[name] = Curve(curve.value / widths, curve.error / widths)
    _draw(columns[0], SPECTRUM_MEV, curves, log=True)
    columns[0][0].set_xscale("log")
    _told(columns[0], f"{data.particle}: energy of cells", "cell  [MeV]", "cells / shower / decade")
    _histogram(columns[1], {name: seen.hits for name, seen in data.samples.items()})
    _told(columns[1], f"{data.particle}: cells hit", "cells above 0.1 MeV", "showers / bin, normalised")
    _histogram(columns[2], {name: seen.hottest / seen.energy_gev for name, seen in data.samples.items()}, log=True)
    _told(columns[2], f"{data.particle}: hottest cell", "hottest cell / E  [MeV/GeV]", "showers / bin, normalised")
    _legend(columns)
    return made


def angles(data: Compared) -> Any:
    """The error of the measured angle, its mean and its spread against the true angle."""
    made = figure(12.0, 3.9)
    columns = _columns(made, 3)
    errors = {name: np.degrees(seen.measured_theta - seen.theta) for name, seen in data.samples.items()}
    _histogram(columns[0], {name: error[np.isfinite(error)] for name, error in errors.items()}, log=True)
    _told(columns[0], f"{data.particle}: measured angle", "measured - true  [deg]", "showers / bin, normalised")
    theta = {name: np.degrees(seen.theta) for name, seen in data.samples.items()}
    edges = np.linspace(theta[REAL].min(), theta[REAL].max() + 1e-6, SLICES + 1)
    found = {}
    for name, error in errors.items():
        there = np.isfinite(error)
        found[name] = moments(theta[name][there], error[there], edges, relative=False)
    _draw(columns[1], edges, {name: mean for name, (mean, _) in found.items()}, difference=True)
    _told(columns[1], "its bias", "true angle  [deg]", "mean error  [deg]")
    _draw(columns[2], edges, {name: spread for name, (_, spread) in found.items()})
    _told(columns[2], "its resolution", "true angle  [deg]", "spread of the error  [deg]")
    _legend(columns)
    return made


def correlations(data: Compared) -> Any:
    """Correlation of the layers' parts of the energy: Monte Carlo's, generated, and their difference."""
    made = figure(12.0, 3.6)
    found = {}
    for name in (REAL, MADE):
        parts = data.samples[name].layers / data.samples[name].energy_gev[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            found[name] = np.nan_to_num(np.corrcoef(parts.T))
    pictures = [(REAL, found[REAL], 1.0), (MADE, found[MADE], 1.0)]
    pictures.append(("difference", found[MADE] - found[REAL], 0.25))
    for number, (name, matrix, limit) in enumerate(pictures):
        axis = made.add_subplot(1, 3, number + 1)
        image = axis.imshow(matrix, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"{data.particle}: {name}", fontsize=10)
        axis.set_xlabel("layer")
        axis.set_ylabel("layer")
        made.colorbar(image, ax=axis, shrink=0.85)
    return made


def straying(data: Compared) -> Any:
    """How far each layer's centre of energy strays from the axis, and its correlation with the next layer's."""
    made = figure(12.0, 3.9)
    columns = _columns(made, 3)
    depth = data.samples[REAL].layers.shape[1]
    edges = np.arange(depth + 1) - 0.5
    for axes, axis in zip(columns, "xy", strict=False):
        spreads = {}
        for name, seen in data.samples.items():
            centre = getattr(seen, f"layer_{axis}")
            there = np.isfinite(centre)
            layer = np.broadcast_to(np.arange(depth), centre.shape)[there]
            spreads[name] = moments(layer, centre[there], edges, relative=False)[1]
        _draw(axes, edges, spreads)
        _told(axes, f"{data.particle}: centre in {axis}", "layer", "standard deviation  [cells]")
    following = {}
    for name, seen in data.samples.items():
        found = with_next(seen.layer_x)
        following[name] = Curve(found, (1 - found**2) / np.sqrt(len(seen)))
    _draw(columns[2], edges[:-1] + 0.5, following, difference=True)
    _told(columns[2], "correlation with the next layer's, in x", "layer", "correlation")
    _legend(columns)
    return made


def energy_and_hits(data: Compared) -> Any:
    """How many cells are hit against the visible energy."""
    made = figure(12.0, 3.6)
    real = data.samples[REAL]
    high = [float(np.quantile(values, 0.999)) for values in (real.visible, real.hits)]
    edges = [np.linspace(0, 1.1 * top + 1e-9, BINS + 1) for top in high]
    for number, (name, seen) in enumerate(data.samples.items()):
        axis = made.add_subplot(1, 3, number + 1)
        counts, *_ = np.histogram2d(seen.visible, seen.hits, bins=edges)
        shown = np.ma.masked_equal(counts.T, 0)
        image = axis.pcolormesh(edges[0], edges[1], shown, cmap="viridis", norm="log")
        axis.set_title(f"{data.particle}: {name}", fontsize=10)
        axis.set_xlabel("visible energy  [MeV]")
        axis.set_ylabel("cells hit")
        made.colorbar(image, ax=axis, label="showers")
    return made


def figure(width: float, height: float) -> Any:
    """An empty figure, in inches, that makes room for its labels."""
    made = page_figure(width, height, DOTS)
    made.set_layout_engine("constrained")
    return made


def _columns(made: Any, count: int) -> list[tuple[Any, Any]]:
    """Axes for curves, and below them axes for ratios, `count` times."""
    if not count:
        return []
    grid = made.subplots(2, count, sharex="col", squeeze=False, gridspec_kw={"height_ratios": [3, 1]})
    return [(grid[0][number], grid[1][number]) for number in range(count)]


def _draw(
    axes: tuple[Any, Any],
    edges: Floats,
    curves: dict[str, Curve],
    *,
    log: bool = False,
    difference: bool = False,
    within: float = 0.3,
) -> None:
    """Curves over bins, and their ratios to (or differences from) Monte Carlo."""
    above, below = axes
    middles = (edges[:-1] + edges[1:]) / 2
    real = curves[REAL]
    band = np.sqrt(2) * np.nan_to_num(real.error if difference else ratio(real, real).error)
    middle = 0.0 if difference else 1.0
    below.stairs(middle + band, edges, baseline=middle - band, color="#b9bec6", fill=True, lw=0)
    below.axhline(middle, color=COLOURS[REAL], lw=0.8)
    for name, curve in curves.items():
        colour = COLOURS[name]
        if name == REAL:
            above.errorbar(middles, curve.value, curve.error, color=colour, fmt=".", ms=4, lw=1, label=name, zorder=3)
            continue
        style = "--" if name == POOR else "-"
        above.stairs(curve.value, edges, color=colour, lw=1.3, ls=style, label=name, baseline=None)
        found = Curve(curve.value - real.value, curve.error) if difference else ratio(curve, real)
        below.errorbar(middles, found.value, found.error, color=colour, fmt="o" if name == MADE else "x", ms=3, lw=0.8)
    if log:
        above.set_yscale("log")
        positive = real.value[real.value > 0]
        if len(positive):
            above.set_ylim(positive.min() / 3, 3 * positive.max())
    if not difference:
        below.set_ylim(1 - within, 1 + within)
    below.set_ylabel("difference" if difference else "ratio", fontsize=9)


def _histogram(axes: tuple[Any, Any], values: dict[str, Floats], *, log: bool = False) -> None:
    everything = np.concatenate([values[REAL], values[MADE]])
    low, high = (float(np.quantile(everything, part)) for part in (0.001, 0.999)) if len(everything) else (0.0, 1.0)
    bins = BINS if len(values[REAL]) >= FEW else BINS // 2
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    _draw(axes, edges, {name: binned(some, edges) for name, some in values.items()}, log=log)


def _told(axes: tuple[Any, Any], title: str, xlabel: str, ylabel: str) -> None:
    above, below = axes
    above.set_title(title, fontsize=10)
    above.set_ylabel(ylabel)
    below.set_xlabel(xlabel)


def _legend(columns: Sequence[tuple[Any, Any]]) -> None:
    for above, _ in columns[:1]:
        above.legend(fontsize=8, frameon=False)
