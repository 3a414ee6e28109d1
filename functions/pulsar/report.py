"""What `classify` found, and the files that say so: labels, kept frames, summary."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from functions.pulsar.arrays import Flags, Floats, Positions
from functions.pulsar.classifier import Classifier
from functions.pulsar.confirm import Event
from functions.pulsar.frames import ROWS, SAMPLES, FramesFile, FramesHeader, FramesWriter
from functions.pulsar.labels import CLASSES, COMPONENTS, class_name
from functions.pulsar.search import Search


@dataclass(frozen=True)
class Reference:
    """The bandpass reference of consecutive frames, from position `start` of the file on."""

    start: int
    mean: Floats
    """Shape (1, 256) for all of them, or (n, 256)."""
    sigma: Floats

    def of(self, number: int) -> tuple[Floats, Floats]:
        """Mean and sigma, shape (256,), of frame `number` of the file."""
        row = min(number - self.start, len(self.mean) - 1)
        return self.mean[row], self.sigma[row]


@dataclass(frozen=True)
class Result:
    """What was found in a frames file of n frames."""

    header: FramesHeader
    index: Positions
    """Position of each frame in its observation."""
    probabilities: Floats
    """Shape (n, 4), COMPONENTS."""
    level: Floats
    """Mean level against the reference, sigmas."""
    spread: Floats
    """Standard deviation, sigmas."""
    present: Flags
    """Final labels, shape (n, 4)."""
    kept: Flags
    events: list[Event]
    references: list[Reference]

    @property
    def classes(self) -> list[str]:
        return [class_name(row) for row in self.present]

    @property
    def frame_bytes(self) -> int:
        """Bytes of one stored frame."""
        return ROWS * SAMPLES * (2 if self.header.bits == 16 else 1)

    def start_s(self, number: int) -> float:
        """Start of frame `number`, s after the observation's start."""
        return round(float(self.index[number]) * self.header.frame_s, 9)


def write_labels(path: Path, result: Result, model: Classifier) -> None:
    """The label of every frame, frame by frame, so that a long observation needs no long text in memory."""
    head = {
        "source_name": result.header.source_name,
        "start_mjd": result.header.start_mjd,
        "frame_s": result.header.frame_s,
        "components": COMPONENTS,
        "model_sha256": model.sha256,
    }
    with path.open("w", encoding="utf-8") as out:
        out.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "frames": [')
        for number, name in enumerate(result.classes):
            frame = {
                "index": int(result.index[number]),
                "start_s": result.start_s(number),
                "label": name,
                "labels": [c for c, there in zip(COMPONENTS, result.present[number], strict=True) if there],
                "probabilities": {
                    c: round(float(p), 4) for c, p in zip(COMPONENTS, result.probabilities[number], strict=True)
                },
                "kept": bool(result.kept[number]),
            }
            out.write((",\n" if number else "\n") + json.dumps(frame))
        out.write("\n]}\n")


def write_kept(path: Path, file: FramesFile, result: Result) -> list[str]:
    """The kept frames with their references, as a frames file; returns the SHA-256 of each frame."""
    digests = []
    references = iter(result.references)
    current = next(references)
    following = next(references, None)
    with FramesWriter(path, result.header) as writer:
        for number in np.flatnonzero(result.kept):
            while following is not None and following.start <= number:
                current, following = following, next(references, None)
            frame = file.read(int(number), int(number) + 1)
            mean, sigma = current.of(int(number))
            writer.append(
                frame, result.index[number : number + 1], reference_mean=mean[None], reference_sigma=sigma[None]
            )
            digests.append(hashlib.sha256(frame.tobytes()).hexdigest())
    return digests


def write_summary(path: Path, result: Result, model: Classifier, digests: list[str], settings: dict[str, Any]) -> None:
    """Counts, bytes, events and empty intervals; labels sum to the frames, kept and dropped bytes to the input's."""
    path.write_text(
        json.dumps(summary(result, model, digests, settings), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "utf-8",
    )


def summary(result: Result, model: Classifier, digests: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """The content of the summary file."""
    frames, kept = len(result.index), int(result.kept.sum())
    names = result.classes
    header = result.header
    return {
        "source_name": header.source_name,
        "start_mjd": header.start_mjd,
        "duration_s": header.samples * header.sampling_time_s,
        "sampling_time_s": header.sampling_time_s,
        "band_mhz": [float(header.frequency_mhz[-1]), float(header.frequency_mhz[0])],
        "original_bytes": header.input_bytes,
        "frames": {"in": frames, "kept": kept, "dropped": frames - kept},
        "bytes": {
            "in": frames * result.frame_bytes,
            "kept": kept * result.frame_bytes,
            "dropped": (frames - kept) * result.frame_bytes,
            "kept_part": kept / frames,
        },
        "labels": {name: names.count(name) for name in CLASSES},
        "events": [_event(event) for event in result.events],
        "empty_intervals": list(empty_intervals(result)),
        "kept_frames": [
            {"index": int(index), "sha256": digest}
            for index, digest in zip(result.index[result.kept], digests, strict=True)
        ],
        "model": {
            "sha256": model.sha256,
            "thresholds": dict(zip(COMPONENTS, model.thresholds.tolist(), strict=True)),
            "trigger": model.trigger,
        },
        "searched_dm_pc_cm3": _searched(header, settings),
        "settings": settings,
    }


def _searched(header: FramesHeader, settings: dict[str, Any]) -> list[float] | None:
    """The DMs that the search reached, which long delays may keep below the one asked for; None with one channel."""
    search = Search(
        header.frequency_mhz, header.sampling_time_s, settings["snr_min"], settings["dm_min"], settings["dm_max"]
    )
    if not search.levels:
        return None
    return [round(search.dm(search.min_delay), 3), round(search.dm(search.max_delay), 3)]


def empty_intervals(result: Result) -> Iterator[dict[str, float]]:
    """Runs of frames without anything: start and length in seconds, mean level and spread in sigmas."""
    empty = ~result.present.any(axis=1) & ~result.kept
    broken = np.concatenate([[True], (np.diff(result.index) != 1) | (empty[1:] != empty[:-1]), [True]])
    edges = np.flatnonzero(broken)
    for low, high in pairwise(edges):
        if empty[low]:
            yield {
                "start_s": result.start_s(int(low)),
                "length_s": round(float(high - low) * result.header.frame_s, 9),
                "frames": int(high - low),
                "mean_sigma": round(float(result.level[low:high].mean()), 5),
                "std_sigma": round(float(result.spread[low:high].mean()), 5),
            }


def _event(event: Event) -> dict[str, Any]:
    return {
        "time_s": round(event.time_s, 6),
        "dm_pc_cm3": round(event.dm_pc_cm3, 3),
        "dm_error_pc_cm3": round(event.dm_error_pc_cm3, 3),
        "width_s": round(event.width_s, 6),
        "snr": round(event.snr, 2),
        "sweep_s": round(event.sweep_s, 6),
        "frames": list(event.frames),
        "frame_snr": [round(value, 2) for value in event.frame_snr],
    }
