"""Showers in HDF5 files, with the keys that the field uses: the reader, and the writer of all that write them.

`ECAL` holds the cells, shape (n, x, y, layer), MeV, float32; `energy` (GeV), `theta` (rad), `mtheta` (the angle as the
cells show it), `eta` (pseudorapidity of the polar angle) and `sum` (MeV, float64) have one value for each shower. Each
has the attributes `unit` and `description`, and names of its axes; how the showers were made, what they are scaled by
and what was cut stands in the attributes of the file.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from functions.calorimeter.angle import measured_theta
from functions.calorimeter.checks import check_primaries, read_about
from functions.calorimeter.geometry import Geometry
from functions.calorimeter.showers import Energies, Showers, from_dense, join
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
NEEDED = ("ECAL", "energy", "theta")
"""What a file must have to be read; the others derive from these."""
AXES = ("shower", "x", "y", "layer")
"""Names of the axes of `ECAL`; the others have the first one."""
HELD_BYTES = 2**25
"""Cells that are held at once while reading or writing, and the largest chunk that is written."""
LARGEST_CHUNK = 2**30
"""HDF5 unpacks a chunk as a whole, so a file with a larger one would need as much memory."""
CLEANING = (
    "hits of one cell are added; cells with less than threshold_mev are 0; showers with less than visible_min_mev are"
    " left out"
)
LONGEST_TEXT = 60_000
"""Characters of `simulation`; HDF5 has 64 KiB for an attribute, and ASCII is what JSON is written in."""
SUM_TOLERANCE = 1e-4
"""By how much `sum` may differ from the sum of the cells: float32's precision is far better, other units far worse."""
BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises where a file is damaged."""
MEND = "write it with calorimeter-preprocess"


class ShowersHdf5:
    """An HDF5 file of showers, opened for reading; what is wrong with it is one sentence."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        try:
            self._file = h5py.File(path, "r", rdcc_nbytes=2 * HELD_BYTES)
        except OSError as error:
            raise InputError(f"{self._name}: is no whole HDF5 file ({_said(error)}); {MEND}") from None
        try:
            self.about, self.geometry = read_about(self._file.attrs.get("simulation"), f"{self._name}: simulation")
            self.particle = str(self.about.get("particle", ""))
            self.threshold_mev = self._threshold()
            self._count = self._checked_shapes()
        except InputError:
            self._file.close()
            raise
        except BROKEN as error:
            self._file.close()
            raise InputError(self._broken(error)) from None

    def __enter__(self) -> "ShowersHdf5":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def read(self, chunk: int = 256) -> Iterator[Showers]:
        """All showers, at most `chunk` at a time. Raises InputError for energies and angles that cannot be."""
        rows = min(chunk, rows_held(self.geometry))
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            try:
                images = np.asarray(self._file["ECAL"][start:stop], np.float32)
                energy, theta = (np.asarray(self._file[name][start:stop], np.float64) for name in NEEDED[1:])
                sums = np.asarray(self._file["sum"][start:stop], np.float64) if "sum" in self._file else None
            except BROKEN as error:
                raise InputError(self._broken(error)) from None
            check_primaries(energy, theta, start, self._name)
            self._check_cells(images, start)
            if sums is not None:
                self._check_sums(images, sums, start)
            yield from_dense(energy, theta, images)

    def _broken(self, error: BaseException) -> str:
        return f"{self._name}: is a broken HDF5 file ({_said(error)}); {MEND}"

    def _threshold(self) -> float:
        given = self._file.attrs.get("threshold_mev", 0.0)
        try:
            threshold = float(given)
        except (TypeError, ValueError):
            threshold = math.nan
        if not 0 <= threshold < math.inf:
            raise InputError(f"{self._name}: its attribute threshold_mev ({given}) is no energy from 0 MeV up; {MEND}")
        return threshold

    def _checked_shapes(self) -> int:
        for name in NEEDED:
            if not isinstance(self._file.get(name), h5py.Dataset):
                raise InputError(f'{self._name}: has no dataset "{name}"; {MEND}')
        cells = self._file["ECAL"]
        if cells.dtype.kind != "f":
            raise InputError(f"{self._name}: ECAL holds {cells.dtype} and no floating-point numbers; write MeV")
        if cells.ndim != 4 or tuple(cells.shape[1:]) != self.geometry.shape:
            x, y, layers = self.geometry.shape
            raise InputError(
                f"{self._name}: ECAL has the shape {tuple(cells.shape)}, and its geometry {self.geometry.name} asks for"
                f" (n, {x}, {y}, {layers}); it is of another detector"
            )
        if cells.chunks and math.prod(cells.chunks) * cells.dtype.itemsize > LARGEST_CHUNK:
            raise InputError(f"{self._name}: ECAL has chunks of more than 1 GiB; write it in smaller ones")
        for name in DESCRIPTIONS:
            column = self._file.get(name)
            if name == "ECAL" or column is None:
                continue
            if not isinstance(column, h5py.Dataset) or column.dtype.kind not in "fiu" or column.ndim != 1:
                raise InputError(f"{self._name}: {name} is no list of numbers, one for each shower; {MEND}")
            if len(column) != len(cells):
                raise InputError(
                    f"{self._name}: ECAL has {len(cells)} showers, and {name} {len(column)}; write one for each"
                )
        return len(cells)

    def _check_cells(self, images: Energies, first: int) -> None:
        flat = images.reshape(len(images), -1)
        low = flat.min(axis=1, initial=0)
        wrong = ~((low >= 0) & (flat.max(axis=1, initial=0) < np.inf))  # NaN is neither
        if wrong.any():
            number = first + int(np.argmax(wrong))
            raise InputError(
                f"{self._name}: shower {number} has a cell with a negative energy or none; simulate it again"
            )

    def _check_sums(self, images: Energies, sums: Any, first: int) -> None:
        seen = images.sum(axis=(1, 2, 3), dtype=np.float64)
        wrong = ~(np.abs(sums - seen) <= SUM_TOLERANCE * seen + 1e-6)
        if wrong.any():
            place = int(np.argmax(wrong))
            raise InputError(
                f"{self._name}: shower {first + place} has {seen[place]:g} MeV in its cells, and its sum says"
                f" {sums[place]:g}; write both in MeV"
            )


class Writer:
    """Appends showers to a new HDF5 file, in bounded memory; the same showers give the same bytes."""

    def __init__(
        self,
        path: Path,
        geometry: Geometry,
        about: dict[str, Any],
        *,
        threshold_mev: float = 0.0,
        visible_min_mev: float = 0.0,
        chunk: int = 64,
    ) -> None:
        """`about` is what `simulation` says; cells below the threshold become 0, showers with less are left out."""
        text = json.dumps(about, sort_keys=True)
        if len(text) > LONGEST_TEXT:
            raise InputError(
                f"{path.stem}: what it says of its simulation has {len(text)} characters, and HDF5 takes no more than"
                f" {LONGEST_TEXT}; leave out what is not needed"
            )
        self.geometry, self.threshold_mev, self.visible_min_mev = geometry, threshold_mev, visible_min_mev
        self.count = self.left_out = 0  # of what has been written; all of it when the writer is closed
        self._waiting: list[Showers] = []
        self._waits = 0
        self._rows = rows = min(chunk, rows_held(geometry))
        self._file = file = h5py.File(path, "w", track_order=True)
        shape = geometry.shape
        options: dict[str, Any] = {"track_times": False, "compression": "gzip", "compression_opts": 4, "shuffle": True}
        file.create_dataset("ECAL", (0, *shape), np.float32, maxshape=(None, *shape), chunks=(rows, *shape), **options)
        for name in ("energy", "theta", "mtheta", "eta", "sum"):
            file.create_dataset(name, (0,), np.float64, maxshape=(None,), chunks=(rows,), track_times=False)
        file.attrs["format"] = FORMAT
        file.attrs["simulation"] = text
        file.attrs["geometry"] = geometry.name
        file.attrs["particle"] = str(about.get("particle", ""))
        file.attrs["threshold_mev"] = threshold_mev
        file.attrs["visible_min_mev"] = visible_min_mev
        file.attrs["cleaning"] = CLEANING
        file.attrs["scaling"] = "none: cells in MeV"
        for name, (unit, description) in DESCRIPTIONS.items():
            file[name].attrs["unit"] = unit
            file[name].attrs["description"] = description
            for axis in range(file[name].ndim):
                file[name].dims[axis].label = AXES[axis]

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None and self._waits:
            self._write(join(self._waiting))
        self._file.attrs["showers"] = self.count
        self._file.attrs["left_out"] = self.left_out
        self._file.close()

    def add(self, part: Showers) -> None:
        """Append the showers of a part that are not cut; they are written as many at a time as a chunk has."""
        start = 0
        while start < len(part):
            taken = part.part(start, start + self._rows - self._waits)
            self._waiting.append(taken)
            self._waits += len(taken)
            start += len(taken)
            if self._waits == self._rows:
                self._write(join(self._waiting))
                self._waiting, self._waits = [], 0

    def _write(self, part: Showers) -> None:
        images = part.dense(self.geometry.shape)
        images[images < self.threshold_mev] = 0
        visible = images.sum(axis=(1, 2, 3), dtype=np.float64)
        kept = visible >= self.visible_min_mev
        self.left_out += int((~kept).sum())
        if not kept.all():
            images = images[kept]
        theta = part.theta[kept]
        values = {
            "ECAL": images,
            "energy": part.energy_gev[kept],
            "theta": theta,
            "mtheta": measured_theta(images, self.geometry),
            "eta": -np.log(np.tan(theta / 2)),
            "sum": visible[kept],
        }
        size = self.count + len(images)
        for name, array in values.items():
            self._file[name].resize(size, axis=0)
            self._file[name][self.count :] = array
        self.count = size


def rows_held(geometry: Geometry) -> int:
    """How many showers of a geometry are held at once as arrays of cells."""
    return max(1, HELD_BYTES // (4 * math.prod(geometry.shape)))


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
