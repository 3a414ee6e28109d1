"""How fast the pulsar chain is on one core, in beams of the Effelsberg receiver, and that memory does not grow."""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functions.pulsar import classifier, classify, preprocess, synthesise
from functions.pulsar.frames import FramesFile
from tests.benchmarks.pulsar_classifier import NATURAL, Job
from tests.benchmarks.report import show

BEAM_FRAMES_PER_S = 1 / (256 * 102.4e-6)
"""38.15: frames a second of one beam of 256 channels at 102.4 us."""

MODEL = Path(classifier.__file__).parent / "pulsar-classifier.onnx"
STEPS = {"synthesise": synthesise, "preprocess": preprocess, "classify": classify}
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="files of 13 and 50 MB instead of 0.2 and 2 GB")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the temporary folder)")
    parser.add_argument("--run", nargs=3, metavar=("STEP", "SOURCE", "DESTINATION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.run:
        step, source, destination = arguments.run
        print(json.dumps(run_here(step, Path(source), Path(destination))))
        return 0
    sizes = (13e6, 50e6) if arguments.quick else (200e6, 2000e6)
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for number, size in enumerate(sizes):
            rows += chain(Path(folder) / str(number), size)
    for row in rows:
        first = next(other for other in rows if other["step"] == row["step"])
        row["memory_ratio"] = row["peak_mb"] / first["peak_mb"]
    show("one core, natural mix: frames per CPU-second, Effelsberg beams, peak memory", rows)
    return 0


def chain(folder: Path, size: float) -> list[dict[str, Any]]:
    """Make a file of about `size` bytes and pass it through the chain, each step in a process of its own."""
    folder.mkdir(parents=True)
    source = folder / "r.json"
    duration_s = size / 256 * 102.4e-6
    source.write_text(json.dumps({**NATURAL, "duration_s": duration_s, "seed": 1}))
    rows = []
    for step, name in (("synthesise", "r.json"), ("preprocess", "r.json.fil"), ("classify", "r.json.fil.h5")):
        rows.append(measured(step, folder / name, folder))
    with FramesFile(folder / "r.json.fil.h5") as file:
        frames = len(file)
        rows.append({"step": "read and sum only", **reading(file)})
    for row in rows:
        row["file_mb"] = size / 1e6
        row["frames_per_cpu_s"] = frames / row["cpu_s"]
        row["beams"] = row["frames_per_cpu_s"] / BEAM_FRAMES_PER_S
    return rows


def measured(step: str, source: Path, destination: Path) -> dict[str, Any]:
    """A step in a process of its own, on one core."""
    command = [sys.executable, "-m", "tests.benchmarks.pulsar_classify", "--run", step, str(source), str(destination)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **ONE_CORE})
    return {"step": step, **json.loads(done.stdout.splitlines()[-1])}


def run_here(step: str, source: Path, destination: Path) -> dict[str, float]:
    """Run a step in this process; CPU seconds of the run without imports, and the process's peak memory."""
    module = STEPS[step]
    if step == "classify":
        import matplotlib.backends.backend_agg  # noqa: F401
        import onnxruntime  # noqa: F401
    began, wall = time.process_time(), time.monotonic()
    module.run(source, destination, module.Settings(), Job(MODEL))  # type: ignore[attr-defined]
    return {
        "cpu_s": time.process_time() - began,
        "wall_s": time.monotonic() - wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def reading(file: FramesFile) -> dict[str, float]:
    """The floor: read every frame and sum it."""
    began, wall = time.process_time(), time.monotonic()
    total = 0
    for _, frames in file.batches(32):
        total += int(np.sum(frames, dtype=np.int64))
    assert total
    return {
        "cpu_s": time.process_time() - began,
        "wall_s": time.monotonic() - wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    raise SystemExit(main())
