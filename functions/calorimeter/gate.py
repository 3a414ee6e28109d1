"""The gate of the generator: what a version must show before showers are made with it.

Classifiers and coverage are judged here, against the model that serves, on the same Monte Carlo; the numbers of
`compare`, band by band, are judged beside them (`validation.bands`). The figures of the shipped model are in
MODEL_CARD.md.
"""

from typing import Any

import numpy as np

from functions.calorimeter.generator import MODEL
from layers.quality import Gate, Metric, Rule

LEAST_SHOWERS = 5_000
"""Showers on each side; of these a classifier leaves a third (boosted trees) or a fifth (cells) untouched."""
FLOOR_AUC = (0.49, 0.52)
"""Where Monte Carlo against Monte Carlo must lie, within its statistical error, for a classifier to be believed."""
POOR_AUC = 0.95
"""What a classifier must reach on GFLASH to be believed: one that cannot tell that cannot tell anything."""


def area_of_pairs(rows: Any) -> float:
    """The area under a classifier's curve from its scores of real (first column) and of generated showers (second).

    The part of all pairs in which the generated one has the higher score; a tie is half a pair.

    >>> area_of_pairs(np.array([[0.1, 0.9], [0.2, 0.2]]))
    0.875
    """
    real, made = np.sort(rows[:, 0]), rows[:, 1]
    below = np.searchsorted(real, made, "left") + np.searchsorted(real, made, "right")
    return float(below.mean() / (2 * len(real)))


AUC_CENTRES = Metric(
    "auc_features_and_centres",
    "AUC of boosted trees on the shower's features and the centre of each layer; 0.5 is best",
    "lower",
    area_of_pairs,
)
AUC_FEATURES = Metric(
    "auc_features", "AUC of boosted trees on the shower's features; 0.5 is best", "lower", area_of_pairs
)
AUC_CELLS = Metric("auc_cells", "AUC of a network on the shower's cells; 0.5 is best", "lower", area_of_pairs)
COVERAGE = Metric(
    "coverage", "part of the real showers that have a generated one near, over what Monte Carlo covers", "higher"
)


def gate(least: int = LEAST_SHOWERS) -> Gate:
    """The gate for a validation on `least` showers of each kind."""
    return Gate(
        model=MODEL,
        deciding=AUC_CENTRES.name,
        rules=(
            Rule(AUC_CENTRES, samples=least // 3, bound=0.75),
            Rule(AUC_FEATURES, samples=least // 3, bound=0.75, margin=0.03),
            Rule(AUC_CELLS, samples=least // 5, bound=0.95, margin=0.03),
            Rule(COVERAGE, samples=least, floor=0.7, margin=0.05),
        ),
    )
