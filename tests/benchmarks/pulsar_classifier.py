"""How good the pulsar classifier is: fresh seeds, bands of strength, a baseline, the other generator, a natural mix."""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from functions.pulsar import classifier, classify, preprocess, score, synthesise, train
from functions.pulsar.empirical import empirical_model
from functions.pulsar.features import Features
from functions.pulsar.labelled import Population, balanced, draw_frames, labels_of
from functions.pulsar.labels import CLASSES, class_indices
from functions.pulsar.scene import THEORETICAL
from tests.benchmarks.report import show

MODEL = Path(classifier.__file__).parent / "pulsar-classifier.onnx"
TEST_SEED, BASELINE_SEED, NATURAL_SEED = 800_000, 810_000, 820_000
"""Streams of random numbers that no training request has used."""

FRAMES_PER_MINUTE = 60 / (256 * 102.4e-6)
NATURAL = {
    "duration_s": 120,
    "pulses": 0.002 * FRAMES_PER_MINUTE / 3.3,
    "dm_pc_cm3": [50, 65],
    "pulse_snr": [7, 50],
    "nbrfi": 0.025 * FRAMES_PER_MINUTE / 2.6,
    "bbrfi": 0.025 * FRAMES_PER_MINUTE / 1.4,
    "other": 0.3,
}
"""The mix of a real run: 0.2 % of the frames hold a pulse (each touches 3.3 frames at DM 57), 5 % interference."""


class Job:
    """What a function needs of its surroundings in a benchmark."""

    inputs = ()
    stopping = False
    seed = 1

    def __init__(self, model: Path, checkpoint: Path | None = None) -> None:
        self._model = model
        self.checkpoint = checkpoint or Path(tempfile.gettempdir()) / "none"

    def model(self, name: str) -> Path:
        return self._model

    def progress(self, done: float, total: float) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few frames, no training of comparison networks")
    parser.add_argument("--model", type=Path, default=MODEL, help="the ONNX model to judge (default: the shipped one)")
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    model = classifier.load(arguments.model)
    count = 900 if quick else 9000
    test = {
        "theoretical": drawn(Population(models=(THEORETICAL,)), count, TEST_SEED),
        "empirical": drawn(Population(models=(empirical_model(),)), count // 2, TEST_SEED + 1),
    }
    network = {name: judge(frames, network_labels(model, frames)) for name, frames in test.items()}
    baseline = Baseline(drawn(Population(), 1800 if quick else 9000, BASELINE_SEED), 30 if quick else 150)
    boosted = {name: judge(frames, baseline(frames)) for name, frames in test.items()}
    rows = [{"classifier": "network", "tested on": name, **result} for name, result in network.items()] + [
        {"classifier": "boosted trees", "tested on": name, **result} for name, result in boosted.items()
    ]
    show(f"nine balanced classes on {count} fresh frames; pulse recall by in-frame S/N", rows)
    show("each class: recall, and its share of what is wrong", by_class(test["theoretical"], model))
    if not quick:
        show("trained on one generator, tested on the other (small networks, 24,000 frames)", cross(test))
    result = natural(arguments.model, 1 if quick else 12)
    show("natural mix, whole chain", [{"quantity": name, "value": value} for name, value in result.items()])
    return 0


class Frames:
    """Drawn frames: features, truth and strength."""

    def __init__(self, features: Features, truth: np.ndarray, snr: np.ndarray, statistics: np.ndarray) -> None:
        self.features, self.truth, self.snr, self.statistics = features, truth, snr, statistics


def drawn(population: Population, count: int, seed: int) -> Frames:
    """Balanced frames."""
    rng = np.random.default_rng(seed)
    names = balanced(count, rng)
    features, truth, snr, statistics = [], [], [], []
    for start in range(0, count, 64):
        frames = draw_frames(population, names[start : start + 64], rng)
        features.append(train.features_of(frames))
        truth.append(labels_of(frames))
        snr += [frame.snr for frame in frames]
        statistics += [channel_statistics(f.frame, f.reference_mean, f.reference_sigma) for f in frames]
    joined = [np.concatenate([part.as_inputs()[name] for part in features]) for name in features[0].as_inputs()]
    return Frames(Features(*joined), np.concatenate(truth), np.array(snr), np.array(statistics))


def channel_statistics(frame: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and skewness of groups of four channels, and moments of the band's time profile."""
    z = ((frame - mean[:, None]) / sigma[:, None]).astype(np.float32)
    groups = z.reshape(64, -1)
    level, spread = groups.mean(axis=1), groups.std(axis=1)
    skew = np.mean((groups - level[:, None]) ** 3, axis=1) / np.maximum(spread, 1e-3) ** 3
    profile = z.mean(axis=0) * 16
    centred = profile - profile.mean()
    moments = [centred.std(), centred.max(), centred.min(), np.mean(centred**3), np.mean(centred**4), profile.mean()]
    return np.concatenate([level, spread, skew, moments]).astype(np.float32)


class Baseline:
    """Histogram-based gradient boosting over the nine classes on channel statistics."""

    def __init__(self, frames: Frames, rounds: int) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        self._model = HistGradientBoostingClassifier(max_iter=rounds, random_state=0)
        self._model.fit(frames.statistics, class_indices(frames.truth))

    def __call__(self, frames: Frames) -> np.ndarray:
        from functions.pulsar.labels import components_of

        table = np.array([components_of(name) for name in CLASSES])
        return np.asarray(table[self._model.predict(frames.statistics)])


def network_labels(model: classifier.Classifier, frames: Frames) -> np.ndarray:
    """Labels of the network alone."""
    parts = []
    for start in range(0, len(frames.truth), 64):
        some = {name: v[start : start + 64].astype(np.float32) for name, v in frames.features.as_inputs().items()}
        parts.append(model(Features(**some)))
    return score.decide(np.concatenate(parts), model.thresholds)


def judge(frames: Frames, labels: np.ndarray) -> dict[str, Any]:
    """Exact match, macro F1, pulse recall by strength, false pulses among frames without one."""
    recalls = score.recall_by_snr(frames.snr, frames.truth[:, 0], labels[:, 0])
    return {
        "exact_match": score.exact_match(frames.truth, labels),
        "macro_f1": score.macro_f1(frames.truth, labels),
        **{f"recall_{band}": value for band, value in recalls.items()},
        "false_pulses": score.false_alarm(frames.truth[:, 0], labels[:, 0]),
    }


def by_class(frames: Frames, model: classifier.Classifier) -> list[dict[str, Any]]:
    """Recall of each class, and how much of all errors are its own."""
    matrix = score.confusion(frames.truth, network_labels(model, frames))
    wrong = matrix.sum() - np.trace(matrix)
    rows = []
    for place, name in enumerate(CLASSES):
        others = np.delete(matrix[place], place)
        confused = np.delete(np.array(CLASSES), place)[int(np.argmax(others))]
        rows.append(
            {
                "class": name,
                "recall": matrix[place, place] / max(1, matrix[place].sum()),
                "part_of_errors": others.sum() / max(1, wrong),
                "mostly taken for": str(confused) if others.any() else "-",
            }
        )
    return rows


def cross(test: dict[str, Frames]) -> list[dict[str, Any]]:
    """Small networks of the same training, one per generator, each tested on both."""
    rows = []
    for trained_on in ("theoretical", "empirical"):
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            source = Path(folder) / "r.json"
            request = {"frames": 12_000, "epochs": 2, "seed": 7, "generators": trained_on, "other_bands": 0.0}
            source.write_text(json.dumps(request))
            train.run(source, Path(folder), train.Settings(), Job(MODEL, Path(folder)))
            spent = time.process_time() - began
            model = classifier.load(Path(folder) / "r.json.onnx")
        for name, frames in test.items():
            result = judge(frames, network_labels(model, frames))
            rows.append({"trained on": trained_on, "tested on": name, **result, "training_cpu_s": spent})
    return rows


def natural(model: Path, observations: int) -> dict[str, Any]:
    """Whole observations of the natural mix through synthesise, preprocess and classify, without a picture."""
    snr, true, labelled, kept, names, given = [], [], [], [], [], []
    pulses = found = false = frames_in = bytes_kept = bytes_in = 0
    spent = 0.0
    for number in range(observations):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            source = folder / "r.json"
            source.write_text(json.dumps({**NATURAL, "seed": NATURAL_SEED + number}))
            job = Job(model)
            synthesise.run(source, folder, synthesise.Settings(), job)  # type: ignore[arg-type]
            preprocess.run(folder / "r.json.fil", folder, preprocess.Settings(), job)  # type: ignore[arg-type]
            began = time.process_time()
            settings = replace(classify.Settings(), picture=False)
            classify.run(folder / "r.json.fil.h5", folder, settings, job)  # type: ignore[arg-type]
            spent += time.process_time() - began
            truth = json.loads((folder / "r.json.truth.json").read_text())
            labels = json.loads((folder / "r.json.fil.h5.labels.json").read_text())["frames"]
            summary = json.loads((folder / "r.json.fil.h5.summary.json").read_text())
        frames_in += summary["frames"]["in"]
        bytes_in += summary["bytes"]["in"]
        bytes_kept += summary["bytes"]["kept"]
        snr += [frame.get("pulse_snr", 0.0) for frame in truth["frames"]]
        true += ["pulse" in frame["labels"] for frame in truth["frames"]]
        labelled += ["pulse" in frame["labels"] for frame in labels]
        kept += [frame["kept"] for frame in labels]
        names += [frame["label"] for frame in truth["frames"]]
        given += [frame["label"] for frame in labels]
        times = np.array([event["time_s"] for event in summary["events"]])
        matched = set()
        for pulse in truth["pulses"]:
            near = np.flatnonzero(np.abs(times - pulse["time_s"]) < 0.02)
            pulses += 1
            found += len(near) > 0
            matched |= set(near.tolist())
        false += len(times) - len(matched)
    strength, there = np.array(snr), np.array(true)
    bright = there & (strength >= 12)
    return {
        "frames": frames_in,
        "pulse_frames": int(there.sum()),
        "label_recall_snr12": score.recall(bright, np.array(labelled)),
        "kept_recall_snr12": score.recall(bright, np.array(kept)),
        "label_recall_all": score.recall(there, np.array(labelled)),
        "pulses": pulses,
        "pulses_found": found,
        "false_events": false,
        "false_events_per_hour": false / (frames_in * 256 * 102.4e-6 / 3600),
        "bytes_kept_part": bytes_kept / bytes_in,
        "exact_match": float(np.mean(np.array(names) == np.array(given))),
        "all_none_would_match": float(np.mean(np.array(names) == "none")),
        "frames_per_cpu_s": frames_in / spent,
    }


if __name__ == "__main__":
    raise SystemExit(main())
