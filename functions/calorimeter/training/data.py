"""The showers that a request names, read from their files and split."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import hdf5
from functions.calorimeter.checks import refuse_generated
from functions.calorimeter.geometry import Geometry
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.learners.learner import TrainingData
from functions.calorimeter.particles import PARTICLES, refused
from functions.calorimeter.showers import Showers, join
from functions.calorimeter.training.split import WATCHED, Flags, held_out
from layers.runtime import Input, InputError

LEAST_SHOWERS = 50
"""In all, below which there is nothing to learn and nothing to tell it by."""
LEAST_WATCHED = 8
"""Of each particle; of what is held out, too."""
EDGE = 8.0
"""Distances between neighbours by which showers may miss the edge of what was asked for, as random numbers do."""
NEAR = 20
"""Showers next to an edge, by which that distance is told."""
TRAINING, WATCHING, HELD = 0, 1, 2
RESAMPLE_STREAM = 12
"""Of the random numbers that choose a bootstrap resample."""


@dataclass(frozen=True)
class File:
    """One file of showers, all of it, and what each shower is for (`TRAINING`, `WATCHING` or `HELD`, shape (n,))."""

    item: Input
    about: dict[str, Any]
    geometry: Geometry
    threshold_mev: float
    showers: Showers
    use: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    @property
    def particle(self) -> str:
        """What was shot."""
        return str(self.about["particle"])


@dataclass(frozen=True)
class Collection:
    """The files of a request, all of the same detector, engine and threshold."""

    files: tuple[File, ...]

    @property
    def geometry(self) -> Geometry:
        """The one that all have."""
        return self.files[0].geometry

    @property
    def particles(self) -> tuple[str, ...]:
        """Those that occur, by name."""
        return tuple(sorted({file.particle for file in self.files}))

    @property
    def engine(self) -> str:
        """Who has simulated the showers."""
        return str(self.files[0].about.get("engine", ""))

    def count(self, use: int | None, particle: str = "") -> int:
        """How many showers are for that, or all; of one particle, or of all."""
        files = [file for file in self.files if particle in ("", file.particle)]
        return sum(int((file.use == use).sum()) if use is not None else len(file.use) for file in files)

    def part(self, use: int) -> TrainingData:
        """The showers that are for that, file by file."""
        chosen = [np.flatnonzero(file.use == use) for file in self.files]
        energies, angles = zip(*(_ranges(file) for file in self.files), strict=True)
        return TrainingData(
            self.geometry,
            self.particles,
            join([file.showers.rows(rows) for file, rows in zip(self.files, chosen, strict=True)]),
            np.repeat([self.particles.index(file.particle) for file in self.files], [len(rows) for rows in chosen]),
            self.files[0].threshold_mev,
            (min(low for low, _ in energies), max(high for _, high in energies)),
            (min(low for low, _ in angles), max(high for _, high in angles)),
        )

    def write_held_out(self, folder: Path) -> Iterator[Path]:
        """Write what is held out as prepared showers, a file for each particle; yields the files."""
        for particle in self.particles:
            files = [file for file in self.files if file.particle == particle]
            path = folder / f"held_out-{particle.replace('+', 'plus')}.h5"  # stores read + in a key as they like
            with hdf5.Writer(path, self.geometry, _common(files), threshold_mev=files[0].threshold_mev) as writer:
                for file in files:
                    writer.add(file.showers.rows(np.flatnonzero(file.use == HELD)))
            yield path


def read(name: str, inputs: Sequence[Input], held: float, watched: float) -> Collection:
    """The showers of the files among `inputs`, of which `held` are held out and `watched` of the rest are watched.

    `name` is the request's. Raises InputError where there are no files, too few showers, or different detectors,
    engines or thresholds; a file that is there twice is taken once.
    """
    files: list[File] = []
    for item in inputs:
        if any(file.item.sha256 == item.sha256 for file in files):
            print(f"{item.key}: is there twice, and taken once", flush=True)  # noqa: T201 - the job's log
            continue
        file = _read(item, held, watched)
        if files:
            _agree(name, files[0], file)
        files.append(file)
    if not files:
        raise InputError(f"{name}: inputs: names no showers; name HDF5 files that calorimeter-preprocess made")
    total = sum(len(file.showers) for file in files)
    if total < LEAST_SHOWERS:
        raise InputError(f"{name}: inputs: hold {total} showers; {LEAST_SHOWERS} are the least to train on")
    found = Collection(tuple(files))
    for particle in found.particles:
        for use, key in ((WATCHING, "watched"), (HELD, "held_out")):
            count, whole = found.count(use, particle), found.count(None, particle)
            if count < LEAST_WATCHED:
                raise InputError(
                    f"{name}: {key}: leaves {count} of {whole} showers of {particle}; {LEAST_WATCHED} are the least, so"
                    " name more files of them, or raise it"
                )
    return found


def resampled(whole: TrainingData, seed: int) -> TrainingData:
    """As many of the showers, drawn with replacement: what a member of an ensemble learns from."""
    rng = np.random.default_rng((seed, RESAMPLE_STREAM))
    return whole.rows(np.sort(rng.integers(0, len(whole), len(whole))))


def _read(item: Input, held: float, watched: float) -> File:
    with ShowersHdf5(item.path) as file:
        parts = list(file.read())
        about, geometry, threshold, particle = file.about, file.geometry, file.threshold_mev, file.particle
    refuse_generated(about, item.key, "from which nothing is to be learned")
    if not parts:
        raise InputError(f"{item.key}: holds no showers; take it out of inputs")
    if particle not in PARTICLES:
        raise InputError(f"{item.key}: {refused(particle, PARTICLES, '')}")
    showers = join(parts)
    use = np.full(len(showers), TRAINING, np.int64)
    out = held_out(item.sha256, showers.energy_gev, held)
    use[out] = HELD
    rest = np.flatnonzero(~out)
    use[rest[_watched(item, showers, rest, watched)]] = WATCHING
    return File(item, {**about, "particle": particle}, geometry, threshold, showers, use)


def _watched(item: Input, showers: Showers, rest: "np.ndarray[Any, np.dtype[np.intp]]", part: float) -> Flags:
    return held_out(item.sha256, showers.energy_gev[rest], part, WATCHED)


def _agree(name: str, first: File, other: File) -> None:
    """What files must have in common."""
    if _cells(first.geometry) != _cells(other.geometry):
        names = f"{other.item.key} is of another detector ({other.geometry.name}) than {first.item.key}"
        raise InputError(f"{name}: inputs: {names} ({first.geometry.name}); train a model on one of them")
    pairs = {
        "was simulated by": (first.about.get("engine", ""), other.about.get("engine", "")),
        "has cells from a threshold, in MeV, of": (first.threshold_mev, other.threshold_mev),
    }
    for what, (one, two) in pairs.items():
        if one != two:
            raise InputError(
                f"{name}: inputs: {other.item.key} {what} {two}, and {first.item.key} {one}; train a model on one of"
                " them"
            )


def _cells(geometry: Geometry) -> dict[str, Any]:
    """A geometry without what is only for its reader."""
    return {key: value for key, value in geometry.as_json().items() if key not in ("name", "title")}


def _ranges(file: File) -> tuple[tuple[float, float], tuple[float, float]]:
    """Energies in GeV and angles in degrees: what was asked for, where the showers reach it; else what there is."""
    request = file.about.get("request")
    asked = request if isinstance(request, dict) else {}
    energies, angles = file.showers.energy_gev, np.degrees(file.showers.theta)
    return _range(asked.get("energy_gev"), energies), _range(asked.get("theta_deg"), angles)


def _range(asked: object, values: "np.ndarray[Any, np.dtype[np.float64]]") -> tuple[float, float]:
    """The lowest and highest value, or the edge that was asked for where a few more showers would lie up to there."""
    ordered = np.sort(values)
    low, high = float(ordered[0]), float(ordered[-1])
    try:
        edges = [float(edge) for edge in asked]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return low, high
    if edges:
        some = min(NEAR, len(ordered) - 1)
        below, above = (ordered[some] - low) / max(some, 1), (high - ordered[-1 - some]) / max(some, 1)
        low = edges[0] if 0 <= low - edges[0] <= EDGE * below else low
        high = edges[-1] if 0 <= edges[-1] - high <= EDGE * above else high
    return low, high


def _common(files: Sequence[File]) -> dict[str, Any]:
    """What the files say of their simulation, as far as all say the same; and which files they are."""
    told = {
        key: value
        for key, value in files[0].about.items()
        if all(json.dumps(file.about.get(key), sort_keys=True) == json.dumps(value, sort_keys=True) for file in files)
    }
    told["geometry"] = files[0].about["geometry"]
    return {**told, "held_out_of": [file.item.sha256 for file in files]}
