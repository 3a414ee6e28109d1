"""Prepare showers for training: `showers.root` in, `showers.root.h5` out, with the keys that the field uses.

`ECAL` holds the cells, shape (n, x, y, layer), MeV, float32; `energy` (GeV), `theta` (rad), `mtheta` (the angle as the
cells show it), `eta` (pseudorapidity of the polar angle) and `sum` (MeV, float64) have one value for each shower. Each
has the attributes `unit` and `description`, and names of its axes; what was cut, and how the showers were made, stands
in the attributes of the file. Each shower's energy is that of the ROOT file to the precision of float32, but for what
the threshold takes.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from functions.calorimeter.angle import measured_theta
from functions.calorimeter.rootfile import ShowersFile
from functions.calorimeter.showers import Showers
from layers.runtime import InputError

FORMAT = "dioscar-calorimeter-showers-1"
DESCRIPTIONS = {
    "ECAL": ("MeV", "energy in the sensor of each cell"),
    "energy": ("GeV", "energy of the primary particle"),
    "theta": ("rad", "polar angle of the primary particle, in the plane of y and depth; pi/2 is perpendicular"),
    "mtheta": ("rad", "polar angle that the layers' centres of energy show; NaN if fewer than two layers have energy"),
    "eta": ("1", "pseudorapidity of the primary particle, -ln tan(theta / 2)"),
    "sum": ("MeV", "energy in all cells"),
}
"""Unit and meaning of each dataset."""
AXES = ("shower", "x", "y", "layer")
"""Names of the axes of `ECAL`; the others have the first one."""


@dataclass(frozen=True)
class Settings:
    """How `preprocess` works; environment variables of the same names in upper case."""

    threshold_mev: float = 0.0
    """Cells with less energy than this are set to 0; a minimum-ionising particle leaves about 0.15 MeV in 0.5 mm."""
    visible_min_mev: float = 0.0
    """Showers of which less than this is seen are left out."""
    chunk: int = 64
    """Showers that are held at once, and the chunk of the HDF5 file."""

    def __post_init__(self) -> None:
        for name in ("threshold_mev", "visible_min_mev"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name.upper()}: {getattr(self, name)} is no energy from 0 MeV up")
        if not 1 <= self.chunk <= 4096:
            raise ValueError(f"CHUNK: {self.chunk} is not from 1 to 4096")


def run(source: Path, destination: Path, settings: Settings) -> None:
    """Write the HDF5 file, in bounded memory. Raises InputError for a file that holds no showers."""
    path = destination / f"{source.name}.h5"
    with ShowersFile(source) as showers, h5py.File(path, "w", track_order=True) as file:
        writer = Writer(file, showers, settings)
        for part in showers.read(settings.chunk):
            writer.add(part)
        if not writer.count:
            raise InputError(f"{source.name}: holds no shower that is left; lower VISIBLE_MIN_MEV, or simulate some")
        writer.finish()


class Writer:
    """Appends showers to an HDF5 file."""

    def __init__(self, file: h5py.File, showers: ShowersFile, settings: Settings) -> None:
        self.file, self.settings = file, settings
        self.geometry = showers.geometry
        self.count = self.left_out = 0
        shape, chunk = self.geometry.shape, settings.chunk
        options: dict[str, Any] = {"track_times": False, "compression": "gzip", "compression_opts": 4, "shuffle": True}
        file.create_dataset("ECAL", (0, *shape), np.float32, maxshape=(None, *shape), chunks=(chunk, *shape), **options)
        for name in ("energy", "theta", "mtheta", "eta", "sum"):
            file.create_dataset(name, (0,), np.float64, maxshape=(None,), chunks=(chunk,), track_times=False)
        file.attrs["format"] = FORMAT
        file.attrs["simulation"] = json.dumps(showers.about, sort_keys=True)
        file.attrs["geometry"] = self.geometry.name
        file.attrs["particle"] = str(showers.about.get("particle", ""))
        file.attrs["threshold_mev"] = settings.threshold_mev
        file.attrs["visible_min_mev"] = settings.visible_min_mev
        file.attrs["scaling"] = "none: cells in MeV"
        for name, (unit, description) in DESCRIPTIONS.items():
            file[name].attrs["unit"] = unit
            file[name].attrs["description"] = description
            for axis in range(file[name].ndim):
                file[name].dims[axis].label = AXES[axis]

    def add(self, part: Showers) -> None:
        """Append the showers of a part that are not cut."""
        images = part.dense(self.geometry.shape)
        images[images < self.settings.threshold_mev] = 0
        visible = images.sum(axis=(1, 2, 3), dtype=np.float64)
        kept = visible >= self.settings.visible_min_mev
        self.left_out += int((~kept).sum())
        theta = part.theta[kept]
        values = {
            "ECAL": images[kept],
            "energy": part.energy_gev[kept],
            "theta": theta,
            "mtheta": measured_theta(images[kept], self.geometry),
            "eta": -np.log(np.tan(theta / 2)),
            "sum": visible[kept],
        }
        size = self.count + int(kept.sum())
        for name, array in values.items():
            self.file[name].resize(size, axis=0)
            self.file[name][self.count :] = array
        self.count = size

    def finish(self) -> None:
        """Say what was left out."""
        self.file.attrs["showers"] = self.count
        self.file.attrs["left_out"] = self.left_out
