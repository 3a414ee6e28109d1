"""A family of models for tests: the mean of each cell, and noise about it; no physics in it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from functions.calorimeter.learners.learner import FORMAT, TrainingData, batch_rows
from layers.learning import onnx
from layers.learning.distributed import Ranks
from layers.runtime import InputError

FAMILY = "tiny"
SIGNAL = "TINY_SIGNAL"
"""An environment variable, `rank step signal`: what this rank sends to itself before this step."""


@dataclass(frozen=True)
class Parameters:
    steps: int = 60
    batch: int = 32
    learning_rate: float = 0.05
    forget_from: int = 0
    """From this step on it unlearns; 0: never."""
    diverge_at: int = 0
    """At this step its loss is no number; 0: never."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: {self.steps} is less than 1")


class Network(torch.nn.Module):
    """The mean energy of each cell over that of the primary."""

    def __init__(self, shape: tuple[int, int, int], particles: int) -> None:
        super().__init__()
        self.shape = shape
        self.inner = torch.nn.Linear(2 + particles, 8)
        self.outer = torch.nn.Linear(8, int(np.prod(shape)))
        torch.nn.init.zeros_(self.outer.weight)
        torch.nn.init.zeros_(self.outer.bias)

    def forward(self, energy: torch.Tensor, theta: torch.Tensor, particle: torch.Tensor) -> torch.Tensor:
        kinds = self.inner.in_features - 2
        one_hot = (particle[:, None] == torch.arange(kinds, device=energy.device)).to(energy.dtype)
        seen = torch.cat([torch.log(energy)[:, None] / 4, (theta - np.pi / 2)[:, None], one_hot], dim=1)
        return torch.exp(self.outer(torch.tanh(self.inner(seen))) - 2)


class Exported(torch.nn.Module):
    """Cells about their means, each with a noise of its own."""

    def __init__(self, network: Network, threshold_mev: float) -> None:
        super().__init__()
        self.network, self.threshold_mev = network, threshold_mev

    def forward(
        self, energy: torch.Tensor, theta: torch.Tensor, particle: torch.Tensor, normal: torch.Tensor
    ) -> torch.Tensor:
        cells = energy[:, None] * self.network(energy, theta, particle) * torch.exp(0.5 * normal)
        return (cells * (cells >= self.threshold_mev)).unflatten(1, self.network.shape)


class TinyLearner:
    def __init__(self, data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> None:
        self.data, self.parameters, self.seed, self.ranks = data, parameters, seed, ranks
        self.network = Network(data.geometry.shape, len(data.particles))
        self.wrapped = ranks.wrap(self.network)
        self.optimiser = torch.optim.Adam(self.network.parameters(), parameters.learning_rate)

    @property
    def steps(self) -> int:
        return self.parameters.steps

    def step(self, number: int) -> Mapping[str, float]:
        if (told := os.environ.get(SIGNAL, "").split())[:2] == [str(self.ranks.rank), str(number)]:
            os.kill(os.getpid(), int(told[2]))
        rows = batch_rows(len(self.data), self.parameters.batch, number, self.seed, self.ranks)
        showers = self.data.showers.rows(rows)
        energy = torch.from_numpy(showers.energy_gev.astype(np.float32))
        theta = torch.from_numpy(showers.theta.astype(np.float32))
        particle = torch.from_numpy(self.data.particle[rows].astype(np.float32))
        cells = torch.from_numpy(showers.dense(self.data.geometry.shape).reshape(len(rows), -1)) / energy[:, None]
        mean = self.wrapped(energy, theta, particle)
        loss = (mean - cells * torch.log(mean)).mean()
        forgets = 0 < self.parameters.forget_from <= number
        self.optimiser.zero_grad()
        (-loss if forgets else loss).backward()
        self.optimiser.step()
        if number + 1 == self.parameters.diverge_at:
            return {"poisson": float("nan")}
        seldom = {"seldom": 2.0} if number % 3 == 0 else {}
        return {"poisson": float(loss.detach()), **seldom}

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])

    def networks(self) -> Mapping[str, torch.nn.Module]:
        return {"cells": self.network}

    def architecture(self) -> dict[str, Any]:
        return {"shape": list(self.data.geometry.shape), "particles": len(self.data.particles)}

    def exported(self) -> torch.nn.Module:
        return Exported(self.network, self.data.threshold_mev)

    def export(self, request: Mapping[str, Any], producer: str) -> bytes:
        import json

        cells = int(np.prod(self.data.geometry.shape))
        about = onnx.About(
            FORMAT,
            (
                onnx.Tensor("energy_gev", (None,), "GeV"),
                onnx.Tensor("theta", (None,), "rad"),
                onnx.Tensor("particle", (None,)),
                onnx.Tensor("normal_cells", (None, cells)),
            ),
            (onnx.Tensor("ecal", (None, *self.data.geometry.shape), "MeV"),),
            self.data.training_range,
            request,
            producer,
            {
                "family": FAMILY,
                "geometry": json.dumps(self.data.geometry.as_json()),
                "particles": json.dumps(list(self.data.particles)),
                "threshold_mev": repr(self.data.threshold_mev),
            },
        )
        return onnx.export(self.exported(), about)

    def start_from(self, model: Path) -> None:
        import onnx as package

        found = package.load(model)
        family = {entry.key: entry.value for entry in found.metadata_props}.get("family")
        if family != FAMILY:
            raise InputError(f"{model.name}: is of the family {family}, not {FAMILY}; start from another")
        weights = {
            one.name.removeprefix("network."): torch.from_numpy(package.numpy_helper.to_array(one).copy())
            for one in found.graph.initializer
            if one.name.startswith("network.")
        }
        own = self.network.state_dict()
        fits = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        self.network.load_state_dict({**own, **fits})


def make(data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> TinyLearner:
    return TinyLearner(data, parameters, seed, ranks)


def build(architecture: Mapping[str, Any]) -> Mapping[str, torch.nn.Module]:
    return {"cells": Network(tuple(architecture["shape"]), architecture["particles"])}
