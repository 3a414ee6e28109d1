"""How good labels are: exact match, F1, recall and false alarms; labels have shape (frames, 4), COMPONENTS."""

import numpy as np

from functions.pulsar.arrays import Flags, Floats, Positions
from functions.pulsar.labels import CLASSES, class_indices

SNR_BANDS = ((7.0, 9.0), (9.0, 12.0), (12.0, 20.0), (20.0, 50.0))


def decide(probabilities: Floats, thresholds: Floats) -> Flags:
    """Flags from probabilities (frames, 4); `other` excludes the rest.

    >>> decide(np.array([[0.9, 0.1, 0.2, 0.8]]), np.full(4, 0.5)).tolist()
    [[False, False, False, True]]
    """
    labels = probabilities >= thresholds
    labels[:, :3] &= ~labels[:, 3:]
    return labels


def exact_match(truth: Flags, labels: Flags) -> float:
    """Part of the frames whose class is right, all components of it.

    >>> exact_match(np.array([[True, True, False, False]]), np.array([[True, False, False, False]]))
    0.0
    """
    return float(np.mean(class_indices(truth) == class_indices(labels)))


def confusion(truth: Flags, labels: Flags) -> Positions:
    """Counts, shape (9, 9): row = true class, column = given class, both in the order of CLASSES."""
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(matrix, (class_indices(truth), class_indices(labels)), 1)
    return matrix


def macro_f1(truth: Flags, labels: Flags) -> float:
    """Mean over the classes that occur of F1 = 2 TP / (2 TP + FP + FN)."""
    matrix = confusion(truth, labels)
    hits = np.diag(matrix)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    there = matrix.sum(axis=1) > 0
    return float(np.mean(2 * hits[there] / total[there]))


def recall(truth: Flags, found: Flags) -> float:
    """Part of the true ones that was found; NaN when there is none."""
    return float(np.mean(found[truth])) if truth.any() else float("nan")


def false_alarm(truth: Flags, found: Flags) -> float:
    """Part of the false ones that was called true; NaN when there is none."""
    return recall(~truth, found)


def recall_by_snr(snr: Floats, truth: Flags, found: Flags) -> dict[str, float]:
    """Recall of true ones whose in-frame signal-to-noise ratio lies in each of SNR_BANDS."""
    return {
        f"{low:g}-{high:g}": recall(truth & (snr >= low) & (snr < high if high < 50 else snr <= 1e9), found)
        for low, high in SNR_BANDS
    }


def best_thresholds(truth: Flags, probabilities: Floats, tolerance: float = 0.0015) -> Floats:
    """The highest thresholds, shape (4,), whose exact match is within `tolerance` of the best.

    Coordinate search over 0.05 to 0.95, three rounds.
    """
    thresholds = np.full(4, 0.5)
    grid = np.linspace(0.05, 0.95, 37)
    goal = class_indices(truth)
    for _ in range(3):
        for output in (3, 0, 1, 2):
            scores = []
            for value in grid:
                thresholds[output] = value
                scores.append(np.mean(class_indices(decide(probabilities, thresholds)) == goal))
            # of thresholds that do as well on balanced classes the highest raises the fewest false alarms elsewhere
            thresholds[output] = grid[np.flatnonzero(np.array(scores) >= max(scores) - tolerance)[-1]]
    return thresholds
