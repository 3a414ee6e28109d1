"""Simulate showers: a request in, `<request>.root` out.

The engine is Geant4, or GFLASH where the request says so; the file says which, and with what physics. Every shower has
a seed of its own that derives from the request's, so a simulation that was stopped goes on with the next shower.
"""

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from functions.calorimeter import geant4, gflash
from functions.calorimeter.asked import Asked, primaries, told
from functions.calorimeter.geometry import Geometry, load_geometry
from functions.calorimeter.rootfile import write_showers
from functions.calorimeter.showers import Showers
from layers.runtime import Checkpointed, InputError, Job, read_request

__all__ = ["Request", "Settings", "Simulation", "about", "primaries", "run"]


GEOMETRY = "siw25"
"""What is simulated where a request names none."""


@dataclass(frozen=True)
class Request(Asked):
    """What to simulate."""

    geometry: str = GEOMETRY
    """One of the geometries that come with the twin."""
    detector: dict[str, Any] | None = None
    """A geometry of your own, instead of `geometry`."""
    engine: Literal["geant4", "gflash"] = "geant4"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detector is not None and self.geometry != GEOMETRY:
            raise ValueError("detector: stands beside geometry; leave out one of them")


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
    return {"engine": request.engine, **physics, **told(request, geometry)}
