"""The first stage: conditional flow matching of a shower's quantities (Lipman et al., arXiv:2210.02747).

A network learns the velocity along straight lines from noise to showers; Heun's method integrates it.
"""

import math

import torch
from torch import Tensor, nn

from functions.calorimeter.learners.affine import Affine

FREQUENCIES = 8


class Block(nn.Module):  # type: ignore[misc]
    """Two layers that add to what came in."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.up, self.down = Affine(width, width), Affine(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.dropout(nn.functional.silu(self.up(self.norm(x)))))


class Flow(nn.Module):  # type: ignore[misc]
    """The velocity of nearly normal numbers, shape (n, quantities), at a time between 0 (noise) and 1 (showers)."""

    def __init__(self, quantities: int, conditions: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.values = Affine(quantities, width)
        self.conditions, self.clock = Affine(conditions, width), Affine(2 * FREQUENCIES, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.velocity = Affine(width, quantities)

    def forward(self, x: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        return self._velocity(x, self.conditions(conditions) + self._clock(time))

    def sample(self, noise: Tensor, conditions: Tensor, steps: int) -> Tensor:
        """From standard normal noise to nearly normal numbers, in `steps` steps of Heun's method."""
        x, about = noise, self.conditions(conditions)
        clocks = [self._clock(torch.tensor([[step / steps]]).to(noise)) for step in range(steps + 1)]
        for step in range(steps):
            first = self._velocity(x, about + clocks[step])
            second = self._velocity(x + first / steps, about + clocks[step + 1])
            x = x + (first + second) / (2 * steps)
        return x

    def _velocity(self, x: Tensor, about: Tensor) -> Tensor:
        hidden = self.values(x) + about
        for block in self.blocks:
            hidden = block(hidden)
        return self.velocity(nn.functional.silu(hidden))

    def _clock(self, time: Tensor) -> Tensor:
        waves = [f(k * math.pi * time) for k in range(1, FREQUENCIES + 1) for f in (torch.sin, torch.cos)]
        return self.clock(torch.cat(waves, dim=1))


class FlowLoss(nn.Module):  # type: ignore[misc]
    """The mean squared error of the velocity; a module, so that several ranks can share it."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, showers: Tensor, noise: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        between = (1 - time) * noise + time * showers
        return ((self.flow(between, time, conditions) - (showers - noise)) ** 2).mean()
