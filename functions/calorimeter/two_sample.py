"""Tests of whole showers at once: can a classifier tell generated ones, do they cover the real ones, were they learned
by heart.

One-dimensional distributions may all agree where a classifier tells every shower (Krause and Shih, Phys. Rev. D 107
(2023) 113003); a model that replays its training set passes every comparison but the one with that set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.gate import area_of_pairs
from functions.calorimeter.observables import Observables
from functions.calorimeter.showers import Floats

Flags = NDArray[np.bool_]

NEIGHBOURS = 5
LEAST_SHOWERS = 30
"""Of each kind, below which a classifier has nothing to learn from."""
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
    count = min(len(reference), len(generated))
    return area(scores(reference, generated, seed=seed), 2 * count // 3)


def scores(reference: Floats, generated: Floats, *, seed: int) -> Floats:
    """What boosted trees say of untouched rows, shape (n, 2): of real ones, and of the generated ones at their places.

    Two thirds of the places are for training. Raises ValueError for fewer than 30 rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    count = min(len(reference), len(generated))
    if count < LEAST_SHOWERS:
        raise ValueError(f"{count} showers are too few to train a classifier on; give {LEAST_SHOWERS} at least")
    order = np.random.default_rng(seed).permutation(count)
    known, other = np.split(order, [2 * count // 3])
    with threadpool_limits(1):  # on a busy machine its threads wait for each other
        trees = HistGradientBoostingClassifier(random_state=seed % 2**32, **TREES)
        trees.fit(np.concatenate([reference[known], generated[known]]), np.repeat([0, 1], len(known)))
        return np.stack([trees.predict_proba(rows[other])[:, 1] for rows in (reference, generated)], axis=1)


def area(rows: Floats, showers: int) -> Auc:
    """The area that scores of shape (n, 2), `scores`, make; `showers` of each kind were learned from."""
    value = area_of_pairs(rows)
    return Auc(value, _hanley_mcneil(value, len(rows), len(rows)), showers)


@dataclass(frozen=True)
class Neighbours:
    """How generated showers lie among real ones, in features scaled to the real ones' spread."""

    covered: Flags
    """Whether each real shower has a generated one nearer than its fifth real neighbour."""
    density: float
    """Generated showers in a real one's neighbourhood over those that would be there; above 1 they huddle."""

    @property
    def coverage(self) -> float:
        """Part of the real showers that are covered."""
        return float(np.mean(self.covered))


def neighbours(reference: Observables, generated: Observables) -> Neighbours:
    """Coverage and density (Naeem et al., arXiv:2002.09797) with five neighbours."""
    from sklearn.neighbors import NearestNeighbors

    real, made = _scaled(reference.features(), reference.features(), generated.features())
    own = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(real)
    radius = own.kneighbors(real)[0][:, -1]
    nearest = NearestNeighbors(n_neighbors=1).fit(made).kneighbors(real)[0][:, 0]
    among = NearestNeighbors().fit(made)
    inside = [len(found) for found in _within(among, real, radius)]
    return Neighbours(nearest < radius, float(np.sum(inside) / (NEIGHBOURS * len(made))))


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
