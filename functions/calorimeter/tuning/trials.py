"""One trial: a short training, scored as it goes, which ends early where others were better by then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functions.calorimeter.learners.learner import Family, TrainingData
from functions.calorimeter.training.loop import Schedule, Scoring, Training
from functions.calorimeter.training.score import Scored
from functions.calorimeter.tuning.space import Value
from functions.calorimeter.tuning.study import DONE, FAILED, PRUNED, Ended, State
from layers.runtime import Input, InputError, Job

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Plan:
    """What all trials have in common."""

    name: str
    """Of the request."""
    family: Family
    data: TrainingData
    scoring: Scoring
    parameters: Mapping[str, Any]
    """That no trial changes; `steps` among them, where the request says it."""
    evaluations: int
    seed: int
    trials: int
    device: str


class Pruned(Exception):  # noqa: N818 - it is an outcome, not an error
    """The trial is worse than the median of those before."""


def run_trial(plan: Plan, trial: "optuna.Trial", chosen: Mapping[str, Value], job: Job) -> Ended:
    """Train with these values and score; raises Checkpointed where the job is stopping.

    Values that the family refuses, and a training that diverges, are a failed trial and end no study.
    """
    import torch

    from layers.learning.distributed import Ranks

    ranks = Ranks(device_type="cuda" if plan.device == "cuda" else "cpu")
    part = PartOfJob(job, trial.number, plan.trials)
    reporting = Reporting(plan.scoring, trial)
    try:
        parameters = plan.family.Parameters(**{**plan.parameters, **chosen})
    except ValueError as error:
        return _ended(trial.number, chosen, FAILED, reporting, str(error))
    try:
        torch.manual_seed(plan.seed)
        learner = plan.family.make(plan.data, parameters, plan.seed, ranks)
        every = max(1, learner.steps // plan.evaluations)
        schedule = Schedule(evaluate_every=every, patience=0, checkpoint_steps=0)
        training = Training(plan.name, learner, reporting, schedule, part, ranks, {}, "")
        reporting.steps = training
        if training.resume():
            reporting.again(training)
        training.train()
    except Pruned:
        return _ended(trial.number, chosen, PRUNED, reporting)
    except InputError as error:
        return _ended(trial.number, chosen, FAILED, reporting, str(error).removeprefix(f"{plan.name}: "))
    return _ended(trial.number, chosen, DONE, reporting)


class Reporting:
    """A scoring that tells Optuna of every score, and ends the trial where Optuna says so."""

    def __init__(self, scoring: Scoring, trial: "optuna.Trial") -> None:
        self._scoring, self._trial = scoring, trial
        self.steps: Training | None = None
        self.scores: list[tuple[int, float]] = []
        self.best: Scored | None = None

    def __call__(self, model: Path) -> Scored:
        """Raises Pruned."""
        assert self.steps is not None
        scored = self._scoring(model)
        self._note(self.steps.step, scored)
        if self._trial.should_prune():
            raise Pruned
        return scored

    def again(self, training: Training) -> None:
        """Tell of the scores that a training had before it was stopped."""
        for step, values in training.rows:
            if "score" in values:
                self._trial.report(values["score"], step)
                self.scores.append((step, values["score"]))
        self.best = None if training.best is None else training.best.scored

    def _note(self, step: int, scored: Scored) -> None:
        self._trial.report(scored.score, step)
        self.scores.append((step, scored.score))
        if self.best is None or scored.score < self.best.score:
            self.best = scored


class PartOfJob:
    """The job as one trial sees it: a folder of its own, and its part of the progress."""

    def __init__(self, job: Job, number: int, trials: int) -> None:
        self._job, self._number, self._trials = job, number, trials

    @property
    def inputs(self) -> Sequence[Input]:
        return self._job.inputs

    @property
    def checkpoint(self) -> Path:
        folder = folder_of(self._job, self._number)
        folder.mkdir(exist_ok=True)
        return folder

    def keep(self) -> None:
        self._job.keep()

    @property
    def stopping(self) -> bool:
        return self._job.stopping

    @property
    def seed(self) -> int:
        return self._job.seed

    def model(self, name: str) -> Path:
        return self._job.model(name)

    def progress(self, done: float, total: float) -> None:
        self._job.progress(self._number + done / total, self._trials)


def folder_of(job: Job, number: int) -> Path:
    """Where a trial's checkpoints stand while it runs."""
    return job.checkpoint / f"trial-{number:04}"


def _ended(number: int, chosen: Mapping[str, Value], state: State, reporting: Reporting, reason: str = "") -> Ended:
    best = reporting.best
    score, numbers = (None, {}) if best is None else (best.score, dict(best.numbers))
    return Ended(number, dict(chosen), state, tuple(reporting.scores), score, numbers, reason)
