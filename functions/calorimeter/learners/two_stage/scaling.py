"""The way from quantities to nearly normal numbers and back, so that a flow has little left to learn.

Means are quadratic in the logarithm of the energy and in the slope of the axis, for each particle; spreads are
log-linear in the energy. What is left is mapped to a normal distribution quantile by quantile, by a map for each
particle at each of some energies; between these it is interpolated.
"""

import numpy as np
import torch
from torch import Tensor, nn

from functions.calorimeter.showers import Counts, Floats

TERMS = 6
SPREAD_TERMS = 2
MOST_NODES = 4
SHOWERS_A_NODE = 1000
"""Of a particle, for each energy that has a map of its own."""
RAREST = 4
"""Maps are as fine as for so many times the showers of the rarest particle, at most: they are as fine for all."""
MOST_KNOTS = 33
SHOWERS_A_KNOT = 60
TAILS = (0.0005, 0.003)
REFERENCE_GEV = 30.0
BEYOND, LEAST_REACH = 0.5, 3.0
"""Standard deviations to which numbers are let go beyond the last knot, and that they may reach at least."""
ELSEWHERE = 1e-6
"""Weight of a shower in the maps that it is not between: where a map has no other, it is that of all showers."""
SHOWERS_AT_ONCE = 1024


class Scaling(nn.Module):  # type: ignore[misc]
    """Fitted by `fit`; `back` is part of the model that serves."""

    def __init__(self, quantities: int, particles: int, nodes: int, knots: int) -> None:
        super().__init__()
        self.particles = particles
        self.register_buffer("means", torch.zeros(TERMS * particles, quantities))
        self.register_buffer("spreads", torch.zeros(SPREAD_TERMS * particles, quantities))
        self.register_buffer("nodes", torch.arange(float(nodes)))
        self.register_buffer("start", torch.zeros(nodes * particles, quantities))
        self.register_buffer("normal", torch.zeros(knots))
        self.register_buffer("bends", torch.zeros(nodes * particles, knots * quantities))

    def forth(self, quantities: Floats, energy_gev: Floats, slope: Floats, particle: Counts) -> Floats:
        """Nearly normal numbers of quantities, in double precision: the inverse of `back`."""
        found = np.empty(quantities.shape)
        for first in range(0, len(quantities), SHOWERS_AT_ONCE):
            some = slice(first, first + SHOWERS_AT_ONCE)
            found[some] = self._forth(quantities[some], energy_gev[some], slope[some], particle[some])
        return found

    def _forth(self, quantities: Floats, energy_gev: Floats, slope: Floats, particle: Counts) -> Floats:
        energy, kinds = torch.from_numpy(energy_gev), _kinds(particle, self.particles)
        terms = basis(energy, torch.from_numpy(slope), kinds).numpy()
        means, spreads, start, normal, bends = (
            tensor.double().numpy() for tensor in (self.means, self.spreads, self.start, self.normal, self.bends)
        )
        left = (quantities - terms @ means) / np.exp(terms[:, : SPREAD_TERMS * self.particles] @ spreads)
        near = shares(torch.log(energy), self.nodes.double(), kinds).numpy()
        rates = np.cumsum((near @ bends).reshape(len(near), len(normal), -1), axis=1)[:, :-1]
        gaps = np.diff(normal)[:, None]
        first = (near @ start)[:, None]
        knots = np.concatenate([first, first + np.cumsum(rates * gaps, axis=1)], axis=1)
        inside = np.clip((left[:, None] - knots[:, :-1]) / rates, 0, gaps).sum(axis=1)
        outside = np.minimum(left - knots[:, 0], 0) + np.maximum(left - knots[:, -1], 0)
        return np.asarray(normal[0] + inside + outside)

    def back(self, normal: Tensor, energy_gev: Tensor, slope: Tensor, kinds: Tensor) -> Tensor:
        """Quantities of nearly normal numbers, (n, quantities); `kinds` are the particles as one-hot.

        Numbers far beyond the last knot are cut: no shower has told what would lie there.
        """
        most = (self.normal[-1] + BEYOND).clamp(LEAST_REACH)
        normal = torch.minimum(torch.maximum(normal, -most), most)
        near = shares(torch.log(energy_gev), self.nodes, kinds)
        bends = (near @ self.bends).reshape(normal.shape[0], self.normal.shape[0], self.start.shape[1])
        left = near @ self.start + (torch.relu(normal[:, None, :] - self.normal[:, None]) * bends).sum(dim=1)
        left = left + torch.minimum(normal - self.normal[0], torch.zeros_like(normal))
        terms = basis(energy_gev, slope, kinds)
        return terms @ self.means + torch.exp(terms[:, : SPREAD_TERMS * self.particles] @ self.spreads) * left


def basis(energy_gev: Tensor, slope: Tensor, kinds: Tensor) -> Tensor:
    """What means are linear in, (n, 6 particles); the first two of each particle are those of the spreads."""
    log = torch.log(energy_gev / REFERENCE_GEV)[:, None]
    tilt = torch.abs(slope)[:, None]
    terms = [torch.ones_like(log), log, log**2, tilt, tilt**2, log * tilt]
    return torch.cat([term * kinds for term in terms], dim=1)


def shares(log_energy: Tensor, nodes: Tensor, kinds: Tensor) -> Tensor:
    """What a shower takes of each map, (n, nodes particles): linear between the nodes, which are evenly spaced."""
    if len(nodes) == 1:
        return kinds
    apart = torch.abs(log_energy.clamp(nodes[0], nodes[-1])[:, None] - nodes) / (nodes[1] - nodes[0])
    near = torch.relu(1 - apart)
    return torch.cat([near[:, node : node + 1] * kinds for node in range(len(nodes))], dim=1)


def fit(quantities: Floats, energy_gev: Floats, slope: Floats, particle: Counts, particles: int) -> Scaling:
    """The scaling of these showers, by least squares and quantiles."""
    energy, kinds = torch.from_numpy(energy_gev), _kinds(particle, particles)
    terms = basis(energy, torch.from_numpy(slope), kinds).numpy()
    means = _solved(terms, quantities)
    left = quantities - terms @ means
    few = terms[:, : SPREAD_TERMS * particles]
    spreads = _solved(few, np.log(np.abs(left) + 1e-3))
    left = left / np.exp(few @ spreads)
    scale = np.maximum(left.std(axis=0), 1e-3)
    spreads[:particles] += np.log(scale)
    left = left / scale
    counts = np.bincount(particle, minlength=particles)
    each = int(min(len(left) // particles, RAREST * counts[counts > 0].min()))
    low, high = np.log(energy_gev.min()), np.log(energy_gev.max())
    nodes = np.linspace(low, high, int(np.clip(each // SHOWERS_A_NODE, 1, MOST_NODES)) if low < high else 1)
    near = shares(torch.log(energy), torch.from_numpy(nodes), kinds).numpy() + ELSEWHERE
    edges = _edges(each // len(nodes))
    normal = torch.special.ndtri(torch.from_numpy(edges)).numpy()
    knots = _quantiles(left, near, edges)
    steps = np.maximum(np.diff(knots, axis=1), 1e-4)
    rates = steps / np.diff(normal)[:, None]
    ends = np.zeros_like(rates[:, :1])
    bends = np.diff(np.concatenate([ends, rates, ends + 1], axis=1), axis=1)
    found = Scaling(quantities.shape[1], particles, len(nodes), len(edges))
    for name, values in (
        ("means", means),
        ("spreads", spreads),
        ("nodes", nodes),
        ("start", knots[:, 0]),
        ("normal", normal),
        ("bends", bends.reshape(len(bends), -1)),
    ):
        getattr(found, name).copy_(torch.from_numpy(values))
    return found


def _kinds(particle: Counts, particles: int) -> Tensor:
    return torch.eye(particles, dtype=torch.float64)[torch.from_numpy(particle)]


def _quantiles(values: Floats, weights: Floats, edges: Floats) -> Floats:
    """Of each column of `values`, (n, columns), by each column of `weights`, (n, maps): (maps, edges, columns)."""
    found = np.empty((weights.shape[1], len(edges), values.shape[1]))
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column])
        for number, weight in enumerate(weights[order].T):
            below = (np.cumsum(weight) - weight / 2) / weight.sum()
            found[number, :, column] = np.interp(edges, below, values[order, column])
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
