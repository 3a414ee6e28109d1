"""Trains both stages of the model that serves, a step of the first and now and then one of the second."""

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

from functions.calorimeter.geometry import geometry_from_json
from functions.calorimeter.learners.learner import FORMAT, TrainingData, batch_rows
from functions.calorimeter.learners.two_stage import scaling
from functions.calorimeter.learners.two_stage.context import Shower
from functions.calorimeter.learners.two_stage.flow import FlowLoss
from functions.calorimeter.learners.two_stage.network import CellsLoss, TwoStage, log_above
from functions.calorimeter.learners.two_stage.quantities import ACROSS, WHOLE, quantities, whole
from functions.calorimeter.learners.two_stage.started import take_over
from functions.calorimeter.observables import THRESHOLD_MEV, observe
from functions.calorimeter.showers import Floats
from layers.learning.distributed import Ranks
from layers.learning.onnx import About, Tensor, export

FAMILY = "two-stage"
QUANTITIES_STREAM, NOISE_STREAM, CELLS_STREAM = 31, 32, 33
MORE_PLACES = 1.15
"""Room for hits in a layer, over the most that were seen."""
DRAWS = 8
"""Of the numbers that fill the gaps between whole numbers of hits, for each shower."""
WIDTHS = ("centres_width", "hits_width", "energies_width")
CELLS_SEED = 1 << 20
"""Beside the seed: batches of the second stage are others than those of the first."""


@dataclass(frozen=True)
class Parameters:
    """What may be tuned."""

    steps: int = 6_000
    """Of the first stage."""
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    width: int = 256
    blocks: int = 4
    dropout: float = 0.1
    flow_steps: int = 8
    """Steps of Heun's method, each with two evaluations of the network."""
    average: float = 0.998
    """Of the weights' moving average, which serves."""
    cells_every: int = 6
    """Steps of the first stage for one of the second."""
    cells_batch: int = 24
    cells_learning_rate: float = 3e-3
    centres_width: int = 96
    hits_width: int = 96
    energies_width: int = 64
    warm_up: float = 0.1
    """Part of the steps in which the rates rise; then they fall along a cosine."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "width", "blocks", "flow_steps", "cells_every", "cells_batch", *WIDTHS):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        for name in ("learning_rate", "cells_learning_rate", "warm_up"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not between 0 and 1")
        for name in ("average", "weight_decay", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not from 0 to below 1")


class Learner:
    """See `functions.calorimeter.learners.learner.Learner`."""

    def __init__(self, data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> None:
        self.data, self.parameters, self.seed, self.ranks = data, parameters, seed, ranks
        self.steps = parameters.steps
        geometry, count = data.geometry, len(data.particles)
        self.threshold_mev = max(data.threshold_mev, THRESHOLD_MEV)
        seen = observe(data.showers, geometry, self.threshold_mev)
        slope = np.tan(math.pi / 2 - seen.theta)
        rng = np.random.default_rng((seed, QUANTITIES_STREAM))
        draws = [quantities(seen, self.threshold_mev, rng) for _ in range(DRAWS)]
        at = (seen.energy_gev, np.abs(slope), data.particle)
        fitted = scaling.fit(draws[0], *at, count)
        most = int(min(geometry.cells**2, math.ceil(MORE_PLACES * seen.layer_hits.max()) + 2))
        self._architecture = {
            "geometry": geometry.as_json(),
            "particles": list(data.particles),
            "threshold_mev": self.threshold_mev,
            "places": most,
            "nodes": len(fitted.nodes),
            "knots": len(fitted.normal),
            "parameters": asdict(parameters),
        }
        torch.manual_seed(int(np.random.SeedSequence((seed, NOISE_STREAM)).generate_state(1)[0]))
        self.network = build(self._architecture)["generator"]
        self.network.scaling.load_state_dict(fitted.state_dict())
        numbers = whole(seen)
        middle = numbers.mean(axis=0)
        middle[list(ACROSS)] = 0  # a shower's mirror image is as likely as the shower
        self.network.context.centre.copy_(torch.from_numpy(middle))
        self.network.context.spread.copy_(torch.from_numpy(np.maximum(numbers.std(axis=0), 1e-3)))
        kinds = torch.eye(count)[torch.from_numpy(data.particle)]
        energy_gev, tilt = torch.from_numpy(seen.energy_gev).float(), torch.from_numpy(np.abs(slope)).float()
        self._normal = torch.from_numpy(np.stack([fitted.forth(values, *at) for values in draws])).float()
        self._conditions = self.network.conditions(energy_gev, tilt, kinds)
        layers, hits, numbers_ = (
            torch.from_numpy(values).float() for values in (seen.layers, seen.layer_hits, numbers)
        )
        self._shower = Shower(energy_gev, tilt, kinds, layers, hits, numbers_)
        inward = np.where(slope < 0, -1, 1)[:, None]
        centre = np.nan_to_num(np.stack([seen.layer_x, seen.layer_y * inward], axis=2))
        self._centre = torch.from_numpy(centre).float()
        self._hits = _Hits(data, slope, self.threshold_mev)
        self._begin()

    def _begin(self) -> None:
        """Averages and optimisers of the network as it is."""
        p = self.parameters
        self.network.to(self.ranks.device)
        self.average = copy.deepcopy(self.network)
        self._flow = self.ranks.wrap(FlowLoss(self.network.flow))
        self._cells = self.ranks.wrap(CellsLoss(self.network.centres, self.network.hits, self.network.energies))
        self._optimisers = (
            torch.optim.AdamW(self._flow.parameters(), p.learning_rate, weight_decay=p.weight_decay),
            torch.optim.AdamW(self._cells.parameters(), p.cells_learning_rate, weight_decay=p.weight_decay / 100),
        )

    def step(self, number: int) -> dict[str, float]:
        """One step of the first stage; every `cells_every`-th time one of the second, too."""
        p = self.parameters
        losses = {"flow": self._flow_step(number)}
        if number % p.cells_every == 0:
            losses |= self._cells_step(number // p.cells_every)
        keep = min(p.average, (number + 1) / (number + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        return losses

    def _flow_step(self, number: int) -> float:
        p, device = self.parameters, self.ranks.device
        rows = batch_rows(len(self.data), p.batch, number, self.seed, self.ranks)
        batch = min(p.batch, len(self.data))
        mine = self.ranks.share(batch)
        rng = np.random.default_rng((self.seed, NOISE_STREAM, number))
        noise = rng.standard_normal((batch, self._normal.shape[2]), np.float32)[mine]
        time = 1 / (1 + np.exp(-rng.standard_normal((batch, 1), np.float32)))[mine]
        showers = self._normal[rng.integers(0, DRAWS, batch)[mine], rows]
        showers[:, ACROSS] *= torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), (batch, 1))[mine])
        drawn = (torch.from_numpy(noise), torch.from_numpy(time))
        with torch.random.fork_rng([device] if device != "cpu" else []):
            torch.manual_seed(int(rng.integers(1 << 62)) + self.ranks.rank)  # of what is dropped out
            loss = self._flow(*(part.to(device) for part in (showers, *drawn, self._conditions[rows])))
        self._optimise(0, loss, p.learning_rate, number)
        return float(loss.detach())

    def _cells_step(self, number: int) -> dict[str, float]:
        p, device = self.parameters, self.ranks.device
        rows = batch_rows(len(self.data), p.cells_batch, number, self.seed + CELLS_SEED, self.ranks)
        shower = Shower(*(getattr(self._shower, name)[rows].to(device) for name in Shower.__annotations__))
        context, axis = self.network.context(shower), self.network.context.axis(shower.slope)
        hit, log_energy = self._hits.of(rows)
        hit = tuple(part.to(device) for part in hit)
        rng = np.random.default_rng((self.seed, CELLS_STREAM, number))
        layers = (min(p.cells_batch, len(self.data)), self.network.depth)
        mine = self.ranks.share(layers[0])
        noise = (rng.random(layers, np.float32), rng.standard_normal((*layers, 2), np.float32))
        away, places, energies = self._cells(
            context,
            axis,
            shower.slope,
            self._centre[rows].to(device),
            tuple(torch.from_numpy(part[mine]).to(device) for part in noise),
            shower.hits,
            hit,
            log_energy.to(device),
        )
        scale = float(self._hits.mean)
        self._optimise(1, (away + places + energies) / scale, p.cells_learning_rate, number * p.cells_every)
        losses = {"centres": away / self.network.depth, "hits": places / scale, "energies": energies / scale}
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _optimise(self, which: int, loss: torch.Tensor, rate: float, number: int) -> None:
        optimiser, warm = self._optimisers[which], max(1.0, self.parameters.warm_up * self.steps)
        falling = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (number - warm) / max(1.0, self.steps - warm)))))
        for group in optimiser.param_groups:
            group["lr"] = rate * max(min(1.0, (number + 1) / warm) * falling, 1e-4)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
        optimiser.step()

    def state(self) -> dict[str, Any]:
        """Weights, their averages, and the optimisers' states."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def networks(self) -> dict[str, nn.Module]:
        """The averages."""
        return {"generator": self.average}

    def architecture(self) -> dict[str, Any]:
        """What `build` needs."""
        return self._architecture

    def exported(self) -> nn.Module:
        """The averages, as they serve."""
        return copy.deepcopy(self.average).to("cpu").eval()

    def export(self, request: Mapping[str, Any], producer: str) -> bytes:
        """The averages in ONNX; `architecture` stands in the metadata, so that others can start from it."""
        return export(self.exported(), _about(self.data, self._architecture, request, producer))

    def start_from(self, model: Path) -> None:
        """Take over another model's weights; those of a layer from the layer that is nearest in radiation lengths.

        How quantities are scaled is fitted to these showers. Raises InputError where it is of another family.
        """
        take_over(self.network, self._architecture, model, FAMILY)
        self._begin()


class _Hits:
    """The hits of all showers, mirrored to one side."""

    def __init__(self, data: TrainingData, slope: Floats, threshold_mev: float) -> None:
        count = len(data.showers)
        hits = data.showers.above(threshold_mev, data.geometry.shape)
        row = np.where(slope[hits.shower] < 0, data.geometry.cells - 1 - hits.row, hits.row)
        self._first = np.concatenate([[0], np.cumsum(np.bincount(hits.shower, minlength=count))])
        self._place = tuple(torch.from_numpy(part) for part in (hits.layer, hits.column, row))
        self._energy = log_above(torch.from_numpy(hits.edep_mev), threshold_mev).float()
        self.mean = max(1.0, len(row) / max(1, count))

    def of(self, rows: NDArray[np.intp]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Position in the batch, layer, column and row of the hits of these showers, and their energies."""
        counts = self._first[rows + 1] - self._first[rows]
        batch = np.repeat(np.arange(len(rows)), counts)
        hits = np.arange(len(batch)) - np.repeat(np.cumsum(counts) - counts, counts) + self._first[rows][batch]
        found = torch.from_numpy(hits)
        return (torch.from_numpy(batch), *(part[found] for part in self._place)), self._energy[found]


def make(data: TrainingData, parameters: Parameters, seed: int, ranks: Ranks) -> Learner:
    """A learner that has learned nothing but how quantities are scaled."""
    return Learner(data, parameters, seed, ranks)


def build(architecture: Mapping[str, Any]) -> dict[str, TwoStage]:
    """The network that `architecture` tells of, with any weights."""
    p = Parameters(**architecture["parameters"])
    generator = TwoStage(
        geometry_from_json(dict(architecture["geometry"]), "architecture.geometry"),
        particles=len(architecture["particles"]),
        threshold_mev=float(architecture["threshold_mev"]),
        places=int(architecture["places"]),
        nodes=int(architecture["nodes"]),
        knots=int(architecture["knots"]),
        width=p.width,
        blocks=p.blocks,
        dropout=p.dropout,
        centres_width=p.centres_width,
        hits_width=p.hits_width,
        energies_width=p.energies_width,
        flow_steps=p.flow_steps,
    )
    return {"generator": generator}


def _about(data: TrainingData, architecture: Mapping[str, Any], request: Mapping[str, Any], producer: str) -> About:
    cells, _, depth = data.geometry.shape
    places = architecture["places"]
    return About(
        format=FORMAT,
        inputs=(
            Tensor("energy_gev", (None,), "GeV", "energy of the primary particle"),
            Tensor("theta", (None,), "rad", "its polar angle; pi/2 is perpendicular"),
            Tensor("particle", (None,), "", "its number among the metadata's particles"),
            Tensor("normal_quantities", (None, 2 * depth + len(WHOLE)), "", "standard normal noise"),
            Tensor("uniform_centre", (None, depth), "", "uniform noise, between 0 and 1"),
            Tensor("normal_centre", (None, depth, 2), "", "standard normal noise"),
            Tensor("uniform_place", (None, depth, cells * cells), "", "uniform noise, between 0 and 1"),
            Tensor("uniform_shape", (None, depth, places), "", "uniform noise, between 0 and 1"),
            Tensor("normal_energy", (None, depth, places), "", "standard normal noise"),
        ),
        outputs=(Tensor("ecal", (None, cells, cells, depth), "MeV", "energy in the sensor of each cell"),),
        training_range=data.training_range,
        request=request,
        producer=producer,
        more={
            "family": FAMILY,
            "geometry": json.dumps(architecture["geometry"]),
            "particles": json.dumps(list(data.particles)),
            "threshold_mev": repr(float(architecture["threshold_mev"])),
            "architecture": json.dumps(architecture),
        },
    )
