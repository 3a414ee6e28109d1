"""A network on the cells of whole showers that tells generated ones from simulated ones (torch).

As in the CaloChallenge (Krause et al., arXiv:2410.21611): two hidden layers, LeakyReLU with slope 0.01, Adam at 2e-4,
batches of 1,000, at most 50 epochs; inputs are log10 E and all cells over E; 60 % of the showers are for training, 20 %
for the choice of the best epoch, and the area is that of the last 20 %. Only the hit cells are multiplied, so that
65,025 inputs of which 1 % are filled cost what the hits cost. Its hidden layers have `HIDDEN` nodes and not 2,048, and
the cells are scaled; docs/calorimeter-validate.md says why.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from functions.calorimeter.gate import area_of_pairs
from functions.calorimeter.observables import THRESHOLD_MEV
from functions.calorimeter.showers import Counts, Floats, Showers

HIDDEN = 256
EPOCHS = 50
PATIENCE = 10
"""Epochs without a better one, after which the rest is spared."""
TOLD = 0.9995
"""Area from which on no more is to be learned about what can be told."""
BATCH = 1000
LEAST_STEPS = 6
"""Batches in an epoch: small samples get smaller batches."""
RATE = 2e-4
SLOPE = 0.01
SCALE = 500.0
"""Of the cells' energies over E: their sum is then about 10, and Adam's steps move the first layer's sums."""


@dataclass(frozen=True)
class CellScores:
    """Scores of untouched showers: shape (n, 2), real ones and the generated ones at their places."""

    rows: Floats
    epoch: int
    """The best one, from 1 on."""
    showers: int
    """Of each kind, that were learned from."""


def scores(
    real: Showers, made: Showers, cells: int, *, seed: int, progress: Callable[[], None] = lambda: None
) -> CellScores:
    """Train on 60 % of the showers, choose the best epoch by 20 %, and score the rest; `cells` are those of a shower.

    Both samples are cut to the size of the smaller one. The same seed gives the same scores.
    """
    import torch

    count = min(len(real), len(made))
    order = np.random.default_rng((seed, 1)).permutation(count)
    training, choice, test = np.split(order, [int(0.6 * count), int(0.8 * count)])
    inputs = _Inputs.of(real.part(0, count)).joined(_Inputs.of(made.part(0, count)))
    inputs, used = inputs.only(np.concatenate([training, training + count]), cells)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the sums, and with them the scores, are the same on every machine
    try:
        network = _Network(used, seed)
        best, last = (-1.0, 0), np.zeros((len(test), 2))
        for epoch in range(1, EPOCHS + 1):
            _epoch(network, inputs, training, count, np.random.default_rng((seed, 2, epoch)))
            area = area_of_pairs(_scored(network, inputs, choice, count))
            if area > best[0]:
                best, last = (area, epoch), _scored(network, inputs, test, count)
            progress()
            if epoch - best[1] >= PATIENCE or best[0] >= TOLD:
                break
    finally:
        torch.set_num_threads(threads)
    return CellScores(last, best[1], len(training))


@dataclass(frozen=True)
class _Inputs:
    """Sparse rows: the hit cells of each shower with their values, and log10 E."""

    offsets: Counts
    cell: Counts
    value: "np.ndarray[Any, np.dtype[np.float32]]"
    log_energy: "np.ndarray[Any, np.dtype[np.float32]]"

    @classmethod
    def of(cls, showers: Showers) -> "_Inputs":
        kept = showers.edep_mev >= THRESHOLD_MEV
        shower = np.repeat(np.arange(len(showers)), showers.hits)[kept]
        value = SCALE * showers.edep_mev[kept] / (1e3 * showers.energy_gev[shower])
        offsets = np.concatenate([[0], np.cumsum(np.bincount(shower, minlength=len(showers)))])
        log_energy = np.log10(showers.energy_gev).astype(np.float32)
        return cls(offsets, showers.cell[kept].astype(np.int64), value.astype(np.float32), log_energy)

    def joined(self, other: "_Inputs") -> "_Inputs":
        return _Inputs(
            np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            np.concatenate([self.cell, other.cell]),
            np.concatenate([self.value, other.value]),
            np.concatenate([self.log_energy, other.log_energy]),
        )

    def only(self, chosen: Counts, cells: int) -> tuple["_Inputs", int]:
        """Without the cells that no chosen row has, from which nothing can be learned; and how many are left."""
        used = np.zeros(cells, bool)
        used[self.rows(chosen).cell] = True
        number = np.cumsum(used) - 1
        kept = used[self.cell]
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        return _Inputs(offsets, number[self.cell[kept]], self.value[kept], self.log_energy), max(int(used.sum()), 1)

    def rows(self, chosen: Counts) -> "_Inputs":
        hits = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(hits)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], hits)
        return _Inputs(offsets, self.cell[places], self.value[places], self.log_energy[chosen])


class _Network:
    """The network, with a first layer that multiplies what is not zero."""

    def __init__(self, cells: int, seed: int) -> None:
        import torch
        from torch import nn

        self._cells = cells
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._first = nn.Parameter((2 * torch.rand(cells, HIDDEN) - 1) * cells**-0.5)
            self._energy = nn.Linear(1, HIDDEN)
            self._rest = nn.Sequential(
                nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, 1)
            )
        weights = [self._first, *self._energy.parameters(), *self._rest.parameters()]
        self._optimiser = torch.optim.Adam(weights, RATE, fused=True)
        self._loss = nn.BCEWithLogitsLoss()

    def scored(self, inputs: _Inputs) -> Floats:
        """What it says of each row, shape (n,)."""
        import torch

        with torch.no_grad():
            first = self._sparse(inputs) @ self._first
            return np.asarray(self._rest(first + self._energy(self._energies(inputs)))[:, 0].double().numpy())

    def step(self, inputs: _Inputs, labels: "np.ndarray[Any, np.dtype[np.float32]]") -> None:
        """One step of the optimiser; the first layer's gradient is a product with the transposed rows."""
        import torch

        self._optimiser.zero_grad()
        with torch.no_grad():
            first = self._sparse(inputs) @ self._first
        first.requires_grad_()
        output = self._rest(first + self._energy(self._energies(inputs)))[:, 0]
        self._loss(output, torch.from_numpy(labels)).backward()
        self._first.grad = self._transposed(inputs) @ first.grad
        self._optimiser.step()

    def _energies(self, inputs: _Inputs) -> Any:
        import torch

        return torch.from_numpy(inputs.log_energy)[:, None]

    def _sparse(self, inputs: _Inputs) -> Any:
        return _csr(inputs.offsets, inputs.cell, inputs.value, (len(inputs.log_energy), self._cells))

    def _transposed(self, inputs: _Inputs) -> Any:
        order = np.argsort(inputs.cell, kind="stable")
        shower = np.repeat(np.arange(len(inputs.log_energy)), np.diff(inputs.offsets))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(inputs.cell, minlength=self._cells))])
        return _csr(offsets, shower[order], inputs.value[order], (self._cells, len(inputs.log_energy)))


def _csr(offsets: Counts, column: Counts, value: Any, size: tuple[int, int]) -> Any:
    import torch

    with warnings.catch_warnings():  # that it is new, and that it believes what it is given
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(*map(torch.from_numpy, (offsets, column, value)), size=size)


def _epoch(network: _Network, inputs: _Inputs, training: Counts, count: int, rng: np.random.Generator) -> None:
    """All showers once, real ones (the first `count` rows) and generated ones, in a random order."""
    rows = rng.permutation(np.concatenate([training, training + count]))
    for some in np.array_split(rows, max(LEAST_STEPS, len(rows) // BATCH)):
        network.step(inputs.rows(some), (some >= count).astype(np.float32))


def _scored(network: _Network, inputs: _Inputs, places: Counts, count: int) -> Floats:
    """Shape (n, 2): real showers, and the generated ones at their places."""
    blocks = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
    return np.concatenate(
        [np.stack([network.scored(inputs.rows(some + kind)) for kind in (0, count)], axis=1) for some in blocks]
    )
