"""Cells that agree with what the first stage said of the whole shower: its widths, core, radius and hottest cell.

Cells are drawn one by one, so that a shower's widths would scatter about what was asked for. Its energies are tilted by
a factor that depends on the place and keeps each layer's energy (as exponential tilting does), found by Newton's
method, one constraint after the other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from functions.calorimeter.learners.two_stage.quantities import CORE_ROOM, EMPTY_MEV, RADIUS_SHIFT, WIDTH_SHIFT
from functions.calorimeter.observables import CONTAINED

LARGEST_TILT = 1.0
CORE_CELLS = 1.5
FAR_CELLS = 10.0
"""Widths are mended where they come from: by the cells that are as far from the axis as this."""
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


def agreed(above: Tensor, cells: Drawn, whole: Tensor, sweeps: int) -> Tensor:
    """Energies above the threshold, (n, layers, places), that have the layers' energies and the whole's numbers."""
    base = cells.threshold * cells.there
    total = cells.room.sum(dim=1) + base.sum(dim=(1, 2))
    core = torch.exp(whole[:, 2])
    inside = ((torch.abs(cells.x) <= CORE_CELLS) & (torch.abs(cells.y) <= CORE_CELLS)).to(above)
    x2, y2 = cells.x**2, cells.y**2
    radius = (torch.exp(whole[:, 4]) - RADIUS_SHIFT).clamp(0)
    beyond = (torch.sqrt(x2 + y2) > radius[:, None, None] + 1e-3).to(above)
    wanted = (
        (inside, inside, ((1 + CORE_ROOM) * core - CORE_ROOM) / (1 + core)),
        (beyond, beyond, torch.full_like(core, 1 - CONTAINED)),
        (x2, x2 / (x2 + FAR_CELLS**2), (torch.exp(whole[:, 0]) - WIDTH_SHIFT).clamp(0) ** 2),
        (y2, y2 / (y2 + FAR_CELLS**2), (torch.exp(whole[:, 1]) - WIDTH_SHIFT).clamp(0) ** 2),
    )
    hottest = (torch.exp(whole[:, 3]) * (total + EMPTY_MEV) - EMPTY_MEV).clamp(cells.threshold)
    above = with_hottest(scaled(above, cells.room), base, cells.room, hottest)
    for _ in range(sweeps):
        for measure, lever, target in wanted:
            part = above / cells.room.clamp(1e-9)[..., None]
            mean, mean_lever = (part * measure).sum(dim=2), (part * lever).sum(dim=2)
            slope = (cells.room * ((part * measure * lever).sum(dim=2) - mean * mean_lever)).sum(dim=1)
            missing = target * total - ((above + base) * measure).sum(dim=(1, 2))
            tilt = (missing / slope.clamp(1e-6)).clamp(-LARGEST_TILT, LARGEST_TILT)
            above = scaled(above * torch.exp(tilt[:, None, None] * lever), cells.room)
        above = scaled(with_hottest(above, base, cells.room, hottest), cells.room)
    return above


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
