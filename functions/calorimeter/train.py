"""Train a generator of showers: a request in, `<request>.onnx`, its weights, its curves and its metrics out.

The inputs are prepared showers (HDF5). A part of them is held out, which no training sees; by another part the model
is scored while it learns, with the numbers and the code by which it will be judged: the training stops when the score
gets no better, and the best model goes out. It goes out a second time, as the version that it is in the registry
(`versions/<version>/`, with what was held out), and with a request to `validate` (`<request>.validate.json`): whether
it will serve is decided there.

The state is saved between steps, and a stopped run goes on where it was: the same request gives the same bytes, stopped
or not, on the same kind of machine. Several processes (docs/training.md) share every batch.
"""

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from functions.calorimeter import learners, versions
from functions.calorimeter.generator import FORMAT, MODEL
from functions.calorimeter.learners.learner import Learner, TrainingData
from functions.calorimeter.plain import plain
from functions.calorimeter.training import data
from functions.calorimeter.training.curves import Curves
from functions.calorimeter.training.loop import Schedule, Training
from functions.calorimeter.training.parity import check_parity
from functions.calorimeter.training.score import Scorer
from functions.calorimeter.training.weights import write_networks
from functions.calorimeter.validation.samples import LEAST_SHOWERS
from layers.learning import onnx
from layers.runtime import InputError, Job, read_request
from layers.runtime.function import load, version_of

if TYPE_CHECKING:
    from layers.learning.distributed import Ranks

MODELS = (MODEL,)
PACKAGES = ("torch", "onnx", "tensorboard")
EVALUATIONS = 20
"""In a schedule, where the request does not say how often."""


@dataclass(frozen=True)
class Request:
    """What to train, on the showers that stand in `inputs`."""

    family: str = "two-stage"
    """What kind of model: one of `learners.FAMILIES`."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of the family; those that are left out have its defaults."""
    seed: int = 1
    start: Literal["scratch", "serving", "given"] = "scratch"
    """From nothing, from the weights of the model that serves, or from those of the one `.onnx` among the inputs."""
    held_out: float = 0.2
    """Part of the showers that is kept for the validation."""
    watched: float = 0.1
    """Part of the others by which the model is scored while it learns."""
    evaluate_every: int = 0
    """Steps between scores; 0: a twentieth of the schedule."""
    patience: int = 5
    """Scores that may be no better than the best one before the training stops; 0: it goes to its end."""
    resample: bool = False
    """Learn from a bootstrap resample of the showers, drawn from the seed, as members of an ensemble do."""
    study: str = ""
    """SHA-256 of the study that has found the parameters (`tune` writes it); the version's manifest says it."""

    def __post_init__(self) -> None:
        if self.family not in learners.FAMILIES:
            known = ", ".join(learners.FAMILIES)
            raise ValueError(f'family: there is no family "{self.family}"; write one of {known}')
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")
        for name in ("held_out", "watched"):
            if not 0 < getattr(self, name) <= 0.5:
                raise ValueError(f"{name}: {getattr(self, name)} is no part above 0, up to 0.5")
        for name in ("evaluate_every", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative; 0 is the least")
        if self.study and not re.fullmatch("[0-9a-f]{64}", self.study):
            raise ValueError(f'study: "{self.study}" is no SHA-256 of a study; leave it to calorimeter-tune')


@dataclass(frozen=True)
class Settings:
    """How `train` works."""

    dioscar_registry: str = "models"
    """Bucket of the registry of models, in which `validate` is to look for the version."""
    threads: int = 1
    """Threads of torch. The result depends on it in the last bits."""
    checkpoint_steps: int = 0
    """Steps of the optimiser between checkpoints, at least. 0: one with every score."""
    curves: str = ""
    """A folder in which curves can be watched while they grow, each request's in one of its own; empty: nowhere."""
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.threads < 1 or self.checkpoint_steps < 0:
            raise ValueError("threads is at least 1, checkpoint_steps at least 0")


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the model and all that belongs to it; raises Checkpointed when the job is stopping."""
    request = read_request(Request, source)
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{source.name}: training needs {package}, which is not here; run ./dioscar install train")
    import torch

    from layers.learning.distributed import joined

    torch.set_num_threads(settings.threads)
    parameters = learners.parameters_of(request.family, request.parameters, f"{source.name}: parameters")
    told = {**asdict(request), "parameters": asdict(parameters)}
    start = start_of(source.name, request, job)
    showers = [item for item in job.inputs if not item.key.endswith(".onnx")]
    collection = data.read(source.name, showers, request.held_out, request.watched)
    # a family that is trained on a part of the energies is scored on that part, which is all that it can make
    watched = collection.part(data.WATCHING).within(getattr(parameters, "energy_gev", ()))
    with joined(settings.device) as ranks:
        torch.manual_seed(request.seed)
        whole = collection.part(data.TRAINING)
        lessons = data.resampled(whole, request.seed) if request.resample else whole
        learner = learners.family(request.family).make(lessons, parameters, request.seed, ranks)
        scorer = Scorer(watched, seed=request.seed, threads=settings.threads) if ranks.is_first else None
        training = Training(
            source.name,
            learner,
            scorer,
            schedule(request, learner, settings),
            job,
            ranks,
            told,
            f"calorimeter.train {release()}",
        )
        if not training.resume() and start is not None:
            learner.start_from(start)
            training.warm = True
        with curves_of(source.name, settings, ranks, training) as curves:
            training.train(curves)
    if scorer is None:
        return
    finish(source, destination, settings, training, scorer, collection, watched, told, start)


def release() -> str:
    """The release of this code, without its hash, which the manifest has: the same weights are the same bytes."""
    return load("calorimeter.train").version.partition("+")[0]


def start_of(name: str, request: Request, job: Job) -> Path | None:
    """The model whose weights a training starts from. Raises InputError where that is not clear."""
    given = [item for item in job.inputs if item.key.endswith(".onnx")]
    if request.start != "given" and given:
        raise InputError(f'{name}: inputs: {given[0].key} is a model; write "start": "given" to start from it')
    if request.start == "given":
        if len(given) != 1:
            raise InputError(f'{name}: inputs: {len(given)} of them are models; "start": "given" needs one .onnx')
        return given[0].path
    return job.model(MODEL) if request.start == "serving" else None


def schedule(request: Request, learner: Learner, settings: Settings) -> Schedule:
    """When to score and to save."""
    every = request.evaluate_every or max(1, learner.steps // EVALUATIONS)
    return Schedule(min(every, learner.steps), request.patience, settings.checkpoint_steps)


@contextmanager
def curves_of(name: str, settings: Settings, ranks: "Ranks", training: Training) -> Iterator[Curves | None]:
    """Where curves can be watched, with what there is of them already; None where nobody watches."""
    if not settings.curves or not ranks.is_first:
        yield None
        return
    try:
        curves = Curves(Path(settings.curves) / name, training.rows)
    except OSError as error:
        raise InputError(f"environment variable CURVES: {settings.curves}: {error.strerror}; name another") from None
    with curves:
        yield curves


def finish(
    source: Path,
    destination: Path,
    settings: Settings,
    training: Training,
    scorer: Scorer,
    collection: data.Collection,
    watched: TrainingData,
    request: Mapping[str, Any],
    start: Path | None,
) -> None:
    """Write the outputs of a training that is done: those of its best model."""
    best, learner = training.best, training.learner
    assert best is not None, "the last step is scored"
    learner.load(best.state)
    model = training.export()
    path = destination / f"{source.name}.onnx"
    path.write_bytes(model)
    parity = check_parity(path, learner.exported(), watched, seed=request["seed"])
    networks = learner.networks()
    files = [destination / f"{source.name}.{end}" for end in ("weights.h5", "architecture.json")]
    write_networks(files[0], files[1], request["family"], learner.architecture(), networks)
    with Curves(destination / f"{source.name}.tensorboard", training.rows):
        pass
    metrics = {
        "score": best.scored.score,
        "best_step": best.step,
        "steps": training.step,
        "stopped_early": training.step < learner.steps,
        "numbers": dict(best.scored.numbers),
        "floors": dict(scorer.floors),
        "weights": sum(value.numel() for network in networks.values() for value in network.parameters()),
        "onnx_against_torch": parity,
        "showers": {
            "training": collection.count(data.TRAINING),
            "watched": collection.count(data.WATCHING),
            "held_out": collection.count(data.HELD),
        },
    }
    _, about = onnx.load(path, FORMAT)
    version = versions.write_version(
        source,
        destination,
        model,
        {
            "units": {tensor.name: tensor.unit for tensor in (*about.inputs, *about.outputs) if tensor.unit},
            **vars(about),
        },
        metrics,
        request,
        collection,
        parent=version_of(start)[:16] if start else "",
        bucket=settings.dioscar_registry,
    )
    text = json.dumps({"request": request, **plain(metrics), "curves": training.rows}, indent=1)
    (destination / f"{source.name}.metrics.json").write_text(text + "\n")
    held = collection.count(data.HELD)
    decides = "calorimeter-validate decides whether it serves"
    if held < LEAST_SHOWERS:
        decides = f"{held} showers are held out, too few for calorimeter-validate ({LEAST_SHOWERS}), which is not asked"
    told = f"version {version}: {decides}; ./dioscar models show {MODEL} {version}"
    print(told, flush=True)  # noqa: T201 - the job's log
