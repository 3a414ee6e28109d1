"""The networks of the 3DGAN (Khattak et al., Eur. Phys. J. C 82 (2022) 386), for images of 51 x 51 x 25 cells.

An image is the cells' energy in units of `UNIT_MEV` to the power `POWER`, shape (n, x, y, layer). Where the public
ports differ from the original in Keras, the original counts: nearest neighbours in upsampling, a slope of 0.3, a
momentum of 0.99 (0.01 in torch's convention).
"""

import math

import torch
from torch import Tensor, nn

SHAPE = (51, 51, 25)
LATENT = 254
"""Normal random numbers of a shower, after its energy and its angle."""
POWER = 0.85
UNIT_MEV = 20.0
"""The images' unit: 1 GeV in 50, what is seen of it with a sampling fraction of 2 %."""
ENERGY_GEV = 100.0
"""The unit of primary energies."""
MOMENTUM = 0.01
"""Of the running statistics: the part of the new batch. Keras calls its complement, 0.99, the momentum."""
GENERATOR_EPSILON = 1e-6
DISCRIMINATOR_EPSILON = 1e-3
SLOPE = 0.3
DROPOUT = 0.2


class Generator(nn.Module):  # type: ignore[misc]
    """Conditions and noise, shape (n, 256), to images; energy in units of 100 GeV first, then the angle in rad."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(2 + LATENT, 8 * 9 * 9 * 8)
        self.grow = nn.Upsample(scale_factor=6, mode="nearest")
        layers = [
            (8, 8, (6, 6, 8), (0, 0, 0)),
            (8, 6, (4, 4, 6), (2, 2, 1)),
            (6, 6, (4, 4, 6), (2, 2, 1)),
            (6, 6, (4, 4, 6), (2, 2, 1)),
            (6, 6, (3, 3, 5), (1, 1, 0)),
            (6, 6, (3, 3, 3), (1, 1, 0)),
            (6, 1, (2, 2, 2), (0, 0, 0)),
        ]
        self.convolutions = nn.ModuleList(
            nn.Conv3d(inputs, outputs, kernel, padding=padding) for inputs, outputs, kernel, padding in layers
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm3d(outputs, GENERATOR_EPSILON, MOMENTUM) for _, outputs, _, _ in layers[:-2]
        )
        for convolution in self.convolutions[:-1]:
            nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
        nn.init.xavier_normal_(self.convolutions[-1].weight)
        nn.init.xavier_uniform_(self.dense.weight)
        for layer in (self.dense, *self.convolutions):
            nn.init.zeros_(layer.bias)

    def forward(self, conditions: Tensor) -> Tensor:
        x = self.grow(self.dense(conditions).reshape(conditions.shape[0], 8, 9, 9, 8))
        for number, convolution in enumerate(self.convolutions):
            x = torch.relu(convolution(x))
            if number < len(self.norms):
                x = self.norms[number](x)
        return x.squeeze(1)


class Discriminator(nn.Module):  # type: ignore[misc]
    """Images to four numbers each: logit of being real, primary energy, measured angle, and sum of the cells.

    The last two are no outputs of a network but computed from the cells, so that only the generator learns from them.
    """

    def __init__(self) -> None:
        super().__init__()
        kernel = (5, 6, 6)
        self.same = nn.ConstantPad3d((2, 3, 2, 3, 2, 2), 0.0)
        self.convolutions = nn.ModuleList(
            [
                nn.Conv3d(1, 16, kernel),
                nn.Conv3d(16, 8, kernel, padding=(0, 0, 1)),
                nn.Conv3d(8, 8, kernel, padding=(0, 0, 1)),
                nn.Conv3d(8, 8, kernel),
            ]
        )
        self.norms = nn.ModuleList(nn.BatchNorm3d(8, DISCRIMINATOR_EPSILON, MOMENTUM) for _ in range(3))
        self.slope = nn.LeakyReLU(SLOPE)
        self.dropout = nn.Dropout(DROPOUT)
        self.pool = nn.AvgPool3d(2)
        self.real = nn.Linear(19_152, 1)
        self.energy = nn.Linear(19_152, 1)
        for layer in (*self.convolutions, self.real, self.energy):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.same(images.unsqueeze(1))
        for number, convolution in enumerate(self.convolutions):
            x = self.slope(convolution(x))
            if number:
                x = self.norms[number - 1](x)
            x = self.dropout(x)
        x = self.pool(x).flatten(1)
        cells = to_cells(images)
        return self.real(x).squeeze(1), self.energy(x).squeeze(1), measured_angle(cells), visible(cells)


def to_images(cells_mev: Tensor) -> Tensor:
    """Energies of cells in MeV as images."""
    return (cells_mev / UNIT_MEV) ** POWER


def to_cells(images: Tensor) -> Tensor:
    """Images as energies of cells, in units of `UNIT_MEV`; what is below zero, of which there is no power, is zero."""
    return images.clamp(min=0) ** (1 / POWER)


def visible(cells: Tensor) -> Tensor:
    """The sum of all cells, shape (n,)."""
    return cells.sum(dim=(1, 2, 3))


def measured_angle(cells: Tensor) -> Tensor:
    """The polar angle, rad, from the layers' centres of energy, in units of cells whatever their size; shape (n,).

    The slope of each layer's centre from that of the whole shower, m = (y_l - y) / sqrt((x_l - x)^2 + (z_l - z)^2),
    turned round in front of it; the mean of pi/2 - atan m over the layers that were hit, weighted with z.
    Differentiable; pi/2 for an empty image. The original counts a layer's centre from the edges of cells and the
    shower's from their middles, half a cell apart; here both are from the middles.
    """
    per_layer = cells.sum(dim=(1, 2))
    hit = (per_layer > 0).to(cells.dtype)
    filled = per_layer + (1 - hit)
    places = [torch.arange(size, dtype=cells.dtype, device=cells.device) + 0.5 for size in cells.shape[1:]]
    x = torch.einsum("nxyl,x->nl", cells, places[0]) / filled
    y = torch.einsum("nxyl,y->nl", cells, places[1]) / filled
    z = places[2].expand_as(x)
    total = per_layer.sum(dim=1, keepdim=True)
    part = per_layer / (total + (total <= 0).to(cells.dtype))
    middle_x, middle_y, middle_z = ((part * place).sum(dim=1, keepdim=True) for place in (x, y, z))
    along = torch.sqrt(((x - middle_x) ** 2 + (z - middle_z) ** 2).clamp(min=1e-7))
    slope = (y - middle_y) / along * torch.where(z < middle_z, -1.0, 1.0)
    weight = z * hit
    angles = (math.pi / 2 - torch.atan(slope)) * weight
    sums = weight.sum(dim=1)
    empty = (sums <= 0).to(cells.dtype)
    return angles.sum(dim=1) / (sums + empty) + empty * math.pi / 2
