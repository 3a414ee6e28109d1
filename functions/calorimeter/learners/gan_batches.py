"""What a GAN learns from in each step: a range of energies, and batches that the number of the step alone decides."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from functions.calorimeter.learners.learner import TrainingData, batch_rows
from functions.calorimeter.showers import Showers
from layers.learning.distributed import Ranks
from layers.runtime import InputError

NOISE_STREAM, WEIGHTS_STREAM = 31, 32


@dataclass(frozen=True)
class Batch:
    """Showers of one step, and what they are conditioned on as tensors of shape (n,)."""

    showers: Showers
    energy_gev: torch.Tensor
    theta: torch.Tensor
    particle: torch.Tensor

    def __len__(self) -> int:
        return len(self.showers)


def seeded(seed: int, stream: int, number: int = 0, rank: int = 0) -> None:
    """Have torch's random numbers derive from these alone."""
    torch.manual_seed(int(np.random.SeedSequence((seed, stream, number, rank)).generate_state(1, np.uint64)[0] >> 1))


def in_range(data: TrainingData, energy_gev: tuple[float, ...], least: int) -> TrainingData:
    """The showers with energies from the lowest to the highest of `energy_gev`, all where it is empty.

    Raises InputError where fewer than `least` are left.
    """
    data = data.within(energy_gev)
    if len(data) < least:
        where = f" from {energy_gev[0]:g} to {energy_gev[1]:g} GeV" if energy_gev else ""
        raise InputError(
            f"inputs: hold {len(data)} showers{where} to train on, and a batch has {least}; give more, or a smaller one"
        )
    return data


def batch_of(data: TrainingData, batch: int, number: int, seed: int, ranks: Ranks) -> Batch:
    """This process's part of the batch of step `number`."""
    rows = batch_rows(len(data), batch, number, seed, ranks)
    showers = data.showers.rows(rows)

    def tensor(values: NDArray[np.float64] | NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(ranks.device)

    return Batch(showers, tensor(showers.energy_gev), tensor(showers.theta), tensor(data.particle[rows]))


def check(epochs: int, batch: int, energy_gev: tuple[float, ...]) -> None:
    """What the parameters of the GANs have in common. Raises ValueError, naming the parameter."""
    if epochs < 1:
        raise ValueError(f"epochs: {epochs} is less than 1")
    if not 2 <= batch <= 4096:
        raise ValueError(f"batch: {batch} is not from 2 to 4096")
    if len(energy_gev) not in (0, 2) or (energy_gev and not 0 < energy_gev[0] < energy_gev[1]):
        raise ValueError(f"energy_gev: {list(energy_gev)} is no range; write [lowest, highest] in GeV, or leave it out")
