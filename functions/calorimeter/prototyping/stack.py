"""A prototype: equal layers of an absorber and silicon, read out without loss at the sides."""

import math
from dataclasses import dataclass

from functions.calorimeter.geometry import Geometry, Layer
from functions.calorimeter.materials import MATERIALS

ABSORBERS = ("Fe", "Cu", "W", "Pb")
SENSOR = "Si"
CELLS = 3
CELL_MM = 200.0
"""Wide enough that nothing is lost at the sides: what is looked at is the sum over a layer."""


@dataclass(frozen=True)
class Stack:
    """`layers` equal layers; lengths in mm."""

    absorber: str
    absorber_mm: float
    layers: int
    sensor_mm: float
    gap_mm: float

    @property
    def absorber_x0(self) -> float:
        """Radiation lengths of one layer's absorber.

        >>> round(Stack("W", 3.5, 20, 0.5, 2.0).absorber_x0, 2)
        1.0
        """
        return self.absorber_mm / MATERIALS[self.absorber].radiation_length_mm

    @property
    def layer_x0(self) -> float:
        """Radiation lengths of one layer, absorber and sensor."""
        return self.absorber_x0 + self.sensor_mm / MATERIALS[SENSOR].radiation_length_mm

    @property
    def depth_x0(self) -> float:
        """Depth of the whole in radiation lengths."""
        return self.layers * self.layer_x0

    @property
    def depth_mm(self) -> float:
        """Depth of the whole in mm."""
        return self.layers * (self.absorber_mm + self.sensor_mm + self.gap_mm)

    @property
    def minimum_mev(self) -> float:
        """What a minimum-ionising particle loses on average in one sensor, MeV."""
        return MATERIALS[SENSOR].minimum_loss * MATERIALS[SENSOR].density * self.sensor_mm / 10

    def geometry(self, cells: int = CELLS, cell_mm: float = CELL_MM) -> Geometry:
        """The stack as a detector that can be simulated."""
        one = Layer(MATERIALS[self.absorber], self.absorber_mm, MATERIALS[SENSOR], self.sensor_mm, self.gap_mm)
        title = f"{self.layers} layers of {self.absorber_mm:g} mm {self.absorber}, {self.sensor_mm:g} mm {SENSOR}"
        return Geometry("prototype", title, cells, cell_mm, (one,) * self.layers)


def thickness_mm(absorber: str, x0: float) -> float:
    """The thickness in mm of so many radiation lengths, to a micrometre.

    >>> thickness_mm("W", 1.0)
    3.503
    """
    return round(x0 * MATERIALS[absorber].radiation_length_mm, 3)


def layers_for(depth_x0: float, stack: Stack, most: int) -> int:
    """How many of the stack's layers make this depth, at most `most`."""
    return min(most, max(1, math.ceil(depth_x0 / stack.layer_x0)))
