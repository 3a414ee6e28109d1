"""Label the frames of an observation, confirm its pulses, keep what matters.

`frames.h5` in; `frames.h5.labels.json`, `.kept.h5`, `.summary.json` and `.png` out; the labels are the reply to a
synchronous call.

Three stages: the frame against the running bandpass of the past (`reference`), a small network with one probability
for each component (`classifier`), and a search by dedispersion wherever the network suspects a pulse (`confirm`). A
frame is labelled `pulse` when a confirmed event crosses it, and is kept when one crosses it or its neighbours.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from functions.pulsar import classifier, report, score
from functions.pulsar.arrays import Flags, Floats, Positions, Samples
from functions.pulsar.confirm import Confirmer, Event
from functions.pulsar.features import POOL, FeatureMaker, pool_samples
from functions.pulsar.frames import SAMPLES, FramesFile, FramesHeader
from functions.pulsar.reference import RunningBandpass
from functions.pulsar.report import Reference, Result
from functions.pulsar.search import Search
from layers.runtime import Job

MODELS = ("pulsar-classifier",)
REPLY = "*.labels.json"

FRAME_SNR = 6.0
"""In-frame signal-to-noise ratio from which an event makes a frame a pulse by itself."""


@dataclass(frozen=True)
class Settings:
    """How `classify` works; environment variables of the same names in upper case."""

    batch_frames: int = 32
    """Frames that are labelled at once; the running bandpass is updated after each batch."""
    threads: int = 1
    """Threads of onnxruntime."""
    snr_min: float = 7.0
    """A pulse is confirmed from this signal-to-noise ratio of its dedispersed sum on."""
    dm_min: float = 3.0
    """Lowest DM that is searched, pc/cm^3."""
    dm_max: float = 1000.0
    """Highest DM that is searched, pc/cm^3."""
    track_trigger: float = 7.0
    """A frame is searched also when a track sum in it exceeds this many sigmas, whatever the network says."""
    neighbours: int = 1
    """Frames that are kept before and after those that a pulse's track touches."""
    absorb_frames: int = 256
    """Frames after which a steady carrier counts as bandpass."""
    picture: bool = True
    """Whether to draw the picture."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch_frames <= 1024:
            raise ValueError(f"BATCH_FRAMES: {self.batch_frames} is not between 1 and 1024")
        if not 0 < self.dm_min < self.dm_max <= 1e5:
            raise ValueError(f"DM_MIN {self.dm_min} and DM_MAX {self.dm_max} are not 0 < DM_MIN < DM_MAX <= 1e5")
        if not 3 <= self.snr_min < math.inf:
            raise ValueError(f"SNR_MIN: {self.snr_min} is no finite number from 3 on; below it noise would be kept")
        if not math.isfinite(self.track_trigger):
            raise ValueError(f"TRACK_TRIGGER: {self.track_trigger} is no finite number")
        if self.neighbours < 0 or self.absorb_frames < 1 or self.threads < 1:
            raise ValueError("NEIGHBOURS must be >= 0, ABSORB_FRAMES and THREADS >= 1")


@dataclass(frozen=True)
class LabelledBatch:
    """Consecutive frames with what the network says of them."""

    reference: Reference
    frames: Samples
    probabilities: Floats
    """Shape (n, 4)."""
    suspect: Flags
    """Whether to search each frame for a pulse."""
    level: Floats
    """Mean over the rows of each frame's mean, in sigmas against the reference, shape (n,)."""
    spread: Floats
    """Standard deviation of each frame's cells in sigmas (sums of four samples), shape (n,)."""


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write labels, kept frames, summary and picture; raises InputError for what is no frames file."""
    with FramesFile(source) as file:
        model = classifier.load(job.model("pulsar-classifier"), settings.threads)
        result = examine(file, model, settings, job)
        report.write_labels(destination / f"{source.name}.labels.json", result, model)
        digests = report.write_kept(destination / f"{source.name}.kept.h5", file, result)
        report.write_summary(destination / f"{source.name}.summary.json", result, model, digests, asdict(settings))
        if settings.picture:
            from functions.pulsar import picture

            picture.draw(file, result, destination / f"{source.name}.png")


def examine(file: FramesFile, model: classifier.Classifier, settings: Settings, job: Job) -> Result:
    """Everything that is found in a frames file; memory grows by some 60 bytes a frame."""
    header, index = file.header, file.index
    maker = FeatureMaker(header.frequency_mhz)
    search = Search(header.frequency_mhz, header.sampling_time_s, settings.snr_min, settings.dm_min, settings.dm_max)
    confirmer = Confirmer(search, maker)
    events: list[Event] = []
    probabilities, level, spread = [], [], []
    references: list[Reference] = []
    for batch in label(file, model, maker, settings):
        events += confirmed(batch, index, confirmer, header)
        probabilities.append(batch.probabilities)
        level.append(batch.level)
        spread.append(batch.spread)
        references.append(batch.reference)
        job.progress(batch.reference.start + len(batch.frames), len(file))
    events += confirmer.flush()
    events.sort(key=lambda event: (event.time_s, event.dm_pc_cm3))
    everything = np.concatenate(probabilities)
    return Result(
        header=header,
        index=index,
        probabilities=everything,
        level=np.concatenate(level),
        spread=np.concatenate(spread),
        present=final_labels(everything, index, events, model.thresholds),
        kept=kept_frames(index, events, settings.neighbours),
        events=events,
        references=references,
    )


def label(
    file: FramesFile, model: classifier.Classifier, maker: FeatureMaker, settings: Settings
) -> Iterator[LabelledBatch]:
    """Frames of a file, labelled by the network batch by batch against references that know the past only.

    Batches grow from one frame to `batch_frames`, so that the first reference, which is the first frame's own, is soon
    replaced. Frames of a collection bring their own references, or are judged against themselves.
    """
    given = file.has("reference_mean") and file.has("reference_sigma")
    bandpass = RunningBandpass(settings.absorb_frames)
    index = file.index
    alone = file.header.kind != "observation"
    start, size = 0, settings.batch_frames if given or alone else 1
    while start < len(file):
        frames = file.read(start, min(start + size, len(file)))
        count = len(frames)
        pooled = pool_samples(frames)
        valid = valid_samples(file.header, int(index[start + count - 1]))
        if given:
            mean = file.column("reference_mean", start, start + count).astype(np.float32)
            sigma = file.column("reference_sigma", start, start + count).astype(np.float32)
        elif alone:
            mean, sigma = own_references(pooled)
        else:
            if start == 0:
                bandpass.start(pooled[0][:, : max(1, valid // POOL)])
            mean, sigma = bandpass.mean[None], bandpass.sigma[None]
        if valid < SAMPLES:  # what lies after the end is put on the reference
            frames = frames.copy()
            frames[-1, :, valid:] = np.rint(mean[-1])[:, None].astype(frames.dtype)
            pooled[-1, :, valid // POOL :] = POOL * mean[-1][:, None]
        features = maker(pooled, frames, mean, sigma)
        probabilities = model(features)
        strongest = features.tracks[:, :2].reshape(count, -1).max(axis=1)
        yield LabelledBatch(
            reference=Reference(start, mean, sigma),
            frames=frames,
            probabilities=probabilities,
            suspect=(probabilities[:, 0] >= model.trigger) | (strongest >= settings.track_trigger),
            level=np.sinh(features.rows[:, 0]).mean(axis=1) / 8,
            spread=features.rows[:, 1].mean(axis=1) + 1,
        )
        start += count
        if not given and not alone:
            if start > 1:
                bandpass.update(pooled if valid == SAMPLES else pooled[:-1])
            size = min(settings.batch_frames, start)


def own_references(pooled: Floats) -> tuple[Floats, Floats]:
    """References of frames that stand alone: each one's own median and MAD, shape (n, 256) both."""
    bandpasses = []
    for frame in pooled:
        bandpass = RunningBandpass()
        bandpass.start(frame)
        bandpasses.append((bandpass.mean, bandpass.sigma))
    return np.stack([mean for mean, _ in bandpasses]), np.stack([sigma for _, sigma in bandpasses])


def valid_samples(header: FramesHeader, position: int) -> int:
    """Samples of the frame at `position` of its observation that lie before the end."""
    if header.kind != "observation":
        return SAMPLES
    return max(1, min(SAMPLES, header.samples - position * SAMPLES))


def confirmed(batch: LabelledBatch, index: Positions, confirmer: Confirmer, header: FramesHeader) -> Iterator[Event]:
    """Pass a labelled batch through the confirmer; frames of a collection are searched one by one."""
    for place, frame in enumerate(batch.frames):
        position = int(index[batch.reference.start + place])
        mean, sigma = batch.reference.of(batch.reference.start + place)
        yield from confirmer.push(
            position, frame, mean, sigma, bool(batch.suspect[place]), valid_samples(header, position)
        )
        if header.kind != "observation":
            yield from confirmer.flush()
            confirmer.forget()


def final_labels(probabilities: Floats, index: Positions, events: list[Event], thresholds: Floats) -> Flags:
    """Labels (n, 4): interference by the network, pulses by the events that cross a frame.

    An event makes a frame a pulse when the network agrees, or when its own signal-to-noise ratio in the frame is
    `FRAME_SNR` or more; without an event no frame is a pulse. An event of that strength also overrules `other`.
    """
    labels = score.decide(probabilities, thresholds)
    suspected = labels[:, 0].copy()
    labels[:, 0] = False
    for event in events:
        for position, snr in zip(event.frames, event.frame_snr, strict=True):
            number = int(np.searchsorted(index, position))
            if number < len(index) and index[number] == position and (snr >= FRAME_SNR or suspected[number]):
                labels[number, 0] = True
                labels[number, 3] &= snr < FRAME_SNR
    labels[:, :3] &= ~labels[:, 3:]
    return labels


def kept_frames(index: Positions, events: list[Event], neighbours: int) -> Flags:
    """Which frames are kept: those that an event touches, and `neighbours` on each side."""
    near = {
        frame + offset for event in events for frame in event.frames for offset in range(-neighbours, neighbours + 1)
    }
    return np.isin(index, sorted(near))
