"""Attempts at a training of the family `tiny`, each in a process of its own; torch is imported once, and they are
forked. As a module it is one attempt, for torchrun to start.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from layers.runtime import Input
from tests.functions.calorimeter.trainings import register, train
from tests.ports import free_port

PRELOADED = [
    "torch.distributed.tensor",
    "functions.calorimeter.train",
    "layers.learning.checkpoints",
    "tests.functions.calorimeter.tiny_learner",
    "tests.functions.calorimeter.trainings",
]
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def start(folder: Path, environ: Mapping[str, str]) -> BaseProcess:
    """Train what `folder/task.json` says, with these variables; what is printed goes to `folder/log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_forked, args=(folder, dict(environ)))
    process.start()
    return process


def ended(*processes: BaseProcess) -> list[int | None]:
    """The exit status of each, minus the signal that ended it; None for one that had to be killed."""
    codes = []
    for process in processes:
        process.join(120)
        codes.append(process.exitcode)
        process.kill()
        process.join()
        process.close()
    return codes


def ranks(extra: Mapping[str, str]) -> list[dict[str, str]]:
    """The variables of two processes, as `srun` sets them (docs/training.md).

    The port is none that the system gives to whoever connects, for a rank that is early may connect to itself there.
    """
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **extra}
    return [{**both, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def task(folder: Path, showers: Input, request: Mapping[str, object]) -> Path:
    """A folder with a training to attempt."""
    folder.mkdir()
    document = {"bucket": showers.bucket, "key": showers.key, "sha256": showers.sha256, "path": str(showers.path)}
    (folder / "task.json").write_text(json.dumps({"showers": document, "request": request}))
    return folder


def attempt(folder: Path) -> int:
    """Train in this process, which may be one of several; returns the exit status."""
    register()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    document = json.loads((folder / "task.json").read_text())
    one = document["showers"]
    showers = Input(one["bucket"], one["key"], one["sha256"], Path(one["path"]))
    ranks = {name: os.environ[name] for name in RANKS if name in os.environ}
    outcome = train(folder, [showers], document["request"], ranks, checkpoint=folder / "checkpoints", stopping=stopping)
    sys.stdout.flush()
    return int(outcome.code)


def _forked(folder: Path, environ: dict[str, str]) -> None:
    os.environ.update(environ)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os._exit(attempt(folder))


if __name__ == "__main__":
    sys.exit(attempt(Path(sys.argv[1])))
