"""Cells that agree with what is said of the whole shower: widths, core, radius, hottest cell, centre and slope.

Cells are drawn one by one, so that a shower's widths would scatter about what was asked for. Its energies are tilted by
a factor that depends on the place and keeps each layer's energy (as exponential tilting does), found by Newton's
method, one constraint after the other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from functions.calorimeter.learners.two_stage.quantities import CORE_ROOM, EMPTY_MEV, MOMENTS, RADIUS_SHIFT, WIDTH_SHIFT
from functions.calorimeter.observables import CONTAINED

LARGEST_TILT = 1.0
CORE_CELLS = 1.5
FAR_CELLS = 10.0
"""Widths are mended where they come from: by the cells that are as far from the axis as this."""
NEAR_CELLS = 3.0
"""Centre and slope are mended by cells as far as they are from the axis, and beyond this by all alike."""
SHARPNESS = 8


@dataclass(frozen=True)
class Drawn:
    """Candidate cells of `n` showers, each (n, layers, places)."""

    x: Tensor
    y: Tensor
    there: Tensor
    """1 for a cell that is hit, 0 for a candidate that is none."""
    room: Tensor
    """Energy of each layer above the threshold of its hits, (n, layers), MeV."""
    threshold: float


def agreed(above: Tensor, cells: Drawn, whole: Tensor, moments: Tensor, sweeps: int) -> Tensor:
    """Energies above the threshold, (n, layers, places), with the layers' energies and what is asked for.

    `whole` are `quantities.WHOLE`, `moments` what a layer's centre counts in the shower's centre and slope,
    (n, layers, 2).
    """
    base = cells.threshold * cells.there
    layers = cells.room + base.sum(dim=2)
    total = layers.sum(dim=1)
    core = torch.exp(whole[:, 2])
    inside = ((torch.abs(cells.x) <= CORE_CELLS) & (torch.abs(cells.y) <= CORE_CELLS)).to(above)
    x2, y2 = cells.x**2, cells.y**2
    radius = (torch.exp(whole[:, 4]) - RADIUS_SHIFT).clamp(0)
    beyond = (torch.sqrt(x2 + y2) > radius[:, None, None] + 1e-3).to(above)
    width_x, width_y = ((torch.exp(whole[:, way]) - WIDTH_SHIFT).clamp(0) ** 2 for way in (0, 1))
    wishes = [
        (inside, inside, ((1 + CORE_ROOM) * core - CORE_ROOM) / (1 + core) * total),
        (beyond, beyond, (1 - CONTAINED) * total),
        (x2, x2 / (x2 + FAR_CELLS**2), width_x * total),
        (y2, y2 / (y2 + FAR_CELLS**2), width_y * total),
    ]
    wanted = whole[:, MOMENTS]
    for number in range(2):
        counts = moments[..., number, None] * (total[:, None] / layers.clamp(cells.threshold))[..., None]
        for way, place in enumerate((cells.x, cells.y)):
            lever = counts / (1 + torch.abs(counts)) * place / (torch.abs(place) + NEAR_CELLS)
            wishes.append((counts * place, lever, wanted[:, 2 * number + way] * total))
    demands = [_Demand(measure, lever, target - (base * measure).sum(dim=(1, 2))) for measure, lever, target in wishes]
    hottest = (torch.exp(whole[:, 3]) * (total + EMPTY_MEV) - EMPTY_MEV).clamp(cells.threshold)
    above = with_hottest(scaled(above, cells.room), base, cells.room, hottest)
    for _ in range(sweeps):
        for demand in demands:
            above = demand.tilted(above, cells.room)
        above = scaled(with_hottest(scaled(above, cells.room), base, cells.room, hottest), cells.room)
    return above


@dataclass(frozen=True)
class _Demand:
    """A sum over a shower's cells, and the lever by which they are tilted to have it."""

    measure: Tensor
    lever: Tensor
    target: Tensor
    """Of what is above the threshold, (n,)."""

    def tilted(self, above: Tensor, room: Tensor) -> Tensor:
        """One step of Newton's method, for layers of the energies `room`; `scaled` gives them these again."""
        moment = above * self.measure
        sums = above.sum(dim=2).clamp(1e-9)
        mean, lever, product = (part.sum(dim=2) / sums for part in (moment, above * self.lever, moment * self.lever))
        slope, missing = (room * (product - mean * lever)).sum(dim=1), self.target - (room * mean).sum(dim=1)
        tilt = (missing / slope.clamp(1e-6)).clamp(-LARGEST_TILT, LARGEST_TILT)
        return above * torch.exp(tilt[:, None, None] * self.lever)


def scaled(above: Tensor, room: Tensor) -> Tensor:
    """Energies with the sums `room` in the layers."""
    return above * (room / above.sum(dim=2).clamp(1e-9))[..., None]


def with_hottest(above: Tensor, base: Tensor, room: Tensor, hottest: Tensor) -> Tensor:
    """The hottest cell gets the energy `hottest`, and the hottest of the other layers a part of that change.

    The others of their layers make up for it.
    """
    energy = above + base
    most = energy.amax(dim=2)
    ratio = (hottest[:, None] / most.amax(dim=1, keepdim=True).clamp(1e-6)).clamp(0.5, 2)
    factor = ratio ** ((most / most.amax(dim=1, keepdim=True).clamp(1e-6)) ** SHARPNESS)
    top = (energy >= most[..., None]).to(above) * (above > 0).to(above)
    peak = (above * top).sum(dim=2)
    wanted = torch.minimum(peak * factor, 0.999 * room)
    others = ((room - wanted) / (room - peak).clamp(1e-6)).clamp(0, 5)
    alone = (room - peak <= 1e-3 * room)[..., None].to(above)
    factors = top * (wanted / peak.clamp(1e-9))[..., None] + (1 - top) * others[..., None]
    return above * (alone + (1 - alone) * factors)
