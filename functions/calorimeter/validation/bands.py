"""The numbers of `compare` in each band of energy and over all, and what they say of a candidate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from functions.calorimeter.compare import MEANING, Number, compare
from functions.calorimeter.observables import Observables
from functions.calorimeter.plain import plain
from functions.calorimeter.showers import Counts, Floats
from layers.quality import Reason

PARTS = 3
"""Bands of energy, of equal width, that a model's range is cut into."""
RESAMPLES = 100
FOR_EXTREMES = 20_000
"""Showers that quantiles of one in a thousand ask for; with fewer the number is told, and judges nothing."""
EXTREMES = "extreme_quantiles"


@dataclass(frozen=True)
class Band:
    """Energies of one particle; `edges_gev` are those of the slices in which S/E is looked at."""

    particle: str
    kind: int
    edges_gev: Floats
    whole: bool

    @property
    def name(self) -> str:
        """As people write it: `e- 10-40 GeV`."""
        low, high = self.edges_gev[0], self.edges_gev[-1]
        return f"{self.particle} {low:g}-{high:g} GeV{', all' if self.whole else ''}"

    def has(self, energy_gev: Floats, kind: Counts) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Which showers are in it."""
        low, high = self.edges_gev[0], self.edges_gev[-1]
        return np.asarray((energy_gev >= low) & (energy_gev <= high) & (kind == self.kind))


@dataclass(frozen=True)
class BandResult:
    """What was found in a band."""

    band: Band
    showers: int
    numbers: tuple[Number, ...]

    def judged(self, number: Number) -> bool:
        """Whether a number says anything with so many showers."""
        return number.name != EXTREMES or self.showers >= FOR_EXTREMES

    @property
    def verdict(self) -> str:
        """The worst of those that are judged: `aim`, `must` or `fail`."""
        found = {number.verdict for number in self.numbers if self.judged(number)}
        return next(verdict for verdict in ("fail", "must", "aim") if verdict in found)

    def to_json(self) -> dict[str, Any]:
        """For the report; what is not finite is null."""
        return {
            "band": self.band.name,
            "showers": self.showers,
            "verdict": self.verdict,
            "numbers": [
                {
                    **plain(vars(number)),
                    "verdict": number.verdict if self.judged(number) else f"asks for {FOR_EXTREMES} showers",
                }
                for number in self.numbers
            ],
        }


def bands_of(particles: Sequence[str], energy_gev: tuple[float, float]) -> Iterator[Band]:
    """The bands of each particle, and then all of its energies.

    >>> [band.name for band in bands_of(["e-"], (10, 100))]
    ['e- 10-40 GeV', 'e- 40-70 GeV', 'e- 70-100 GeV', 'e- 10-100 GeV, all']
    """
    edges = np.linspace(*energy_gev, PARTS + 1) if energy_gev[0] < energy_gev[1] else np.array(energy_gev)
    for kind, particle in enumerate(particles):
        for low, high in pairwise(edges) if len(edges) > 2 else ():
            yield Band(particle, kind, np.array([low, high]), False)
        yield Band(particle, kind, edges, True)


@dataclass(frozen=True)
class Seen:
    """The observables of a sample, with the particle of each shower."""

    observables: Observables
    kind: Counts

    def of(self, band: Band) -> Observables:
        """Those of a band."""
        return self.observables.rows(band.has(self.observables.energy_gev, self.kind))


def compare_band(band: Band, truth: Seen, made: Seen, spare: Seen, *, seed: int) -> BandResult | None:
    """The numbers of a band; None where the truth has no shower of that particle in it."""
    real = truth.of(band)
    if not len(real):
        return None
    found = compare(real, made.of(band), band.edges_gev, seed=seed, resamples=RESAMPLES, spare=spare.of(band))
    return BandResult(band, len(real), tuple(found))


def reasons(result: BandResult) -> Iterator[Reason]:
    """A sentence for each number that fails or cannot be told, and one for those that keep their limits."""
    name, kept = result.band.name, 0
    for number in result.numbers:
        if not result.judged(number):
            continue
        if not np.isfinite([number.value, number.floor]).all():
            sentence = (
                f"{number.name} ({name}): {result.showers} showers are too few to tell the {MEANING[number.name]}; test"
                " on more"
            )
            yield Reason(number.name, "reach", False, sentence)
            continue
        if not number.floor <= number.must:
            sentence = (
                f"{number.name} ({name}): on {result.showers} showers Monte Carlo differs from itself by"
                f" {number.floor:.4g}, more than the limit {number.must:g}; test on more"
            )
            yield Reason(number.name, "reach", False, sentence)
        if number.verdict == "fail":
            sentence = (
                f"{number.name} ({name}): {number.value:.4g} [{number.low:.4g}, {number.high:.4g}] lies above"
                f" {number.must:g}; Monte Carlo against itself has {number.floor:.4g} ({MEANING[number.name]})"
            )
            yield Reason(number.name, "bound", False, sentence)
        kept += number.verdict != "fail"
    wanted = sum(result.judged(number) for number in result.numbers)
    if kept == wanted:
        yield Reason("", "bound", True, f"{name}: all {kept} numbers keep their limits on {result.showers} showers")
