"""Train the fast model: `python3 -P -m functions.calorimeter.prototyping.train SHOWERS OUT.onnx`.

SHOWERS is a folder of `production`. Every sixth stack is held out, for `judged` to tell the model's errors by.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.prototyping.compared import HELD_OUT
from functions.calorimeter.prototyping.fast import FORMAT, INPUTS, MIXED, MIXED_LAYERS, OUTPUTS
from functions.calorimeter.prototyping.layers import (
    CONDITION,
    LEAST_MIP,
    Shower,
    centre_scale,
    coded,
    condition,
    total_scale,
)
from functions.calorimeter.prototyping.production import ABSORBER_X0, ENERGY_GEV, SENSOR_MM, Sample, read
from functions.calorimeter.prototyping.stack import ABSORBERS
from functions.calorimeter.showers import Floats
from layers.learning.onnx import About, export

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.float32]
GAMMA = CONDITION.index("gamma")


@dataclass(frozen=True)
class Parameters:
    """How the networks learn."""

    layer_width: int = 96
    """Of the hidden layers."""
    epochs: int = 60
    layer_epochs: int = 20
    batch: int = 256
    layer_batch: int = 4096
    rate: float = 1e-2
    layer_rate: float = 3e-3
    seed: int = 1


def train(samples: Sequence[Sample], parameters: Parameters) -> "tuple[torch.nn.Module, dict[str, float]]":
    """The three networks as one module that takes `fast.INPUTS`, and the last losses."""
    import torch

    torch.manual_seed(parameters.seed)
    totals, centres, layers = (_joined(make(sample) for sample in samples) for make in (_total, _centre, _layers))
    given = (0, parameters.epochs, parameters.batch, parameters.rate)
    total, total_loss = _fitted(totals, MIXED, *given)
    centre, centre_loss = _fitted(centres, MIXED, *given)
    wide = (parameters.layer_width, parameters.layer_epochs, parameters.layer_batch, parameters.layer_rate)
    layer, layer_loss = _fitted(layers, MIXED_LAYERS, *wide)

    class Networks(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.total, self.centre, self.layer = total, centre, layer

        def forward(self, total_of: Any, centre_of: Any, layer_of: Any) -> Any:
            return self.total(total_of)[:, :-1], self.centre(centre_of)[:, :-1], self.layer(layer_of)

    return Networks(), {"total_loss": total_loss, "centre_loss": centre_loss, "layer_loss": layer_loss}


def centre_x0(sample: Sample) -> Floats:
    """Where the energy of each shower lies on average, radiation lengths."""
    depth = (np.arange(sample.stack.layers) + 0.5) * sample.stack.layer_x0
    layers = sample.layers_mev.astype(np.float64)
    return np.asarray(layers @ depth / layers.sum(axis=1))


def _total(sample: Sample) -> tuple[Rows, Rows]:
    total = sample.layers_mev.sum(axis=1, dtype=np.float64)
    wanted = np.log(total / total_scale(sample.stack, sample.energy_gev))
    return condition(sample.stack, sample.particle == "gamma", sample.energy_gev), _certain(wanted)


def _centre(sample: Sample) -> tuple[Rows, Rows]:
    known, total = _total(sample)
    wanted = np.log(centre_x0(sample) / centre_scale(sample.stack, sample.energy_gev))
    return np.column_stack([known, total[:, 0]]), _certain(wanted)


def _layers(sample: Sample) -> tuple[Rows, Rows]:
    """A row for each layer of each shower."""
    energies = sample.layers_mev.astype(np.float64)
    least = LEAST_MIP * sample.stack.minimum_mev
    shower = Shower(
        sample.stack, sample.particle == "gamma", sample.energy_gev, energies.sum(axis=1), centre_x0(sample)
    )
    known, wanted = [], []
    for energy in energies.T:
        known.append(shower.features())
        there = energy >= least
        seen = np.where(there, energy, 0.0)
        wanted.append(np.column_stack([coded(sample.stack, sample.energy_gev, seen), there]))
        shower.add(seen)
    return np.concatenate(known), np.concatenate(wanted).astype(np.float32)


def _certain(wanted: Floats) -> Rows:
    return np.column_stack([wanted, np.ones(len(wanted))]).astype(np.float32)


def _joined(pairs: "Iterator[tuple[Rows, Rows]]") -> tuple[Rows, Rows]:
    known, wanted = zip(*pairs, strict=True)
    return np.concatenate(known), np.concatenate(wanted)


def _fitted(
    rows: tuple[Rows, Rows], mixed: int, width: int, epochs: int, batch: int, rate: float
) -> "tuple[torch.nn.Module, float]":
    """A network whose outputs are log weights, means and log widths of a mixture, and a logit that there is anything.

    Without a width, place and width of a mixture, of one shape for each particle, are polynomials of second degree: a
    network of more freedom follows the few showers of each stack, and makes resolutions several per cent too small.
    Rows of `wanted` are a number and whether it is there; the loss is the negative log-likelihood.
    """
    import torch
    from torch.nn import functional

    known, wanted = (torch.from_numpy(part) for part in rows)
    mean, spread = known.mean(0), known.std(0) + 1e-6
    there = wanted[:, 1] > 0
    middle, wide = wanted[there, 0].mean(), wanted[there, 0].std()

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", mean)
            self.register_buffer("spread", spread)
            self.register_buffer("middle", middle)
            self.register_buffer("wide", wide)
            count = known.shape[1]
            parts: list[Any] = []
            for size, following in pairwise((count, width, width, width) if width else ()):
                parts += [torch.nn.Linear(size, following), torch.nn.SiLU()]
            last = torch.nn.Linear(width, 3 * mixed + 1) if width else torch.nn.Linear(count + count * count, 2)
            self.body = torch.nn.Sequential(*parts, last)
            if not width:
                torch.nn.init.zeros_(last.weight)
                self.shape = torch.nn.Parameter(torch.randn(2, 3 * mixed) / 2)

        def forward(self, x: Any) -> Any:
            gamma = x[:, GAMMA : GAMMA + 1]
            x = (x - self.mean) / self.spread
            if width:
                out = self.body(x)
                weights, means, widths = (out[:, part * mixed : (part + 1) * mixed] for part in range(3))
                there = out[:, 3 * mixed :]
            else:
                place, scale = self.body(torch.cat([x, (x[:, :, None] * x[:, None, :]).flatten(1)], 1)).split(1, 1)
                shape = gamma * self.shape[1] + (1 - gamma) * self.shape[0]
                weights, means, widths = (shape[:, part * mixed : (part + 1) * mixed] for part in range(3))
                means, widths, there = place + torch.exp(scale) * means, scale + widths, 1 + 0 * place
            widths = torch.log(self.wide) + torch.clamp(widths, -6.0, 2.0)
            return torch.cat([torch.log_softmax(weights, 1), self.middle + self.wide * means, widths, there], 1)

    def loss(out: Any, target: Any) -> Any:
        log_weights, means, widths = (out[:, part * mixed : (part + 1) * mixed] for part in range(3))
        likely = torch.logsumexp(log_weights - 0.5 * ((target[:, :1] - means) / widths.exp()) ** 2 - widths, 1)
        missing = functional.binary_cross_entropy_with_logits(out[:, -1], target[:, 1])
        return missing - (likely * target[:, 1]).mean()

    network = Network()
    steps = max(1, len(known) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * steps, pct_start=0.1)
    last = 0.0
    for _ in range(epochs):
        order, last = torch.randperm(len(known)), 0.0
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            value = loss(network(known[chosen]), wanted[chosen])
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            last += float(value.detach()) / steps
    return network.eval(), last


def about(samples: Sequence[Sample], parameters: Parameters, facts: dict[str, Any]) -> About:
    """What the model says of itself."""
    return About(
        format=FORMAT,
        inputs=INPUTS,
        outputs=OUTPUTS,
        training_range={
            "absorber_x0": list(ABSORBER_X0),
            "sensor_mm": list(SENSOR_MM),
            "energy_gev": list(ENERGY_GEV),
            "absorbers": list(ABSORBERS),
        },
        request={**asdict(parameters), "stacks": len(samples), "showers": sum(len(s.energy_gev) for s in samples)},
        producer="calorimeter.prototyping.train",
        more={name: json.dumps(value) for name, value in facts.items()},
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("showers", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)  # the same bytes on every machine
    parameters = Parameters()
    samples = list(read(given.showers))
    learned = [sample for number, sample in enumerate(samples) if number % HELD_OUT]
    networks, losses = train(learned, parameters)
    given.out.write_bytes(export(networks, about(learned, parameters, losses)))
    print(json.dumps(losses))  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
