"""Does tuning do something: its best parameters against a family's defaults, trained anew with seeds that it never had.

Both are trained by `calorimeter.train` for as many steps as a trial had, with the same seeds, and judged on held-out
showers, which neither study nor training has seen.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from functions.calorimeter.generator import Generator
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.observables import observe
from functions.calorimeter.showers import join
from functions.calorimeter.training import data
from functions.calorimeter.training.score import Scorer
from functions.calorimeter.two_sample import auc_of_features
from layers.runtime import Input
from layers.runtime.function import sha256_of
from layers.runtime.testing import call
from tests.benchmarks.report import show

SERVED = "DIOSCAR_MODEL_CALORIMETER_GENERATOR"
JUDGING_SEED = 99
DETECTOR = {
    "name": "small",
    "cells": 15,
    "cell_mm": 8,
    "layers": [{"count": 12, "absorber": "W", "absorber_mm": 5, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 2.5}],
}
"""Of which a shower of a few GeV, and a training, takes a small part of what `siw25` takes."""


SMALL = {
    "width": 64,
    "blocks": 2,
    "flow_steps": 4,
    "batch": 64,
    "cells_batch": 16,
    "hits_width": 32,
    "energies_width": 24,
}
"""The model that serves, so small that the whole takes five minutes of CPU."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--files", nargs="*", type=Path, default=[], help="prepared showers (HDF5); none: simulated here"
    )
    parser.add_argument("--showers", type=int, default=1500, help="to simulate by Geant4, in a small detector (1500)")
    parser.add_argument("--family", default="two-stage")
    parser.add_argument("--parameters", type=json.loads, default=SMALL, help="of all trainings, as JSON; {}: none")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--startup", type=int, default=4, help="trials before the search begins (4)")
    parser.add_argument("--steps", type=int, default=300, help="of each trial, and of each training after it (300)")
    parser.add_argument("--evaluations", type=int, default=2)
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[101, 102, 103], help="of the trainings after the study"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the study and the models, which goes on where it was")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = arguments.files or [simulated(folder, arguments.showers)]
        inputs = [Input("data", path.name, sha256_of(path), path) for path in paths]
        found = tuned(folder, inputs, arguments)
        study, spent = found["study"], found["cpu"]
        best = study["trials"][study["best"]]
        states = [trial["state"] for trial in study["trials"]]
        print(f"study: {', '.join(f'{states.count(s)} {s}' for s in sorted(set(states)))}; {spent:.0f} CPU s")
        print(f"trial 0 (defaults): score {study['trials'][0]['score']}; trial {best['number']}: {best['score']}")
        print(f"best parameters: {json.dumps(best['parameters'])}")
        rows = []
        for name, parameters in (("default", {}), ("tuned", best["parameters"])):
            judged = [trained(folder, inputs, arguments, name, parameters, seed) for seed in arguments.seeds]
            rows.append(row(name, arguments.seeds, judged))
    title = f"{arguments.family}, {arguments.steps} steps, {study['showers']['training']} showers; held-out showers"
    show(title, rows)
    apart = rows[0]["score, mean"] - rows[1]["score, mean"]
    spread = math.hypot(rows[0]["score, spread"], rows[1]["score, spread"])
    print(f"tuned is better by {apart:.3f}, {apart / spread:.1f} times the spread of both")
    return 0


def simulated(folder: Path, showers: int) -> Path:
    """Showers by Geant4, prepared."""
    if (path := folder / "showers.json.root.h5").exists():
        return path
    source = folder / "showers.json"
    source.write_text(json.dumps({"detector": DETECTOR, "energy_gev": [2, 5], "showers": showers, "seed": 5}))
    for function, path, settings in (
        ("calorimeter.simulate", source, {}),
        ("calorimeter.preprocess", folder / "showers.json.root", {"THRESHOLD_MEV": "0.1"}),
    ):
        outcome = call(function, path, folder, settings=settings)
        assert outcome.code == 0, outcome.message
    return folder / "showers.json.root.h5"


def tuned(folder: Path, inputs: Sequence[Input], arguments: argparse.Namespace) -> Any:
    """The study, and the CPU time that it took."""
    kept = folder / "tune.result.json"
    if kept.exists():
        return json.loads(kept.read_text())
    began = _cpu_s()
    request = {
        name: getattr(arguments, name) for name in ("family", "parameters", "trials", "startup", "steps", "evaluations")
    }
    source, out = folder / "tune.json", folder / "tune"
    source.write_text(json.dumps(request))
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    outcome = call("calorimeter.tune", source, out, inputs=inputs, checkpoint=checkpoint)
    assert outcome.code == 0, outcome.message
    found = {"study": json.loads((out / "tune.json.study.json").read_text()), "cpu": _cpu_s() - began}
    kept.write_text(json.dumps(found))
    return found


def trained(
    folder: Path,
    inputs: Sequence[Input],
    arguments: argparse.Namespace,
    name: str,
    parameters: Mapping[str, Any],
    seed: int,
) -> dict[str, float]:
    """Score and AUC on held-out showers of one training, and the CPU time that it took."""
    kept = folder / f"{name}-{seed}.result.json"
    if kept.exists():
        found: dict[str, float] = json.loads(kept.read_text())
        return found
    every = arguments.steps // arguments.evaluations
    request = {
        "family": arguments.family,
        "parameters": {"steps": arguments.steps, **arguments.parameters, **parameters},
        "seed": seed,
        "patience": 0,
        "evaluate_every": every,
    }
    source, out = folder / f"{name}-{seed}.json", folder / f"{name}-{seed}"
    source.write_text(json.dumps(request))
    served = folder / "served.onnx"
    served.write_bytes(b"none")
    began = _cpu_s()
    outcome = call("calorimeter.train", source, out, inputs=inputs, settings={SERVED: str(served)})
    assert outcome.code == 0, outcome.message
    spent = _cpu_s() - began
    held_out = data.read(source.name, inputs, 0.2, 0.1).part(data.HELD)
    model = out / f"{source.name}.onnx"
    scored = Scorer(held_out, seed=JUDGING_SEED)(model)
    generator, made = Generator(model), []
    for index, particle in enumerate(held_out.particles):
        some = held_out.showers.rows((held_out.particle == index).nonzero()[0])
        made += list(generator.generate(some.energy_gev, some.theta, particle, JUDGING_SEED))
    (path,) = out.glob("versions/*/held_out-*.h5") if len(held_out.particles) == 1 else (None,)
    assert path is None or _count(path) == len(held_out)
    pair = (observe(showers, held_out.geometry) for showers in (held_out.showers, join(made)))
    area = auc_of_features(*pair, seed=JUDGING_SEED)
    print(f"{name}, seed {seed}: score {scored.score:.4f}, AUC {area.value:.3f}, {spent:.0f} CPU s", flush=True)
    found = {"score": scored.score, "auc": area.value, "cpu": spent}
    kept.write_text(json.dumps(found))
    return found


def row(name: str, seeds: Sequence[int], judged: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A line of the table."""
    scores, areas = [one["score"] for one in judged], [one["auc"] for one in judged]
    return {
        "parameters": name,
        **{f"score, seed {seed}": score for seed, score in zip(seeds, scores, strict=True)},
        "score, mean": mean(scores),
        "score, spread": stdev(scores),
        "AUC, mean": mean(areas),
        "AUC, spread": stdev(areas),
        "CPU s": mean(one["cpu"] for one in judged),
    }


def _count(path: Path) -> int:
    with ShowersHdf5(path) as file:
        return len(file)


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    sys.exit(main())
