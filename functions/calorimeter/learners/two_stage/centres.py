"""Where the energy of each layer has its centre: drawn before the layer's cells, which then lie and weigh accordingly.

A few secondaries take a layer's centre of energy away from the axis. Cells that are drawn one by one about the axis
let it stray too little; so a mixture of normal distributions in the plane of the layer tells it first, and the cells'
networks hear of it. They hear of it with noise: cells scatter by themselves, and given the centre as it is, it would
stray too far. A shower and its mirror image across the plane of the axis are equally likely: networks see
showers, and layers, from the side to which they have gone.
"""

import math

import torch
from torch import Tensor, nn

from functions.calorimeter.learners.affine import Affine
from functions.calorimeter.learners.two_stage.mixtures import chosen
from functions.calorimeter.learners.two_stage.quantities import ACROSS

SHAPES = 4
PHASES = 3
"""What is told of where the axis crosses a layer's cells."""
TOLD = 4
"""What the cells' networks are told of a layer's centre."""
NEAR_CELLS, FAR_CELLS, MOST_CELLS = 0.05, 3.0, 25.0
BLUR = 1.5
"""Noise on the centres that cells hear of, in widths of what they are drawn from: with it, centres stray as far as
Geant4's, for few hits and for many (found by trying, on showers of 10 to 100 GeV)."""

Mixture = tuple[Tensor, Tensor, Tensor]


class Centres(nn.Module):  # type: ignore[misc]
    """The centre of energy of each layer, in cells from the axis: across the plane of the axis (x), and in it (y)."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.first, self.second = Affine(context + PHASES, width), Affine(width, width)
        self.last = Affine(width, 5 * SHAPES)

    def forward(self, context: Tensor, axis: Tensor) -> Mixture:
        """Log-weights (n, layers, SHAPES), means and log-widths (n, layers, 2, SHAPES) of the mixture."""
        phase = 2 * math.pi * axis
        phases = torch.stack([axis - torch.floor(axis + 0.5), torch.sin(phase), torch.cos(phase)], dim=2)
        hidden = nn.functional.silu(self.first(torch.cat([phases, context], dim=2)))
        found = self.last(nn.functional.silu(self.second(hidden)))
        weights, means, widths = found.split([SHAPES, 2 * SHAPES, 2 * SHAPES], dim=2)
        shape = (*found.shape[:2], 2, SHAPES)
        return torch.log_softmax(weights, dim=2), means.reshape(shape), (widths - 1).clamp(-4.5, 2.5).reshape(shape)


def log_likelihood(mixture: Mixture, centre: Tensor) -> Tensor:
    """Of each layer's centre, (n, layers), of `centre`, (n, layers, 2)."""
    return torch.logsumexp(mixture[0] + _log_parts(mixture, centre), dim=2)


def blurred(mixture: Mixture, centre: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """`centre`, (n, layers, 2), with noise: `BLUR` times the width of the part of the mixture that it may be of."""
    likely = torch.log_softmax(mixture[0] + _log_parts(mixture, centre), dim=2)
    which = chosen(likely, uniform)[:, :, None]
    return centre + BLUR * torch.exp((mixture[2] * which).sum(dim=3)) * normal


def drawn(mixture: Mixture, blur: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Centres, (n, layers, 2), blurred by `BLUR` where `blur`, (n, layers), is 1, and not where it is 0.

    `uniform`, (n, layers), says which part of the mixture, and `normal`, (n, layers, 2), where in it.
    """
    weights, means, widths = mixture
    which = chosen(weights, uniform)[:, :, None]
    width = torch.exp((widths * which).sum(dim=3)) * torch.sqrt(1 + blur * BLUR**2)[..., None]
    return ((means * which).sum(dim=3) + width * normal).clamp(-MOST_CELLS, MOST_CELLS)


def side_of(x: Tensor) -> Tensor:
    """-1 for what is negative, else 1."""
    return 1 - 2 * (x < 0).to(x)


def shower_side(context: Tensor) -> Tensor:
    """The side to which showers have gone as a whole, (n, layers)."""
    return side_of(context[..., ACROSS[0]])


def seen_from(context: Tensor, side: Tensor) -> Tensor:
    """What is known of layers, (n, layers, size), as it is told of their mirror image where `side` is -1."""
    across = torch.zeros(context.shape[2], device=context.device)
    across[list(ACROSS)] = 1
    return context * (1 + (side - 1)[..., None] * across)


def turned(centre: Tensor, side: Tensor) -> Tensor:
    """Centres, (n, layers, 2), mirrored where `side` is -1."""
    return torch.stack([centre[..., 0] * side, centre[..., 1]], dim=2)


def with_centre(context: Tensor, centre: Tensor) -> Tensor:
    """What the cells' networks hear: the centre, (n, layers, 2), and `context`."""
    near = torch.sign(centre) * torch.log1p(torch.abs(centre) / NEAR_CELLS) / 3
    return torch.cat([near, centre.clamp(-FAR_CELLS, FAR_CELLS), context], dim=2)


def _log_parts(mixture: Mixture, centre: Tensor) -> Tensor:
    """Logarithm of the density of each part of the mixture, (n, layers, SHAPES)."""
    _, means, widths = mixture
    away = (centre[..., None] - means) / torch.exp(widths)
    return -(0.5 * away**2 + widths).sum(dim=2) - math.log(2 * math.pi)
