"""The loop of a training: steps, curves, checkpoints, and the score by which it stops and keeps its best."""

import copy
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from functions.calorimeter.learners.learner import Learner
from functions.calorimeter.training.curves import Curves, Row
from functions.calorimeter.training.score import Scored
from layers.runtime import Checkpointed, InputError, Job

if TYPE_CHECKING:
    from layers.learning.distributed import Ranks

ROWS = 500
"""Of the curves of losses in a whole training."""


class Scoring(Protocol):
    """Tells how good a model is."""

    def __call__(self, model: Path) -> Scored: ...


@dataclass(frozen=True)
class Schedule:
    """When to do what, in steps."""

    evaluate_every: int
    patience: int
    """Evaluations without a better score after which the training stops; 0: it never does."""
    checkpoint_steps: int
    """Steps between checkpoints, at least; 0: with every evaluation."""


@dataclass(frozen=True)
class Best:
    """The learner at its best score so far."""

    step: int
    scored: Scored
    state: Mapping[str, Any]


class Training:
    """A learner on its way through its schedule.

    `scoring` is None on every rank but the first one. `request` and `producer` are what exported models say of theirs.
    """

    def __init__(
        self,
        name: str,
        learner: Learner,
        scoring: Scoring | None,
        schedule: Schedule,
        job: Job,
        ranks: "Ranks",
        request: Mapping[str, Any],
        producer: str,
    ) -> None:
        from layers.learning.checkpoints import Checkpoint

        self.name, self.learner, self.schedule = name, learner, schedule
        self.scoring, self.job, self.ranks = scoring, job, ranks
        self.request, self.producer = request, producer
        self.checkpoint = Checkpoint(job, ranks)
        self.step = self.saved = 0
        self.rows: list[Row] = []
        self.best: Best | None = None
        self.since = 0
        """Evaluations since the best one."""
        self.warm = False
        """Whether it starts from weights that know something: they are scored, too, so that nothing worse goes out."""
        self._sums: dict[str, tuple[float, int]] = {}
        """Of each loss since it was noted last, and how many there were: a step need not have all of them."""

    @property
    def stopped(self) -> bool:
        """Whether the score has not got better for as long as it may."""
        return 0 < self.schedule.patience <= self.since

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.learner.steps or self.stopped

    def resume(self) -> bool:
        """Go on from the checkpoint; whether there is one."""
        found = self.checkpoint.load()
        if found is None:
            return False
        state = found.state
        self.learner.load(state["learner"])
        self.step = self.saved = found.step
        self.rows = [(step, values) for step, values in state["rows"]]
        self._sums, self.since = dict(state["sums"]), state["since"]
        if (best := state["best"]) is not None:
            self.best = Best(best["step"], Scored(best["score"], best["numbers"]), best["state"])
        return True

    def save(self) -> None:
        """Have the next attempt go on from here."""
        best = self.best
        told = best and {
            "step": best.step,
            "score": best.scored.score,
            "numbers": dict(best.scored.numbers),
            "state": best.state,
        }
        state = {
            "learner": self.learner.state(),
            "rows": [(step, dict(values)) for step, values in self.rows],
            "sums": self._sums,
            "since": self.since,
            "best": told,
        }
        self.checkpoint.save(self.step, state)
        self.saved = self.step

    def train(self, watched: Curves | None = None) -> None:
        """All steps that are left; `watched` is where curves grow while they are made.

        Raises Checkpointed when the job is stopping, InputError where a loss is no number.
        """
        steps = self.learner.steps
        every = max(1, steps // ROWS)
        if self.warm and self.step == 0:
            self._note(watched, self._evaluate())
        while not self.done:
            losses = {name: self.ranks.mean(value) for name, value in self.learner.step(self.step).items()}
            self.step += 1
            self._add(losses)
            evaluated = self.step % self.schedule.evaluate_every == 0 or self.step == steps
            if evaluated or self.step % every == 0:
                self._note(watched, self._means())
            if evaluated:
                self._note(watched, self._evaluate())
            self.job.progress(self.step, steps)
            stopping = self.ranks.any(self.job.stopping)
            due = self.schedule.checkpoint_steps and self.step - self.saved >= self.schedule.checkpoint_steps
            if self.done or stopping or due or (evaluated and not self.schedule.checkpoint_steps):
                self.save()
            if stopping and not self.done:
                raise Checkpointed(f"stopped after {self.step} of {steps} steps")

    def export(self) -> bytes:
        """The model as it is now."""
        return self.learner.export(self.request, self.producer)

    def _add(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise InputError(
                    f"{self.name}: the loss {name} is {value} at step {self.step} of {self.learner.steps}; the training"
                    " has diverged, so lower the learning rate in parameters"
                )
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def _means(self) -> dict[str, float]:
        found = {f"loss/{name}": total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return found

    def _note(self, watched: Curves | None, values: Mapping[str, float]) -> None:
        if values:
            self.rows.append((self.step, values))
            if watched is not None:
                watched.add(self.rows[-1])

    def _evaluate(self) -> dict[str, float]:
        """Score the model, and keep it where it is the best; the first rank's, which the others hear of."""
        scored: Scored | None = None
        if self.scoring is not None:
            with tempfile.TemporaryDirectory(prefix="dioscar-score-") as folder:
                model = Path(folder) / "model.onnx"
                model.write_bytes(self.export())
                scored = self.scoring(model)
        better, values = self.ranks.broadcast(self._judged(scored))
        self.since = 0 if better else self.since + 1
        if better and scored is not None:
            self.best = Best(self.step, scored, copy.deepcopy(self.learner.state()))
        if self.best is not None and scored is not None:
            text = (
                f"step {self.step} of {self.learner.steps}: score {scored.score:.4f}, best {self.best.scored.score:.4f}"
            )
            print(f"{text} at step {self.best.step}", flush=True)  # noqa: T201 - the job's log
        return dict(values)

    def _judged(self, scored: Scored | None) -> tuple[bool, dict[str, float]]:
        if scored is None:
            return False, {}
        better = self.best is None or scored.score < self.best.scored.score
        numbers = {f"number/{name}": value for name, value in scored.numbers.items() if math.isfinite(value)}
        return better, {"score": scored.score, **numbers}
