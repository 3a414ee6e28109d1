"""A shower in a stack as numbers that a network can learn: how much it leaves, how deep, and then layer after layer.

First the energy in all layers of a stack so deep that nothing leaves it is drawn, then how deep its centre lies, and
then the energy of one layer after the other, where the network knows what is still to come. Layers that were drawn
without these two made resolutions of fine sampling 1.5 times too wide: small errors add up from layer to layer.

What a shower leaves in a layer depends on the layer, on the primary, and on what the shower has done so far. Of that,
sums of the energy seen are kept: of all of it, and of what was seen within the last four, one and a third radiation
lengths, fading exponentially; so the same words describe thin layers and thick ones.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.materials import MATERIALS
from functions.calorimeter.prototyping.stack import ABSORBERS, Stack
from functions.calorimeter.showers import Floats

FADING_X0 = (4.0, 1.0, 0.3)
LEAST_MIP = 0.02
"""A layer with less of what a minimum-ionising particle leaves counts as empty."""
FEATURES = (
    "log_energy",
    "gamma",
    *(f"is_{name}" for name in ABSORBERS),
    "log_layer_x0",
    "log_sensor_mm",
    "depth",
    "age",
    "left",
    "log_left",
    "centre",
    "whole_centre",
    "centre_left",
    *(f"seen_{length:g}_x0" for length in FADING_X0),
    "last",
    "last_but_one",
)


@dataclass
class Shower:
    """`n` showers on their way through a stack: `features()` before a layer, `add(...)` behind it."""

    stack: Stack
    gamma: bool
    energy_gev: Floats
    """Shape (n,)."""
    total_mev: Floats
    """What each shower leaves in all sensors of a stack so deep that it ends there, shape (n,)."""
    centre_x0: Floats
    """The centre in depth of that energy, radiation lengths, shape (n,)."""
    layer: int = 0
    _sums: Floats = field(init=False)
    _centre: Floats = field(init=False)
    _last: list[Floats] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.energy_gev)
        self._sums = np.zeros((1 + len(FADING_X0), count))
        self._centre = np.zeros(count)
        self._last = [np.zeros(count), np.zeros(count)]
        self._fading = np.array([1.0, *(math.exp(-self.stack.layer_x0 / length) for length in FADING_X0)])

    def features(self) -> NDArray[np.float32]:
        """What is known before the next layer, `FEATURES`, shape (n, features)."""
        stack, depth = self.stack, (self.layer + 0.5) * self.stack.layer_x0
        log_energy = np.log(self.energy_gev)
        seen = self._sums / self.total_mev
        left = np.maximum(1 - seen[0], 0)
        ahead = (left + 1e-3) * self.total_mev
        same = np.ones_like(log_energy)
        centre = self._centre / np.maximum(self._sums[0], 1e-9)
        columns = [
            log_energy,
            same * self.gamma,
            *(same * (name == stack.absorber) for name in ABSORBERS),
            same * math.log(stack.layer_x0),
            same * math.log(stack.sensor_mm),
            same * depth / 10,
            depth / 3 / np.maximum(1.0, maximum_x0(stack, self.energy_gev)),
            left,
            np.log(left + 1e-3),
            (depth - centre) / 10,
            self.centre_x0 / 10,
            np.clip((self.centre_x0 * self.total_mev - self._centre) / ahead - depth, -10, 20) / 10,
            *np.sqrt(seen[1:]),
            *(coded(stack, self.energy_gev, value) for value in self._last),
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def add(self, energy_mev: Floats) -> None:
        """The energy that was left in the next layer's sensor, shape (n,), MeV."""
        depth = (self.layer + 0.5) * self.stack.layer_x0
        self._sums = (self._sums + energy_mev) * self._fading[:, None]
        self._centre = self._centre + depth * energy_mev
        self._last = [np.asarray(energy_mev, np.float64), self._last[0]]
        self.layer += 1


CONDITION = ("log_energy", "gamma", *(f"is_{name}" for name in ABSORBERS), "log_layer_x0", "log_sensor_mm", "log_part")
"""What is known of a shower before anything is drawn; its centre is drawn with `log_total` behind them."""


def condition(stack: Stack, gamma: bool, energy_gev: Floats) -> NDArray[np.float32]:
    """`CONDITION` of `n` showers, shape (n, 9)."""
    numbers = [
        float(gamma),
        *(float(name == stack.absorber) for name in ABSORBERS),
        math.log(stack.layer_x0),
        math.log(stack.sensor_mm),
        math.log(minimum_fraction(stack)),
    ]
    return np.column_stack([np.log(energy_gev), np.tile(numbers, (len(energy_gev), 1))]).astype(np.float32)


def total_scale(stack: Stack, energy_gev: Floats) -> Floats:
    """About what is seen in a deep stack, MeV; showers leave less in silicon than minimum-ionising particles."""
    return np.asarray(0.7e3 * energy_gev * minimum_fraction(stack))


def centre_scale(stack: Stack, energy_gev: Floats) -> Floats:
    """About where a shower's centre lies, radiation lengths."""
    return np.maximum(1.0, maximum_x0(stack, energy_gev) + 2.0)


def minimum_fraction(stack: Stack) -> float:
    """Part of the energy that minimum-ionising particles leave in the sensors.

    >>> round(minimum_fraction(Stack("W", 2.4, 25, 0.53, 2.66)), 3)
    0.037
    """
    absorber = MATERIALS[stack.absorber]
    lost = absorber.minimum_loss * absorber.density * stack.absorber_mm / 10
    return stack.minimum_mev / (lost + stack.minimum_mev)


def maximum_x0(stack: Stack, energy_gev: Floats) -> Floats:
    """About the depth of the shower's maximum, radiation lengths: ln(E / critical energy) - 0.5."""
    return np.log(1e3 * energy_gev / MATERIALS[stack.absorber].critical_energy_mev) - 0.5


def coded(stack: Stack, energy_gev: Floats, energy_mev: Floats) -> Floats:
    """Energy in a layer as the root of minimum-ionising particles for each GeV, whose spread hardly depends on it."""
    return np.sqrt(energy_mev / stack.minimum_mev / energy_gev)


def decoded(stack: Stack, energy_gev: Floats, code: Floats) -> Floats:
    """The energy in MeV of a code; one below `LEAST_MIP` is that."""
    return np.maximum(code, 0.0) ** 2 * energy_gev * stack.minimum_mev
