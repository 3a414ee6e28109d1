"""Showers by Geant4, in a process of its own: a process can have one run manager, and a crash in it is not ours.

The transport is Geant4's own (`geant4-pybind` bundles it); the tables are those of `tables`, unless `G4LEDATA` names
an installation of Geant4's data sets. Every shower has a seed of its own, so that it is the same one whatever was
simulated before it, in whatever process.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from functions.calorimeter.geometry import Geometry
from functions.calorimeter.particles import PARTICLES, refused
from functions.calorimeter.showers import Floats, Showers
from functions.calorimeter.tables import write_tables
from layers.runtime import InputError

PHYSICS = "G4EmStandardPhysics_option1"
CUT_MM = 0.7
"""Production cut, Geant4's default."""
DATA_SETS = (
    "G4ENSDFSTATEDATA",
    "G4LEVELGAMMADATA",
    "G4RADIOACTIVEDATA",
    "G4PARTICLEXSDATA",
    "G4PIIDATA",
    "G4REALSURFACEDATA",
    "G4SAIDXSDATA",
    "G4ABLADATA",
    "G4INCLDATA",
    "G4NEUTRONHPDATA",
    "G4CHANNELINGDATA",
)
"""Geant4 asks for the folder of each, also where nothing is read from it."""
HYDROGEN = 1
"""Geant4's vacuum is thin hydrogen."""


class SimulationError(Exception):
    """Geant4 failed; the message ends with what it printed last."""


@dataclass(frozen=True)
class Primaries:
    """What is shot: one kind of particle, and for each shower its energy, its polar angle and its seed."""

    particle: str
    energy_gev: Floats
    theta: Floats
    seeds: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    """Positive, below 2^31."""

    def __post_init__(self) -> None:
        if self.particle not in PARTICLES:
            raise InputError(refused(self.particle, PARTICLES, "this twin simulates"))


def simulate(geometry: Geometry, primaries: Primaries, *, chunk: int = 64) -> Iterator[Showers]:
    """The showers of `primaries`, `chunk` at a time. Raises SimulationError; closing the iterator ends the process."""
    with tempfile.TemporaryDirectory(prefix="geant4-") as name:
        folder = Path(name)
        own = folder / "tables"
        write_tables(own, (HYDROGEN, *geometry.elements))
        data = official_data() or str(own)
        (folder / "geometry.json").write_text(json.dumps(geometry.as_json()))
        np.savez(
            folder / "primaries.npz",
            particle=primaries.particle,
            energy_gev=primaries.energy_gev,
            theta=primaries.theta,
            seeds=primaries.seeds,
        )
        environment = {**dict.fromkeys(DATA_SETS, str(own)), **os.environ, "G4LEDATA": data}
        environment["GEANT4_DATA_DIR"] = str(
            own
        )  # or the package asks on standard input whether to fetch its data sets
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "functions.calorimeter.geant4_run", name, str(chunk)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        try:
            yield from _chunks(child, folder, primaries, chunk)
            if child.wait() != 0:
                raise SimulationError(_why(child.returncode, folder / "log"))
        finally:
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()


def official_data() -> str:
    """The folder of Geant4's own electromagnetic data, or nothing. Raises InputError where it is none."""
    path = os.environ.get("G4LEDATA", "")
    if path and not Path(path, "brem_SB").is_dir():
        raise InputError(
            f"G4LEDATA: {path} holds no tables of Geant4 (brem_SB); name the folder of G4EMLOW, or leave it out"
        )
    return path


def version() -> str:
    """The release of Geant4 that is here. Raises InputError where there is none."""
    import importlib.metadata

    try:
        return f"geant4-pybind {importlib.metadata.version('geant4-pybind')}"
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            "Geant4 is not here; run ./dioscar install calorimeter, or write engine: gflash into the request"
        ) from None


def _chunks(child: "subprocess.Popen[bytes]", folder: Path, primaries: Primaries, chunk: int) -> Iterator[Showers]:
    assert child.stdout is not None
    for start in range(0, len(primaries.energy_gev), chunk):
        line = child.stdout.readline().decode().strip()
        if not line:
            raise SimulationError(_why(child.wait(), folder / "log"))
        path = folder / line
        with np.load(path) as arrays:
            yield Showers(
                primaries.energy_gev[start : start + chunk],
                primaries.theta[start : start + chunk],
                arrays["offsets"],
                arrays["cell"],
                arrays["edep_mev"],
            )
        path.unlink()


def _why(status: int, log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"Geant4 ended with status {status}" + (f": {lines[-1][:300]}" if lines else "")
