"""Checkpoints of a training with torch: the last two in `job.checkpoint`, each whole or not there.

A file's name has the step and the start of the SHA-256 of its bytes: one that was torn, or that a disk has spoilt, is
found out, and the one before it serves.
"""

import hashlib
import os
import random
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from layers.learning.distributed import ALONE, Ranks
from layers.runtime import Job
from layers.runtime.function import sha256_of

KEPT = 2
TORN_S = 3600.0
"""How much older than a whole file a half-written one is whose process must have died."""
_NAME = re.compile(r"step-(\d{12})-([0-9a-f]{32})\.pt")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: the steps that were done, and the state that was saved."""

    step: int
    state: Mapping[str, Any]


class Checkpoint:
    """Where a training is saved, and found again by its next attempt.

    Saved along with it are the states of the generators of random numbers of Python, numpy and torch, of each rank.
    With several ranks, all call `save` and `load`; the first one has the files.
    """

    def __init__(self, job: Job, ranks: Ranks = ALONE) -> None:
        self._job = job
        self._ranks = ranks

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Have `state` survive: tensors, numbers, text and collections of these (what `weights_only` loads)."""
        generators = self._ranks.gather(random_states())
        if self._ranks.is_first:
            _write(self._job.checkpoint, step, {"step": step, "state": dict(state), "generators": generators})
            self._job.keep()
        self._ranks.wait()

    def load(self) -> Saved | None:
        """The last one that is whole, its random numbers going on from there; None on a first attempt."""
        found = self._ranks.broadcast(_read(self._job.checkpoint) if self._ranks.is_first else None)
        if found is None:
            return None
        generators = found["generators"]
        if len(generators) == self._ranks.size:
            set_random_states(generators[self._ranks.rank])
        return Saved(found["step"], found["state"])


def random_states() -> dict[str, Any]:
    """The states of the process's generators of random numbers, as `weights_only` loads them."""
    import torch

    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    states = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    return {**states, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Go on with the random numbers that would have come next."""
    import torch

    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _write(folder: Path, step: int, content: dict[str, Any]) -> None:
    import torch

    number, name = tempfile.mkstemp(".part", "step-", folder)
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            hashed = _Hashed(file)
            torch.save(content, hashed)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    target = part.replace(folder / f"step-{step:012}-{hashed.digest.hexdigest()[:32]}.pt")
    _sync(folder)
    others = [path for path in _newest_first(folder) if path != target]  # those of later steps are another attempt's
    same, before = ([p for p in others if _step(p) == step], [p for p in others if _step(p) < step])
    written = target.stat().st_mtime
    torn = [path for path in folder.glob("step-*.part") if _mtime(path, written) < written - TORN_S]
    for path in [*same, *before[KEPT - 1 :], *torn]:
        path.unlink(missing_ok=True)


def _read(folder: Path) -> dict[str, Any] | None:
    import torch

    for path in _newest_first(folder):
        if not sha256_of(path).startswith(path.stem.rpartition("-")[2]):
            print(f"checkpoint {path.name}: is damaged; the one before it serves", flush=True)  # noqa: T201
            path.unlink(missing_ok=True)
            continue
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _mtime(path: Path, gone: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return gone


def _sync(folder: Path) -> None:
    """Have the folder's entries on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class _Hashed:
    """A file that knows the SHA-256 of what was written to it; torch writes from its start to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
