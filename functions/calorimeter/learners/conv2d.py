"""A GAN of two-dimensional convolutions that a CPU can train, with the losses of the 3DGAN and their weights.

What differs from the publication is what makes it train: the losses of sum and angle compare quantiles of a batch and
not shower by shower, which would take the resolution away; one of the occupancy and one of the moments of what
physicists look at join them; a penalty on the discriminator's gradient at real showers (Mescheder et al.,
arXiv:1801.04406); Adam, and averaged weights that serve.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from functions.calorimeter.learners import gan_models
from functions.calorimeter.learners.conv2d_begin import begin
from functions.calorimeter.learners.conv2d_networks import (
    HIT_MEV,
    Axis,
    Discriminator,
    Form,
    Generator,
    windows_of,
)
from functions.calorimeter.learners.gan_batches import (
    NOISE_STREAM,
    WEIGHTS_STREAM,
    Batch,
    batch_of,
    check,
    in_range,
    seeded,
)
from functions.calorimeter.learners.gan_losses import (
    WEIGHTS,
    absolute_error,
    adversarial,
    in_order,
    percentage_error,
)
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.observables import THRESHOLD_MEV
from layers.learning import onnx
from layers.learning.distributed import Ranks
from layers.runtime import InputError

FAMILY = "conv2d"
ENERGY_GEV = 100.0
OCCUPANCY = 0.1
"""Weight of the percentage error of the hits' quantiles."""
MOMENTS = 3.0
"""Weight of the squared differences of the features' means and spreads in a batch."""
BEGINNING = 1000
"""Showers whose cells and layers a network begins with."""


@dataclass(frozen=True)
class Parameters:
    """What may be tuned; `energy_gev` chooses training showers."""

    epochs: int = 30
    batch: int = 32
    learning_rate: float = 1e-3
    discriminator_rate: float = 1e-3
    channels: int = 40
    latent: int = 64
    window: int = 25
    """Cells, in x and in y, about the axis, in which showers are made."""
    penalty: float = 1.0
    """Weight of the squared gradient at real showers."""
    penalty_every: int = 8
    """Steps between penalties, which then count as many times."""
    average: float = 0.995
    """Of the averaged weights, what is kept in a step."""
    energy_gev: tuple[float, ...] = ()
    """Lowest and highest energy to train on, GeV; all where it is empty."""

    def __post_init__(self) -> None:
        check(self.epochs, self.batch, self.energy_gev)
        for name in ("learning_rate", "discriminator_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0 and up to 1")
        for name, (least, most) in {"channels": (1, 512), "latent": (1, 1024), "window": (3, 199)}.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: {getattr(self, name)} is not from {least} to {most}")
        if self.penalty < 0:
            raise ValueError(f"penalty: {self.penalty} is negative")
        if self.penalty_every < 1:
            raise ValueError(f"penalty_every: {self.penalty_every} is less than 1")
        if not 0 <= self.average < 1:
            raise ValueError(f"average: {self.average} is not from 0 to below 1")


class Serving(nn.Module):  # type: ignore[misc]
    """The generator with its axis: GeV, rad, particle and noise in, MeV in all cells out."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        self.axis = Axis(generator.form)

    def forward(
        self, energy_gev: Tensor, theta: Tensor, particle: Tensor, normal_latent: Tensor, normal_cells: Tensor
    ) -> Tensor:
        conditions = self.axis.conditions(energy_gev, theta, particle)
        return self.axis.place(self.generator(conditions, energy_gev, normal_latent, normal_cells), theta)


class Conv2d:
    """A GAN of two-dimensional convolutions in training; see `learner.Learner`."""

    def __init__(self, data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> None:
        self.data = in_range(data, parameters.energy_gev, parameters.batch)
        self.parameters, self.seed, self.ranks = parameters, seed, ranks
        self.form = Form.of(
            data.geometry,
            parameters.window,
            particles=len(data.particles),
            channels=parameters.channels,
            latent=parameters.latent,
            threshold_mev=max(data.threshold_mev, THRESHOLD_MEV),
        )
        seeded(seed, WEIGHTS_STREAM)
        self.axis = Axis(self.form).to(ranks.device)
        generator, discriminator = Generator(self.form), Discriminator(self.form)
        first = self.data.rows(np.arange(min(len(self.data), BEGINNING)))
        windows = windows_of(first.showers, self.form)
        energy, theta, particle = (
            torch.from_numpy(values.astype(np.float32))
            for values in (first.showers.energy_gev, first.showers.theta, first.particle)
        )
        begin(generator, windows, Axis(self.form).conditions(energy, theta, particle), energy)
        discriminator.scale_by(torch.from_numpy(windows), energy)
        self.generator, self.discriminator = generator.to(ranks.device), discriminator.to(ranks.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self._generator, self._discriminator = ranks.wrap(self.generator), ranks.wrap(self.discriminator)
        self.optimisers = {
            name: torch.optim.Adam(network.parameters(), rate, betas=(0.0, 0.99))
            for name, network, rate in (
                ("generator", self.generator, parameters.learning_rate),
                ("discriminator", self.discriminator, parameters.discriminator_rate),
            )
        }
        self.steps = parameters.epochs * (len(self.data) // parameters.batch)

    def step(self, number: int) -> dict[str, float]:
        """One batch: the discriminator with real and generated showers, then the generator."""
        batch = batch_of(self.data, self.parameters.batch, number, self.seed, self.ranks)
        real = torch.from_numpy(windows_of(batch.showers, self.form)).to(self.ranks.device)
        seeded(self.seed, NOISE_STREAM, number, self.ranks.rank)
        told = self._teach(batch, real, penalised=number % self.parameters.penalty_every == 0)
        self.discriminator.requires_grad_(False)
        told |= self._learn(batch, real)
        self.discriminator.requires_grad_(True)
        keep = min(self.parameters.average, (number + 1) / (number + 10))
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(weight, 1 - keep)
        return told

    def _noise(self, count: int) -> tuple[Tensor, Tensor]:
        latent = torch.randn(count, self.form.latent)
        maps = torch.randn(count, 2 * self.form.layers, self.form.window, self.form.window)
        return latent.to(self.ranks.device), maps.to(self.ranks.device)

    def _teach(self, batch: Batch, real: Tensor, *, penalised: bool) -> dict[str, float]:
        conditions = self.axis.conditions(batch.energy_gev, batch.theta, batch.particle)
        with torch.no_grad():
            made = self.generator(conditions, batch.energy_gev, *self._noise(len(batch)))
        real = real.requires_grad_(penalised)
        logits, energy = self._discriminator(
            torch.cat([real, made]), conditions.repeat(2, 1), batch.energy_gev.repeat(2)
        )
        count = len(batch)
        truth = torch.cat([torch.ones_like(batch.theta), torch.zeros_like(batch.theta)])
        losses = {
            "adversarial": 2 * adversarial(logits, truth),
            "energy": percentage_error(energy, batch.energy_gev.repeat(2) / ENERGY_GEV),
        }
        loss = WEIGHTS.adversarial * losses["adversarial"] + WEIGHTS.energy * losses["energy"]
        if penalised:
            (slope,) = torch.autograd.grad(logits[:count].sum(), real, create_graph=True)
            losses["penalty"] = (slope**2).sum(dim=(1, 2, 3)).mean()
            loss = loss + 0.5 * self.parameters.penalty * self.parameters.penalty_every * losses["penalty"]
        self._descend("discriminator", loss)
        told = {f"discriminator_{name}": float(value.detach()) for name, value in losses.items()}
        return {"discriminator": float(loss.detach()), **told}

    def _learn(self, batch: Batch, real: Tensor) -> dict[str, float]:
        conditions = self.axis.conditions(batch.energy_gev, batch.theta, batch.particle)
        made = self._generator(conditions, batch.energy_gev, *self._noise(len(batch)))
        logits, energy = self.discriminator(made, conditions, batch.energy_gev)
        quantiles = [
            (in_order(one), in_order(two))
            for one, two in zip(self._observed(made, batch), self._observed(real.detach(), batch), strict=True)
        ]
        losses = {
            "adversarial": (WEIGHTS.adversarial, adversarial(logits, torch.ones_like(logits))),
            "energy": (WEIGHTS.energy, percentage_error(energy, batch.energy_gev / ENERGY_GEV)),
            "visible": (WEIGHTS.visible, percentage_error(*quantiles[0])),
            "angle": (WEIGHTS.angle, absolute_error(*quantiles[1])),
            "occupancy": (OCCUPANCY, percentage_error(*quantiles[2])),
            "moments": (MOMENTS, self._moments(made, real.detach(), batch)),
        }
        loss = sum((weight * value for weight, value in losses.values()), start=torch.zeros((), device=made.device))
        self._descend("generator", loss)
        told = {f"generator_{name}": float(value.detach()) for name, (_, value) in losses.items()}
        return {"generator": float(loss.detach()), **told}

    def _moments(self, made: Tensor, real: Tensor, batch: Batch) -> Tensor:
        """How far the discriminator's features are apart, in means and spreads over the batch."""
        one, two = (self.discriminator.features(windows, batch.energy_gev) for windows in (made, real))
        means, spreads = one.mean(dim=0) - two.mean(dim=0), one.std(dim=0) - two.std(dim=0)
        return torch.mean(means**2) + torch.mean(spreads**2)

    def _observed(self, windows: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """S/E, the error of the measured angle in rad, and hits over energy; of each shower."""
        layers = windows.sum(dim=(2, 3))
        places = torch.arange(self.form.window, dtype=windows.dtype, device=windows.device) - (self.form.window - 1) / 2
        filled = layers + (layers <= 0).to(layers.dtype)
        rows = (
            (windows.sum(dim=2) * places).sum(dim=2) / filled + self.axis.shifts(batch.theta)[0]
        ) * self.form.cell_mm
        depths = torch.tensor(self.form.middles_mm, device=windows.device)
        weight = layers / layers.sum(dim=1, keepdim=True).clamp(min=1e-6)
        depth_off = depths - (weight * depths).sum(dim=1, keepdim=True)
        row_off = rows - (weight * rows).sum(dim=1, keepdim=True)
        slope = (weight * depth_off * row_off).sum(dim=1) / (weight * depth_off**2).sum(dim=1).clamp(min=1e-6)
        angle = math.pi / 2 - torch.atan(slope) - batch.theta
        hits = (windows / (windows + HIT_MEV)).sum(dim=(1, 2, 3))
        return layers.sum(dim=1) / batch.energy_gev, angle, hits

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()

    def state(self) -> dict[str, Any]:
        """Weights, the average, and the states of the optimisers."""
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self.discriminator.load_state_dict(state["discriminator"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])

    def networks(self) -> dict[str, nn.Module]:
        """The generator of averaged weights."""
        return {"generator": self.average}

    def architecture(self) -> dict[str, Any]:
        """What the generator is made of."""
        return {"family": FAMILY, "form": {**asdict(self.form), "middles_mm": list(self.form.middles_mm)}}

    def exported(self) -> nn.Module:
        """What serves, on the CPU; a copy."""
        return Serving(copy.deepcopy(self.average).to("cpu")).eval()

    def export(self, request: Mapping[str, Any], producer: str) -> bytes:
        """The model in ONNX, with the discriminator for those who start from it."""
        noise = (
            onnx.Tensor("normal_latent", (None, self.form.latent), "", "standard normal random numbers of a shower"),
            onnx.Tensor(
                "normal_cells",
                (None, 2 * self.form.layers, self.form.window, self.form.window),
                "",
                "standard normal random numbers of the places about its axis",
            ),
        )
        return gan_models.exported(
            self.exported(),
            noise,
            self.discriminator,
            FAMILY,
            self.data,
            self.form.threshold_mev,
            request,
            producer,
        )

    def start_from(self, model: Path) -> None:
        """Take over the weights that fit, of another geometry too; optimisers are new."""
        generator, discriminator = gan_models.weights_of(model, FAMILY)
        if not gan_models.take_over(self.generator, generator):
            raise InputError(f"{model.name}: has no weights that fit; train with its window, channels and latent")
        gan_models.take_over(self.discriminator, discriminator)
        self.average.load_state_dict(self.generator.state_dict())


def make(data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> Conv2d:
    """A GAN that begins with the mean shower."""
    return Conv2d(data, parameters, seed, ranks)


def build(architecture: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks that serve, with any weights."""
    return {"generator": Generator(Form.from_json(architecture["form"]))}
