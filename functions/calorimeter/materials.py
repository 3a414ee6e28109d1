"""The materials of sampling calorimeters, with the constants that shower formulas need."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Material:
    """An element; constants of the Review of Particle Physics (Prog. Theor. Exp. Phys. 2022, 083C01, table 6.1)."""

    name: str
    z: int
    """Atomic number."""
    a: float
    """Molar mass, g/mol."""
    density: float
    """g/cm^3."""
    radiation_length: float
    """g/cm^2."""
    minimum_loss: float
    """Energy that a minimum-ionising particle loses, MeV cm^2/g."""

    @property
    def radiation_length_mm(self) -> float:
        """The radiation length as a thickness, in mm.

        >>> round(MATERIALS["W"].radiation_length_mm, 2)
        3.5
        """
        return 10 * self.radiation_length / self.density

    @property
    def critical_energy_mev(self) -> float:
        """The critical energy in MeV, as GFLASH takes it: 2.66 (X0 Z / A)^1.1 (hep-ex/0001020, eq. 4)."""
        return float(2.66 * (self.radiation_length * self.z / self.a) ** 1.1)


MATERIALS = {
    material.name: material
    for material in (
        Material("Si", 14, 28.0855, 2.329, 21.82, 1.664),
        Material("Fe", 26, 55.845, 7.874, 13.84, 1.451),
        Material("Cu", 29, 63.546, 8.960, 12.86, 1.403),
        Material("W", 74, 183.84, 19.30, 6.76, 1.145),
        Material("Pb", 82, 207.2, 11.35, 6.37, 1.122),
    )
}
