"""Networks whose channels are the calorimeter's layers: two-dimensional convolutions, which a CPU can train.

They see a shower in a window that follows its axis: each layer is shifted by the whole cells that the primary's line
lies off the middle there, and what is left, a fraction of a cell, is a condition. So a slanted shower looks like a
perpendicular one, and a quarter of the cells holds 99 % of the energy. Layers as channels: Rehm et al.,
arXiv:2103.10142.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry
from functions.calorimeter.showers import Energies, Showers

CELLS_MEV = 0.2
"""Cells are seen as log(1 + e / 0.2 MeV): linear in the noise of hits, logarithmic in a shower's core."""
HIT_MEV = 0.3
"""A cell counts as e / (e + 0.3 MeV) of a hit, of which there is a gradient."""
SAMPLING_FRACTION = 0.02
"""Of the energy in silicon that a network begins with."""
SLOPE = 0.2
SPECTRUM_MEV = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Energies above which cells are counted."""
LEAST_SPREAD = 1e-3
"""Of a feature, which is divided by it."""
CLOSED = 15.0
"""By how much the logarithm of a cell's energy falls where its noise is a unit below the gate."""
LEAST, FARTHEST = 0.01, 4.0
"""Of a layer's energy over the mean one, what is added to it; and its logarithm at most."""


@dataclass(frozen=True)
class Form:
    """What networks are made of; as JSON the architecture."""

    cells: int
    """A side of the read-out window."""
    window: int
    """A side of the networks'; both are even or both odd."""
    middles_mm: tuple[float, ...]
    """Depth of each layer's sensor."""
    cell_mm: float
    particles: int
    channels: int
    latent: int
    threshold_mev: float

    @classmethod
    def of(cls, geometry: Geometry, window: int, **more: Any) -> "Form":
        """For a geometry, which may have fewer cells than the window."""
        size = min(window, geometry.cells)
        return cls(
            geometry.cells, size - (geometry.cells - size) % 2, geometry.middles_mm, cell_mm=geometry.cell_mm, **more
        )

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Form":
        """What `vars` told."""
        return cls(**{**told, "middles_mm": tuple(told["middles_mm"])})

    @property
    def layers(self) -> int:
        """Of the calorimeter."""
        return len(self.middles_mm)

    @property
    def conditions(self) -> int:
        """Numbers that a shower is asked for by."""
        return 3 + self.particles + self.layers

    @property
    def features(self) -> int:
        """Numbers that a discriminator is told of a shower beside its image."""
        return 5 * self.layers + 2 * self.window + len(SPECTRUM_MEV)

    @property
    def margin(self) -> int:
        """Cells of the read-out beside the window, on each side."""
        return (self.cells - self.window) // 2


class Axis(nn.Module):  # type: ignore[misc]
    """Where the primary's line crosses each layer, and what networks are conditioned on."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        arms = (np.array(form.middles_mm) - AXIS_DEPTH_MM) / form.cell_mm
        self.register_buffer("arms", torch.tensor(arms, dtype=torch.float32), persistent=False)

    def shifts(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Whole cells off the middle in each layer, and the rest; shape (n, layers)."""
        off = torch.tan(math.pi / 2 - theta)[:, None] * self.arms
        whole = torch.floor(off + 0.5)
        return whole, off - whole

    def conditions(self, energy_gev: Tensor, theta: Tensor, particle: Tensor) -> Tensor:
        """Shape (n, `form.conditions`)."""
        scaled = torch.stack([torch.log(energy_gev / 30), energy_gev / 100, theta - math.pi / 2], dim=1)
        kinds = torch.arange(self.form.particles, dtype=torch.float32, device=theta.device)
        one_hot = (1 - torch.abs(particle[:, None] - kinds)).clamp(0, 1)
        return torch.cat([scaled, one_hot, 2 * self.shifts(theta)[1]], dim=1)

    def place(self, windows: Tensor, theta: Tensor) -> Tensor:
        """Windows, shape (n, layer, x, y), as cells, shape (n, x, y, layer); what is beyond the read-out is lost."""
        form = self.form
        rows = torch.arange(form.cells, device=theta.device) - form.margin
        wanted = rows[None, None] - self.shifts(theta)[0].long()[:, :, None]
        inside = (wanted >= 0) & (wanted < form.window)
        wanted = torch.where(inside, wanted, torch.full_like(wanted, form.window))
        padded = functional.pad(windows, (0, 1, form.margin, form.cells - form.window - form.margin))
        cells = torch.gather(padded, 3, wanted[:, :, None].expand(-1, -1, form.cells, -1))
        return cells.permute(0, 2, 3, 1)


def windows_of(showers: Showers, form: Form) -> Energies:
    """Showers in windows, shape (n, layer, x, y), MeV.

    What is beside the window is added to what is in it, by a factor for each shower, so that sums are true; cells of
    less than the threshold are left out.
    """
    depth = form.layers
    hits = showers.above(form.threshold_mev, (form.cells, form.cells, depth))
    shower, layer, edep = hits.shower, hits.layer, hits.edep_mev
    off = np.tan(np.pi / 2 - showers.theta)[:, None] * (np.array(form.middles_mm) - AXIS_DEPTH_MM) / form.cell_mm
    x = hits.column - form.margin
    y = hits.row - form.margin - np.floor(off + 0.5).astype(np.int64)[shower, layer]
    inside = (x >= 0) & (x < form.window) & (y >= 0) & (y < form.window)
    total = np.bincount(shower, edep, len(showers))
    seen = np.bincount(shower[inside], edep[inside], len(showers))
    factor = total / np.where(seen > 0, seen, 1)
    windows = np.zeros((len(showers), depth, form.window, form.window), np.float32)
    windows[shower[inside], layer[inside], x[inside], y[inside]] = edep[inside] * factor[shower[inside]]
    return windows


class Generator(nn.Module):  # type: ignore[misc]
    """Conditions and noise to windows: the energy of each layer, and how it is shared among its cells.

    Sums over layers and cells are those of a small network of their own, so the image decides on shapes alone. A cell
    is hit where its noise is above `gate`; the shares of a layer are a softmax of `middle`, and of the cell's other
    noise times `spread`. Both depend on the layer's energy, and the image is added to both. Cells below the threshold
    are empty, and the way back passes through that as though they were not.
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form, width = form, form.channels
        self.sizes = [-(-form.window // 4), -(-form.window // 2), form.window]
        self.first = nn.Linear(form.conditions + form.latent, width * self.sizes[0] ** 2)
        outputs = [width, width, width, 2 * form.layers]
        self.convolutions = nn.ModuleList(nn.Conv2d(width, count, 3, padding=1) for count in outputs)
        self.energies = nn.Sequential(
            nn.Linear(form.conditions + form.latent, 96),
            nn.LeakyReLU(SLOPE),
            nn.Linear(96, 96),
            nn.LeakyReLU(SLOPE),
            nn.Linear(96, form.layers + 1),
        )
        self.direct = nn.Linear(form.conditions + form.latent, form.layers + 1)
        for name in ("gate", "gate_slope", "middle", "middle_slope", "spread"):
            setattr(self, name, nn.Parameter(torch.zeros(form.layers, form.window, form.window)))
        self.register_buffer("reference", torch.ones(form.layers))
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, SLOPE)
            nn.init.zeros_(convolution.bias)
        with torch.no_grad():
            self.convolutions[-1].weight.mul_(0.1)
            self.energies[-1].weight.mul_(0.1)
            self.energies[-1].bias.zero_()
            self.direct.weight.zero_()
            self.direct.bias.zero_()

    def forward(self, conditions: Tensor, energy_gev: Tensor, latent: Tensor, maps: Tensor) -> Tensor:
        given = torch.cat([conditions, latent], dim=1)
        x = self.first(given).reshape(given.shape[0], self.form.channels, self.sizes[0], self.sizes[0])
        for number, convolution in enumerate(self.convolutions):
            x = functional.leaky_relu(x, SLOPE)
            if number in (1, 2):
                x = functional.interpolate(x, size=(self.sizes[number], self.sizes[number]), mode="nearest")
            x = convolution(x)
        found = self.direct(given) + self.energies(given)
        total = 1e3 * SAMPLING_FRACTION * energy_gev * torch.exp(found[:, -1])
        layers = total[:, None] * torch.softmax(found[:, :-1], dim=1)
        depth = self.form.layers
        u = torch.log(layers / self.reference + LEAST).clamp(-FARTHEST, FARTHEST)[:, :, None, None]
        closed = self.gate + self.gate_slope * u + x[:, :depth] - maps[:, :depth]
        shares = self.middle + self.middle_slope * u + self.spread * maps[:, depth:] + x[:, depth:]
        shares = shares - CLOSED * torch.relu(closed)
        parts = torch.softmax(shares.flatten(2), dim=2).reshape(shares.shape)
        return Cut.apply(layers[:, :, None, None] * parts, self.form.threshold_mev)


class Cut(torch.autograd.Function):  # type: ignore[misc]
    """Nothing below the threshold; the gradient is passed on everywhere, so that an empty cell can be filled again."""

    @staticmethod
    def forward(context: Any, cells: Tensor, threshold_mev: float) -> Tensor:
        return torch.where(cells < threshold_mev, torch.zeros_like(cells), cells)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Discriminator(nn.Module):  # type: ignore[misc]
    """Windows and their conditions to a logit of being real and the primary energy in units of 100 GeV.

    Beside the image it is told what physicists look at, scaled by the training showers (`features`).
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.convolutions = nn.ModuleList(
            nn.Conv2d(one, two, 3, stride=2, padding=1) for one, two in ((form.layers, 48), (48, 64), (64, 64))
        )
        side = form.window
        for _ in self.convolutions:
            side = -(-side // 2)
        self.image = nn.Linear(64 * side**2, 96)
        self.register_buffer("mean", torch.zeros(form.features))
        self.register_buffer("spread", torch.ones(form.features))
        self.told = nn.Linear(form.features + form.conditions, 128)
        self.joined = nn.Linear(96 + 128, 128)
        self.outputs = nn.Linear(128, 2)

    def scale_by(self, windows: Tensor, energy_gev: Tensor) -> None:
        """Scale the features by those of these showers."""
        self.mean.zero_()
        self.spread.fill_(1)
        found = self.features(windows, energy_gev)
        self.mean.copy_(found.mean(dim=0))
        self.spread.copy_(found.std(dim=0).clamp(min=LEAST_SPREAD))

    def features(self, windows: Tensor, energy_gev: Tensor) -> Tensor:
        """Of each layer the energy, its logarithm, the hits, and the centre in x and in y; strips; cells by energy.

        Energies are parts of the primary's, numbers of cells logarithms.
        """
        per_row, per_column = windows.sum(dim=2), windows.sum(dim=3)
        sums = per_row.sum(dim=2)
        hits = (windows / (windows + HIT_MEV)).sum(dim=(2, 3))
        places = torch.arange(self.form.window, dtype=windows.dtype, device=windows.device) - (self.form.window - 1) / 2
        filled = sums + 0.5
        x, y = ((side * places).sum(dim=2) / filled for side in (per_column, per_row))
        strips = torch.cat([per_column.sum(dim=1), per_row.sum(dim=1)], dim=1)
        squares = windows**2
        cells = torch.stack([(squares / (squares + edge**2)).sum(dim=(1, 2, 3)) for edge in SPECTRUM_MEV], dim=1)
        energy = energy_gev[:, None]
        parts = sums / energy
        found = [parts, torch.log(parts + 0.01), torch.log1p(hits), x, y, strips / energy, torch.log1p(cells)]
        return (torch.cat(found, dim=1) - self.mean) / self.spread

    def forward(self, windows: Tensor, conditions: Tensor, energy_gev: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(windows, energy_gev)
        x = torch.log1p(windows / CELLS_MEV)
        for convolution in self.convolutions:
            x = functional.leaky_relu(convolution(x), SLOPE)
        image = functional.leaky_relu(self.image(x.flatten(1)), SLOPE)
        told = functional.leaky_relu(self.told(torch.cat([features, conditions], dim=1)), SLOPE)
        found = self.outputs(functional.leaky_relu(self.joined(torch.cat([image, told], dim=1)), SLOPE))
        return found[:, 0], found[:, 1]
