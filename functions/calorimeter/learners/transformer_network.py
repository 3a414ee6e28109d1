"""The networks of the transformer: the velocity of a flow on tokens, and how it is integrated where it serves."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.learners.affine import Affine
from functions.calorimeter.learners.transformer_cells import Cells, Context, Examples
from functions.calorimeter.learners.transformer_tokens import VALUES


class Block(nn.Module):  # type: ignore[misc]
    """Attention over the tokens, then a layer for each; both add to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Affine(width, 3 * width), Affine(width, width)
        self.up, self.down = Affine(width, 2 * width), Affine(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        each = self.width // self.heads
        query, key, value = (
            part.unflatten(2, (self.heads, each)).transpose(1, 2)
            for part in self.qkv(self.first(x)).split(self.width, dim=2)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(each), dim=-1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(x.shape[0], x.shape[1], self.width))
        return x + self.down(nn.functional.silu(self.up(self.second(x))))


class Field(nn.Module):  # type: ignore[misc]
    """The velocity of the tokens at a time between 0 (noise) and 1 (showers)."""

    def __init__(self, conditions: int, depth: int, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.place = nn.Parameter(0.1 * torch.randn(depth + 1, width))
        self.condition, self.more = Affine(conditions + 5, width), Affine(width, width)
        self.layer_in, self.shower_in = Affine(VALUES + 1, width), Affine(2, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.last = nn.LayerNorm(width)
        self.layer_out, self.shower_out = Affine(width, VALUES), Affine(width, 2)

    def forward(self, time: Tensor, layers: Tensor, shower: Tensor, at: Context) -> tuple[Tensor, Tensor]:
        clock = torch.cat([time, *(f(k * math.pi * time) for f in (torch.sin, torch.cos) for k in (1, 2))], dim=1)
        condition = self.more(nn.functional.silu(self.condition(torch.cat([at.conditions, clock], dim=1))))
        tokens = torch.cat([layers, at.fraction[:, :, None]], dim=2)
        x = torch.cat([self.shower_in(shower)[:, None], self.layer_in(tokens)], dim=1) + self.place
        x = x + condition[:, None]
        for block in self.blocks:
            x = block(x)
        x = self.last(x)
        return self.layer_out(x[:, 1:]), self.shower_out(x[:, 0])


class Network(nn.Module):  # type: ignore[misc]
    """All that is learned, and how values are scaled: by their mean at an energy and an angle, and their spread."""

    def __init__(
        self, geometry: Geometry, particles: int, threshold_mev: float, most: tuple[int, ...], parameters: Any
    ) -> None:
        super().__init__()
        self.steps_of_flow, self.particles, depth = parameters.steps_of_flow, particles, geometry.shape[2]
        self.field = Field(particles + 2, depth, parameters.width, parameters.blocks, parameters.heads)
        self.cells = Cells(geometry, particles + 2, threshold_mev, most)
        values = depth * VALUES + 2
        self.register_buffer("means", torch.zeros(3 * particles + 1, values))
        self.register_buffer("spreads", torch.ones(values))
        self.register_buffer("energies", torch.tensor([0.0, 1.0]))

    def context(self, energy_gev: Tensor, theta: Tensor, particle: Tensor) -> Context:
        """What showers are asked for, scaled."""
        log = (torch.log(energy_gev) - self.energies[0]) / self.energies[1]
        slope = torch.tan(math.pi / 2 - theta)
        kinds = torch.arange(self.particles, dtype=torch.float32, device=theta.device)
        one_hot = (1 - torch.abs(particle[:, None] - kinds)).clamp(0, 1)
        return self.cells.context(energy_gev, slope, torch.cat([log[:, None], slope[:, None], one_hot], dim=1))

    def basis(self, at: Context) -> Tensor:
        """What the means are linear in, (n, 3 particles + 1)."""
        log, slope, kinds = at.conditions[:, :1], at.conditions[:, 1:2], at.conditions[:, 2:]
        return torch.cat([kinds, kinds * log, kinds * log**2, slope**2], dim=1)

    def forward(self, batch: tuple[Tensor, ...], some: Examples) -> dict[str, Tensor]:
        """Losses: of the flow (squared error of the velocity), of the hits and of their energies (cross-entropies)."""
        energy_gev, theta, particle, values, noise, time = batch
        at = self.context(energy_gev, theta, particle)
        layers, shower = split((1 - time) * noise + time * values)
        velocity = torch.cat([part.flatten(1) for part in self.field(time, layers, shower, at)], dim=1)
        hits, energies = self.cells.losses(split(values)[0], at, some)
        return {"flow": ((velocity - (values - noise)) ** 2).mean(), "hits": hits, "energies": energies}


class Exported(nn.Module):  # type: ignore[misc]
    """What serves: noise in, cells out."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, energy_gev: Tensor, theta: Tensor, particle: Tensor, shower: Tensor, layers: Tensor, place: Tensor,
        energy: Tensor,
    ) -> Tensor:  # fmt: skip
        """Showers, MeV, shape (n, x, y, layer)."""
        net, steps = self.network, self.network.steps_of_flow
        at = net.context(energy_gev, theta, particle)
        for step in range(steps):
            first = net.field(torch.full_like(theta, step / steps)[:, None], layers, shower, at)
            ahead = layers + first[0] / steps, shower + first[1] / steps
            second = net.field(torch.full_like(theta, (step + 1) / steps)[:, None], *ahead, at)
            layers = layers + (first[0] + second[0]) / (2 * steps)
            shower = shower + (first[1] + second[1]) / (2 * steps)
        values = torch.cat([layers.flatten(1), shower], dim=1) * net.spreads + net.basis(at) @ net.means
        return net.cells(*split(values), layers, at, place, energy)


def split(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the layers, (n, layers, `VALUES`), and of the whole shower, (n, 2)."""
    return values[:, :-2].reshape(values.shape[0], -1, VALUES), values[:, -2:]
