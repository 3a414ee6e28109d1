"""Simulate showers: a request in, `<request>.root` out.

The engine is Geant4, or GFLASH where the request says so; the file says which, and with what physics. Every shower has
a seed of its own that derives from the request's, so a simulation that was stopped goes on with the next shower.
"""

import dataclasses
import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from functions.calorimeter import geant4, gflash
from functions.calorimeter.geometry import Geometry, load_geometry
from functions.calorimeter.rootfile import write_showers
from functions.calorimeter.showers import Floats, Showers
from layers.runtime import Checkpointed, InputError, Job, read_request

MOST_SHOWERS = 1_000_000
ENERGY_GEV = (0.1, 1000.0)
THETA_DEG = (30.0, 150.0)


@dataclass(frozen=True)
class Request:
    """What to simulate."""

    geometry: str = "siw25"
    """One of the geometries that come with the twin."""
    detector: dict[str, Any] | None = None
    """A geometry of your own, instead of `geometry`."""
    engine: Literal["geant4", "gflash"] = "geant4"
    particle: str = "e-"
    energy_gev: tuple[float, ...] = (10.0, 100.0)
    """Lowest and highest energy."""
    spectrum: Literal["uniform", "log"] = "uniform"
    """How energies are spread: evenly, or evenly in their logarithm."""
    theta_deg: tuple[float, ...] = (60.0, 120.0)
    """Lowest and highest polar angle; 90 is perpendicular."""
    showers: int = 1000
    seed: int = 1

    def __post_init__(self) -> None:
        if self.showers < 1:
            raise ValueError(f"showers: {self.showers} is less than 1; write how many, from 1 to {MOST_SHOWERS}")
        if self.showers > MOST_SHOWERS:
            raise ValueError(f"showers: {self.showers} is more than {MOST_SHOWERS}; split it into several requests")
        _check_range("energy_gev", self.energy_gev, ENERGY_GEV)
        _check_range("theta_deg", self.theta_deg, THETA_DEG)
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")
        if self.particle not in geant4.PARTICLES:
            raise ValueError(
                f'particle: "{self.particle}" is none of {", ".join(geant4.PARTICLES)}; hadrons need data sets of'
                " nuclear physics that this twin does not make"
            )


@dataclass(frozen=True)
class Settings:
    """How `simulate` works."""

    chunk: int = 64
    """Showers that are simulated, kept and written together."""

    def __post_init__(self) -> None:
        if not 1 <= self.chunk <= 4096:
            raise ValueError(f"CHUNK: {self.chunk} is not from 1 to 4096")


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the showers; raises Checkpointed when the job is stopping."""
    request = read_request(Request, source)
    for package in ("uproot", *(("geant4_pybind", "xraylib") if request.engine == "geant4" else ())):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{source.name}: needs {package}, which is not here; run ./dioscar install calorimeter")
    where = f"{source.name}: geometry"
    geometry = load_geometry(request.detector if request.detector is not None else request.geometry, where)
    simulation = Simulation(request, geometry, settings.chunk, job.checkpoint)
    for done in simulation.run():
        job.keep()
        job.progress(done, request.showers)
        if done < request.showers and job.stopping:
            raise Checkpointed(f"stopped after {done} of {request.showers} showers")
    write_showers(destination / f"{source.name}.root", about(request, geometry), simulation.kept())


class Simulation:
    """A request's showers, kept chunk by chunk while they are made."""

    def __init__(self, request: Request, geometry: Geometry, chunk: int, folder: Path) -> None:
        self.request, self.geometry, self.chunk, self.folder = request, geometry, chunk, folder
        self.energy_gev, self.theta, self.seeds = primaries(request)

    def run(self) -> Iterator[int]:
        """Simulate what is not kept yet; yields how many showers are, after each chunk."""
        done = self.chunk * sum(1 for _ in self._files())
        if done:
            yield min(done, self.request.showers)
        if done >= self.request.showers:
            return
        for part in self._engine(done):
            self._keep(part, done)
            done += len(part)
            yield done

    def kept(self) -> Iterator[Showers]:
        """What has been simulated, in order."""
        for path in self._files():
            with np.load(path) as arrays:
                yield Showers(*(arrays[field.name] for field in dataclasses.fields(Showers)))

    def _engine(self, start: int) -> Iterator[Showers]:
        energy_gev, theta, seeds = self.energy_gev[start:], self.theta[start:], self.seeds[start:]
        if self.request.engine == "gflash":
            return gflash.simulate(self.geometry, self.request.particle, energy_gev, theta, seeds, chunk=self.chunk)
        given = geant4.Primaries(self.request.particle, energy_gev, theta, seeds)
        return geant4.simulate(self.geometry, given, chunk=self.chunk)

    def _keep(self, part: Showers, start: int) -> None:
        fresh = self.folder / "fresh"
        with fresh.open("wb") as stream:
            np.savez(stream, **{field.name: getattr(part, field.name) for field in dataclasses.fields(part)})
        fresh.rename(self._file(start // self.chunk))

    def _files(self) -> Iterator[Path]:
        number = 0
        while (path := self._file(number)).exists():
            yield path
            number += 1

    def _file(self, number: int) -> Path:
        return self.folder / f"chunk-{number:06d}-of-{self.chunk}.npz"


def primaries(request: Request) -> tuple[Floats, Floats, "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """Energies in GeV, polar angles in rad and seeds of a request's showers; the first n do not depend on how many."""
    rng = np.random.default_rng((request.seed, 1))
    drawn = rng.random((request.showers, 2))
    low, high = request.energy_gev[0], request.energy_gev[-1]
    energy = low * (high / low) ** drawn[:, 0] if request.spectrum == "log" else low + (high - low) * drawn[:, 0]
    first, last = (math.radians(angle) for angle in (request.theta_deg[0], request.theta_deg[-1]))
    seeds = np.random.default_rng((request.seed, 2)).integers(1, 2**31 - 1, request.showers)
    return energy, first + (last - first) * drawn[:, 1], seeds


def about(request: Request, geometry: Geometry) -> dict[str, Any]:
    """How the showers of a request were made."""
    known: dict[str, dict[str, Any]] = {
        "geant4": {
            "physics": geant4.PHYSICS,
            "cut_mm": geant4.CUT_MM,
            "tables": "own: Tsai's bremsstrahlung, xraylib's photoelectric effect; not G4EMLOW",
        },
        "gflash": {"physics": "Grindhammer and Peters, hep-ex/0001020"},
    }
    physics = known[request.engine]
    if request.engine == "geant4":
        physics["version"] = geant4.version()
        if geant4.official_data():
            physics["tables"] = "the data sets that G4LEDATA names"
    return {
        "engine": request.engine,
        **physics,
        "geometry": geometry.as_json(),
        "particle": request.particle,
        "request": json.loads(json.dumps(dataclasses.asdict(request))),
        "units": {"energy": "GeV", "theta": "rad", "hits_edep": "MeV"},
        "cell": "(x cells + y) layers + layer",
    }


def _check_range(name: str, given: tuple[float, ...], allowed: tuple[float, float]) -> None:
    low, high = allowed
    if len(given) not in (1, 2) or not low <= given[0] <= given[-1] <= high:
        raise ValueError(f"{name}: {list(given)} is no range within {low:g} to {high:g}; write [lowest, highest]")
