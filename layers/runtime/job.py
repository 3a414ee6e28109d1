"""The `job` argument of a running function."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from layers.runtime.checkpoints import Kept
from layers.runtime.contract import Input

_PROGRESS_EVERY_S = 0.2
_LOG_EVERY_S = 10.0


class RunningJob:
    """Satisfies `layers.runtime.contract.Job`."""

    def __init__(
        self,
        *,
        staged: Sequence[Input] = (),
        models: Mapping[str, Path],
        kept: Kept,
        stop: threading.Event,
        seed: int,
        progress_file: str = "",
        quiet: bool = False,
    ) -> None:
        self.inputs = tuple(staged)
        self.seed = seed
        self._models = models
        self._kept = kept
        self._stop = stop
        self._progress_file = progress_file
        self._quiet = quiet
        self._told = float("-inf")

    @property
    def checkpoint(self) -> Path:
        return self._kept.files

    def keep(self) -> None:
        self._kept.keep()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def model(self, name: str) -> Path:
        try:
            return self._models[name]
        except KeyError:
            raise LookupError(f'model "{name}" is not in the function\'s MODELS; list it there') from None

    def progress(self, done: float, total: float) -> None:
        now = time.monotonic()
        pause = _PROGRESS_EVERY_S if self._progress_file else _LOG_EVERY_S
        if self._quiet or (done < total and now - self._told < pause):
            return
        self._told = now
        if self._progress_file:
            path = Path(self._progress_file)
            part = path.with_suffix(".part")
            part.write_text(json.dumps({"done": done, "total": total}), encoding="utf-8")
            part.replace(path)
        else:
            print(f"dioscar: progress {done:g} of {total:g}", flush=True)  # noqa: T201 - the job's log
