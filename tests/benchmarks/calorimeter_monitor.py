"""What the drift monitor sees: how often it raises an alarm, by what has changed and by how many showers a file has.

New showers and those of a perfect model are drawn from one pool of simulated ones, so nothing but the change differs.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from functions.calorimeter import drift, gflash
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.monitor import Settings
from functions.calorimeter.showers import Showers, join
from tests.benchmarks.report import show

SIW = load_geometry("siw25")
CONDITIONS = [(energy, math.radians(angle)) for energy in (10.0, 20.0, 40.0, 80.0) for angle in (65, 90)]
COUNTS = (104, 200, 504, 1000)
LAYER = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 files of each kind instead of 200")
    files = 20 if parser.parse_args(argv).quick else 200
    settings = Settings()
    each = (1 + settings.per_shower) * COUNTS[-1] // len(CONDITIONS)
    began = time.process_time()
    pool = simulated(each, seed=8)
    simulating = time.process_time() - began
    began = time.process_time()
    rows = list(table(pool, each, files, settings))
    judging = time.process_time() - began
    show(f"part of {files} files that raise an alarm, by their number of showers", rows)
    judged = files * len(rows) * sum(COUNTS)
    show(
        "CPU time",
        [
            {"what": "GFLASH, a shower", "cpu_ms": 1e3 * simulating / len(pool), "ratio": 1.0},
            {
                "what": "judging, a shower and those generated for it",
                "cpu_ms": 1e3 * judging / judged,
                "ratio": judging / judged / (simulating / len(pool)),
            },
        ],
    )
    return 0


def simulated(each: int, seed: int) -> Showers:
    """`each` showers of every condition, by GFLASH."""
    energy, theta = (np.repeat(values, each) for values in zip(*CONDITIONS, strict=True))
    seeds = np.random.default_rng(seed).integers(1, 2**31, len(energy))
    return join(list(gflash.simulate(SIW, "e-", energy, theta, seeds)))


def table(pool: Showers, each: int, files: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """A row for each change."""
    known = seen(pool)
    for name, changed in changes(pool):
        stream = known if changed is pool else seen(changed)
        row: dict[str, Any] = {"change": name}
        for count in COUNTS:
            rng = np.random.default_rng(count)
            row[str(count)] = sum(alarm(stream, known, each, count, settings, rng) for _ in range(files)) / files
        yield row


def changes(pool: Showers) -> Iterator[tuple[str, Showers]]:
    """What may have become of a detector."""
    yield "none", pool
    for percent in (-2, -3, -4, -5, 5):
        yield f"gain {percent:+d} %", scaled(pool, np.float32(1 + percent / 100))
    here = pool.cell % len(SIW.layers) == LAYER
    for percent in (-20, -30, -50, -100):
        yield (
            f"layer {LAYER} {percent:+d} %",
            scaled(pool, np.where(here, np.float32(1 + percent / 100), np.float32(1))),
        )


def scaled(pool: Showers, factor: Any) -> Showers:
    return dataclasses.replace(pool, edep_mev=(pool.edep_mev * factor).astype(np.float32))


def seen(pool: Showers) -> drift.Rows:
    return drift.joined([drift.rows(pool.part(at, at + 500), SIW, 0.1) for at in range(0, len(pool), 500)])


def alarm(
    stream: drift.Rows, known: drift.Rows, each: int, count: int, settings: Settings, rng: np.random.Generator
) -> bool:
    """Whether a file of `count` showers, drawn from the pool, raises an alarm; no shower is on both sides."""
    size, generated = count // len(CONDITIONS), settings.per_shower * count // len(CONDITIONS)
    orders = [each * place + rng.permutation(each) for place in range(len(CONDITIONS))]
    new = np.concatenate([order[:size] for order in orders])
    made = np.concatenate([order[size : size + generated] for order in orders])
    found = drift.deviations(stream.chosen(new), known.chosen(made), settings.per_shower, settings.false_alarms)
    return any(one.drifted for one in found)


if __name__ == "__main__":
    raise SystemExit(main())
