"""The model that serves: both stages, from conditions and noise to cells."""

import math

import torch
from torch import Tensor, nn

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.learners.two_stage import centres
from functions.calorimeter.learners.two_stage.cells import LEAST_MEV, Energies, Hits, drawn, log_likelihood, place
from functions.calorimeter.learners.two_stage.centres import seen_from, side_of, turned
from functions.calorimeter.learners.two_stage.constraints import Drawn, agreed
from functions.calorimeter.learners.two_stage.context import Context, Shower
from functions.calorimeter.learners.two_stage.flow import Flow
from functions.calorimeter.learners.two_stage.quantities import WHOLE
from functions.calorimeter.learners.two_stage.scaling import REFERENCE_GEV, Scaling

SWEEPS = 6


class CellsLoss(nn.Module):  # type: ignore[misc]
    """The second stage with its losses; a module, so that several ranks can share it."""

    def __init__(self, centres: centres.Centres, hits: Hits, energies: Energies) -> None:
        super().__init__()
        self.centres, self.hits, self.energies = centres, hits, energies

    def forward(
        self,
        context: Tensor,
        axis: Tensor,
        slope: Tensor,
        centre: Tensor,
        noise: tuple[Tensor, Tensor],
        hits: Tensor,
        hit: tuple[Tensor, ...],
        log_energy: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Negative log-likelihood of centres, cross-entropy of cells, and negative log-likelihood of their energies.

        Each is a sum over a shower's layers, or cells. `noise` blurs the centres: uniform, (n, layers), and normal,
        (n, layers, 2). `hits` are those of the layers, `hit` shower, layer, column and row of the cells that are hit.
        """
        side = centres.shower_side(context)
        mixture = self.centres(seen_from(context, side), axis)
        centre = turned(centre, side)
        likely = centres.log_likelihood(mixture, centre)
        with torch.no_grad():
            blurred = centres.blurred(mixture, centre, *noise)
            centre = turned(torch.where((hits > 1)[..., None], blurred, centre), side)
        side = side_of(centre[..., 0])
        centre = turned(centre, side)
        context = centres.with_centre(seen_from(context, side), centre)
        odds, off = self.hits(context, axis, centre)
        shower, layer, column, row = hit
        column = torch.where(side[shower, layer] < 0, odds.shape[2] - 1 - column, column)
        hit = (shower, layer, self.hits.rank[column], row)
        target = torch.zeros_like(odds)
        target[hit] = 1
        places = nn.functional.binary_cross_entropy_with_logits(odds, target, reduction="sum")
        x = column.to(off) - (odds.shape[2] - 1) / 2
        cell = place(x, off[shower, layer, row], odds[hit].detach(), slope[shower])
        about = self.energies.about(context)[shower, layer]
        energies = -log_likelihood(self.energies(cell, about), log_energy).sum()
        return -(likely * (hits > 0).to(likely)).sum() / len(odds), places / len(odds), energies / len(odds)


class TwoStage(nn.Module):  # type: ignore[misc]
    """Showers of energy, angle, particle and noise."""

    def __init__(
        self,
        geometry: Geometry,
        particles: int,
        threshold_mev: float,
        places: int,
        nodes: int,
        knots: int,
        width: int,
        blocks: int,
        dropout: float,
        centres_width: int,
        hits_width: int,
        energies_width: int,
        flow_steps: int,
    ) -> None:
        super().__init__()
        self.cells, _, self.depth = geometry.shape
        self.particles, self.threshold, self.places, self.flow_steps = particles, threshold_mev, places, flow_steps
        self.quantities = 2 * self.depth + len(WHOLE)
        self.scaling = Scaling(self.quantities, particles, nodes, knots)
        self.context = Context(geometry, particles, threshold_mev)
        self.flow = Flow(self.quantities, 2 + particles, width, blocks, dropout)
        self.centres = centres.Centres(self.context.size, centres_width)
        self.hits = Hits(self.cells, self.context.size + centres.TOLD, hits_width)
        self.energies = Energies(self.context.size + centres.TOLD, energies_width)

    def kinds(self, particle: Tensor) -> Tensor:
        """Particles as one-hot, (n, particles)."""
        numbers = torch.arange(self.particles).to(particle)
        return (1 - torch.abs(particle[:, None] - numbers)).clamp(0, 1)

    def conditions(self, energy_gev: Tensor, slope: Tensor, kinds: Tensor) -> Tensor:
        """What the flow is told, (n, 2 + particles)."""
        return torch.cat([torch.log(energy_gev / REFERENCE_GEV)[:, None], 3 * slope[:, None], kinds], dim=1)

    def shower(self, energy_gev: Tensor, slope: Tensor, kinds: Tensor, noise: Tensor) -> Shower:
        """The first stage."""
        normal = self.flow.sample(noise, self.conditions(energy_gev, slope, kinds), self.flow_steps)
        quantities = self.scaling.back(normal, energy_gev, slope, kinds)
        return self.context.decode(energy_gev, slope, kinds, quantities, self.places)

    def drawn(
        self, shower: Shower, kind: Tensor, away: Tensor, where: Tensor, which: Tensor, energy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The second stage: columns, rows and energies of cells, each (n, layers, most); no energy is no hit.

        `kind` is uniform, (n, layers), and `away` normal, (n, layers, 2): they tell the layers' centres. `where` is
        uniform, (n, layers, cells^2); `which` uniform and `energy` normal, both (n, layers, places). `most` are the
        hits of the layer that has most of them: more places would cost time, and be empty.
        """
        context, axis = self.context(shower), self.context.axis(shower.slope)
        side, several = centres.shower_side(context), (shower.hits > 1).to(axis)
        centre = centres.drawn(self.centres(seen_from(context, side), axis), several, kind, away)
        centre = turned(centre, side) * (shower.hits > 0).to(axis)[..., None]
        side = side_of(centre[..., 0])
        centre = turned(centre, side)
        context = centres.with_centre(seen_from(context, side), centre)
        odds, off = self.hits(context, axis, centre)
        flat = odds.flatten(2)
        where = where.clamp(1e-7, 1 - 1e-7)
        order = torch.arange(shower.hits.max().clamp(1, self.places).long(), device=flat.device)
        index = torch.topk(flat + torch.log(where / (1 - where)), order.shape[0], dim=2)[1]
        rank = torch.div(index, self.cells, rounding_mode="floor")
        row = index - self.cells * rank
        x, y = self.hits.x[rank], torch.gather(off, 2, row)
        there = (order.to(flat) < shower.hits[..., None]).to(flat)
        first = torch.zeros(1, dtype=torch.int64, device=there.device)  # onnxruntime cannot sum over none
        hit = torch.cat([first, torch.nonzero(there.reshape(-1))[:, 0]])
        layer = torch.div(hit, order.shape[0], rounding_mode="floor")
        slope = shower.slope[torch.div(layer, self.depth, rounding_mode="floor")]
        cell = place(x.reshape(-1)[hit], y.reshape(-1)[hit], torch.gather(flat, 2, index).reshape(-1)[hit], slope)
        about = self.energies.about(context)
        shape = self.energies(cell, about.reshape(-1, about.shape[2])[layer])
        noise = (part.index_select(2, order).reshape(-1)[hit] for part in (which, energy))
        above = torch.zeros_like(x).reshape(-1).scatter(0, hit, drawn(shape, *noise)).reshape(x.shape) * there
        x = x * side[..., None]
        room = (shower.layers - self.threshold * shower.hits).clamp(0)
        cells = Drawn(x, y, there, room, self.threshold)
        above = agreed(above, cells, shower.whole, self.context.moments(shower.layers), SWEEPS)
        column = (x + (self.cells - 1) / 2 + 0.5).long()
        return column, row, (above + self.threshold) * there

    def forward(
        self,
        energy_gev: Tensor,
        theta: Tensor,
        particle: Tensor,
        noise: Tensor,
        kind: Tensor,
        away: Tensor,
        where: Tensor,
        which: Tensor,
        energy: Tensor,
    ) -> Tensor:
        """Cells, MeV, (n, x, y, layer)."""
        slope, kinds = torch.tan(math.pi / 2 - theta), self.kinds(particle)
        shower = self.shower(energy_gev, torch.abs(slope), kinds, noise)
        column, row, seen = self.drawn(shower, kind, away, where, which, energy)
        other = (slope < 0)[:, None, None].to(row)
        row = row + other * (self.cells - 1 - 2 * row)
        layer = torch.arange(self.depth)[:, None]
        index = ((column * self.cells + row) * self.depth + layer).flatten(1)
        flat = torch.zeros(seen.shape[0], self.cells * self.cells * self.depth).to(seen)
        images = flat.scatter(1, index, seen.flatten(1))
        return images.reshape(energy_gev.shape[0], self.cells, self.cells, self.depth)


def log_above(edep_mev: Tensor, threshold_mev: float) -> Tensor:
    """What the energies' network learns: the logarithm of what is above the threshold."""
    return torch.log((edep_mev - threshold_mev).clamp(0) + LEAST_MEV)
