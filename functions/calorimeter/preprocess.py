"""Prepare showers for training: `showers.root` in, `showers.root.h5` out, with the keys that the field uses.

What stands in the HDF5 file, `hdf5` says. Each shower's energy is that of the ROOT file to the precision of float32,
but for what the threshold takes.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from functions.calorimeter.checks import alike
from functions.calorimeter.geometry import known_geometries, load_geometry
from functions.calorimeter.hdf5 import Writer
from functions.calorimeter.rootfile import ShowersFile
from layers.runtime import InputError


@dataclass(frozen=True)
class Settings:
    """How `preprocess` works; environment variables of the same names in upper case."""

    threshold_mev: float = 0.0
    """Cells with less energy than this are set to 0; a minimum-ionising particle leaves about 0.15 MeV in 0.5 mm."""
    visible_min_mev: float = 0.0
    """Showers of which less than this is seen are left out."""
    geometry: str = ""
    """One of the geometries that come with the twin, which showers must be of; any one if empty."""
    chunk: int = 64
    """Showers that are held at once, and the chunk of the HDF5 file."""

    def __post_init__(self) -> None:
        for name in ("threshold_mev", "visible_min_mev"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name.upper()}: {getattr(self, name)} is no energy from 0 MeV up")
        if not 1 <= self.chunk <= 4096:
            raise ValueError(f"CHUNK: {self.chunk} is not from 1 to 4096")
        if self.geometry and self.geometry not in known_geometries():
            raise ValueError(f"GEOMETRY: {self.geometry} is none of {', '.join(known_geometries())}")


def run(source: Path, destination: Path, settings: Settings) -> None:
    """Write the HDF5 file, in bounded memory. Raises InputError for a file that holds no showers, or others."""
    path = destination / f"{source.name}.h5"
    cuts = {"threshold_mev": settings.threshold_mev, "visible_min_mev": settings.visible_min_mev}
    with ShowersFile(source) as showers:
        _check(showers, source.name, settings.geometry)
        with Writer(path, showers.geometry, showers.about, **cuts, chunk=settings.chunk) as writer:
            for part in showers.read(settings.chunk):
                writer.add(part)
    if not writer.count:
        raise InputError(f"{source.name}: holds no shower that is left; lower VISIBLE_MIN_MEV, or simulate some")


def _check(showers: ShowersFile, name: str, expected: str) -> None:
    """Refuse what does not say of which particle it is, and another geometry than `expected`, if one is."""
    particle = showers.about.get("particle")
    if not isinstance(particle, str) or not particle:
        raise InputError(f'{name}: simulation.particle does not say what was shot; write e.g. "e-"')
    if expected and not alike(showers.geometry, load_geometry(expected)):
        raise InputError(
            f"{name}: its showers are of the geometry {showers.geometry.name}, and this service takes {expected}; send"
            " them to a service with another GEOMETRY"
        )
