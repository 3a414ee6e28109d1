"""The gate of the classifier: what a version must show before it labels anything.

Measured on frames of nine balanced classes; the figures of the shipped model are in MODEL_CARD.md.
"""

import numpy as np

from functions.pulsar.arrays import Positions
from functions.pulsar.labels import CLASSES
from layers.quality import Gate, Metric, Rule

MODEL = "pulsar-classifier"
LEAST_FRAMES = 900
BRIGHT_SNR = 12.0
"""In-frame signal-to-noise ratio from which a pulse must not be missed."""


def macro_f1_of_rows(rows: Positions) -> float:
    """Mean over the classes that occur of F1 = 2 TP / (2 TP + FP + FN); rows of (true, given) index in CLASSES."""
    size = len(CLASSES)
    matrix = np.bincount(rows[:, 0] * size + rows[:, 1], minlength=size * size).reshape(size, size)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    there = matrix.sum(axis=1) > 0
    return float(np.mean(2 * np.diag(matrix)[there] / total[there]))


EXACT_MATCH = Metric("exact_match", "part of the frames whose class is right, all components of it", "higher")
MACRO_F1 = Metric("macro_f1", "mean of the classes' F1", "higher", macro_f1_of_rows)
PULSE_RECALL = Metric(
    "pulse_recall", f"part of the pulses of in-frame S/N >= {BRIGHT_SNR:g} that the network finds", "higher"
)
FALSE_EVENTS = Metric("false_events", "confirmed events in a frame that holds no pulse", "lower")

GATE = Gate(
    model=MODEL,
    deciding=EXACT_MATCH.name,
    rules=(
        Rule(EXACT_MATCH, samples=LEAST_FRAMES, floor=0.90),
        Rule(MACRO_F1, samples=LEAST_FRAMES, floor=0.88, margin=0.01),
        Rule(PULSE_RECALL, samples=200, floor=0.95, margin=0.02),
        Rule(FALSE_EVENTS, samples=400, bound=0.02, margin=0.005),
    ),
)
