"""Attempts at a training, each in a process that can be killed; torch is imported once, and they are forked."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOADED = [
    "torch.distributed.tensor",
    "functions.pulsar.train",
    "functions.pulsar.network",
    "layers.learning.checkpoints",
    "layers.runtime.testing",
]


def start(
    folder: Path,
    *,
    settings: Mapping[str, str],
    die_at: int = 0,
    environ: Mapping[str, str] | None = None,
    kept: bool = False,
) -> BaseProcess:
    """Train `folder/request.json` into `folder/out`; every step of the optimiser adds a byte to `folder/steps`.

    `die_at`: the step of this attempt at which the process is killed. `kept`: there is no folder for checkpoints, only
    a store, as in a pod. What is printed goes to `folder/log`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_attempt, args=(folder, dict(settings), die_at, dict(environ or {}), kept))
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """Its exit status; minus the signal that ended it."""
    process.join(120)
    assert process.exitcode is not None, "it runs still"
    code = process.exitcode
    process.close()
    return code


def steps(folder: Path) -> int:
    """Steps of the optimiser in all attempts so far (of several processes, of the first)."""
    path = folder / "steps"
    return path.stat().st_size if path.exists() else 0


def _attempt(folder: Path, settings: dict[str, str], die_at: int, environ: dict[str, str], kept: bool) -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    os.environ.update(environ)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import torch

    from layers.runtime.testing import call

    counted = torch.optim.AdamW.step
    done = 0

    def step(self: torch.optim.AdamW) -> None:
        nonlocal done
        counted(self)
        done += 1
        if environ.get("RANK", "0") == "0":
            with (folder / "steps").open("ab") as file:
                file.write(b".")
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.optim.AdamW.step = step
    outcome = call(
        "pulsar.train",
        folder / "request.json",
        folder / "out",
        settings={**settings, **environ},
        checkpoint=None if kept else folder / "checkpoints",
        kept=folder / "store" if kept else None,
        stopping=stopping,
    )
    sys.stdout.flush()
    os._exit(outcome.code)
