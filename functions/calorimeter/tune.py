"""Search hyper-parameters of a generator: a request in, the study and a request for `train` with the best ones out.

Every trial is a short training on the showers that `train` would learn from, scored as `train` scores
(`training.score`: physics, never a loss) on the showers that `train` watches; what is held out stays unseen. The first
trial has the family's defaults, the next ones are drawn at random, the rest by Optuna's TPE; a trial that is worse
than the median of those before at the same step is ended. All have the same seed: only parameters differ.

The state is saved with every score, and a stopped study goes on where it was: the same request gives the same study.
`<request>.train.json` goes on to `train`: the tuned model is trained in full and validated, and names its study.
"""

import hashlib
import importlib.util
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from functions.calorimeter import learners
from functions.calorimeter.training import data
from functions.calorimeter.training.score import Scorer
from functions.calorimeter.tuning.space import Axis, default_space, read_space
from functions.calorimeter.tuning.study import Ended, Study, document
from layers.runtime import Checkpointed, InputError, Job, read_request
from layers.runtime.function import load

PACKAGES = ("torch", "onnx", "tensorboard", "optuna")
FORMAT = "dioscar-calorimeter-study-1"
FILE = "study.json"
"""In the checkpoint: the trials that have ended."""
MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Request:
    """What to tune, on the showers that stand in `inputs`."""

    family: str = "two-stage"
    """What kind of model: one of `learners.FAMILIES`."""
    trials: int = 20
    steps: int = 0
    """Of the training in each trial; 0: the family's own."""
    evaluations: int = 4
    """Scores of a trial, at equal steps: where it may end early."""
    startup: int = 5
    """Trials before the search begins and before any is ended early: the defaults, then random ones."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of the family, the same in all trials and in the training after them."""
    space: dict[str, Any] = field(default_factory=dict)
    """What is searched: a name of a parameter each, with low, high and log, or choices. Empty: the family's own."""
    seed: int = 1
    held_out: float = 0.2
    """Part of the showers that no trial sees, as for `train`."""
    watched: float = 0.1
    """Part of the others by which models are scored, as for `train`."""

    def __post_init__(self) -> None:
        if self.family not in learners.FAMILIES:
            known = ", ".join(learners.FAMILIES)
            raise ValueError(f'family: there is no family "{self.family}"; write one of {known}')
        if not 1 <= self.trials <= MOST_TRIALS:
            raise ValueError(f"trials: {self.trials} is not from 1 to {MOST_TRIALS}")
        for name in ("evaluations", "startup"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        for name in ("steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative")
        for name in ("held_out", "watched"):
            if not 0 < getattr(self, name) <= 0.5:
                raise ValueError(f"{name}: {getattr(self, name)} is no part above 0, up to 0.5")


@dataclass(frozen=True)
class Settings:
    """How `tune` works."""

    threads: int = 1
    """Threads of torch. The result depends on it in the last bits."""
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError("threads is at least 1")


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the study and the request for a training; raises Checkpointed when the job is stopping."""
    request = read_request(Request, source)
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{source.name}: tuning needs {package}, which is not here; run ./dioscar install train")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            f"environment variable WORLD_SIZE: {os.environ['WORLD_SIZE']} is not 1; a study has one process"
        )
    axes = axes_of(source.name, request)
    collection = data.read(source.name, job.inputs, request.held_out, request.watched)
    study = searched(source.name, request, settings, job, axes, collection)
    if study.best is None:
        reason = study.ended[0].reason
        raise InputError(
            f"{source.name}: none of {request.trials} trials has come to its end ({reason}); mend the space"
        )
    content = told(source.name, request, job, axes, collection, study).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    (destination / f"{source.name}.study.json").write_bytes(content)
    kept = destination / "studies" / f"{sha256[:16]}.json"  # as the registry keeps it, beside versions
    kept.parent.mkdir()
    kept.write_bytes(content)
    after = {
        "inputs": [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in job.inputs],
        "family": request.family,
        "parameters": {**request.parameters, **study.best.parameters},
        "seed": request.seed,
        "held_out": request.held_out,
        "watched": request.watched,
        "study": sha256,
    }
    (destination / f"{source.name}.train.json").write_text(json.dumps(after, indent=1) + "\n", encoding="utf-8")
    print(f"best of {len(study.ended)}: {describe(study.best)}", flush=True)  # noqa: T201 - the job's log


def axes_of(name: str, request: Request) -> list[Axis]:
    """What is searched; raises InputError where space or parameters are not of the family."""
    learners.parameters_of(request.family, request.parameters, f"{name}: parameters")
    if request.steps and "steps" in request.parameters:
        raise InputError(f"{name}: parameters.steps: is of the training after the trials; steps is of the trials")
    module = learners.family(request.family)
    space = request.space or default_space(request.family, module.Parameters)
    free = {axis: value for axis, value in space.items() if request.space or axis not in request.parameters}
    return read_space(free, module.Parameters, request.parameters, f"{name}: space")


def searched(
    name: str, request: Request, settings: Settings, job: Job, axes: list[Axis], collection: data.Collection
) -> Study:
    """The study with all its trials; raises Checkpointed when the job is stopping."""
    import torch

    from functions.calorimeter.tuning.trials import Plan, folder_of, run_trial

    torch.set_num_threads(settings.threads)
    module = learners.family(request.family)
    default = asdict(module.Parameters(**request.parameters))
    fixed = {**request.parameters, **({"steps": request.steps} if request.steps else {})}
    plan = Plan(
        name=name,
        family=module,
        data=collection.part(data.TRAINING),
        scoring=Scorer(collection.part(data.WATCHING), seed=request.seed, threads=settings.threads),
        parameters=fixed,
        evaluations=request.evaluations,
        seed=request.seed,
        trials=request.trials,
        device=settings.device,
    )
    start = {axis.name: default[axis.name] for axis in axes if axis.holds(default[axis.name])}
    study = Study(job.checkpoint / FILE, axes, seed=request.seed, startup=request.startup, start=start)
    while len(study.ended) < request.trials:
        if job.stopping:
            raise Checkpointed(f"stopped after {len(study.ended)} of {request.trials} trials")
        trial, chosen = study.ask()
        ended = run_trial(plan, trial, chosen, job)
        study.tell(trial, ended)
        shutil.rmtree(folder_of(job, ended.number), ignore_errors=True)
        job.keep()
        print(f"trial {describe(ended)}", flush=True)  # noqa: T201 - the job's log
    return study


def told(name: str, request: Request, job: Job, axes: list[Axis], collection: data.Collection, study: Study) -> str:
    """The study as it is kept."""
    module = learners.family(request.family)
    return document(
        study,
        format=FORMAT,
        request={"name": name, **asdict(request)},
        code=f"calorimeter.tune {load('calorimeter.tune').version}",
        score="mean logarithm of the numbers of compare over their floors, on watched showers; the lower the better",
        data=[{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in job.inputs],
        showers={
            "training": collection.count(data.TRAINING),
            "watched": collection.count(data.WATCHING),
            "held_out": collection.count(data.HELD),
        },
        space={axis.name: axis.as_json() for axis in axes},
        default=asdict(module.Parameters(**request.parameters)),
    )


def describe(ended: Ended) -> str:
    """A trial in one line."""
    chosen = ", ".join(f"{name} {_short(value)}" for name, value in ended.parameters.items())
    score = "no score" if ended.score is None else f"score {ended.score:.4f}"
    return f"{ended.number}: {ended.state}, {score}: {chosen}" + (f" ({ended.reason})" if ended.reason else "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
