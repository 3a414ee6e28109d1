"""What the shipped generator is worth to another detector, drawn by lot: adapted, from scratch, and as it is.

All learn from the same showers by Geant4 and are judged on the same others, by the score of `train` (0 is
best) and by the AUC of boosted trees (0.5 is best).
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from layers.runtime import Input
from tests.benchmarks.report import show
from tests.functions.calorimeter.adapting import (
    SHIPPED,
    Task,
    contained_deg,
    drawn_detector,
    judged,
    learned,
    rescaled,
    sizes,
)
from tests.functions.calorimeter.trainings import as_input, prepared

ENERGY_GEV = (10.0, 15.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="draws the detector")
    parser.add_argument("--showers", type=int, default=1000, help="to learn from")
    parser.add_argument("--judge", type=int, default=1500, help="showers to judge by")
    parser.add_argument("--steps", type=int, default=1500, help="of each training, at most")
    parser.add_argument("--quick", action="store_true", help="200 showers, 450 to judge by, 100 steps")
    parser.add_argument(
        "--showers-in", type=Path, help="keep the simulated showers in this folder, and take them from it"
    )
    parser.add_argument("--model", type=Path, default=SHIPPED, help="to start from")
    given = parser.parse_args(argv)
    if given.quick:
        given.showers, given.judge, given.steps = 200, 450, 100
    with tempfile.TemporaryDirectory() as folder:
        rows = list(compared(given, Path(folder)))
    title = f"detector {given.seed}, {json.dumps(drawn_detector(given.seed)['layers'][0])}, {given.showers} showers"
    show(title, rows)
    return 0


def compared(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each model; CPU time beside that of simulating what it learns from."""
    detector = drawn_detector(given.seed)
    shots = {"engine": "geant4", "detector": detector, "energy_gev": ENERGY_GEV, "theta_deg": contained_deg(detector)}
    samples = given.showers_in or folder
    began, simulated = cpu_s(), not (samples / f"learn-{given.seed}-{given.showers}.json.root.h5").exists()
    learn = sample(samples, f"learn-{given.seed}-{given.showers}", showers=given.showers, seed=2, **shots)
    simulating = cpu_s() - began
    judge = sample(samples, f"judge-{given.seed}-{given.judge}", showers=given.judge, seed=3, **shots)
    base: Path = given.model
    task = Task(learn, judge.path, {**sizes(base), "steps": given.steps, "batch": 128}, given.seed)
    makers: dict[str, Callable[[Path], Path]] = {
        "the shipped model as it is": lambda place: base,
        "its weights, new scales, no learning": lambda place: rescaled(task, place, base),
        "adapted": lambda place: learned(task, place, base),
        "from scratch": lambda place: learned(task, place, None),
    }
    for number, (name, make) in enumerate(makers.items()):
        place = folder / str(number)
        place.mkdir()
        began = cpu_s()
        model = make(place)
        spent = cpu_s() - began
        found = judged(model, task.judge, given.seed)
        yield {
            "model": name,
            "score": found.score,
            "auc": found.auc.value,
            "error": found.auc.error,
            "cpu_s": spent,
            "of_simulating": spent / simulating if simulated else math.nan,
        }


def sample(folder: Path, name: str, **request: Any) -> Input:
    """Showers that stand in `folder`, or that are simulated into it."""
    made = folder / f"{name}.json.root.h5"
    return as_input(made) if made.exists() else prepared(folder, name, **request)


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = time.process_time(), *_children()
    return sum(times)


def _children() -> tuple[float, float]:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime, used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
