"""The tables that Geant4's electromagnetic physics reads, computed here: no package index has its own data sets.

`G4EmStandardPhysics_option1` reads three: the bremsstrahlung of electrons below 1 GeV (here Tsai's screened formula
for the Thomas-Fermi atom, Rev. Mod. Phys. 46 (1974) 815, eq. 3.9 to 3.45), the photoelectric cross-section (here that
of xraylib, Comput. Phys. Commun. 53 (1989) 245) and the nuclear levels, of which a shower of electrons and photons
needs none. They are not G4EMLOW: radiation lengths agree with it to a few per mille, bremsstrahlung below 10 MeV, where
showers lose little by it, is lower by 5 to 25 %.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ELECTRON_MASS_MEV = 0.51099895
FINE_STRUCTURE = 1 / 137.035999
ELECTRON_RADIUS_SQUARED_MB = 79.4078
KAPPA = np.concatenate(
    [[0.0, 1e-6, 1e-4, 1e-3], np.linspace(0.01, 0.1, 6), np.linspace(0.15, 0.95, 17), [0.97, 0.99, 0.999, 0.9999, 1.0]]
)
"""Photon energy over kinetic energy of the electron, 32 nodes."""
LOG_ENERGY = np.log(np.geomspace(1e-3, 1e4, 57))
"""Natural logarithm of the electron's kinetic energy in MeV: 1 keV to 10 GeV, 57 nodes."""
BINDING_MEV = 1e-3
"""The one effective shell of the photoelectric tables."""
PHOTOELECTRIC_MEV = np.geomspace(1e-3, 0.9, 120)
SWITCH_MEV = 0.9
"""Above this energy the photoelectric cross-section falls as 1/E (Sauter)."""


def write_tables(folder: Path, elements: Iterable[int]) -> None:
    """Write the tables for the elements of these atomic numbers below `folder`, as Geant4 looks for them."""
    bremsstrahlung = folder / "brem_SB"
    photoelectric = folder / "epics2017" / "phot"
    bremsstrahlung.mkdir(parents=True, exist_ok=True)
    photoelectric.mkdir(parents=True, exist_ok=True)
    (folder / "ENSDFSTATE.dat").write_text("")
    for z in elements:
        (bremsstrahlung / f"br{z}").write_text(_bremsstrahlung_file(z))
        (photoelectric / f"pe-cs-{z}.dat").write_text(_photoelectric_file(z))
        high = f"1 1 {SWITCH_MEV}\n{BINDING_MEV} {' '.join(f'{a:.8e}' for a in _high_energy_coefficients(z))}\n"
        for name in ("high", "low"):
            (photoelectric / f"pe-{name}-{z}.dat").write_text(high)


def scaled_bremsstrahlung_mb(z: int, kinetic_mev: Floats | float, kappa: Floats | float) -> Floats:
    """The scaled cross-section (beta^2 / Z^2) k dsigma/dk of electrons on atoms of atomic number `z`, in mb.

    Tsai's formula with his fits of the screening functions of the Thomas-Fermi atom and the Coulomb correction of
    Davies, Bethe and Maximon; `kinetic_mev` and `kappa` (photon energy over kinetic energy) are broadcast.
    """
    kinetic, kappa = np.broadcast_arrays(np.asarray(kinetic_mev, float), np.asarray(kappa, float))
    energy = kinetic + ELECTRON_MASS_MEV
    y = kappa * kinetic / energy
    scale = 100 * ELECTRON_MASS_MEV * y / (energy * (1 - y))
    gamma, epsilon = scale / z ** (1 / 3), scale / z ** (2 / 3)
    phi = 16.863 - 2 * np.log(1 + 0.311877 * gamma**2) + 2.4 * np.exp(-0.9 * gamma) + 1.6 * np.exp(-1.5 * gamma)
    phi_less = (2 / 3) / (1 + 6.5 * gamma + 6 * gamma**2)
    psi = 24.34 - 2 * np.log(1 + 13.111641 * epsilon**2) + 2.8 * np.exp(-8 * epsilon) + 1.2 * np.exp(-29.2 * epsilon)
    psi_less = (2 / 3) / (1 + 40 * epsilon + 400 * epsilon**2)
    nuclear = phi / 4 - math.log(z) / 3 - coulomb_correction(z)
    atomic = (psi / 4 - 2 * math.log(z) / 3) / z
    shape = (1 - y + 0.75 * y**2) * (nuclear + atomic) + (1 - y) * (phi_less + psi_less / z) / 8
    beta_squared = kinetic * (kinetic + 2 * ELECTRON_MASS_MEV) / energy**2
    return np.asarray(np.maximum(beta_squared * 16 * FINE_STRUCTURE * ELECTRON_RADIUS_SQUARED_MB / 3 * shape, 0.0))


def coulomb_correction(z: int) -> float:
    """The Coulomb correction f(Z) (Davies, Bethe, Maximon, Phys. Rev. 93 (1954) 788).

    >>> round(coulomb_correction(74), 3)
    0.282
    """
    a = (FINE_STRUCTURE * z) ** 2
    return a * (1 / (1 + a) + 0.20206 - 0.0369 * a + 0.0083 * a**2 - 0.002 * a**3)


def _bremsstrahlung_file(z: int) -> str:
    energies = np.exp(LOG_ENERGY)
    table = scaled_bremsstrahlung_mb(z, energies[:, None], KAPPA[None, :])
    lines = [f"0 {len(KAPPA)} {len(LOG_ENERGY)}", _line(KAPPA), _line(LOG_ENERGY), *map(_line, table)]
    return "\n".join(lines) + "\n"


def photoelectric_barn(z: int, energy_mev: Floats) -> Floats:
    """The photoelectric cross-section per atom, in barn; 1/E above 0.9 MeV.

    What xraylib knows of hydrogen and helium ends earlier; there the cross-section goes on as 1/E^3.
    """
    import xraylib

    below = np.minimum(energy_mev, SWITCH_MEV)
    known = below if z > 2 else np.minimum(below, 0.1)
    table = np.array([xraylib.CSb_Photo(z, 1e3 * energy) for energy in known])
    return np.asarray(table * (known / below) ** 3 * below / energy_mev)


def _photoelectric_file(z: int) -> str:
    energies = PHOTOELECTRIC_MEV
    sigma = photoelectric_barn(z, energies) * energies**3
    rows = [f"{energy:.8e} {value:.8e}" for energy, value in zip(energies, sigma, strict=True)]
    return "\n".join([f"{energies[0]:.8e} {energies[-1]:.8e} {len(rows)}", str(len(rows)), *rows]) + "\n"


def _high_energy_coefficients(z: int) -> list[float]:
    at_switch = float(photoelectric_barn(z, np.array([SWITCH_MEV]))[0])
    return [at_switch * SWITCH_MEV, 0.0, 0.0, 0.0, 0.0, 0.0]


def _line(values: Floats) -> str:
    return " ".join(f"{value:.8e}" for value in values)
