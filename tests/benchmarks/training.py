"""What it costs to be killed: CPU time of a pulsar training with three kills against one that is left alone."""

import argparse
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.report import show

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
LEARNED = re.compile(r"^epoch (\d+) of \d+, chunk (\d+) of \d+: step (\d+)", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=12_000, help="frames of an epoch (12000; two epochs)")
    parser.add_argument("--chunk", type=int, default=512, help="frames between checkpoints (512; a service has 2048)")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    arguments = parser.parse_args(argv)
    request = {"frames": arguments.frames, "epochs": 2, "seed": 7, "validation_frames": 90, "other_bands": 0.0}
    chunks = 2 * -(-arguments.frames // arguments.chunk)
    kills = sorted(random.Random(arguments.seed).sample(range(1, chunks), arguments.kills))
    rows, models = [], []
    one_import = imports_cpu_s()
    for name, moments in (("left alone", []), (f"killed {len(kills)} times", kills)):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "request.json").write_text(json.dumps(request))
            began = _children_cpu_s()
            for moment in [*moments, 0]:
                attempt(Path(folder), arguments.chunk, moment)
            learned = LEARNED.findall(Path(folder, "log").read_text())
            rows.append(
                {
                    "training": name,
                    "CPU s": _children_cpu_s() - began,
                    "of it imports": one_import * (1 + len(moments)),
                    "chunks learned": len(learned),
                    "steps at the end": int(learned[-1][2]),
                }
            )
            models.append(Path(folder, "out", "request.json.onnx").read_bytes())
    for row in rows:
        row["CPU, of left alone"] = row["CPU s"] / rows[0]["CPU s"]
    show(f"training in {chunks} chunks of {arguments.chunk} frames; same model: {models[0] == models[1]}", rows)
    return 0


def attempt(folder: Path, chunk: int, moment: int) -> None:
    """Train until `moment` chunks are learned, then kill it within the next one."""
    environ = {
        **os.environ,
        **ONE_THREAD,
        "INPUT_FILE_PATH": str(folder / "request.json"),
        "STORAGE_OBJECT_KEY": "in/request.json",
        "TMP_OUTPUT_DIR": str(folder / "out"),
        "DIOSCAR_CHECKPOINT": str(folder / "checkpoints"),
        "DIOSCAR_FUNCTION": "pulsar.train",
        "CHUNK": str(chunk),
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-P", "-m", "layers.runtime"], env=environ, stdout=log, stderr=log)
        while process.poll() is None:
            if moment and learned(folder) >= moment:
                time.sleep(0.3)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.02)
        code = process.wait()
    assert code == (-signal.SIGKILL if moment else 0), (folder / "log").read_text()


def imports_cpu_s() -> float:
    """CPU seconds of what every attempt begins with, from files that have been read before."""
    spent = 0.0
    for _ in range(2):
        before = _children_cpu_s()
        command = "import functions.pulsar.train, functions.pulsar.network, torch.distributed.tensor"
        subprocess.run([sys.executable, "-P", "-c", command], env={**os.environ, **ONE_THREAD}, check=True)
        spent = _children_cpu_s() - before
    return spent


def learned(folder: Path) -> int:
    """The chunk that was learned last, of all epochs."""
    found = LEARNED.findall((folder / "log").read_text())
    if not found:
        return 0
    epoch, chunk, _ = map(int, found[-1])
    total = int(re.findall(r"chunk \d+ of (\d+)", (folder / "log").read_text())[-1])
    return (epoch - 1) * total + chunk


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
