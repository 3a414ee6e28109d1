"""The fast model: showers in a stack of equal layers that nobody has simulated, in a hundredth of Geant4's time.

Three small networks in one ONNX file, each giving a mixture of normal distributions: for the energy in all layers of a
deep stack, for its centre in depth, and for each layer's energy (`layers.py`). A stack that is less deep is the deep
one cut off. Random numbers are drawn here, from the seed of a request.
"""

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.prototyping.layers import (
    CONDITION,
    FEATURES,
    LEAST_MIP,
    Shower,
    centre_scale,
    condition,
    decoded,
    total_scale,
)
from functions.calorimeter.prototyping.production import deepened
from functions.calorimeter.prototyping.stack import ABSORBERS, Stack
from functions.calorimeter.showers import Floats
from layers.learning.onnx import ModelError, Tensor, load
from layers.runtime import InputError

FORMAT = "dioscar-calorimeter-prototype-1"
MODEL = "calorimeter-prototype"
"""Name of the model that serves."""
MIXED = 3
"""Normal distributions that total and centre are mixed of."""
MIXED_LAYERS = 5
INPUTS = (
    Tensor("total_of", (None, len(CONDITION)), "", "layers.CONDITION"),
    Tensor("centre_of", (None, len(CONDITION) + 1), "", "layers.CONDITION and the logarithm of the total"),
    Tensor("layer_of", (None, len(FEATURES)), "", "layers.FEATURES"),
)
OUTPUTS = (
    Tensor("total", (None, 3 * MIXED), "", "mixture of log(total / layers.total_scale)"),
    Tensor("centre", (None, 3 * MIXED), "", "mixture of log(centre / layers.centre_scale)"),
    Tensor("layer", (None, 3 * MIXED_LAYERS + 1), "", "mixture of layers.coded energies; logit that there is any"),
)


class Prototype:
    """The fast model of a file. Raises InputError where it is none."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            self._session, self.about = load(path, FORMAT, threads)
        except ModelError as error:
            raise InputError(str(error)) from None
        self.ranges: Mapping[str, Any] = self.about.training_range

    def check(self, stack: Stack, energy_gev: float) -> None:
        """Raises InputError, which names field and range, for a stack or an energy that the model never learned of."""
        given = {"absorber_x0": stack.absorber_x0, "sensor_mm": stack.sensor_mm, "energy_gev": energy_gev}
        for name, value in given.items():
            low, high = self.ranges[name]
            if not low * 0.999 <= value <= high * 1.001:
                raise InputError(
                    f"{name}: {value:.3g} ({stack.absorber}) is beyond what the fast model has learned,"
                    f" {low:g} to {high:g}; stay within it, or simulate with calorimeter-simulate"
                )
        if stack.absorber not in ABSORBERS:
            raise InputError(f"absorbers: {stack.absorber} is none of {', '.join(ABSORBERS)}")

    @cached_property
    def errors(self) -> dict[str, dict[str, float]]:
        """The model's own relative errors for each particle, measured on stacks that it had not seen (`judged`)."""
        try:
            return dict(json.loads(self.about.more["errors"]))
        except (KeyError, ValueError, TypeError):
            raise InputError("the fast model does not say how wrong it is; run prototyping.judged on it") from None

    def generate(self, stack: Stack, particle: str, energy_gev: Floats, seed: int) -> Floats:
        """Energies of the layers, MeV, shape (n, layers); cutting columns off gives the showers of fewer layers."""
        rng = np.random.default_rng((seed, 31))
        gamma = particle == "gamma"
        known = condition(stack, gamma, energy_gev)
        total_log = self._drawn("total", {"total_of": known}, rng)
        after = np.column_stack([known, total_log]).astype(np.float32)
        centre_log = self._drawn("centre", {"centre_of": after}, rng)
        total = np.exp(total_log) * total_scale(stack, energy_gev)
        shower = Shower(stack, gamma, energy_gev, total, np.exp(centre_log) * centre_scale(stack, energy_gev))
        least = LEAST_MIP * stack.minimum_mev
        layers = []
        for _ in range(max(stack.layers, deepened(stack).layers)):
            mixture = self._mixture("layer", {"layer_of": shower.features()})
            there = rng.random(len(mixture)) < 1 / (1 + np.exp(-mixture[:, -1]))
            energy = np.maximum(decoded(stack, energy_gev, _draw(mixture[:, :-1], rng)), least)
            layers.append(np.where(there, energy, 0.0))
            shower.add(layers[-1])
        made = np.stack(layers, axis=1)
        seen = np.maximum(made.sum(axis=1), least)
        return np.asarray(made * (total / seen)[:, None])[:, : stack.layers]

    def _drawn(self, name: str, given: Mapping[str, NDArray[np.float32]], rng: np.random.Generator) -> Floats:
        return _draw(self._mixture(name, given), rng)

    def _mixture(self, name: str, given: Mapping[str, NDArray[np.float32]]) -> Floats:
        """One of the three networks; the other two, which cost little, are given zeros."""
        count = len(next(iter(given.values())))
        zeros = {tensor.name: np.zeros((count, tensor.shape[1] or 0), np.float32) for tensor in INPUTS}
        return np.asarray(self._session.run([name], {**zeros, **given})[0], np.float64)


def _draw(mixture: Floats, rng: np.random.Generator) -> Floats:
    """One number for each row of log weights, means and log widths."""
    count = mixture.shape[1] // 3
    weights, means, widths = (mixture[:, part * count : (part + 1) * count] for part in range(3))
    edges = np.cumsum(np.exp(weights - weights.max(axis=1, keepdims=True)), axis=1)
    which = (rng.random(len(mixture))[:, None] * edges[:, -1:] > edges).sum(axis=1)
    rows = np.arange(len(mixture))
    return np.asarray(means[rows, which] + np.exp(widths[rows, which]) * rng.standard_normal(len(mixture)))


def resolution(sums: Floats) -> tuple[float, float]:
    """Standard deviation over mean of energies, and its statistical error, which knows of tails.

    The error is that of Cramer (Mathematical Methods of Statistics, 1946, 27.7) for a ratio of moments.
    """
    mean = float(sums.mean())
    moved = (sums - mean) / mean
    second, third, fourth = (float((moved**power).mean()) for power in (2, 3, 4))
    count = len(sums)
    width = math.sqrt(second * count / (count - 1))
    variance = (fourth - second**2) / (4 * second) - third + second**2
    return width, math.sqrt(max(variance, 0.0) / count)
