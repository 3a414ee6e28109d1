"""Tests of whole showers at once: can a classifier tell generated ones, do they cover the real ones, were they learned
by heart.

One-dimensional distributions may all agree where a classifier tells every shower (Krause and Shih, Phys. Rev. D 107
(2023) 113003); a model that replays its training set passes every comparison but the one with that set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from functions.calorimeter.observables import Observables
from functions.calorimeter.showers import Floats

NEIGHBOURS = 5
TREES: dict[str, Any] = {"max_iter": 300, "learning_rate": 0.06, "max_leaf_nodes": 31, "early_stopping": False}
"""Boosted trees, the same for every model that is judged."""
REPLAY = 0.05
"""A generated shower is a replay where it is this much nearer to its neighbour in training than other showers are."""


@dataclass(frozen=True)
class Auc:
    """The area under a classifier's curve on showers that it was not trained on, with its statistical error."""

    value: float
    error: float
    showers: int
    """On each side, in training; a classifier sees more with more of them."""


def auc_of_features(reference: Observables, generated: Observables, *, seed: int) -> Auc:
    """How well boosted trees tell generated showers from real ones by their features; 0.5 is not at all.

    Two thirds of each sample are for training, the rest is untouched. Raises ValueError for fewer than 30 showers.
    """
    return auc(reference.features(), generated.features(), seed=seed)


def auc(reference: Floats, generated: Floats, *, seed: int) -> Auc:
    """`auc_of_features` of any rows; both samples are cut to the size of the smaller one."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    count = min(len(reference), len(generated))
    if count < 30:
        raise ValueError(f"{count} showers are too few to train a classifier on; give 30 at least")
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(reference)[:count], rng.permutation(generated)[:count]])
    labels = np.repeat([0, 1], count)
    place = np.tile(np.arange(count), 2)
    training = place < 2 * count // 3
    with threadpool_limits(1):  # on a busy machine its threads wait for each other
        trees = HistGradientBoostingClassifier(random_state=seed, **TREES).fit(rows[training], labels[training])
        scores = trees.predict_proba(rows[~training])[:, 1]
    truth = labels[~training]
    value = float(roc_auc_score(truth, scores))
    return Auc(value, _hanley_mcneil(value, int((truth == 0).sum()), int(truth.sum())), int(training.sum()) // 2)


@dataclass(frozen=True)
class Neighbours:
    """How generated showers lie among real ones, in features scaled to the real ones' spread."""

    coverage: float
    """Part of the real showers that have a generated one nearer than their fifth real neighbour."""
    density: float
    """Generated showers in a real one's neighbourhood over those that would be there; above 1 they huddle."""


def neighbours(reference: Observables, generated: Observables) -> Neighbours:
    """Coverage and density (Naeem et al., arXiv:2002.09797) with five neighbours."""
    from sklearn.neighbors import NearestNeighbors

    real, made = _scaled(reference.features(), reference.features(), generated.features())
    own = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(real)
    radius = own.kneighbors(real)[0][:, -1]
    nearest = NearestNeighbors(n_neighbors=1).fit(made).kneighbors(real)[0][:, 0]
    among = NearestNeighbors().fit(made)
    inside = [len(found) for found in _within(among, real, radius)]
    return Neighbours(float(np.mean(nearest < radius)), float(np.sum(inside) / (NEIGHBOURS * len(made))))


def replayed(training: Observables, generated: Observables, held_out: Observables) -> float:
    """Part of the generated showers that are nearer to a training shower than (nearly) all held-out ones are.

    `REPLAY` of the held-out showers are so near by chance; a model that learned by heart exceeds that by far.
    """
    from sklearn.neighbors import NearestNeighbors

    known, made, other = _scaled(training.features(), training.features(), generated.features(), held_out.features())
    index = NearestNeighbors(n_neighbors=1).fit(known)
    near = np.quantile(index.kneighbors(other)[0][:, 0], REPLAY)
    return float(np.mean(index.kneighbors(made)[0][:, 0] < near))


def _scaled(by: Floats, *samples: Floats) -> list[Floats]:
    spread = by.std(axis=0)
    return [(sample - by.mean(axis=0)) / np.where(spread > 0, spread, 1) for sample in samples]


def _within(index: Any, rows: Floats, radius: Floats) -> Any:
    """The neighbours of each row within a radius of its own; in blocks, since the index takes one radius only."""
    order = np.argsort(radius)
    for block in np.array_split(order, max(1, len(order) // 256)):
        distances, _ = index.radius_neighbors(rows[block], radius[block].max())
        for row, found in zip(block, distances, strict=True):
            yield found[found < radius[row]]


def _hanley_mcneil(area: float, first: int, second: int) -> float:
    """The standard error of an area under the curve (Hanley and McNeil, Radiology 143 (1982) 29, eq. 2)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (second - 1) * (one - area**2) + (first - 1) * (two - area**2)
    return float(np.sqrt(max(variance, 0.0) / (first * second)))
