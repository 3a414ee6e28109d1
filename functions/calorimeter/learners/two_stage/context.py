"""What is known of a layer before its cells are drawn: what the networks of the second stage are told.

All is mirrored to the side on which the axis climbs with depth (theta < 90 degrees).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry
from functions.calorimeter.learners.two_stage.quantities import EMPTY_MEV, HITS_SHIFT, SLOPE_MM, WHOLE, layer_depths
from functions.calorimeter.learners.two_stage.scaling import REFERENCE_GEV

DEPTH_X0 = 20.0
WIDTH_X0 = 0.7
VISIBLE_MEV_PER_GEV = 20.0
TYPICAL_LOG_HITS = 6.0
PER_LAYER, PER_SHOWER = 9, 4
"""Numbers of a layer, and of its shower beside particles and `WHOLE`."""


@dataclass(frozen=True)
class Shower:
    """What `n` showers are to be: conditions, and the quantities of the first stage with their units."""

    energy_gev: Tensor
    slope: Tensor
    """Of the axis in the plane of y and depth, not negative, (n,)."""
    kinds: Tensor
    """Particles as one-hot, (n, particles)."""
    layers: Tensor
    """MeV, (n, layers); 0 or at least the threshold."""
    hits: Tensor
    """Whole numbers, (n, layers)."""
    whole: Tensor
    """`quantities.WHOLE`, (n, 10)."""


class Context(nn.Module):  # type: ignore[misc]
    """Geometry and scales; `forward` gives what is known of each layer."""

    def __init__(self, geometry: Geometry, particles: int, threshold_mev: float) -> None:
        super().__init__()
        self.threshold = threshold_mev
        depth, width = layer_depths(geometry)
        per_slope = [(middle - AXIS_DEPTH_MM) / geometry.cell_mm for middle in geometry.middles_mm]
        self.register_buffer("depth", torch.tensor(depth / DEPTH_X0 - 0.5).float())
        self.register_buffer("width", torch.log(torch.tensor(width / WIDTH_X0)).float())
        self.register_buffer("per_slope", torch.tensor(per_slope).float())
        self.register_buffer("middles", torch.tensor(geometry.middles_mm).float())
        self.register_buffer("centre", torch.zeros(len(WHOLE)))
        self.register_buffer("spread", torch.ones(len(WHOLE)))
        self.size = PER_LAYER + PER_SHOWER + particles + len(WHOLE)

    def axis(self, slope: Tensor) -> Tensor:
        """Where the axis crosses each layer, in cells from the middle of the window, (n, layers)."""
        return slope[:, None] * self.per_slope

    def moments(self, layers: Tensor) -> Tensor:
        """What a layer's centre counts in the centre and in the slope of the shower, (n, layers, 2)."""
        parts = layers / layers.sum(dim=1, keepdim=True).clamp(EMPTY_MEV)
        off = self.middles - (parts * self.middles).sum(dim=1, keepdim=True)
        spread = (parts * off**2).sum(dim=1, keepdim=True).clamp(1e-6) / SLOPE_MM
        return torch.stack([parts, parts * off / spread], dim=2)

    def decode(self, energy_gev: Tensor, slope: Tensor, kinds: Tensor, quantities: Tensor, most: int) -> Shower:
        """Energies and hits that can be, of the first stage's quantities.

        The layers' energies are scaled to the visible energy: the errors of 25 layers would add up in their sum.
        """
        count = self.depth.shape[0]
        layers = torch.exp(quantities[:, :count].clamp(-20, 8)) * energy_gev[:, None]
        visible = torch.exp(quantities[:, -1].clamp(-8, 8)) * energy_gev
        sums = (layers * (layers >= self.threshold).to(layers)).sum(dim=1).clamp(EMPTY_MEV)
        layers = layers * ((visible - EMPTY_MEV) / sums).clamp(0.5, 2)[:, None]
        seen = (layers >= self.threshold).to(layers)
        hits = torch.floor(torch.exp(quantities[:, count : 2 * count].clamp(-5, 12)) - HITS_SHIFT)
        room = torch.floor(layers / (1.02 * self.threshold)).clamp(1, most)
        hits = torch.minimum(hits.clamp(1), room) * seen
        return Shower(energy_gev, slope, kinds, layers * seen, hits, quantities[:, 2 * count :])

    def forward(self, shower: Shower) -> Tensor:
        """(n, layers, size)."""
        layers, hits = shower.layers, shower.hits
        n, count = layers.shape
        visible = layers.sum(dim=1, keepdim=True).clamp(self.threshold)
        some = layers + self.threshold
        before = torch.cat([some[:, :1], some[:, :-1]], dim=1)
        after = torch.cat([some[:, 1:], some[:, -1:]], dim=1)
        centre = (layers * self.depth).sum(dim=1, keepdim=True) / visible
        of_layer = [
            torch.log(hits + 1),
            torch.log((layers / hits.clamp(1)).clamp(self.threshold)),
            (hits > 0).to(layers),
            self.depth.expand(n, count),
            self.width.expand(n, count),
            2 * (self.depth - centre),
            (2 * (self.depth - centre)) ** 2,
            torch.log(before / some).clamp(-3, 3),
            torch.log(after / some).clamp(-3, 3),
        ]
        energy = shower.energy_gev[:, None]
        of_shower = [
            torch.log(energy / REFERENCE_GEV),
            2 * shower.slope[:, None],
            5 * torch.log(visible / energy / VISIBLE_MEV_PER_GEV),
            torch.log(hits.sum(dim=1, keepdim=True) + 1) - TYPICAL_LOG_HITS,
            shower.kinds,
            (shower.whole - self.centre) / self.spread,
        ]
        same = torch.cat(of_shower, dim=1)[:, None]
        return torch.cat([torch.stack(of_layer, dim=2), same.expand(n, count, same.shape[2])], dim=2)
