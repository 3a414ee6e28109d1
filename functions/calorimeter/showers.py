"""Showers: what was shot, and the energy that each cell of the calorimeter saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Energies = NDArray[np.float32]
Cells = NDArray[np.uint32]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Showers:
    """`n` showers of one geometry, sparse: shower `i` has the hits `offsets[i]` to `offsets[i + 1]`."""

    energy_gev: Floats
    """Energy of the primary particle, shape (n,)."""
    theta: Floats
    """Polar angle of the primary in the plane of y and depth, rad; pi/2 is perpendicular. Shape (n,)."""
    offsets: Counts
    """Shape (n + 1,)."""
    cell: Cells
    """Cell of each hit, (x cells + y) layers + layer, ascending in each shower."""
    edep_mev: Energies
    """Energy in the sensor of each hit, MeV."""

    def __len__(self) -> int:
        return len(self.energy_gev)

    @property
    def hits(self) -> Counts:
        """Number of cells that were hit, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def visible_mev(self) -> Floats:
        """Energy in all sensors, MeV, shape (n,), summed in float64."""
        sums = np.concatenate([[0.0], np.cumsum(self.edep_mev, dtype=np.float64)])
        return np.asarray(sums[self.offsets[1:]] - sums[self.offsets[:-1]])

    def part(self, start: int, stop: int) -> "Showers":
        """The showers from `start` to before `stop`."""
        stop = min(stop, len(self))
        first, last = self.offsets[start], self.offsets[stop]
        return Showers(
            self.energy_gev[start:stop],
            self.theta[start:stop],
            self.offsets[start : stop + 1] - first,
            self.cell[first:last],
            self.edep_mev[first:last],
        )

    def rows(self, chosen: NDArray[np.integer[Any]]) -> "Showers":
        """The chosen showers in the order of their numbers `chosen`, of which some may be there several times."""
        hits = self.hits[chosen]
        offsets = np.concatenate([[0], np.cumsum(hits)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], hits)
        return Showers(self.energy_gev[chosen], self.theta[chosen], offsets, self.cell[places], self.edep_mev[places])

    def above(self, threshold_mev: float, shape: tuple[int, int, int]) -> "Hits":
        """The hits with at least this energy, by their places in a calorimeter of `shape` (`Geometry.shape`)."""
        kept = self.edep_mev >= threshold_mev
        shower = np.repeat(np.arange(len(self)), self.hits)[kept]
        column, row, layer = np.unravel_index(self.cell[kept].astype(np.int64), shape)
        return Hits(shower, column, row, layer, self.edep_mev[kept].astype(np.float64))

    def dense(self, shape: tuple[int, int, int]) -> Energies:
        """The cells as an array of shape (n, x, y, layer), MeV."""
        images = np.zeros((len(self), int(np.prod(shape))), np.float32)
        images[np.repeat(np.arange(len(self)), self.hits), self.cell] = self.edep_mev
        return images.reshape(len(self), *shape)


@dataclass(frozen=True)
class Hits:
    """Cells that were hit, each array of shape (hits,), in the order of the showers."""

    shower: Counts
    """Number of the shower, from 0."""
    column: Counts
    """In x."""
    row: Counts
    """In y."""
    layer: Counts
    edep_mev: Floats


def join(parts: Sequence[Showers]) -> Showers:
    """The showers of all parts, one after the other."""
    starts = np.cumsum([0, *(int(part.offsets[-1]) for part in parts)])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
    return Showers(
        np.concatenate([part.energy_gev for part in parts]),
        np.concatenate([part.theta for part in parts]),
        np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
        np.concatenate([part.cell for part in parts]),
        np.concatenate([part.edep_mev for part in parts]),
    )


def from_dense(energy_gev: Floats, theta: Floats, images: Energies) -> Showers:
    """Showers from an array of shape (n, x, y, layer) in MeV; cells of no energy are no hits."""
    flat = images.reshape(len(images), -1)
    shower, cell = np.nonzero(flat > 0)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(shower, minlength=len(images)))])
    return Showers(
        np.asarray(energy_gev, np.float64),
        np.asarray(theta, np.float64),
        offsets.astype(np.int64),
        cell.astype(np.uint32),
        flat[shower, cell],
    )
