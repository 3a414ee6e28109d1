"""A learned generator of showers: one ONNX file, run by onnxruntime on the CPU.

Its inputs are `energy_gev`, `theta` (rad) and `particle` (an index into its metadata's `particles`), each float32 of
shape (n,), and noise, whose names begin with `normal` or `uniform`; its output `ecal` are the cells, (n, x, y, layer),
MeV. What it is of, and where it holds, stands in its metadata.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter.geometry import geometry_from_json
from functions.calorimeter.hdf5 import rows_held
from functions.calorimeter.particles import refused
from functions.calorimeter.showers import Energies, Floats, Showers, from_dense
from layers.learning.onnx import About, ModelError, load
from layers.runtime import InputError

FORMAT = "dioscar-calorimeter-generator-1"
MODEL = "calorimeter-generator"
"""Name of the model that serves."""
NOISE_STREAM = 3
"""Of the random numbers that a model is given; simulations have 1 and 2."""
CONDITIONS = ("energy_gev", "theta", "particle")
MEND = "train it with calorimeter-train"
SMALLEST_UNIFORM = np.float32(2**-25)
"""A uniform number is never 0, of which a model may take the logarithm."""
BLOCK = 16
"""Showers that a model makes at once; fewer where they are large."""
ROUNDING = 1e-6
"""By this part a float32 may leave a range that it was drawn from."""


def kept(path: Path, threads: int = 1) -> "Generator":
    """The generator of a file, which is loaded again only where the file is another than the last one.

    To load a large graph takes onnxruntime seconds, and a warm worker answers many requests with one model.
    """
    facts = path.stat()
    return _kept(path, facts.st_ino, facts.st_mtime_ns, facts.st_size, threads)


class Generator:
    """The model at `path`, on `threads` cores. Raises InputError where it is no generator of showers."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._name = path.name
        try:
            self._session, self.described = load(path, FORMAT, threads)
        except ModelError as error:
            raise InputError(str(error)) from None
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        more = self.described.more
        self.family = more.get("family", "")
        self.geometry = geometry_from_json(self._json(more, "geometry", dict), f"{self._name}: geometry")
        self.particles = tuple(str(one) for one in self._json(more, "particles", list))
        self.threshold_mev = float(self._json(more, "threshold_mev", (int, float)))
        self.energy_gev = self._range("energy_gev")
        self.theta_deg = self._range("theta_deg")
        self.block = min(BLOCK, rows_held(self.geometry))
        """Showers that the model makes at once."""
        self._noise = self._noise_inputs(self.described)

    def check(self, energy_gev: "Floats | float", theta: "Floats | float", particle: str) -> None:
        """Refuse what the model was not trained on; raises InputError, which says what it was."""
        self._index(particle)
        for name, given, (low, high), unit in (
            ("energy_gev", np.asarray(energy_gev, np.float64), self.energy_gev, "GeV"),
            ("theta_deg", np.degrees(np.asarray(theta, np.float64)), self.theta_deg, "degrees"),
        ):
            wrong = ~((given >= low * (1 - ROUNDING)) & (given <= high * (1 + ROUNDING)))
            if wrong.any():
                value = float(np.atleast_1d(given)[np.argmax(np.atleast_1d(wrong))])
                raise InputError(
                    f"{name}: {value:g} is outside of {low:g} to {high:g} {unit}, which the model was trained on;"
                    " stay within, or simulate it (calorimeter-simulate)"
                )

    def generate(
        self,
        energy_gev: Floats,
        theta: Floats,
        particle: str,
        seed: int,
        *,
        batch: int = 16,
        first: int = 0,
        checked: bool = True,
    ) -> Iterator[Showers]:
        """Showers of the given primaries (GeV and rad, both of shape (n,)), at most `batch` at a time.

        The noise of shower i is drawn from the seed and first + i alone, so it is the same in any piece: bit for bit
        where pieces begin and end at multiples of `block`, on which the model runs, else up to rounding.
        `checked=False` lets the model extrapolate. Raises InputError for what it was not trained on.
        """
        index = self._index(particle)
        if checked:
            self.check(energy_gev, theta, particle)
        return self._parts(np.asarray(energy_gev, np.float64), np.asarray(theta, np.float64), index, seed, batch, first)

    def _parts(
        self, energy_gev: Floats, theta: Floats, index: int, seed: int, batch: int, first: int
    ) -> Iterator[Showers]:
        start = 0
        while start < len(energy_gev):
            stop = start + self.block - (first + start) % self.block
            energy, angle = energy_gev[start:stop], theta[start:stop]
            block = from_dense(energy, angle, self._cells(energy, angle, index, seed, first + start))
            for place in range(0, len(block), batch):
                yield block.part(place, place + batch)
            start = stop

    def _cells(self, energy_gev: Floats, theta: Floats, index: int, seed: int, first: int) -> Energies:
        """The model's output for a block, or a part of one."""
        count = len(energy_gev)
        conditions = (energy_gev, theta, np.full(count, index))
        inputs: dict[str, Energies] = {
            name: given.astype(np.float32) for name, given in zip(CONDITIONS, conditions, strict=True)
        }
        generators = [np.random.default_rng((seed, NOISE_STREAM, first + row)) for row in range(count)]
        for name, shape in self._noise.items():
            inputs[name] = noise = np.empty((count, *shape), np.float32)
            for row, rng in enumerate(generators):
                if name.startswith("normal"):
                    rng.standard_normal(out=noise[row], dtype=np.float32)
                else:
                    rng.random(out=noise[row], dtype=np.float32)
            if name.startswith("uniform"):
                np.maximum(noise, SMALLEST_UNIFORM, out=noise)
        cells: Energies = self._session.run(["ecal"], inputs)[0]
        if not (cells.min(initial=0) >= 0 and cells.max(initial=0) < np.inf):
            raise InputError(f"{self._name}: gives cells that are no energies; {MEND}")
        return cells

    def _index(self, particle: str) -> int:
        if particle not in self.particles:
            raise InputError(refused(particle, self.particles, "the model was trained on"))
        return self.particles.index(particle)

    def _range(self, name: str) -> tuple[float, float]:
        try:
            low, high = map(float, self.described.training_range[name])
        except (KeyError, TypeError, ValueError):
            low = high = math.nan
        if not low <= high:
            raise InputError(f"{self._name}: its training range of {name} is no [lowest, highest]; {MEND}")
        return low, high

    def _json(self, more: Mapping[str, str], name: str, kind: Any) -> Any:
        try:
            value = json.loads(more[name])
        except (KeyError, ValueError):
            value = None
        if not isinstance(value, kind):
            raise InputError(f"{self._name}: its metadata's {name} is missing or no JSON; {MEND}")
        return value

    def _noise_inputs(self, about: About) -> dict[str, tuple[int, ...]]:
        """Name and shape of each, without the rows, in the order of the model's inputs."""
        told = {tensor.name: tensor.shape for tensor in about.inputs}
        rest = {name: shape for name, shape in told.items() if name not in CONDITIONS}
        fixed = {name: tuple(size for size in shape[1:] if size is not None) for name, shape in rest.items()}
        fits = (
            all(told.get(name) == (None,) for name in CONDITIONS)
            and all(name.startswith(("normal", "uniform")) for name in rest)
            and all(shape == (None, *fixed[name]) for name, shape in rest.items())
            and {tensor.name: tensor.shape for tensor in about.outputs} == {"ecal": (None, *self.geometry.shape)}
        )
        if not fits:
            raise InputError(f"{self._name}: its inputs and outputs are not those of a generator of showers; {MEND}")
        return fixed


@lru_cache(maxsize=1)
def _kept(path: Path, inode: int, changed_ns: int, size: int, threads: int) -> Generator:
    return Generator(path, threads)
