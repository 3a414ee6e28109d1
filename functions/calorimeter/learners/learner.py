"""What a training gives to a learner, and what a learner offers to whoever trains it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.generator import FORMAT
from functions.calorimeter.geometry import Geometry
from functions.calorimeter.showers import Counts, Showers
from layers.learning.distributed import ALONE, Ranks

if TYPE_CHECKING:
    import torch

__all__ = ["FORMAT", "Family", "Learner", "TrainingData", "batch_rows"]

ROWS_STREAM = 11
"""Of the random numbers that choose the showers of a batch."""


@dataclass(frozen=True)
class TrainingData:
    """Showers of one geometry to learn from."""

    geometry: Geometry
    particles: tuple[str, ...]
    """The particles that there are; the model's input `particle` is an index into them."""
    showers: Showers
    particle: Counts
    """Index of each shower's particle, shape (n,)."""
    threshold_mev: float
    """Cells with less energy are not in the showers."""
    energy_gev: tuple[float, float] | None = None
    """The range of energies that was simulated, which is a little wider than that of the showers; None: theirs."""
    theta_deg: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.showers)

    @property
    def training_range(self) -> dict[str, list[float]]:
        """What a model of these showers says of itself: `energy_gev` and `theta_deg`, each [lowest, highest]."""
        energy = self.energy_gev or _range(self.showers.energy_gev)
        theta = self.theta_deg or _range(np.degrees(self.showers.theta))
        return {"energy_gev": [*energy], "theta_deg": [*theta]}

    def rows(self, chosen: NDArray[np.integer[Any]]) -> "TrainingData":
        """The chosen showers, with the same particles and ranges."""
        whole = self.training_range
        return TrainingData(
            self.geometry,
            self.particles,
            self.showers.rows(chosen),
            self.particle[chosen],
            self.threshold_mev,
            (whole["energy_gev"][0], whole["energy_gev"][1]),
            (whole["theta_deg"][0], whole["theta_deg"][1]),
        )

    def within(self, energy_gev: tuple[float, ...]) -> "TrainingData":
        """The showers with energies from the lowest to the highest of `energy_gev`; all where it is empty."""
        if not energy_gev:
            return self
        low, high = energy_gev[0], energy_gev[-1]
        energies, whole = self.showers.energy_gev, self.training_range["energy_gev"]
        part = self.rows(np.flatnonzero((energies >= low) & (energies <= high)))
        return replace(part, energy_gev=(max(low, whole[0]), min(high, whole[1])))


class Learner(Protocol):
    """A model of one family in training.

    All ranks call `step` with the same numbers; every random number of a step derives from the seed and its number, or
    from generators whose states are in `state`, so that a training that was stopped goes on as if it had not been.
    """

    @property
    def steps(self) -> int:
        """Of the whole schedule."""

    def step(self, number: int) -> Mapping[str, float]:
        """One step of the optimiser, numbers from 0 up, on this rank's share of the batch; its losses by name."""

    def state(self) -> dict[str, Any]:
        """All that `load` needs to go on: tensors, numbers, text and collections of these."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""

    def networks(self) -> "Mapping[str, torch.nn.Module]":
        """The networks that serve (of averaged weights, the averages), by name."""

    def architecture(self) -> dict[str, Any]:
        """What `build` of the family makes these networks from, with other weights; as JSON."""

    def exported(self) -> "torch.nn.Module":
        """What `export` writes: takes the ONNX model's inputs in their order, and gives `ecal`; on the CPU."""

    def export(self, request: Mapping[str, Any], producer: str) -> bytes:
        """The model in ONNX (`FORMAT`), as it is now; the training goes on after it as if it had not been called."""

    def start_from(self, model: Path) -> None:
        """Take over what fits of another model's ONNX. Raises InputError where it is of another family."""


class Family(Protocol):
    """A module of `learners`, as `functions.calorimeter.learners.family` gives it."""

    @property
    def Parameters(self) -> type[Any]:  # noqa: N802 - it is a class
        """A frozen dataclass, every field with its default; its `__post_init__` raises ValueError for what is wrong."""

    @property
    def make(self) -> Callable[[TrainingData, Any, int, Ranks], Learner]:
        """`make(data, parameters, seed, ranks)`: a learner that has learned nothing."""

    @property
    def build(self) -> "Callable[[Mapping[str, Any]], Mapping[str, torch.nn.Module]]":
        """`build(architecture)`: the networks that `architecture()` told of, with any weights."""


def batch_rows(count: int, batch: int, number: int, seed: int, ranks: Ranks = ALONE) -> NDArray[np.intp]:
    """The rows of `count` showers in this rank's share of step `number`'s batch; shape (batch // ranks,) or fewer.

    Every epoch goes through all showers in an order of its own, and leaves out what fills no batch. All ranks together
    have the batch that one alone would have.

    >>> [batch_rows(6, 4, 3, 1, Ranks(rank, 2)).tolist() for rank in (0, 1)], batch_rows(6, 4, 3, 1).tolist()
    ([[3, 2], [0, 1]], [3, 0, 2, 1])
    """
    batch = min(batch, count)
    epoch, place = divmod(number, count // batch)
    order = np.random.default_rng((seed, ROWS_STREAM, epoch)).permutation(count)
    return order[place * batch : (place + 1) * batch][ranks.share(batch)]


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    return (float(values.min()), float(values.max()))
