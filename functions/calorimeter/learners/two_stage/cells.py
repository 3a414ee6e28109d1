"""The second stage: which cells of a layer are hit, and what each of them sees.

The odds of a cell are a sum of learned maps over its place about the axis, with weights that a network tells for each
layer. The side to which the layer's centre of energy has gone has odds of its own, and few hits are pulled to that
centre. As many cells as the layer has hits are drawn without replacement: those with the largest sums of log-odds and
logistic noise (Pareto sampling: Rosen, J. Statist. Plann. Inference 62 (1997) 159), which keeps the odds. What a cell
sees above the threshold is a mixture of log-normal distributions.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from functions.calorimeter.learners.affine import Affine
from functions.calorimeter.learners.two_stage.mixtures import chosen

CORE_CELLS, REACH_CELLS = 3.0, 60.0
KNOTS = np.unique(
    np.concatenate(
        [
            np.arange(-CORE_CELLS, CORE_CELLS + 0.1, 0.5),
            np.geomspace(CORE_CELLS, REACH_CELLS, 11),
            -np.geomspace(CORE_CELLS, REACH_CELLS, 11),
        ]
    )
)
"""Distances from the axis in its plane, in cells, between which the maps are linear."""
MAPS = 20
SIDES_CELLS = np.array([0.5, 1, 2, 4, 8, 16])
"""Widths at which the curves begin that tell the odds of one side from those of the other."""
SHAPES = 3
PLACE = 11
"""What is told of a cell's place."""
LEAST_MEV = 1e-3
HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Hits(nn.Module):  # type: ignore[misc]
    """Log-odds of cells to be hit; columns stand in the order of `outwards`, from the middle one on."""

    def __init__(self, cells: int, context: int, width: int) -> None:
        super().__init__()
        self.first, self.second, self.last = Affine(context, width), Affine(width, width), Affine(width, MAPS)
        self.aside = Affine(width, len(SIDES_CELLS) + 1)
        self.register_buffer("knots", torch.tensor(KNOTS).float())
        x = np.arange(cells // 2 + 1)[:, None] + (0.5 if cells % 2 == 0 else 0.0)
        radius = np.hypot(x, KNOTS)
        maps = np.random.default_rng(0).normal(0, 0.02, (MAPS, *radius.shape))
        near = np.log(radius + 0.5)
        maps[:4] = -2 * near, np.ones_like(radius), np.exp(-radius / 1.5), near**2 / 4
        self.columns = len(radius)
        self.maps = nn.Parameter(torch.tensor(maps).float().flatten(1))  # flat, so that it keeps its name in ONNX
        self.sides = nn.Parameter(torch.tensor(np.tanh(x.T / SIDES_CELLS[:, None])).float())
        places = np.arange(cells) - (cells - 1) / 2
        outwards = np.argsort(np.abs(places), kind="stable")  # most hits come first: the largest are found sooner
        self.register_buffer("outwards", torch.tensor(outwards, dtype=torch.int64))
        self.register_buffer("rank", torch.tensor(np.argsort(outwards), dtype=torch.int64))
        self.register_buffer("x", torch.tensor(places[outwards]).float())
        self.register_buffer("column", torch.tensor(np.floor(np.abs(places[outwards])), dtype=torch.int64))
        self.register_buffer("y", torch.tensor(places).float())

    def forward(self, context: Tensor, axis: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds (n, layers, columns, rows), and the rows' distances from the axis, (n, layers, rows).

        `centre` is the layer's centre of energy, (n, layers, 2), on the side of positive x.
        """
        hidden = nn.functional.silu(self.second(nn.functional.silu(self.first(context))))
        count, size = self.columns, len(KNOTS)
        weights = self.last(hidden)
        table = (weights @ self.maps).reshape(*weights.shape[:2], count, size)
        off = self.y - axis[:, :, None]
        low = ((off[..., None] >= self.knots).to(off).sum(dim=3) - 1).clamp(0, size - 2).long()
        start, end = self.knots[low], self.knots[low + 1]
        part = ((off - start) / (end - start)).clamp(0, 1)[:, :, None]
        index = low[:, :, None].expand(-1, -1, count, -1)
        below, steps = (
            torch.gather(values, 3, index) for values in (table[..., :-1], table[..., 1:] - table[..., :-1])
        )
        aside = self.aside(hidden)
        pull = nn.functional.softplus(aside[..., -1:])
        across = (aside[..., :-1] @ self.sides)[:, :, self.column] * torch.sign(self.x)
        across = across - pull * _distance(self.x - centre[..., :1])
        along = pull * _distance(off - centre[..., 1:])
        return (below + steps * part - along[:, :, None])[:, :, self.column] + across[..., None], off


class Energies(nn.Module):  # type: ignore[misc]
    """Mixtures of log-normal distributions of what cells see above the threshold, MeV."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.first, self.second = Affine(context, width), Affine(width, width)
        self.place, self.hidden, self.last = Affine(PLACE, width), Affine(width, width), Affine(width, 3 * SHAPES)

    def about(self, context: Tensor) -> Tensor:
        """What a layer says of its cells, (n, layers, width)."""
        return self.second(nn.functional.silu(self.first(context)))

    def forward(self, place: Tensor, about: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-widths of the mixture, each (..., SHAPES)."""
        hidden = torch.relu(self.hidden(torch.relu(self.place(place) + about)))
        weights, means, widths = self.last(hidden).split(SHAPES, dim=-1)
        return torch.log_softmax(weights, dim=-1), means, widths.clamp(-4, 3)


def _distance(cells: Tensor) -> Tensor:
    """As it is where it is large, else half its square."""
    return torch.sqrt(1 + cells**2) - 1


def place(x: Tensor, y: Tensor, odds: Tensor, slope: Tensor) -> Tensor:
    """What the energies' network is told of cells at `x`, `y` from the axis; (..., PLACE)."""
    squares = x**2 + y**2
    return torch.stack(
        [
            torch.abs(x).clamp(max=3) / 2,
            x.clamp(-3, 3) / 2,
            torch.tanh(x / 8),
            torch.tanh(y / 8),
            y.clamp(-3, 3) / 2,
            torch.log(squares + 0.1),
            torch.log(x**2 + 0.3),
            torch.log(y**2 + 0.3),
            2 * torch.tanh(y) * slope,
            odds.clamp(-8, 8) / 4,
            torch.exp(-squares),
        ],
        dim=-1,
    )


def log_likelihood(shape: tuple[Tensor, Tensor, Tensor], log_energy: Tensor) -> Tensor:
    """Of the logarithms of energies above the threshold."""
    weights, means, widths = shape
    away = (log_energy[..., None] - means) / torch.exp(widths)
    return torch.logsumexp(weights - 0.5 * away**2 - widths - HALF_LOG_2_PI, dim=-1)


def drawn(shape: tuple[Tensor, Tensor, Tensor], uniform: Tensor, normal: Tensor) -> Tensor:
    """Energies above the threshold, MeV, of one uniform and one normal number each."""
    weights, means, widths = shape
    which = chosen(weights, uniform)
    log = (means * which).sum(dim=-1) + torch.exp((widths * which).sum(dim=-1)) * normal
    return (torch.exp(log.clamp(max=9)) - LEAST_MEV).clamp(1e-6)
