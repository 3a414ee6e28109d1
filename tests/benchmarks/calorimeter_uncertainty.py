"""What an ensemble's bands cover of held-out Geant4 showers, inside the energies it was trained on and outside.

Members are trained by `calorimeter.train` on bootstrap resamples of the showers of all files but the last, of which
only those from 20 to 70 GeV; `calorimeter.uncertainty` compares them with the last file, which has all energies.
Without files, Geant4 makes them, from 10 to 100 GeV: some 0.3 s of CPU for each shower.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter.generator import Generator
from functions.calorimeter.hdf5 import ShowersHdf5, Writer
from functions.calorimeter.showers import join
from layers.runtime import Input
from layers.runtime.function import sha256_of
from layers.runtime.testing import call
from tests.benchmarks.report import show

LEARNED_GEV = (20.0, 70.0)
SLICES = {"energy_gev": [10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100], "theta_deg": [60, 80, 100, 120]}
MEMBER = {"steps": 3000, "width": 192, "blocks": 3, "batch": 192, "flow_steps": 6, "cells_every": 4}
ROLES = {"calibrated": "inside, calibrated on", "tested": "inside, tested", "outside": "outside"}


def main(argv: Sequence[str] | None = None) -> int:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--files", nargs="+", type=Path, default=[], help="prepared showers (HDF5); the last is held out"
    )
    parser.add_argument("--held-out", type=int, default=1, help="so many of the last files are held out (1)")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=4, help="showers of a member for each held-out one (4)")
    parser.add_argument("--showers", type=int, default=1000, help="of each of three files, where none are given")
    parser.add_argument("--parameters", type=json.loads, default={}, help="of the members, as JSON")
    parser.add_argument("--keep", type=Path, help="a folder for members and page; members that are there are taken")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = given.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        files = given.files or [simulated(folder, seed, given.showers) for seed in (1, 2, 3)]
        held_out = [as_input(path) for path in files[-given.held_out :]]
        learned = as_input(within(files[: -given.held_out], folder / "learned.h5"))
        began = time.process_time()
        members = [trained(folder, learned, seed, {**MEMBER, **given.parameters}) for seed in range(given.members)]
        training_s = time.process_time() - began
        began = time.process_time()
        (folder / "bands.json").write_text(json.dumps({**SLICES, "repeats": given.repeats, "seed": 1}))
        outcome = call("calorimeter.uncertainty", folder / "bands.json", folder / "out", inputs=[*members, *held_out])
        assert outcome.code == 0, outcome.message
        compared_s = time.process_time() - began
        document = json.loads((folder / "out/bands.json.uncertainty.json").read_text())
        show("68 % bands: part of the held-out Geant4 bins in them, and median half-width", list(rows(document)))
        show("the same, observable by observable", list(details(document)))
        show("CPU time", [cost(members, files[-given.held_out :], given.repeats, training_s, compared_s)])
    return 0


def simulated(folder: Path, seed: int, showers: int) -> Path:
    """A file of Geant4's showers, 10 to 100 GeV."""
    source = folder / f"e{seed}.json"
    source.write_text(json.dumps({"showers": showers, "seed": seed}))
    made = folder / f"e{seed}.json.root"
    for function, what in (("simulate", source), ("preprocess", made)):
        outcome = call(f"calorimeter.{function}", what, folder, settings={"THRESHOLD_MEV": "0.1"})
        assert outcome.code == 0, outcome.message
    return folder / f"{made.name}.h5"


def within(files: Sequence[Path], path: Path) -> Path:
    """The showers of `LEARNED_GEV` in these files, as one file."""
    with ShowersHdf5(files[0]) as first:
        about = {**first.about, "request": {**first.about.get("request", {}), "energy_gev": list(LEARNED_GEV)}}
        geometry, threshold = first.geometry, first.threshold_mev
    with Writer(path, geometry, about, threshold_mev=threshold) as writer:
        for name in files:
            with ShowersHdf5(name) as file:
                for part in file.read():
                    low, high = LEARNED_GEV
                    writer.add(part.rows(np.flatnonzero((part.energy_gev >= low) & (part.energy_gev <= high))))
    return path


def trained(folder: Path, learned: Input, seed: int, parameters: dict[str, Any]) -> Input:
    """A member of the ensemble."""
    source = folder / f"member-{seed}.json"
    if not (folder / f"{source.name}.onnx").exists():
        request = {"parameters": parameters, "seed": seed, "resample": True, "patience": 0, "held_out": 0.02}
        source.write_text(json.dumps({**request, "watched": 0.05, "evaluate_every": parameters["steps"]}))
        outcome = call(
            "calorimeter.train",
            source,
            folder,
            inputs=[learned],
            settings={"DIOSCAR_MODEL_CALORIMETER_GENERATOR": str(source)},
        )
        assert outcome.code == 0, outcome.message
    return as_input(folder / f"{source.name}.onnx")


def as_input(path: Path) -> Input:
    """A file as an object that a request names."""
    return Input("benchmark", path.name, sha256_of(path), path)


def rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each kind of slice."""
    inside = document["all"]["tested"]["width"]
    for role, text in ROLES.items():
        found = document["all"][role]
        told = found["coverage"]
        yield {
            "slices": text,
            "covered": told["value"],
            "95 % from": told["low"],
            "to": told["high"],
            "bins": told["bins"],
            "half-width": found["width"],
            "over inside": found["width"] / inside if found["width"] and inside else None,
        }


def details(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each observable."""
    for name, found in document["observables"].items():
        widths = {role: found[role]["width"] for role in ("tested", "outside")}
        yield {
            "observable": name,
            "factor": found["factor"],
            **{f"covered, {role}": found[role]["coverage"]["value"] for role in ROLES},
            "half-width inside": widths["tested"],
            "outside": widths["outside"],
        }


def cost(
    members: Sequence[Input], held_out: Sequence[Path], repeats: int, training_s: float, compared_s: float
) -> dict[str, Any]:
    """CPU time of the training and of the bands, and what generating the showers alone takes."""
    count = 0
    for path in held_out:
        with ShowersHdf5(path) as file:
            count, some = count + repeats * len(file), next(iter(file.read(64)))
    member = Generator(members[0].path)
    list(member.generate(some.energy_gev[:2], some.theta[:2], "e-", 1, checked=False))  # the first ones prepare
    began = time.process_time()
    join(list(member.generate(some.energy_gev, some.theta, "e-", 1, checked=False)))
    each = (time.process_time() - began) / len(some)
    return {
        "training, s a member": training_s / len(members),
        "bands, s": compared_s,
        "of that generating": each * count * len(members),
        "ratio": compared_s / (each * count * len(members)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
