"""The process that runs Geant4: reads what to shoot from a folder, leaves the showers there, chunk by chunk.

Started as `python3 -P -m functions.calorimeter.geant4_run FOLDER CHUNK` by `geant4.simulate`; prints the name of each
chunk's file on a pipe of its own, since Geant4 prints on standard output whatever it likes.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import geant4_pybind as g4
import numpy as np

from functions.calorimeter.geant4 import CUT_MM, PHYSICS
from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry, load_geometry
from functions.calorimeter.materials import Material

WORLD_MARGIN_MM = 50.0
ABSORBER_WIDTH = 3.0
"""Absorbers are wider than the read-out window, so that inclined showers do not leak at its sides."""
GUN_MM = 1.0
"""The gun stands so far before the first layer."""


class Detector(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
    """Layers in a vacuum; a sensor is divided into columns and these into cells. What Geant4 uses is kept alive."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.kept: list[Any] = []

    def Construct(self) -> Any:  # noqa: N802 - Geant4's name
        geometry, kept = self.geometry, self.kept.append
        width = ABSORBER_WIDTH * geometry.window_mm / 2
        half = geometry.depth_mm + WORLD_MARGIN_MM
        world = self._box("world", width + WORLD_MARGIN_MM, width + WORLD_MARGIN_MM, half, "G4_Galactic")
        placed = g4.G4PVPlacement(None, g4.G4ThreeVector(), world, "world", None, False, 0)
        kept(placed)
        self.cells: list[Any] = []
        sensors: dict[tuple[str, float], Any] = {}
        for number, layer in enumerate(geometry.layers):
            front = geometry.fronts_mm[number]
            absorber = self._box("absorber", width, width, layer.absorber_mm / 2, _nist(layer.absorber))
            self._place(absorber, front + layer.absorber_mm / 2, world, number)
            key = (layer.sensor.name, layer.sensor_mm)
            if key not in sensors:
                sensors[key] = self._sensor(_nist(layer.sensor), layer.sensor_mm)
            self._place(sensors[key], front + layer.absorber_mm + layer.sensor_mm / 2, world, number)
        return placed

    def ConstructSDandField(self) -> None:  # noqa: N802
        count = self.geometry.cells
        detector = g4.G4MultiFunctionalDetector("calorimeter")
        scorer = g4.G4PSEnergyDeposit3D("edep", count, count, len(self.geometry.layers), 1, 0, 2)
        detector.RegisterPrimitive(scorer)
        g4.G4SDManager.GetSDMpointer().AddNewDetector(detector)
        for cell in self.cells:
            self.SetSensitiveDetector(cell, detector)
        self.kept += [detector, scorer]

    def _sensor(self, material: str, thickness_mm: float) -> Any:
        cell_mm, count = self.geometry.cell_mm, self.geometry.cells
        side, depth = self.geometry.window_mm / 2, thickness_mm / 2
        sensor = self._box("sensor", side, side, depth, material)
        column = self._box("column", cell_mm / 2, side, depth, material)
        cell = self._box("cell", cell_mm / 2, cell_mm / 2, depth, material)
        self.kept += [
            g4.G4PVReplica("columns", column, sensor, g4.EAxis.kXAxis, count, cell_mm),
            g4.G4PVReplica("cells", cell, column, g4.EAxis.kYAxis, count, cell_mm),
        ]
        self.cells.append(cell)
        return sensor

    def _box(self, name: str, x: float, y: float, z: float, material: str) -> Any:
        solid = g4.G4Box(name, x, y, z)
        logical = g4.G4LogicalVolume(solid, g4.G4NistManager.Instance().FindOrBuildMaterial(material), name)
        self.kept += [solid, logical]
        return logical

    def _place(self, logical: Any, depth_mm: float, world: Any, number: int) -> None:
        where = g4.G4ThreeVector(0, 0, depth_mm)
        self.kept.append(g4.G4PVPlacement(None, where, logical, "layer", world, False, number))


class Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
    """Shoots the primaries one by one, each with its seed; its axis crosses the window's middle at `AXIS_DEPTH_MM`."""

    def __init__(self, particle: str, energy_gev: Any, theta: Any, seeds: Any) -> None:
        super().__init__()
        self.energy_gev, self.theta, self.seeds = energy_gev, theta, seeds
        self.gun = g4.G4ParticleGun(1)
        self.gun.SetParticleDefinition(g4.G4ParticleTable.GetParticleTable().FindParticle(particle))

    def GeneratePrimaries(self, event: Any) -> None:  # noqa: N802
        number = event.GetEventID()
        theta = float(self.theta[number])
        g4.G4Random.setTheSeed(int(self.seeds[number]))
        y_mm = -(AXIS_DEPTH_MM + GUN_MM) / math.tan(theta)
        self.gun.SetParticlePosition(g4.G4ThreeVector(0, y_mm, -GUN_MM))
        self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(0, math.cos(theta), math.sin(theta)))
        self.gun.SetParticleEnergy(float(self.energy_gev[number]) * g4.GeV)
        self.gun.GeneratePrimaryVertex(event)


class Collector(g4.G4UserEventAction):  # type: ignore[misc]
    """Takes the hits of every event, and writes a file each time that a chunk is full."""

    def __init__(self, folder: Path, chunk: int, count: int, told: int) -> None:
        super().__init__()
        self.folder, self.chunk, self.count, self.told = folder, chunk, count, told
        self.cells: list[Any] = []
        self.edeps: list[Any] = []
        self.done = 0

    def EndOfEventAction(self, event: Any) -> None:  # noqa: N802
        hits = sorted((cell, edep) for cell, edep in event.GetHCofThisEvent().GetHC(0) if edep > 0)
        self.cells.append(np.array([cell for cell, _ in hits], np.uint32))
        self.edeps.append(np.array([edep for _, edep in hits], np.float32))
        self.done += 1
        if len(self.cells) == self.chunk or self.done == self.count:
            self._write()

    def _write(self) -> None:
        name = f"{self.done}.npz"
        offsets = np.concatenate([[0], np.cumsum([len(cells) for cells in self.cells])]).astype(np.int64)
        np.savez(
            self.folder / name, offsets=offsets, cell=np.concatenate(self.cells), edep_mev=np.concatenate(self.edeps)
        )
        os.write(self.told, f"{name}\n".encode())
        self.cells, self.edeps = [], []


class Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
    """Geant4 wants its user actions made inside `Build`."""

    def __init__(self, primaries: Any, collector: tuple[Path, int, int, int]) -> None:
        super().__init__()
        self.primaries, self.collector = primaries, collector

    def Build(self) -> None:  # noqa: N802
        self.gun, self.events = Gun(*self.primaries), Collector(*self.collector)
        self.SetUserAction(self.gun)
        self.SetUserAction(self.events)


def main() -> int:
    """Run the simulation that a folder describes."""
    folder, chunk = Path(sys.argv[1]), int(sys.argv[2])
    told = os.dup(1)
    os.dup2(2, 1)
    geometry = load_geometry(json.loads((folder / "geometry.json").read_text()))
    with np.load(folder / "primaries.npz") as arrays:
        primaries = (str(arrays["particle"]), arrays["energy_gev"], arrays["theta"], arrays["seeds"])
    count = len(primaries[1])
    g4.G4EmParameters.Instance().SetVerbose(0)
    manager = g4.G4RunManager()
    detector = Detector(geometry)
    physics_list = g4.G4VModularPhysicsList()
    physics = getattr(g4, PHYSICS)()
    physics.SetVerboseLevel(0)
    physics_list.SetVerboseLevel(0)
    physics_list.RegisterPhysics(physics)
    physics_list.SetDefaultCutValue(CUT_MM)
    actions = Actions(primaries, (folder, chunk, count, told))
    manager.SetUserInitialization(detector)
    manager.SetUserInitialization(physics_list)
    manager.SetUserInitialization(actions)
    manager.Initialize()
    manager.BeamOn(count)
    return 0


def _nist(material: Material) -> str:
    return f"G4_{material.name}"


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # Geant4 and Python disagree on who frees what
