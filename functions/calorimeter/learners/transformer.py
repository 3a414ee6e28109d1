"""A small transformer that generates showers layer by layer: conditional flow matching on tokens, then cells.

A token is a layer (`transformer_tokens`), one more is the whole shower. The velocity field of the flow (Lipman et al.,
arXiv:2210.02747) is a transformer, so that a layer learns from all others; Heun's method leads from noise to tokens.
Two small networks more say which cells are hit, and how a region's energy is shared among them (`transformer_cells`).
"""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.learners.learner import FORMAT, TrainingData, batch_rows
from functions.calorimeter.learners.start import read_start
from functions.calorimeter.learners.transformer_cells import BINS, QUANTILES, Examples, most_hits
from functions.calorimeter.learners.transformer_network import Exported, Network
from functions.calorimeter.learners.transformer_tokens import REGIONS, VALUES, tokens_of
from functions.calorimeter.observables import THRESHOLD_MEV
from functions.calorimeter.showers import Floats
from layers.learning.distributed import Ranks
from layers.learning.onnx import About, Tensor, export

FAMILY = "transformer"
TOKENS_STREAM, NOISE_STREAM = 21, 22
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Parameters:
    """What may be tuned."""

    steps: int = 3000
    batch: int = 128
    learning_rate: float = 1e-3
    width: int = 64
    blocks: int = 3
    heads: int = 4
    steps_of_flow: int = 8
    """Steps of Heun's method, each with two evaluations of the transformer."""
    average: float = 0.998
    """Of the weights' moving average, which serves."""
    cell_layers: int = 64
    """Layers of the batch whose cells are learned in a step."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "width", "blocks", "heads", "steps_of_flow", "cell_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} is no multiple of heads ({self.heads})")
        if not 0 < self.learning_rate < 1 or not 0 <= self.average < 1:
            raise ValueError("learning_rate is between 0 and 1, average from 0 to below 1")


class Learner:
    """Trains a `Network`; see `learner.Learner`."""

    def __init__(self, data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> None:
        self.data, self.parameters, self.seed, self.ranks = data, parameters, seed, ranks
        self.steps = parameters.steps
        self.threshold_mev = max(data.threshold_mev, THRESHOLD_MEV)
        tokens, hits = tokens_of(
            data.showers, data.geometry, self.threshold_mev, np.random.default_rng((seed, TOKENS_STREAM))
        )
        cells, _, depth = data.geometry.shape
        counts = np.zeros((len(data), depth, REGIONS))
        np.add.at(counts, (hits.shower, hits.layer, hits.region), 1)
        self._architecture = {
            "geometry": data.geometry.as_json(),
            "particles": list(data.particles),
            "threshold_mev": self.threshold_mev,
            "most_hits": list(most_hits(counts, cells)),
            "parameters": asdict(parameters),
        }
        torch.manual_seed(seed)
        self.network = build(self._architecture)["generator"]
        self._fit(np.concatenate([tokens.layers.reshape(len(data), -1), tokens.shower], axis=1))
        order = np.argsort(hits.shower * depth + hits.layer, kind="stable")
        self._cell = torch.from_numpy((hits.column * cells + hits.row)[order])
        edges = np.quantile(hits.ratio, QUANTILES) if len(hits.ratio) else QUANTILES
        self.network.cells.edges.copy_(torch.from_numpy(edges).float())
        self._bin = torch.from_numpy(np.clip(np.searchsorted(edges, hits.ratio, "right") - 1, 0, BINS - 1)[order])
        self._first = np.concatenate([[0], np.cumsum(counts.sum(axis=2).ravel())]).astype(np.int64)
        self.network.to(ranks.device)
        self.average = copy.deepcopy(self.network)
        self._wrapped = ranks.wrap(self.network)
        self._optimiser = torch.optim.Adam(self.network.parameters(), parameters.learning_rate)

    def _fit(self, values: Floats) -> None:
        """Scale the values: their means are linear in the basis, what is left has a spread of 1."""
        network, showers = self.network, self.data.showers
        logs = np.log(showers.energy_gev)
        network.energies.copy_(torch.tensor([logs.mean(), max(logs.std(), 1e-3)]))
        inputs = (showers.energy_gev, showers.theta, self.data.particle)
        self._inputs = tuple(torch.from_numpy(np.asarray(values, np.float32)) for values in inputs)
        basis = network.basis(network.context(*self._inputs)).numpy()
        ridge = 1e-3 * np.eye(basis.shape[1])  # one energy alone tells no slope
        means = np.linalg.solve(basis.T @ basis + ridge, basis.T @ values)
        left = values - basis @ means
        network.means.copy_(torch.from_numpy(means))
        network.spreads.copy_(torch.from_numpy(np.maximum(left.std(axis=0), 1e-3)))
        self._values = torch.from_numpy(left / network.spreads.numpy()).float()

    def step(self, number: int) -> dict[str, float]:
        """One step of Adam, its rate warming up for 100 steps, then falling to nothing along a cosine."""
        p = self.parameters
        rows = batch_rows(len(self.data), p.batch, number, self.seed, self.ranks)
        rng = np.random.default_rng((self.seed, NOISE_STREAM, number, self.ranks.rank))
        noise, time = rng.standard_normal((len(rows), self._values.shape[1])), rng.uniform(size=(len(rows), 1))
        given = [*self._inputs, self._values]
        batch = [tensor[rows] for tensor in given] + [torch.from_numpy(drawn).float() for drawn in (noise, time)]
        for group in self._optimiser.param_groups:
            falling = 0.5 * (1 + math.cos(math.pi * min(1.0, number / p.steps)))
            group["lr"] = p.learning_rate * min(1.0, (number + 1) / 100) * max(falling, 1e-3)
        losses = self._wrapped(tuple(part.to(self.ranks.device) for part in batch), self._examples(rows, rng))
        self._optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        keep = min(p.average, (number + 1) / (number + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _examples(self, rows: Positions, rng: np.random.Generator) -> Examples:
        """Some layers of the batch with their hits."""
        depth = self.data.geometry.shape[2]
        count = max(1, self.parameters.cell_layers // self.ranks.size)
        shower, layer = rng.integers(0, len(rows), count), rng.integers(0, depth, count)
        place = rows[shower] * depth + layer
        sizes = self._first[place + 1] - self._first[place]
        of_hit = np.repeat(np.arange(count), sizes)
        hits = np.arange(len(of_hit)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + self._first[place][of_hit]
        told = [torch.from_numpy(values) for values in (shower, layer, of_hit)] + [self._cell[hits], self._bin[hits]]
        return Examples(*(tensor.to(self.ranks.device) for tensor in told))

    def state(self) -> dict[str, Any]:
        """Weights, their averages, and the optimiser's state."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])

    def networks(self) -> dict[str, nn.Module]:
        """The averages."""
        return {"generator": self.average}

    def architecture(self) -> dict[str, Any]:
        """What `build` needs."""
        return self._architecture

    def exported(self) -> nn.Module:
        """The averages, as they serve."""
        return Exported(copy.deepcopy(self.average).to("cpu")).eval()

    def export(self, request: Mapping[str, Any], producer: str) -> bytes:
        """The averages in ONNX."""
        return export(self.exported(), about(self.data, self._architecture, request, producer))

    def start_from(self, model: Path) -> None:
        """Take over weights of the same name and shape; how values are scaled is these showers' own."""
        _, found = read_start(model, FAMILY)
        with torch.no_grad():
            for name, tensor in self.network.named_parameters():
                values = found.get(f"network.{name}")
                if values is not None and values.shape == tuple(tensor.shape):
                    tensor.copy_(torch.from_numpy(values))
        self.average.load_state_dict(self.network.state_dict())


def make(data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> Learner:
    """A learner that has learned nothing."""
    return Learner(data, parameters, seed, ranks)


def build(architecture: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The network that `architecture` tells of, with any weights."""
    geometry = load_geometry(dict(architecture["geometry"]), "architecture.geometry")
    most, p = tuple(architecture["most_hits"]), Parameters(**architecture["parameters"])
    return {"generator": Network(geometry, len(architecture["particles"]), architecture["threshold_mev"], most, p)}


def about(data: TrainingData, architecture: Mapping[str, Any], request: Mapping[str, Any], producer: str) -> About:
    """What the exported model says of itself."""
    cells, _, depth = data.geometry.shape
    return About(
        format=FORMAT,
        inputs=(
            Tensor("energy_gev", (None,), "GeV", "energy of the primary particle"),
            Tensor("theta", (None,), "rad", "its polar angle"),
            Tensor("particle", (None,), "", "index into particles"),
            Tensor("normal_shower", (None, 2), "", "standard normal noise"),
            Tensor("normal_layers", (None, depth, VALUES), "", "standard normal noise"),
            Tensor("uniform_place", (None, depth, cells * cells), "", "uniform noise, between 0 and 1"),
            Tensor("uniform_energy", (None, depth, sum(architecture["most_hits"])), "", "uniform noise"),
        ),
        outputs=(Tensor("ecal", (None, cells, cells, depth), "MeV", "energy in the sensor of each cell"),),
        training_range=data.training_range,
        request=request,
        producer=producer,
        more={
            "family": FAMILY,
            "geometry": json.dumps(architecture["geometry"]),
            "particles": json.dumps(list(data.particles)),
            "threshold_mev": repr(architecture["threshold_mev"]),
        },
    )
