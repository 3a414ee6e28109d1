"""What a generator of two-dimensional convolutions begins with: a model of its showers that needs no training.

The energies of layers are log-normal, with their covariance, about a mean that is linear in the conditions. A cell is
hit with a probability, and then has a log-normal energy, both of which depend on the energy of its layer alone. A few
thousand steps on a CPU are too few to find that; what the training adds is how cells and layers depend on each other.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from functions.calorimeter.learners.conv2d_networks import FARTHEST, LEAST, SAMPLING_FRACTION, Generator
from functions.calorimeter.showers import Energies, Floats

LEAST_PART = 1e-4
"""Of a layer, of which there is a logarithm."""
LEAST_LAYER_MEV = 0.05
RIDGE = 1.0
"""Of squared coefficients: in a narrow band, energy and its logarithm are nearly the same, and cancel each other there
only; fitted to 20 to 40 GeV without it, a shower of 100 GeV would have a third less.
"""
SPREAD = (0.05, 2.0)
"""Of the logarithm of a cell's energy, from the least to the most."""
AS_GOOD_AS = 4.0
"""Hits of an average cell that a cell's own must outweigh."""
CHUNK = 100


def begin(generator: Generator, windows: Energies, conditions: Tensor, energy_gev: Tensor) -> None:
    """Give the generator the weights of the closed form for these showers."""
    layers = windows.sum(axis=(2, 3), dtype=np.float64)
    reference = np.exp(np.log(layers + LEAST_LAYER_MEV).mean(axis=0))
    cells = fitted(windows, np.clip(np.log(layers / reference + LEAST), -FARTHEST, FARTHEST))
    mean, loadings = linear(torch.from_numpy(layers), conditions.double(), energy_gev.double())
    first, count = generator.form.conditions, min(generator.form.latent, loadings.shape[1])
    with torch.no_grad():
        generator.reference.copy_(torch.from_numpy(reference))
        for name, values in vars(cells).items():
            getattr(generator, name).copy_(torch.from_numpy(values))
        generator.direct.bias.copy_(mean[-1])
        generator.direct.weight[:, :first] = mean[:-1].T.float()
        generator.direct.weight[:, first : first + count] = loadings[:, :count].float()


def linear(layers: Tensor, conditions: Tensor, energy_gev: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the layers' parts and of the sum over 2 % of the energy: coefficients, and principal components.

    Coefficients of the conditions and of a constant, shape (conditions + 1, layers + 1); components, the largest first,
    by which standard normal numbers have the covariance of what is left, shape (layers + 1, layers + 1 or fewer).
    """
    total = layers.sum(dim=1, keepdim=True).clamp(min=1e-3)
    scale = torch.log(total / (1e3 * SAMPLING_FRACTION * energy_gev[:, None]))
    wanted = torch.cat([torch.log((layers / total).clamp(min=LEAST_PART)), scale], dim=1)
    known = torch.cat([conditions, torch.ones(len(wanted), 1)], dim=1)
    ridge = torch.full((known.shape[1],), RIDGE, dtype=known.dtype)
    ridge[-1] = 0
    mean = torch.linalg.solve(known.T @ known + torch.diag(ridge), known.T @ wanted)
    _, sizes, ways = torch.linalg.svd(wanted - known @ mean, full_matrices=False)
    return mean, (ways * sizes[:, None]).T / len(wanted) ** 0.5


@dataclass(frozen=True)
class Cells:
    """Of each cell, shape (layers, x, y), with u the logarithm of its layer's energy over the mean one.

    It is hit where a standard normal number is above gate + gate_slope u; the logarithm of its energy is normal, with
    mean middle + middle_slope u and deviation spread.
    """

    gate: Floats
    gate_slope: Floats
    middle: Floats
    middle_slope: Floats
    spread: Floats


def fitted(windows: Energies, u: Floats) -> Cells:
    """`Cells` of showers in windows; `u` has the shape (n, layers). Left and right, near and far count as the same."""
    high = u > np.median(u, axis=0)
    shape = windows.shape[1:]
    hits, squares = np.zeros((2, *shape)), np.zeros((5, *shape))
    for start in range(0, len(windows), CHUNK):
        part, at = windows[start : start + CHUNK], u[start : start + CHUNK][:, :, None, None]
        hit = part > 0
        over = high[start : start + CHUNK][:, :, None, None]
        log = np.where(hit, np.log(np.where(hit, part, 1)), 0.0)
        hits += np.stack([(hit & ~over).sum(axis=0), (hit & over).sum(axis=0)])
        squares += np.stack([(hit * one).sum(axis=0) for one in (at, at**2, log, log * at, log**2)])
    hits, (su, suu, sl, slu, sll) = _mirrored(hits), _mirrored(squares)
    rows = np.stack([(~high).sum(axis=0), high.sum(axis=0)])[:, :, None, None]
    gates = -_probit((hits + 0.1) / (rows + 0.2))
    where = np.stack([np.where(side, u, 0).sum(axis=0) / side.sum(axis=0) for side in (~high, high)])[:, :, None, None]
    gate_slope = (gates[1] - gates[0]) / np.maximum(where[1] - where[0], 0.1)
    count = hits.sum(axis=0) + 1e-6
    least = float(np.log(windows[windows > 0].min()))
    centre_u, centre = su / count, sl / count
    covariance, variance_u = slu - count * centre_u * centre, suu - count * centre_u**2
    middle_slope = covariance / (variance_u + AS_GOOD_AS)
    rest = sll - count * centre**2 - middle_slope * covariance
    mean_rest = rest.sum() / count.sum()
    spread = np.sqrt((np.maximum(rest, 0) + AS_GOOD_AS * mean_rest) / (count + AS_GOOD_AS))
    seen = hits.sum(axis=0) > 0
    return Cells(
        gate=gates[0] - gate_slope * where[0],
        gate_slope=gate_slope,
        middle=np.where(seen, centre - middle_slope * centre_u, least),
        middle_slope=middle_slope,
        spread=np.clip(spread, *SPREAD),
    )


def _mirrored(sums: Floats) -> Floats:
    """The mean over reflections in x and in y, the last two axes."""
    sums = (sums + sums[..., ::-1, :]) / 2
    return np.asarray((sums + sums[..., ::-1]) / 2)


def _probit(part: Floats) -> Floats:
    """The number below which a standard normal one lies with this probability."""
    return np.asarray(torch.special.ndtri(torch.from_numpy(part)).numpy())
