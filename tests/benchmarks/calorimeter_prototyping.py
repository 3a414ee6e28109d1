"""The fast model of prototypes and GFLASH against Geant4, in stacks drawn at random for the test, and their cost.

`--samples FOLDER` takes what `functions.calorimeter.prototyping.production --test` has written; without it, Geant4
makes a few.
"""

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import gflash, optimise
from functions.calorimeter.prototyping import production
from functions.calorimeter.prototyping.compared import Row, compared, errors
from functions.calorimeter.prototyping.fast import MODEL, Prototype
from tests.benchmarks.report import show

SEED = 2
"""That of the training is 1."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--stacks", type=int, default=6)
    parser.add_argument("--showers", type=int, default=200)
    given = parser.parse_args(argv)
    model = Prototype(Path(optimise.__file__).parent / f"{MODEL}.onnx")
    with tempfile.TemporaryDirectory() as name:
        folder = given.samples or Path(name)
        if not given.samples:
            asked = ["--stacks", str(given.stacks), "--showers", str(given.showers), "--seed", str(SEED), "--test"]
            production.main([str(folder), *asked])
        samples = list(production.read(folder))
    rows = compared(samples, model)
    show("relative differences to Geant4", list(differences(rows)))
    show("all stacks: errors beyond the statistical ones", [{"by": k, **errors(rows, k)} for k in ("fast", "gflash")])
    show("one core, CPU time of a shower of 10 GeV", list(costs(model, samples[0])))
    return 0


def differences(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """A row for each stack."""
    for row in rows:
        yield {
            "stack": f"{row.layers} x {row.layer_x0:.2f} X0 {row.absorber}, {row.sensor_mm:.2f} mm",
            "particle": f"{row.particle} {row.energy_gev:.1f} GeV",
            "sigma/E": row.geant4.resolution,
            "its error": row.geant4.resolution_error / row.geant4.resolution,
            "fast": row.fast.resolution / row.geant4.resolution - 1,
            "GFLASH": row.gflash.resolution / row.geant4.resolution - 1,
            "mean, fast": row.fast.mean / row.geant4.mean - 1,
            "mean, GFLASH": row.gflash.mean / row.geant4.mean - 1,
        }


def costs(model: Prototype, sample: production.Sample) -> Iterator[dict[str, Any]]:
    """A row for each simulation of one stack."""
    stack, energy = sample.stack, 10.0

    def geant4(count: int) -> None:
        production.simulated(stack, "e-", np.full(count, energy), 5)

    def fast(count: int) -> None:
        model.generate(stack, "e-", np.full(count, energy), 5)

    def old(count: int) -> None:
        theta, seeds = np.full(count, math.pi / 2), np.arange(1, count + 1)
        list(gflash.simulate(stack.geometry(), "e-", np.full(count, energy), theta, seeds))

    first = 0.0
    for name, run, count in (("Geant4", geant4, 40), ("GFLASH", old, 200), ("fast model", fast, 4000)):
        began = _cpu()
        run(count)
        each = 1e3 * (_cpu() - began) / count
        first = first or each
        yield {"by": name, "showers": count, "ms a shower": each, "Geant4 over it": first / each}


def _cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
