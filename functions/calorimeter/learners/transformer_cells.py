"""From tokens to cells: which cells of a region are hit, and how its energy is shared among them, both learned.

Of a region's cells, as many as it has hits are drawn without replacement with the learned odds (Pareto sampling: Rosen,
J. Statist. Plann. Inference 62 (1997) 159). Their energies above the threshold are drawn from learned histograms, and
scaled to the region's energy, so that hits and energies of the regions are kept.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry
from functions.calorimeter.learners.affine import Affine
from functions.calorimeter.learners.transformer_tokens import RADII, REGIONS, VALUES
from functions.calorimeter.showers import Floats

QUANTILES = np.concatenate([np.linspace(0, 0.95, 20), [0.965, 0.98, 0.99, 0.995, 0.998, 1.0]])
"""The histograms' edges, as quantiles of all hits' ratios."""
BINS = len(QUANTILES) - 1
PLACES, SHARES = 16, 48
"""Widths of the two networks; the first one sees every cell."""
FEATURES = 6
"""Of a cell: see `Cells.features`."""


@dataclass(frozen=True)
class Context:
    """What `n` showers are asked for."""

    energy_gev: Tensor
    conditions: Tensor
    """Scaled logarithm of the energy, slope of the axis, particle as one-hot; (n, conditions)."""
    axis: Tensor
    """Rows from the middle of the window to the axis, (n, layers)."""
    row: Tensor
    """The row of the cell that the axis passes through, (n, layers)."""
    fraction: Tensor
    """Where in that cell it passes, from -0.5 to 0.5, (n, layers)."""


@dataclass(frozen=True)
class Examples:
    """Layers of a batch with their hits, to learn from."""

    shower: Tensor
    """Of each layer, position in the batch, (m,)."""
    layer: Tensor
    layer_of_hit: Tensor
    """Position among the m, (h,)."""
    cell: Tensor
    """Of each hit, column x cells + row."""
    bin: Tensor
    """Of the ratio of its energy."""


class Cells(nn.Module):  # type: ignore[misc]
    """Cells for tokens, in a geometry."""

    def __init__(self, geometry: Geometry, conditions: int, threshold_mev: float, most: tuple[int, ...]) -> None:
        super().__init__()
        self.cells, _, self.depth = geometry.shape
        self.threshold, self.most = threshold_mev, most
        self.middle = (self.cells - 1) / 2
        self.column = math.floor(self.middle + 0.5)
        per_slope = (np.array(geometry.middles_mm) - AXIS_DEPTH_MM) / geometry.cell_mm
        self.register_buffer("per_slope", torch.tensor(per_slope, dtype=torch.float32))
        self.register_buffer("edges", torch.linspace(0, 1, BINS + 1))
        inputs = VALUES + conditions + 1
        self.place_layer = nn.Parameter(torch.zeros(self.depth, PLACES))
        self.share_layer = nn.Parameter(torch.zeros(self.depth, 1, SHARES))
        self.place_in, self.place_about = Affine(FEATURES, PLACES), Affine(inputs, PLACES)
        self.place_out = Affine(PLACES, 1)
        nn.init.constant_(self.place_out.bias, -4.0)  # few cells are hit
        self.share_in, self.share_about = Affine(FEATURES, SHARES), Affine(inputs, SHARES)
        self.share_more, self.share_out = Affine(SHARES, SHARES), Affine(SHARES, BINS)

    def context(self, energy_gev: Tensor, slope: Tensor, conditions: Tensor) -> Context:
        """The axis in cells."""
        axis = slope[:, None] * self.per_slope
        row = torch.floor(self.middle + axis + 0.5)
        return Context(energy_gev, conditions, axis, row, self.middle + axis - row)

    def features(self, cell: Tensor, axis: Tensor) -> Tensor:
        """Of cells, by their distance from the axis; shape of `cell` and one axis more."""
        x = torch.floor(cell / self.cells) - self.middle + torch.zeros_like(axis)
        y = cell - self.cells * torch.floor(cell / self.cells) - self.middle - axis
        squares = x**2 + y**2
        root = torch.sqrt(squares + 0.1)
        return torch.stack([x / 5, y / 5, torch.abs(x) / 5, torch.abs(y) / 5, torch.log(root), root / 10], dim=-1)

    def away(self, row: Tensor) -> Tensor:
        """Distance of every cell from the one with the axis, (..., cells^2), by the larger of the two."""
        cell = torch.arange(self.cells**2, dtype=torch.float32, device=row.device)
        column = torch.floor(cell / self.cells)
        return torch.maximum(torch.abs(column - self.column), torch.abs(cell - self.cells * column - row[..., None]))

    def odds(self, about: Tensor, layer: Tensor, axis: Tensor) -> Tensor:
        """Logarithms of the odds of every cell to be hit, (..., cells^2); a region's are told up to a constant."""
        cell = torch.arange(self.cells**2, dtype=torch.float32, device=axis.device)
        known = self.place_about(about) + layer
        hidden = nn.functional.silu(self.place_in(self.features(cell, axis[..., None])) + known[..., None, :])
        return self.place_out(hidden)[..., 0]

    def shares(self, about: Tensor, layer: Tensor, cell: Tensor, axis: Tensor) -> Tensor:
        """Logarithms of the histograms of the hits' ratios, (..., bins)."""
        hidden = nn.functional.silu(self.share_in(self.features(cell, axis)) + self.share_about(about) + layer)
        return self.share_out(nn.functional.silu(self.share_more(hidden)))

    def about(self, scaled: Tensor, at: Context) -> Tensor:
        """What is known of each layer, (n, layers, inputs)."""
        conditions = at.conditions[:, None].expand(-1, self.depth, -1)
        return torch.cat([scaled, conditions, at.fraction[:, :, None]], dim=2)

    def losses(self, scaled: Tensor, at: Context, some: Examples) -> tuple[Tensor, Tensor]:
        """Cross-entropies of the cells that are hit (for each hit) and of the hits' ratios, beyond the first region."""
        about = self.about(scaled, at)[some.shower, some.layer]
        axis, row = at.axis[some.shower, some.layer], at.row[some.shower, some.layer]
        odds = self.odds(about, self.place_layer[some.layer], axis)
        hit = torch.zeros_like(odds).index_put((some.layer_of_hit, some.cell), torch.ones(len(some.cell)).to(odds))
        outside = (self.away(row) > RADII[0]).to(odds)
        places = (nn.functional.binary_cross_entropy_with_logits(odds, hit, reduction="none") * outside).sum()
        one = some.layer_of_hit
        known, layer = about[one], self.share_layer[some.layer[one], 0]
        ratios = self.shares(known, layer, some.cell.to(odds), axis[one])
        beyond = outside[one, some.cell]
        energies = nn.functional.cross_entropy(ratios, some.bin, reduction="none") * beyond
        return places / beyond.sum().clamp(1), energies.sum() / beyond.sum().clamp(1)

    def forward(
        self, values: Tensor, shower: Tensor, scaled: Tensor, at: Context, place: Tensor, energy: Tensor
    ) -> Tensor:
        """Cells in MeV, (n, x, y, layer): of the layers' `values`, as they are and `scaled`, and the whole showers'."""
        about = self.about(scaled, at)
        away = self.away(at.row)
        odds = self.odds(about, self.place_layer, at.axis)
        place = place.clamp(1e-7, 1 - 1e-7)
        score = odds - torch.log(place) + torch.log1p(-place)
        squares = values[..., REGIONS : 2 * REGIONS - 1].clamp(0) ** 2
        squares = squares * (torch.exp(shower[:, 1]) / squares.sum(dim=(1, 2)).clamp(1e-3))[:, None, None]
        cells, valid, hits = [], [], []
        for region, most in enumerate(self.most):
            inner = RADII[region - 1] if region else -1
            outer = RADII[region] if region < len(RADII) else 2 * self.cells
            inside = (away > inner) & (away <= outer)
            wanted = torch.floor(squares[..., region - 1]) if region else (values[..., 0] > 0).to(values)
            wanted = torch.minimum(wanted, inside.to(values).sum(dim=-1)).clamp(max=most)
            cells.append(torch.topk(torch.where(inside, score, torch.full_like(score, -1e9)), most, dim=-1)[1])
            valid.append((torch.arange(most, device=wanted.device) < wanted[..., None]).to(values))
            hits.append(wanted)
        count = torch.stack(hits, dim=-1)
        mev = self.threshold * torch.exp(values[..., :REGIONS].clamp(max=20)) * (count > 0).to(values)
        layer = self.threshold * torch.exp(values[..., -1].clamp(max=20))
        mev = mev * (layer / mev.sum(dim=2).clamp(1e-6))[..., None]
        mev = mev * (at.energy_gev * torch.exp(shower[:, 0]) / mev.sum(dim=(1, 2)).clamp(1e-6))[:, None, None]
        above = (mev - self.threshold * count).clamp(0)
        cell = torch.cat(cells, dim=-1)
        ratios = self.ratios(
            self.shares(about[:, :, None], self.share_layer, cell.to(values), at.axis[..., None]), energy
        )
        mine, start = [], 0
        for region, most in enumerate(self.most):
            weight = ratios[..., start : start + most] * valid[region]
            part = weight / weight.sum(dim=-1, keepdim=True).clamp(1e-9)
            mine.append((self.threshold + above[..., region, None] * part) * valid[region])
            start += most
        images = torch.zeros_like(odds).scatter_add(2, cell, torch.cat(mine, dim=-1))
        return images.reshape(place.shape[0], self.depth, self.cells, self.cells).permute(0, 2, 3, 1)

    def ratios(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """A draw from each histogram, even within a bin."""
        parts = torch.softmax(logits, dim=-1)
        below = torch.cumsum(parts, dim=-1) - parts
        inside = ((uniform[..., None] - below) / parts.clamp(1e-9)).clamp(0, 1)
        return self.edges[0] + 1e-4 + (inside * (self.edges[1:] - self.edges[:-1])).sum(dim=-1)


def most_hits(hits: Floats, cells: int) -> tuple[int, ...]:
    """Places for hits in a layer, by region: a tenth more than the most seen, (n, layers, regions) given."""
    room = [1, *((2 * b + 1) ** 2 - (2 * a + 1) ** 2 for a, b in itertools.pairwise(RADII)), cells**2]
    seen = hits.max(axis=(0, 1)) if len(hits) else np.zeros(REGIONS)
    return tuple(int(min(full, cells**2, math.ceil(1.1 * most) + 2)) for full, most in zip(room, seen, strict=True))
