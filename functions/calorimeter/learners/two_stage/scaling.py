"""The way from quantities to nearly normal numbers and back, so that a flow has little left to learn.

Means are quadratic in the logarithm of the energy and in the slope of the axis, for each particle; spreads are
log-linear in the energy. What is left is mapped to a normal distribution quantile by quantile.
"""

import numpy as np
import torch
from torch import Tensor, nn

from functions.calorimeter.showers import Counts, Floats

TERMS = 6
SPREAD_TERMS = 2
MOST_KNOTS = 33
SHOWERS_A_KNOT = 60
TAILS = (0.0005, 0.003)
REFERENCE_GEV = 30.0
BEYOND, LEAST_REACH = 0.5, 3.0
"""Standard deviations to which numbers are let go beyond the last knot, and that they may reach at least."""


class Scaling(nn.Module):  # type: ignore[misc]
    """Fitted by `fit`; `back` is part of the model that serves."""

    def __init__(self, quantities: int, particles: int, knots: int) -> None:
        super().__init__()
        self.particles = particles
        self.register_buffer("means", torch.zeros(TERMS * particles, quantities))
        self.register_buffer("spreads", torch.zeros(SPREAD_TERMS * particles, quantities))
        self.register_buffer("start", torch.zeros(quantities))
        self.register_buffer("normal", torch.zeros(knots))
        self.register_buffer("bends", torch.zeros(knots, quantities))

    def forth(self, quantities: Floats, energy_gev: Floats, slope: Floats, particle: Counts) -> Floats:
        """Nearly normal numbers of quantities, in double precision: the inverse of `back`."""
        kinds = torch.eye(self.particles, dtype=torch.float64)[torch.from_numpy(particle)]
        terms = basis(torch.from_numpy(energy_gev), torch.from_numpy(slope), kinds).numpy()
        few = terms[:, : SPREAD_TERMS * self.particles]
        means, spreads, bends = (tensor.double().numpy() for tensor in (self.means, self.spreads, self.bends))
        left = (quantities - terms @ means) / np.exp(few @ spreads)
        normal = self.normal.double().numpy()
        rates = np.cumsum(bends, axis=0)[:-1]
        steps = np.concatenate([np.zeros_like(rates[:1]), np.cumsum(rates * np.diff(normal)[:, None], axis=0)])
        knots = self.start.double().numpy() + steps
        columns = [
            np.interp(column, at, normal) + np.minimum(column - at[0], 0) + np.maximum(column - at[-1], 0)
            for column, at in zip(left.T, knots.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def back(self, normal: Tensor, energy_gev: Tensor, slope: Tensor, kinds: Tensor) -> Tensor:
        """Quantities of nearly normal numbers, (n, quantities); `kinds` are the particles as one-hot.

        Numbers far beyond the last knot are cut: no shower has told what would lie there.
        """
        most = (self.normal[-1] + BEYOND).clamp(LEAST_REACH)
        normal = torch.minimum(torch.maximum(normal, -most), most)
        left = self.start + (torch.relu(normal[:, None, :] - self.normal[:, None]) * self.bends).sum(dim=1)
        left = left + torch.minimum(normal - self.normal[0], torch.zeros_like(normal))
        terms = basis(energy_gev, slope, kinds)
        return terms @ self.means + torch.exp(terms[:, : SPREAD_TERMS * self.particles] @ self.spreads) * left


def basis(energy_gev: Tensor, slope: Tensor, kinds: Tensor) -> Tensor:
    """What means are linear in, (n, 6 particles); the first two of each particle are those of the spreads."""
    log = torch.log(energy_gev / REFERENCE_GEV)[:, None]
    tilt = torch.abs(slope)[:, None]
    terms = [torch.ones_like(log), log, log**2, tilt, tilt**2, log * tilt]
    return torch.cat([term * kinds for term in terms], dim=1)


def fit(quantities: Floats, energy_gev: Floats, slope: Floats, particle: Counts, particles: int) -> Scaling:
    """The scaling of these showers, by least squares and quantiles."""
    kinds = torch.eye(particles, dtype=torch.float64)[torch.from_numpy(particle)]
    terms = basis(torch.from_numpy(energy_gev), torch.from_numpy(slope), kinds).numpy()
    means = _solved(terms, quantities)
    left = quantities - terms @ means
    few = terms[:, : SPREAD_TERMS * particles]
    spreads = _solved(few, np.log(np.abs(left) + 1e-3))
    left = left / np.exp(few @ spreads)
    scale = np.maximum(left.std(axis=0), 1e-3)
    spreads[:particles] += np.log(scale)
    left = left / scale
    edges = _edges(len(left))
    knots, normal = np.quantile(left, edges, axis=0), torch.special.ndtri(torch.from_numpy(edges)).numpy()
    steps = np.maximum(np.diff(knots, axis=0), 1e-4)
    knots = np.concatenate([knots[:1], knots[:1] + np.cumsum(steps, axis=0)])
    rates = steps / np.diff(normal)[:, None]
    bends = np.diff(np.concatenate([np.zeros_like(rates[:1]), rates, np.ones_like(rates[:1])]), axis=0)
    found = Scaling(quantities.shape[1], particles, len(edges))
    for name, values in (
        ("means", means),
        ("spreads", spreads),
        ("start", knots[0]),
        ("normal", normal),
        ("bends", bends),
    ):
        getattr(found, name).copy_(torch.from_numpy(values))
    return found


def _solved(terms: Floats, values: Floats) -> Floats:
    """Least squares with a little ridge: one energy alone tells no slope."""
    ridge = 1e-6 * len(terms) * np.eye(terms.shape[1])
    return np.asarray(np.linalg.solve(terms.T @ terms + ridge, terms.T @ values))


def _edges(count: int) -> Floats:
    """Quantiles at which the map bends: more of them, and further out, where there are more showers."""
    knots = int(np.clip(count // SHOWERS_A_KNOT, 5, MOST_KNOTS))
    inner = (np.arange(knots) + 0.5) / knots
    tails = np.array([tail for tail in TAILS if tail * count >= 3 and tail < inner[0]])
    return np.concatenate([tails, inner, 1 - tails[::-1]])
