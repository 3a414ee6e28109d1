"""The study: every trial with its parameters, scores and end, and what comes next by Optuna.

A study that was stopped goes on as if it had not been: it stands in a file, of which Optuna's own is made again, and
what the next trial tries derives from the trials before and from the seed, with the trial's number. No clock is kept.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from functions.calorimeter.plain import plain
from functions.calorimeter.tuning.space import Axis, Value

if TYPE_CHECKING:
    import optuna

TPE_STREAM = 31
State = Literal["done", "pruned", "failed"]
DONE: State = "done"
PRUNED: State = "pruned"
FAILED: State = "failed"


@dataclass(frozen=True)
class Ended:
    """A trial that has ended; scores are the lower the better."""

    number: int
    parameters: Mapping[str, Value]
    state: State
    scores: Sequence[tuple[int, float]]
    """Step and score of every evaluation."""
    score: float | None
    """The best of them; None where there is none."""
    numbers: Mapping[str, float]
    """Of `compare`, at the best score."""
    reason: str = ""
    """Of a failure."""


class Study:
    """The trials so far, in a file, and Optuna's study of them."""

    def __init__(
        self, file: Path, axes: Sequence[Axis], *, seed: int, startup: int, start: Mapping[str, Value]
    ) -> None:
        """`start` is what the first trial tries; `startup` trials are drawn at random, and none of them is pruned."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._file, self._axes, self._seed, self._startup = file, axes, seed, startup
        self._study = optuna.create_study(
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0, n_min_trials=2),
        )
        self.ended: list[Ended] = []
        for told in json.loads(file.read_text(encoding="utf-8")) if file.exists() else []:
            scores = tuple((int(step), float(score)) for step, score in told.pop("scores"))
            self.ended.append(Ended(**told, scores=scores))
            self._study.add_trial(self._known(self.ended[-1]))
        if not self.ended and start:
            self._study.enqueue_trial(dict(start))

    def ask(self) -> tuple["optuna.Trial", dict[str, Value]]:
        """The next trial, and the values that it is to try."""
        import optuna

        number = len(self.ended)
        seed = int(np.random.SeedSequence((self._seed, TPE_STREAM, number)).generate_state(1)[0])
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._startup)
        trial = self._study.ask()
        return trial, {axis.name: axis.suggest(trial) for axis in self._axes}

    def tell(self, trial: "optuna.Trial", ended: Ended) -> None:
        """The trial has ended; from now on that survives."""
        from optuna.trial import TrialState

        state = {DONE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}[ended.state]
        self._study.tell(trial, ended.score if ended.state == DONE else None, state)
        self.ended.append(ended)
        part = self._file.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            json.dump([asdict(one) for one in self.ended], file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._file)

    @property
    def best(self) -> Ended | None:
        """The trial with the lowest score among those that were not pruned; the first one of several."""
        done = [one for one in self.ended if one.state == DONE and one.score is not None]
        return min(done, key=lambda one: (one.score, one.number)) if done else None

    def _known(self, ended: Ended) -> "optuna.trial.FrozenTrial":
        from optuna.trial import TrialState, create_trial

        last = ended.scores[-1][1] if ended.scores else None
        return create_trial(
            state={DONE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}[ended.state],
            value={DONE: ended.score, PRUNED: last, FAILED: None}[ended.state],
            params=dict(ended.parameters),
            distributions={axis.name: axis.distribution for axis in self._axes},
            intermediate_values=dict(ended.scores),
        )


def document(study: Study, **facts: Any) -> str:
    """The study as JSON, with `facts` before its trials."""
    best = study.best
    told = {**facts, "best": None if best is None else best.number, "trials": [asdict(one) for one in study.ended]}
    return json.dumps(plain(told), indent=1, allow_nan=False) + "\n"
