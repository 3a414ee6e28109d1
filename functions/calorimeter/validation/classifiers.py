"""Can a classifier tell generated showers from simulated ones, and is it to be believed.

It is to be believed only where it does not tell Monte Carlo from Monte Carlo, and does tell GFLASH: each report says so
for each classifier, and what cannot be believed promotes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from functions.calorimeter import two_sample
from functions.calorimeter.gate import AUC_CELLS, AUC_CENTRES, AUC_FEATURES, FLOOR_AUC, POOR_AUC
from functions.calorimeter.observables import Observables
from functions.calorimeter.showers import Floats, Showers
from functions.calorimeter.two_sample import Auc
from functions.calorimeter.validation import cells
from layers.quality import Reason

ERRORS = 2.0
"""Standard errors by which Monte Carlo against Monte Carlo may miss its range."""
CANDIDATE, SERVING, GFLASH, MONTE_CARLO = "candidate", "serving", "gflash", "monte_carlo"


@dataclass(frozen=True)
class Sample:
    """Showers with their observables."""

    showers: Showers
    seen: Observables


@dataclass(frozen=True)
class Found:
    """What a classifier made of each sample against Monte Carlo."""

    metric: str
    areas: dict[str, Auc]
    rows: dict[str, Floats]
    """Scores of untouched showers, (n, 2), from which the areas are."""

    @property
    def floor_holds(self) -> bool:
        """Whether it does not tell Monte Carlo from Monte Carlo."""
        found = self.areas[MONTE_CARLO]
        low, high = FLOOR_AUC
        return bool(low - ERRORS * found.error <= found.value <= high + ERRORS * found.error)

    @property
    def tells_gflash(self) -> bool:
        """Whether it tells GFLASH from Monte Carlo."""
        return bool(self.areas[GFLASH].value >= POOR_AUC)

    @property
    def valid(self) -> bool:
        """Whether it is to be believed."""
        return self.floor_holds and self.tells_gflash

    def reasons(self) -> Iterator[Reason]:
        """That it is to be believed, and that the candidate does better than GFLASH."""
        floor, poor = self.areas[MONTE_CARLO], self.areas[GFLASH]
        low, high = FLOOR_AUC
        told = (
            f"{self.metric}: Monte Carlo against Monte Carlo gives {_told(floor)}, which is to be from {low:g} to"
            f" {high:g} within {ERRORS:g} errors"
        )
        wrong = "; the classifier, or the Monte Carlo, is not to be believed"
        yield Reason(self.metric, "other", self.floor_holds, told + ("" if self.floor_holds else wrong))
        told = f"{self.metric}: GFLASH gives {_told(poor)}, which is to be at least {POOR_AUC:g}"
        wrong = "; a classifier that cannot tell that is not to be believed: test on more showers"
        yield Reason(self.metric, "other", self.tells_gflash, told + ("" if self.tells_gflash else wrong))
        made = self.areas[CANDIDATE]
        better = made.value < poor.value
        how = "is less than" if better else "is no less than"
        told = f"{self.metric}: the candidate's {_told(made)} {how} GFLASH's {_told(poor)}"
        yield Reason(self.metric, "better", better, told)

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        areas = {
            name: {"auc": found.value, "error": found.error, "learned_from": found.showers, "untouched": len(rows)}
            for (name, found), rows in zip(self.areas.items(), self.rows.values(), strict=True)
        }
        return {"valid": self.valid, **areas}


Pairs = dict[str, tuple[Sample, Sample]]


def by_features(pairs: Pairs, *, seed: int) -> Found:
    """Boosted trees on the showers' features; `pairs` are Monte Carlo and what is tested against it, by name."""

    def tested(real: Sample, made: Sample) -> tuple[Floats, int]:
        found = two_sample.scores(real.seen.features(), made.seen.features(), seed=seed)
        return found, 2 * len(made.seen) // 3

    return _found(AUC_FEATURES.name, pairs, tested)


def by_centres(pairs: Pairs, *, seed: int) -> Found:
    """As `by_features`, with the centres of each layer beside the features."""

    def tested(real: Sample, made: Sample) -> tuple[Floats, int]:
        rows = (np.concatenate([one.seen.features(), one.seen.centres()], axis=1) for one in (real, made))
        return two_sample.scores(*rows, seed=seed), 2 * len(made.seen) // 3

    return _found(AUC_CENTRES.name, pairs, tested)


def by_cells(pairs: Pairs, *, seed: int, progress: Callable[[], None]) -> Found:
    """The network on the showers' cells."""

    def tested(real: Sample, made: Sample) -> tuple[Floats, int]:
        size = int(np.prod(real.seen.geometry.shape))
        found = cells.scores(real.showers, made.showers, size, seed=seed, progress=progress)
        return found.rows, found.showers

    return _found(AUC_CELLS.name, pairs, tested)


def _found(metric: str, pairs: Pairs, tested: Callable[[Sample, Sample], tuple[Floats, int]]) -> Found:
    """What is found for each pair; a pair that is there twice is tested once."""
    known: dict[tuple[int, int], tuple[Floats, int]] = {}
    for pair in pairs.values():
        place = (id(pair[0]), id(pair[1]))
        if place not in known:
            known[place] = tested(*pair)
    results = {name: known[id(real), id(made)] for name, (real, made) in pairs.items()}
    areas = {name: two_sample.area(rows, showers) for name, (rows, showers) in results.items()}
    return Found(metric, areas, {name: rows for name, (rows, _) in results.items()})


def _told(found: Auc) -> str:
    return f"{found.value:.3f} ± {found.error:.3f}"
