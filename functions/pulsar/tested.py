"""What versions of the classifier are compared on: frames with their truth, and the scores of each model on them.

Drawn frames come from a stream of random numbers that no training has: a training's streams are `(seed, n, n)`, this
one is `(seed, STREAM, block)` with blocks from 1 on and a STREAM that is no epoch, and its seed derives from the
request. Half of the frames are of the theoretical model and half of the empirical one, on which the shipped network was
not trained; the bands are those of a training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from functions.pulsar import classifier, classify, score
from functions.pulsar.arrays import Flags, Floats, Samples
from functions.pulsar.band import EFFELSBERG, OTHER_BANDS
from functions.pulsar.confirm import Confirmer
from functions.pulsar.empirical import empirical_model
from functions.pulsar.features import FeatureMaker, Features, pool_samples
from functions.pulsar.frames import FramesFile
from functions.pulsar.gate import BRIGHT_SNR, EXACT_MATCH, FALSE_EVENTS, MACRO_F1, PULSE_RECALL
from functions.pulsar.labelled import LabelledFrame, Population, balanced, draw_frames, labels_of
from functions.pulsar.labels import class_indices
from functions.pulsar.scene import THEORETICAL
from functions.pulsar.search import Search
from layers.quality.metric import Scores
from layers.runtime import InputError

STREAM = (1 << 30) + 1
BLOCK = 64
POPULATION = Population(
    models=(THEORETICAL, empirical_model()), bands=(EFFELSBERG, *OTHER_BANDS), first_band=0.85, uniform_dm=0.5
)
Run = Callable[[Features], Floats]


@dataclass(frozen=True)
class Block:
    """Frames of one band with their references and their truth."""

    frequency_mhz: Floats
    sampling_time_s: float
    frames: Samples
    """Shape (n, 256, 256)."""
    mean: Floats
    sigma: Floats
    truth: Flags
    """Shape (n, 4)."""
    snr: Floats
    """In-frame signal-to-noise ratio of the pulse, 0 without one."""


def drawn(count: int, seed: int) -> Iterator[Block]:
    """`count` frames, the nine classes in equal parts; the same seed gives the same ones."""
    names = balanced(count, np.random.default_rng((seed, STREAM, 0, 1)))
    for number, start in enumerate(range(0, count, BLOCK)):
        rng = np.random.default_rng((seed, STREAM, number + 1))
        frames = draw_frames(POPULATION, names[start : start + BLOCK], rng)
        for band in dict.fromkeys(frame.band for frame in frames):
            yield _block([frame for frame in frames if frame.band == band])


def labelled(path: Path) -> Iterator[Block]:
    """The frames of a collection of labelled ones; InputError where it has no labels or no references."""
    with FramesFile(path) as file:
        for name in ("labels", "reference_mean", "reference_sigma"):
            if not file.has(name):
                raise InputError(
                    f"{path.name}: {name} is missing; send labelled frames, as pulsar-synthesise makes them"
                )
        for start, frames in file.batches(BLOCK):
            stop = start + len(frames)
            yield Block(
                frequency_mhz=file.header.frequency_mhz,
                sampling_time_s=file.header.sampling_time_s,
                frames=frames,
                mean=file.column("reference_mean", start, stop).astype(np.float32),
                sigma=file.column("reference_sigma", start, stop).astype(np.float32),
                truth=file.column("labels", start, stop).astype(bool),
                snr=file.column("snr", start, stop) if file.has("snr") else np.zeros(len(frames)),
            )


@dataclass
class Scoring:
    """Collects the scores of models, frame by frame, all on the same frames."""

    models: Mapping[str, tuple[classifier.Classifier, Run]]
    """By a name: the model, and what gives its probabilities."""
    settings: classify.Settings = field(default_factory=classify.Settings)
    _parts: dict[str, list[Flags]] = field(default_factory=dict)
    _events: dict[str, list[Floats]] = field(default_factory=dict)
    _truth: list[Flags] = field(default_factory=list)
    _snr: list[Floats] = field(default_factory=list)
    _makers: dict[tuple[bytes, float], tuple[FeatureMaker, Confirmer]] = field(default_factory=dict)

    def add(self, block: Block) -> None:
        """Label the frames of a block with every model, and search those without a pulse that a model suspects."""
        maker, confirmer = self._tools(block)
        features = maker(pool_samples(block.frames), block.frames, block.mean, block.sigma)
        probabilities = {name: run(features) for name, (_, run) in self.models.items()}
        strong = features.tracks[:, :2].reshape(len(block.frames), -1).max(axis=1) >= self.settings.track_trigger
        suspects = {
            name: (probabilities[name][:, 0] >= model.trigger) | strong for name, (model, _) in self.models.items()
        }
        events = np.zeros(len(block.frames))
        for place in np.flatnonzero(np.any(list(suspects.values()), axis=0) & ~block.truth[:, 0]):
            events[place] = _events_in(block, int(place), confirmer)
        for name, (model, _) in self.models.items():
            self._parts.setdefault(name, []).append(score.decide(probabilities[name], model.thresholds))
            self._events.setdefault(name, []).append(events * suspects[name])
        self._truth.append(block.truth)
        self._snr.append(block.snr)

    def __len__(self) -> int:
        return sum(map(len, self._truth))

    def scores(self, name: str) -> dict[str, Scores]:
        """The scores of a model for the metrics of the gate."""
        truth, labels, snr = np.concatenate(self._truth), np.concatenate(self._parts[name]), np.concatenate(self._snr)
        true, given = class_indices(truth), class_indices(labels)
        bright = truth[:, 0] & (snr >= BRIGHT_SNR)
        return {
            EXACT_MATCH.name: true == given,
            MACRO_F1.name: np.stack([true, given], axis=1),
            PULSE_RECALL.name: labels[bright, 0],
            FALSE_EVENTS.name: np.concatenate(self._events[name])[~truth[:, 0]],
        }

    def _tools(self, block: Block) -> tuple[FeatureMaker, Confirmer]:
        key = (block.frequency_mhz.tobytes(), block.sampling_time_s)
        if key not in self._makers:
            maker, how = FeatureMaker(block.frequency_mhz), self.settings
            search = Search(block.frequency_mhz, block.sampling_time_s, how.snr_min, how.dm_min, how.dm_max)
            self._makers[key] = maker, Confirmer(search, maker)
        return self._makers[key]


def _events_in(block: Block, place: int, confirmer: Confirmer) -> int:
    """Events that the search confirms in one frame that stands alone."""
    pushed = confirmer.push(0, block.frames[place], block.mean[place], block.sigma[place], True)
    count = len(list(pushed)) + len(list(confirmer.flush()))
    confirmer.forget()
    return count


def _block(frames: Sequence[LabelledFrame]) -> Block:
    return Block(
        frequency_mhz=frames[0].band.frequency_mhz,
        sampling_time_s=frames[0].band.sampling_time_s,
        frames=np.stack([frame.frame for frame in frames]),
        mean=np.stack([frame.reference_mean for frame in frames]),
        sigma=np.stack([frame.reference_sigma for frame in frames]),
        truth=labels_of(frames),
        snr=np.array([frame.snr for frame in frames]),
    )
