"""Train the classifier: a request in, `<request>.onnx` and `<request>.metrics.json` out.

The model goes out a second time, as the version that it is in the registry (`versions/<version>/`), with a request to
`validate` (`<request>.validate.json`): whether it will serve is decided there.

Every epoch sees frames that were never seen before, drawn from the physics twin with the request's seed, so there is
nothing to overfit and no split to leak; validation frames come from a stream of their own. Labelled frames files that
the request names as inputs are added to every epoch. The state is saved between chunks, and a stopped run goes on
where it was: the same request gives the same model, stopped or not, on the same kind of machine. Several processes
(docs/training.md) draw and learn a part of every chunk each, which gives another model, but always the same.
"""

import importlib.util
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from functions.pulsar import classifier, score, versions
from functions.pulsar.arrays import Flags, Floats, Positions
from functions.pulsar.band import EFFELSBERG, OTHER_BANDS, Band
from functions.pulsar.empirical import empirical_model
from functions.pulsar.features import FeatureMaker, Features, pool_samples
from functions.pulsar.frames import FramesFile
from functions.pulsar.gate import MODEL
from functions.pulsar.labelled import LabelledFrame, Population, balanced, draw_frames, labels_of
from functions.pulsar.labels import COMPONENTS
from functions.pulsar.scene import THEORETICAL, Model
from layers.runtime import Checkpointed, InputError, Job, read_request

if TYPE_CHECKING:
    import torch

    from layers.learning.distributed import Ranks

VALIDATION_STREAM = 1 << 30
"""Epoch number of the validation frames: no training epoch has it."""


@dataclass(frozen=True)
class Request:
    """What to train."""

    frames: int = 30_000
    """Fresh frames in each epoch."""
    epochs: int = 12
    seed: int = 1
    generators: Literal["theoretical", "empirical", "both"] = "theoretical"
    other_bands: float = 0.15
    """Part of the frames that come from other telescopes' bands than the 21-cm receiver at Effelsberg."""
    uniform_dm: float = 0.5
    """Part of the pulses whose DM is uniform in 5 to 500 pc/cm^3, instead of log-uniform."""
    validation_frames: int = 4_500
    learning_rate: float = 2e-3
    batch: int = 96

    def __post_init__(self) -> None:
        for name in ("frames", "epochs", "validation_frames", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        if not 0 <= self.other_bands <= 1 or not 0 <= self.uniform_dm <= 1:
            raise ValueError("other_bands and uniform_dm are parts, between 0 and 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate: {self.learning_rate} is not between 0 and 1")
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")


@dataclass(frozen=True)
class Settings:
    """How `train` works."""

    dioscar_registry: str = "models"
    """Bucket of the registry of models, in which `validate` is to look for the version."""
    threads: int = 1
    """Threads of torch; a second core draws frames meanwhile. The result depends on it in the last bits."""
    chunk: int = 2048
    """Frames that are drawn and held at once; of several processes, by all of them together."""
    checkpoint_steps: int = 0
    """Steps of the optimiser between checkpoints, at least; they stand between chunks. 0: after every chunk."""
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.threads < 1 or self.chunk < 1 or self.checkpoint_steps < 0:
            raise ValueError("threads and chunk are at least 1, checkpoint_steps at least 0")


@dataclass(frozen=True)
class Examples:
    """Features (float16 to save memory) with their truth."""

    features: Features
    truth: Flags
    snr: Floats


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the model and its metrics; raises Checkpointed when the job is stopping."""
    request = read_request(Request, source)
    for package in ("torch", "onnx"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{source.name}: training needs {package}, which is not here; run ./dioscar install train")
    from layers.learning.distributed import joined

    given = [examples for item in job.inputs for examples in read_labelled(item.path, settings.chunk)]
    with joined(settings.device) as ranks:
        trainer = Trainer(request, settings, job, ranks)
        trainer.resume()
        trainer.train(given)
    if not ranks.is_first:
        return
    model, metrics = trainer.finish()
    (destination / f"{source.name}.onnx").write_bytes(model)
    (destination / f"{source.name}.metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    version = versions.write_version(source, destination, model, metrics, job.inputs, settings.dioscar_registry)
    told = f"version {version}: pulsar-validate decides whether it serves; ./dioscar models show {MODEL} {version}"
    print(told, flush=True)  # noqa: T201 - the job's log


class Trainer:
    """The state of a training and its steps."""

    def __init__(self, request: Request, settings: Settings, job: Job, ranks: "Ranks | None" = None) -> None:
        import torch

        from functions.pulsar.network import Network
        from layers.learning.checkpoints import Checkpoint
        from layers.learning.distributed import ALONE

        self.request, self.settings, self.job = request, settings, job
        self.ranks = ranks or ALONE
        if self.ranks.size > 1 and min(chunk_sizes(request.frames, settings.chunk)) < 2 * self.ranks.size:
            raise InputError(f"frames: {request.frames} make a chunk that is too small for {self.ranks.size} processes")
        torch.set_num_threads(settings.threads)
        torch.manual_seed(request.seed)
        self.network = Network().to(self.ranks.device)
        self.learner = self.ranks.wrap(self.network)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), request.learning_rate, weight_decay=1e-3)
        self.checkpoint = Checkpoint(job, self.ranks)
        self.epoch = self.chunk = self.step = self.saved = 0
        self.losses: list[float] = []
        self.population = population(request)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        found = self.checkpoint.load()
        if found is None:
            return
        state = found.state
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.chunk, self.losses = state["epoch"], state["chunk"], state["losses"]
        self.step = self.saved = found.step

    def save(self) -> None:
        """Have the next attempt go on from here."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "chunk": self.chunk,
            "losses": self.losses,
        }
        self.checkpoint.save(self.step, state)
        self.saved = self.step

    def train(self, given: list[Examples]) -> None:
        """All epochs that are left; chunks are drawn in a second thread while the network learns."""
        sizes = chunk_sizes(self.request.frames, self.settings.chunk)
        given = [some for some in map(self._part, given) if len(some.truth)]
        chunks = len(sizes) + len(given)
        total = self.request.epochs * chunks
        todo = [divmod(n, chunks) for n in range(self.epoch * chunks + self.chunk, total)]

        def examples(epoch: int, chunk: int) -> Examples:
            if chunk >= len(sizes):
                return given[chunk - len(sizes)]
            if self.ranks.size == 1:
                return draw_examples(self.population, sizes[chunk], (self.request.seed, epoch, chunk))
            seed = (self.request.seed, epoch, chunk, self.ranks.rank)
            return draw_examples(self.population, sizes[chunk] // self.ranks.size, seed)

        with ThreadPoolExecutor(1) as drawing:
            coming = drawing.submit(examples, *todo[0]) if todo else None
            for place, (epoch, chunk) in enumerate(todo):
                assert coming is not None
                current = coming.result()
                if place + 1 < len(todo):
                    coming = drawing.submit(examples, *todo[place + 1])
                loss = self.ranks.mean(self._learn(current, total))
                self.losses.append(loss)
                if self.ranks.is_first:
                    where = f"epoch {epoch + 1} of {self.request.epochs}, chunk {chunk + 1} of {chunks}"
                    print(f"{where}: step {self.step}, loss {loss:.4f}", flush=True)  # noqa: T201 - the job's log
                self.epoch, self.chunk = (epoch, chunk + 1) if chunk + 1 < chunks else (epoch + 1, 0)
                self.job.progress(epoch * chunks + chunk + 1, total)
                stopping = self.ranks.any(self.job.stopping)
                last = place + 1 == len(todo)
                if stopping or last or self.step - self.saved >= max(1, self.settings.checkpoint_steps):
                    self.save()
                if stopping and not last:
                    raise Checkpointed(f"stopped after {self.epoch} epochs and {self.chunk} chunks")

    def _part(self, examples: Examples) -> Examples:
        """This process's part of examples that all of them have."""
        if self.ranks.size == 1:
            return examples
        some = self.ranks.share(len(examples.truth))
        features = Features(*(values[some] for values in examples.features.as_inputs().values()))
        return Examples(features, examples.truth[some], examples.snr[some])

    def _learn(self, examples: Examples, chunks: int) -> float:
        """One pass over a chunk; returns the mean loss."""
        import torch

        self.network.train()
        order = np.random.default_rng((self.request.seed, 7, self.step)).permutation(len(examples.truth))
        losses = []
        steps = chunks * max(1, self.settings.chunk // self.request.batch)
        batch = max(2, self.request.batch // self.ranks.size) if self.ranks.size > 1 else self.request.batch
        for start in range(0, len(order) - 1, batch):
            some = np.sort(order[start : start + batch])
            if len(some) < 2:
                continue  # batch normalisation needs two
            rate = self.request.learning_rate * min(
                1.0, (self.step + 1) / 50, 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(1.0, self.step / steps)))
            )
            for group in self.optimiser.param_groups:
                group["lr"] = float(rate)
            logits = self.learner(as_tensors(examples.features, some, self.ranks.device))
            truth = torch.from_numpy(examples.truth[some].astype(np.float32)).to(self.ranks.device)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimiser.step()
            self.step += 1
            losses.append(float(loss.detach()))
        return float(np.mean(losses)) if losses else 0.0

    def probabilities(self, examples: Examples) -> Floats:
        """Shape (n, 4), in evaluation mode."""
        import torch

        self.network.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(examples.truth), 256):
                some = np.arange(start, min(start + 256, len(examples.truth)))
                parts.append(torch.sigmoid(self.network(as_tensors(examples.features, some))).double().numpy())
        return np.concatenate(parts)

    def finish(self) -> tuple[bytes, dict[str, Any]]:
        """Thresholds on validation frames, the ONNX model, the metrics on a second half that chose no threshold."""
        from functions.pulsar.network import to_onnx

        self.network.to("cpu").eval()
        half = max(9, self.request.validation_frames // 2)
        fit = draw_examples(self.population, half, (self.request.seed, VALIDATION_STREAM, 0))
        test = draw_examples(self.population, half, (self.request.seed, VALIDATION_STREAM, 1))
        fitted = self.probabilities(fit)
        thresholds = score.best_thresholds(fit.truth, fitted)
        trigger = trigger_threshold(fit.truth, fitted[:, 0], float(thresholds[0]))
        labels = score.decide(self.probabilities(test), thresholds)
        metrics = {
            "request": asdict(self.request),
            "exact_match": score.exact_match(test.truth, labels),
            "macro_f1": score.macro_f1(test.truth, labels),
            "pulse_recall_by_snr": score.recall_by_snr(test.snr, test.truth[:, 0], labels[:, 0]),
            "frames": half,
            "thresholds": dict(zip(COMPONENTS, thresholds.tolist(), strict=True)),
            "trigger": trigger,
            "losses": self.losses,
        }
        metadata = {
            "format": classifier.FORMAT,
            "outputs": ",".join(COMPONENTS),
            "inputs": "image, tracks, rows, columns: functions/pulsar/features.py",
            "units": "sigmas of a row's noise against the running bandpass; image and profiles as arcsinh(x / 2)",
            "training_range": json.dumps(
                {
                    "in_frame_snr": [7, 50],
                    "dm_pc_cm3": [5, 500],
                    "width_samples": [3, 30],
                    "rfi_sigma": [1, 10],
                    "band_mhz": [1210.6, 1530.6],
                    "sampling_time_s": EFFELSBERG.sampling_time_s,
                }
            ),
            "thresholds": json.dumps(metrics["thresholds"]),
            "trigger": repr(trigger),
            "request": json.dumps(asdict(self.request)),
            "exact_match": repr(metrics["exact_match"]),
        }
        return to_onnx(self.network, metadata), metrics


def population(request: Request) -> Population:
    """The frames that a request asks for."""
    models: dict[str, tuple[Model, ...]] = {
        "theoretical": (THEORETICAL,),
        "empirical": (empirical_model(),),
        "both": (THEORETICAL, empirical_model()),
    }
    return Population(
        models=models[request.generators],
        bands=(EFFELSBERG, *OTHER_BANDS) if request.other_bands > 0 else (EFFELSBERG,),
        first_band=1 - request.other_bands,
        uniform_dm=request.uniform_dm,
    )


def trigger_threshold(truth: Flags, pulse: Floats, labelling: float) -> float:
    """The lowest pulse probability that fires on at most 1 % of frames of a natural mix (95 % none, 5 % interference).

    A search by dedispersion follows, so it is at most the labelling threshold; and at least 0.02.
    """
    none = pulse[~truth.any(axis=1)]
    rfi = pulse[truth.any(axis=1) & ~truth[:, 0]]
    grid = np.linspace(0.02, 0.98, 97)
    for value in grid:
        fires = 0.95 * np.mean(none >= value if len(none) else 0) + 0.05 * np.mean(rfi >= value if len(rfi) else 0)
        if fires <= 0.01:
            return float(min(value, labelling))
    return labelling


def chunk_sizes(frames: int, chunk: int) -> list[int]:
    """Sizes of the chunks of an epoch.

    >>> chunk_sizes(5000, 2048)
    [2048, 2048, 904]
    """
    return [min(chunk, frames - start) for start in range(0, frames, chunk)]


def draw_examples(population: Population, count: int, seed: tuple[int, ...]) -> Examples:
    """`count` balanced examples; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    parts, truth, snr = [], [], []
    names = balanced(count, rng)
    for start in range(0, count, 64):
        frames = draw_frames(population, names[start : start + 64], rng)
        parts.append(features_of(frames))
        truth.append(labels_of(frames))
        snr += [frame.snr for frame in frames]
    return Examples(_join(parts), np.concatenate(truth), np.array(snr))


def features_of(frames: list[LabelledFrame]) -> Features:
    """Features of frames whose bands may differ, in float16."""
    makers = {id(frame.band): frame.band for frame in frames}
    parts, places = [], []
    for key, band in makers.items():
        maker = _maker(band)
        chosen = [i for i, frame in enumerate(frames) if id(frame.band) == key]
        cells = np.stack([frames[i].frame for i in chosen])
        mean = np.stack([frames[i].reference_mean for i in chosen])
        sigma = np.stack([frames[i].reference_sigma for i in chosen])
        parts.append(_half(maker(pool_samples(cells), cells, mean, sigma)))
        places += chosen
    joined = _join(parts)
    back = np.argsort(places)
    return Features(*(getattr(joined, name)[back] for name in ("image", "tracks", "rows", "columns")))


def read_labelled(path: Path, chunk: int) -> Iterator[Examples]:
    """The examples of a collection of labelled frames; InputError when it has no labels."""
    with FramesFile(path) as file:
        missing = [name for name in ("labels", "reference_mean", "reference_sigma") if not file.has(name)]
        if missing:
            raise InputError(
                f"{path.name}: {missing[0]} is missing; send labelled frames, as pulsar-synthesise makes them"
            )
        maker = FeatureMaker(file.header.frequency_mhz)
        for start, frames in file.batches(chunk):
            stop = start + len(frames)
            mean, sigma = file.column("reference_mean", start, stop), file.column("reference_sigma", start, stop)
            snr = file.column("snr", start, stop) if file.has("snr") else np.zeros(len(frames))
            parts = [
                _half(maker(pool_samples(frames[i : i + 64]), frames[i : i + 64], mean[i : i + 64], sigma[i : i + 64]))
                for i in range(0, len(frames), 64)
            ]
            yield Examples(_join(parts), file.column("labels", start, stop).astype(bool), snr)


def as_tensors(features: Features, some: Positions, device: str = "cpu") -> "dict[str, torch.Tensor]":
    """Chosen examples as float32 tensors."""
    import torch

    return {
        name: torch.from_numpy(values[some].astype(np.float32)).to(device)
        for name, values in features.as_inputs().items()
    }


def _half(features: Features) -> Features:
    return Features(*(values.astype(np.float16) for values in features.as_inputs().values()))


def _join(parts: list[Features]) -> Features:
    return Features(*(np.concatenate([part.as_inputs()[name] for part in parts]) for name in parts[0].as_inputs()))


_MAKERS: dict[Band, FeatureMaker] = {}


def _maker(band: Band) -> FeatureMaker:
    if band not in _MAKERS:
        _MAKERS[band] = FeatureMaker(band.frequency_mhz)
    return _MAKERS[band]
