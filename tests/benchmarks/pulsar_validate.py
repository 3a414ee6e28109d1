"""What it costs to validate a version of the pulsar classifier, and what the shipped one scores by the twin's gate."""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from functions.pulsar import classifier
from functions.pulsar.gate import MODEL
from functions.pulsar.tested import Scoring, drawn
from layers.learning.registry import Manifest, version_files, write
from layers.runtime import Input
from layers.runtime.function import sha256_of
from layers.runtime.testing import call
from tests.benchmarks.report import show

SHIPPED = Path(classifier.__file__).parent / f"{MODEL}.onnx"
SEED = 830_000
"""A stream of random numbers that no training request has used."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="900 frames instead of 4,500")
    count = 900 if parser.parse_args(argv).quick else 4_500
    with tempfile.TemporaryDirectory() as folder:
        began, wall = time.process_time(), time.monotonic()
        report = validated(Path(folder), count)
        whole = {"cpu_s": time.process_time() - began, "wall_s": time.monotonic() - wall}
    rows = [{"step": "validate, candidate against serving model", **whole}, labelled(count)]
    for row in rows:
        row["frames_per_cpu_s"] = count / row["cpu_s"]
        row["ratio"] = row["cpu_s"] / rows[-1]["cpu_s"]
    show(f"{count} frames, one core", rows)
    show("the shipped model by the gate, with 95 % intervals", list(scores(report)))
    return 0


def validated(folder: Path, count: int) -> dict[str, Any]:
    """The report of the shipped model against itself."""
    content = SHIPPED.read_bytes()
    files = version_files(Manifest.of(MODEL, content), content)
    write(folder, files)
    inputs = [Input("models", f"{MODEL}/{name}", sha256_of(folder / name), folder / name) for name in files]
    (folder / "r.json").write_text(json.dumps({"frames": count, "seed": SEED}))
    outcome = call("pulsar.validate", folder / "r.json", folder / "out", inputs=inputs)
    assert outcome.code == 0, outcome.message
    return dict(json.loads((folder / "out/r.json.report.json").read_text()))


def labelled(count: int) -> dict[str, Any]:
    """The floor: draw as many frames and label them with one model."""
    model = classifier.load(SHIPPED)
    began, wall = time.process_time(), time.monotonic()
    scoring = Scoring({"one": (model, model)})
    for block in drawn(count, SEED):
        scoring.add(block)
    return {
        "step": "draw and label with one model",
        "cpu_s": time.process_time() - began,
        "wall_s": time.monotonic() - wall,
    }


def scores(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each metric."""
    for metric in report["metrics"]:
        limit = {"floor": metric.get("floor", "-"), "bound": metric.get("bound", "-")}
        yield {"metric": metric["metric"], "samples": metric["samples"], **metric["candidate"], **limit}


if __name__ == "__main__":
    raise SystemExit(main())
