"""The 3DGAN as it was published (Khattak et al., Eur. Phys. J. C 82 (2022) 386): its training, and what serves.

A batch teaches the discriminator with real showers, then with generated ones, then the generator twice; RMSprop at
0.001, batches of 64. The publication's transfer is two trainings: 130 epochs on energies of 100 to 200 GeV
(`energy_gev`), then 30 on all of them, started from the first one's model. Some 3 10^9 multiplications a shower make
it a matter for GPUs.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from functions.calorimeter.learners import gan3d_networks, gan_models
from functions.calorimeter.learners.gan3d_networks import (
    ENERGY_GEV,
    LATENT,
    SHAPE,
    UNIT_MEV,
    Discriminator,
    Generator,
    measured_angle,
    to_cells,
    to_images,
    visible,
)
from functions.calorimeter.learners.gan_batches import NOISE_STREAM, WEIGHTS_STREAM, batch_of, check, in_range, seeded
from functions.calorimeter.learners.gan_losses import (
    WEIGHTS,
    absolute_error,
    adversarial,
    labels,
    percentage_error,
)
from functions.calorimeter.learners.learner import TrainingData
from layers.learning import onnx
from layers.learning.distributed import Ranks
from layers.runtime import InputError

FAMILY = "3dgan"
GENERATOR_STEPS = 2
"""Of the generator, for each of the discriminator's two."""
EMPTY_AFTER = 10
"""Steps after which a generator that makes empty showers only has died."""
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Parameters:
    """The published ones, which belong to 100 to 200 GeV; `energy_gev` chooses training showers."""

    epochs: int = 130
    batch: int = 64
    learning_rate: float = 1e-3
    energy_gev: tuple[float, ...] = ()
    """Lowest and highest energy to train on, GeV; all where it is empty."""

    def __post_init__(self) -> None:
        check(self.epochs, self.batch, self.energy_gev)
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate: {self.learning_rate} is not above 0 and up to 1")


class Serving(nn.Module):  # type: ignore[misc]
    """The generator with its units: GeV, rad and noise in, MeV above the threshold out."""

    def __init__(self, generator: Generator, threshold_mev: float) -> None:
        super().__init__()
        self.generator = generator
        self.threshold_mev = threshold_mev

    def forward(self, energy_gev: Tensor, theta: Tensor, particle: Tensor, normal_latent: Tensor) -> Tensor:
        energy_gev = energy_gev + 0 * particle  # the exporter leaves out an input that has no part in the output
        cells = UNIT_MEV * to_cells(self.generator(conditions(energy_gev, theta, normal_latent)))
        return torch.where(cells < self.threshold_mev, torch.zeros_like(cells), cells)


class Gan3d:
    """A 3DGAN in training; see `learner.Learner`."""

    def __init__(self, data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> None:
        if data.geometry.shape != SHAPE:
            raise InputError(
                f'family: 3dgan is made for 51 x 51 cells in 25 layers, and geometry "{data.geometry.name}" has'
                f" {' x '.join(map(str, data.geometry.shape))}; write conv2d, which takes any"
            )
        if len(data.particles) != 1:
            raise InputError(
                f"family: 3dgan is made for one particle, and inputs have {' and '.join(data.particles)};"
                " train one for each, or write conv2d"
            )
        self.data = in_range(data, parameters.energy_gev, parameters.batch)
        self.parameters, self.seed, self.ranks = parameters, seed, ranks
        seeded(seed, WEIGHTS_STREAM)
        self.generator, self.discriminator = Generator().to(ranks.device), Discriminator().to(ranks.device)
        self._generator, self._discriminator = ranks.wrap(self.generator), ranks.wrap(self.discriminator)
        self.optimisers = {
            name: torch.optim.RMSprop(network.parameters(), parameters.learning_rate, alpha=0.9, eps=1e-7)
            for name, network in (("generator", self.generator), ("discriminator", self.discriminator))
        }
        self.steps = parameters.epochs * (len(self.data) // parameters.batch)

    def step(self, number: int) -> dict[str, float]:
        """One batch: the discriminator with real and with generated showers, then the generator twice.

        Raises InputError where the generator has died: its showers are empty, and it will learn no more.
        """
        batch = batch_of(self.data, self.parameters.batch, number, self.seed, self.ranks)
        cells = torch.from_numpy(batch.showers.dense(SHAPE)).to(self.ranks.device)
        images = to_images(cells)
        truth = Truth(batch.energy_gev / ENERGY_GEV, measured_angle(cells), visible(cells / UNIT_MEV))
        seeded(self.seed, NOISE_STREAM, number, self.ranks.rank)
        made = self.made(self._conditions(batch.energy_gev, batch.theta))
        if number > EMPTY_AFTER and self.ranks.mean(float(made.any())) == 0:
            raise InputError(
                f"seed: with {self.seed}, the generator makes empty showers only after {number} steps and learns no"
                " more; take another seed, or a lower learning_rate"
            )
        real = self._teach(images, truth, real=True)
        fake = self._teach(made, truth, real=False)
        self.discriminator.requires_grad_(False)
        losses = [self._learn(batch.energy_gev, batch.theta, truth) for _ in range(GENERATOR_STEPS)]
        self.discriminator.requires_grad_(True)
        told = {name: sum(loss[name] for loss in losses) / len(losses) for name in losses[0]}
        return {"discriminator_real": real, "discriminator_fake": fake, **told}

    def made(self, given: Tensor) -> Tensor:
        """Images of the generator as it serves, for the discriminator to learn from: nothing flows back."""
        self.generator.eval()
        with torch.no_grad():
            images = self.generator(given)
        self.generator.train()
        return images

    def _conditions(self, energy_gev: Tensor, theta: Tensor) -> Tensor:
        noise = torch.randn(len(theta), LATENT).to(self.ranks.device)
        return conditions(energy_gev, theta, noise)

    def _teach(self, images: Tensor, truth: "Truth", *, real: bool) -> float:
        found = self._discriminator(images)
        loss = weighted(losses_of(found, labels(len(images), real).to(self.ranks.device), truth))
        self._descend("discriminator", loss)
        return float(loss.detach())

    def _learn(self, energy_gev: Tensor, theta: Tensor, truth: "Truth") -> dict[str, float]:
        found = self.discriminator(self._generator(self._conditions(energy_gev, theta)))
        losses = losses_of(found, torch.ones_like(energy_gev), truth)
        loss = weighted(losses)
        self._descend("generator", loss)
        told = {"generator": loss, **{f"generator_{name}": value for name, value in losses.items()}}
        return {name: float(value.detach()) for name, value in told.items()}

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()

    def state(self) -> dict[str, Any]:
        """Weights of both networks and the states of their optimisers."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])

    def networks(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def architecture(self) -> dict[str, Any]:
        """It has one form only; the layers are told for the reader."""
        layers = [str(layer) for layer in (self.generator.dense, self.generator.grow, *self.generator.convolutions)]
        return {
            "family": FAMILY,
            "shape": list(SHAPE),
            "latent": LATENT,
            "power": gan3d_networks.POWER,
            "layers": layers,
        }

    def exported(self) -> nn.Module:
        """What serves, on the CPU and in evaluation mode; a copy."""
        return Serving(copy.deepcopy(self.generator).to("cpu"), self.data.threshold_mev).eval()

    def export(self, request: Mapping[str, Any], producer: str) -> bytes:
        """The model in ONNX, with the discriminator for those who start from it."""
        noise = (onnx.Tensor("normal_latent", (None, LATENT), "", "standard normal random numbers"),)
        threshold = self.data.threshold_mev
        serving = self.exported()
        return gan_models.exported(serving, noise, self.discriminator, FAMILY, self.data, threshold, request, producer)

    def start_from(self, model: Path) -> None:
        """Take over both networks of another 3DGAN, as the second stage of the publication does; optimisers are new."""
        generator, discriminator = gan_models.weights_of(model, FAMILY)
        for network, weights in ((self.generator, generator), (self.discriminator, discriminator)):
            found = gan_models.take_over(network, weights)
            if found < sum(1 for name in network.state_dict() if "num_batches" not in name):
                raise InputError(f"{model.name}: has not all weights of a 3dgan; train it again to start from it")


@dataclass(frozen=True)
class Truth:
    """What the discriminator should tell of showers, in its units; shape (n,)."""

    energy: Tensor
    angle: Tensor
    visible: Tensor


def conditions(energy_gev: Tensor, theta: Tensor, noise: Tensor) -> Tensor:
    """What the generator is given, shape (n, 256)."""
    return torch.cat([(energy_gev / ENERGY_GEV)[:, None], theta[:, None], noise], dim=1)


def losses_of(found: Outputs, real: Tensor, truth: Truth) -> dict[str, Tensor]:
    """The four losses, not yet weighted, of what the discriminator found."""
    logits, energy, angle, seen = found
    return {
        "adversarial": adversarial(logits, real),
        "energy": percentage_error(energy, truth.energy),
        "angle": absolute_error(angle, truth.angle),
        "visible": percentage_error(seen, truth.visible),
    }


def weighted(losses: Mapping[str, Tensor]) -> Tensor:
    """Their sum with the publication's weights."""
    return sum((getattr(WEIGHTS, name) * loss for name, loss in losses.items()), start=torch.zeros(()))


def make(data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> Gan3d:
    """A 3DGAN that has learned nothing."""
    return Gan3d(data, parameters, seed, ranks)


def build(architecture: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks that serve, with any weights."""
    return {"generator": Generator()}
