"""Event displays: a simulated and a generated shower of the same primary, seen from three sides."""

from typing import Any

import numpy as np

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.showers import Floats, Showers
from functions.calorimeter.validation.plots import figure

LEAST_SHOWN_MEV = 0.1


def display(geometry: Geometry, pair: tuple[Showers, Showers], number: int, particle: str) -> Any:
    """Shower `number` of both samples: from the front, from above and from the side; the colour is MeV."""
    made = figure(12.0, 6.0)
    grid = made.subplots(2, 3, squeeze=False)
    images = [showers.part(number, number + 1).dense(geometry.shape)[0] for showers in pair]
    highest = max(float(image.sum(axis=axis).max()) for image in images for axis in range(3))
    for row, (name, image) in enumerate(zip(("Monte Carlo", "generated"), images, strict=True)):
        energy, theta = pair[row].energy_gev[number], np.degrees(pair[row].theta[number])
        views: list[tuple[str, str, Floats]] = [
            ("x  [cells]", "y  [cells]", image.sum(axis=2).T),
            ("layer", "x  [cells]", image.sum(axis=1)),
            ("layer", "y  [cells]", image.sum(axis=0)),
        ]
        for column, (xlabel, ylabel, view) in enumerate(views):
            axis = grid[row][column]
            shown = np.ma.masked_less(view, LEAST_SHOWN_MEV)
            limits = {"vmin": LEAST_SHOWN_MEV, "vmax": max(highest, 2 * LEAST_SHOWN_MEV)}
            picture = axis.pcolormesh(shown, cmap="viridis", norm=_logarithmic(**limits))
            axis.set_xlabel(xlabel)
            axis.set_ylabel(ylabel)
            if not column:
                axis.set_title(f"{name}: {particle}, {energy:.1f} GeV, {theta:.0f}°", fontsize=10)
    made.colorbar(picture, ax=grid, label="MeV", shrink=0.7)
    return made


def chosen(showers: Showers, rows: "np.ndarray[Any, np.dtype[np.int64]]") -> int:
    """The number, among `rows`, of a shower in the middle of the energies that is well inclined."""
    energy, theta = showers.energy_gev[rows], showers.theta[rows]
    middle, width = np.median(energy), max(float(np.ptp(energy)), 1e-9)
    steep = np.quantile(theta, 0.25)
    return int(rows[np.argmin(np.abs(energy - middle) / width + np.abs(theta - steep))])


def _logarithmic(vmin: float, vmax: float) -> Any:
    from matplotlib.colors import LogNorm

    return LogNorm(vmin, vmax)
