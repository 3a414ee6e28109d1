"""Generate showers with a learned model: a request in, `<request>.h5` out, and `<request>.root` where it asks for it.

The keys of a request are those of `simulate`, and mean the same: of one seed, both have the same primaries. The model
is run by onnxruntime, in bounded memory; what it was not trained on is refused. The HDF5 file is the reply to a
synchronous call.
"""

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter.asked import MOST_SHOWERS, Asked, drawn, told
from functions.calorimeter.checks import alike
from functions.calorimeter.generator import MODEL, Generator, kept
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.hdf5 import Writer
from functions.calorimeter.showers import Floats, Showers, join
from layers.runtime import Checkpointed, InputError, Job, read_request

MODELS = ("calorimeter-generator",)
REPLY = "*.h5"


@dataclass(frozen=True)
class Request(Asked):
    """What to generate."""

    geometry: str | None = None
    """The geometry that is expected; none: whatever the model's is."""
    detector: dict[str, Any] | None = None
    """A geometry of your own that is expected, instead of `geometry`."""
    primaries: tuple[tuple[float, ...], ...] | None = None
    """Energy in GeV and polar angle in degrees of each shower, instead of `energy_gev`, `theta_deg` and `showers`."""
    root: bool = False
    """Whether to write a ROOT file, too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.primaries is None:
            return
        if not self.primaries:
            raise ValueError(
                "primaries: is empty; write [energy in GeV, polar angle in degrees] of each, or leave it out"
            )
        given = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("energy_gev", "theta_deg", "spectrum", "showers"):
            if getattr(self, name) != given[name]:
                raise ValueError(f"{name}: is told by primaries already; leave out one of them")
        if len(self.primaries) > MOST_SHOWERS:
            raise ValueError(f"primaries: {len(self.primaries)} are more than {MOST_SHOWERS}; split the request")
        for place, primary in enumerate(self.primaries):
            if len(primary) != 2:
                raise ValueError(f"primaries[{place}]: {list(primary)} is no [energy in GeV, polar angle in degrees]")

    @property
    def count(self) -> int:
        """How many showers are asked for."""
        return self.showers if self.primaries is None else len(self.primaries)


@dataclass(frozen=True)
class Settings:
    """How `generate` works; environment variables of the same names in upper case."""

    chunk: int = 64
    """Showers that are held and written together; a multiple of 16, which the model makes at once, is quickest."""
    threads: int = 1
    """Threads of onnxruntime."""

    def __post_init__(self) -> None:
        if not 1 <= self.chunk <= 4096:
            raise ValueError(f"CHUNK: {self.chunk} is not from 1 to 4096")
        if not 1 <= self.threads <= 256:
            raise ValueError(f"THREADS: {self.threads} is not from 1 to 256")


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the showers. Raises InputError for what the model cannot make; Checkpointed when the job is stopping."""
    request = read_request(Request, source)
    if request.root and importlib.util.find_spec("uproot") is None:
        raise InputError(f"{source.name}: root: needs uproot, which is not here; run ./dioscar install calorimeter")
    generator = kept(job.model(MODEL), settings.threads)
    try:
        check(request, generator)
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from None
    known = about(request, generator)
    path = destination / f"{source.name}.h5"
    options: dict[str, Any] = {"threshold_mev": generator.threshold_mev, "chunk": settings.chunk}
    with Writer(path, generator.geometry, known, **options) as writer:

        def parts() -> Iterator[Showers]:
            done = 0
            for part in showers(request, generator, settings.chunk):
                writer.add(part)
                yield part
                done += len(part)
                job.progress(done, request.count)
                if done < request.count and job.stopping:
                    raise Checkpointed(f"stopped after {done} of {request.count} showers, which are generated anew")

        if request.root:
            from functions.calorimeter.rootfile import write_showers

            write_showers(destination / f"{source.name}.root", known, parts())
        else:
            for _ in parts():
                pass


def check(request: Request, generator: Generator) -> None:
    """Refuse what the model cannot make. Raises InputError, naming the key and what the model was trained on."""
    given = request.detector if request.detector is not None else request.geometry
    if given is not None:
        expected, its = load_geometry(given), generator.geometry
        if not alike(expected, its):
            raise InputError(
                f"geometry: the model is of {its.name}, and {expected.name} is asked for; leave geometry out, or train"
                " a model of it (calorimeter-train)"
            )
    if request.primaries:
        energy_gev, theta_deg = np.array(request.primaries).T
    else:
        energy_gev, theta_deg = np.array(request.energy_gev), np.array(request.theta_deg)
    generator.check(energy_gev, np.radians(theta_deg), request.particle)


def showers(request: Request, generator: Generator, chunk: int) -> Iterator[Showers]:
    """The showers of a request, in its order, `chunk` at a time, or a few more: whole blocks of the model."""
    first = 0
    for energy_gev, theta in told_or_drawn(request, -(-chunk // generator.block) * generator.block):
        yield join(list(generator.generate(energy_gev, theta, request.particle, request.seed, first=first)))
        first += len(energy_gev)


def told_or_drawn(request: Request, chunk: int) -> Iterator[tuple[Floats, Floats]]:
    """Energies in GeV and polar angles in rad, `chunk` at a time."""
    if request.primaries is None:
        yield from drawn(request, chunk)
        return
    for start in range(0, len(request.primaries), chunk):
        energy_gev, theta_deg = np.array(request.primaries[start : start + chunk]).T
        yield energy_gev, np.radians(theta_deg)


def about(request: Request, generator: Generator) -> dict[str, Any]:
    """How the showers of a request are made."""
    model = {
        "name": MODEL,
        "family": generator.family,
        "sha256": generator.sha256,
        "version": generator.sha256[:16],
        "training_range": {"energy_gev": list(generator.energy_gev), "theta_deg": list(generator.theta_deg)},
        "threshold_mev": generator.threshold_mev,
    }
    known = told(request, generator.geometry)
    del known["request"]["primaries"]  # they are the showers' energies and angles, and may be too many
    return {"engine": "model", "physics": "learned from simulated showers", "model": model, **known}
