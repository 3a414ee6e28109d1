"""All that a validation finds: each sample of showers, made once, and what is measured on it."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from functions.calorimeter import gflash, two_sample
from functions.calorimeter.candidate import Candidate, generated
from functions.calorimeter.gate import COVERAGE
from functions.calorimeter.generator import Generator
from functions.calorimeter.observables import Observables, observe
from functions.calorimeter.plain import plain
from functions.calorimeter.showers import Showers, join
from functions.calorimeter.two_sample import REPLAY, Auc
from functions.calorimeter.validation import bands, classifiers, distances
from functions.calorimeter.validation.bands import BandResult, Seen, bands_of, compare_band, reasons
from functions.calorimeter.validation.centres import Centres, centres
from functions.calorimeter.validation.classifiers import CANDIDATE, GFLASH, MONTE_CARLO, SERVING, Found, Pairs, Sample
from functions.calorimeter.validation.faults import Fault, copied, faults, repeated, replay
from functions.calorimeter.validation.samples import Population, Samples
from layers.quality import Reason
from layers.quality.metric import Scores

STREAM = 1 << 20
"""Generated showers have their own seeds: no training and no user's request is likely to have them."""
LEAST_OVER_FLOOR = 0.75
"""Area that a classifier must reach between the candidate and GFLASH, else the candidate is taken for GFLASH."""
DENSITY = (0.5, 2.0)
MOST_LEARNED = 20_000
"""Showers of the training that are looked through for neighbours; copies are looked for in all."""


class Progress:
    """Tells a job how far a validation is, in steps that take about as long."""

    def __init__(self, tell: Callable[[float, float], None]) -> None:
        self._tell, self.done, self.total = tell, 0.0, 1.0

    def __call__(self, steps: float = 1.0) -> None:
        self.done += steps
        self._tell(min(self.done, self.total), self.total)


class Comparison:
    """A candidate against Monte Carlo, beside the serving model, GFLASH, and other Monte Carlo."""

    def __init__(
        self, candidate: Candidate, serving: Generator, samples: Samples, seed: int, progress: Progress
    ) -> None:
        self.candidate, self.serving, self.samples, self.seed = candidate, serving, samples, seed
        self._progress = progress
        progress.total = 4.0 * len(samples.truth)
        truth = samples.truth
        self.geometry = candidate.generator.geometry
        self.truth = self._sample(truth.showers)
        self.kind = truth.kind
        given = (truth.showers.energy_gev, truth.showers.theta, truth.kind)
        self.made = self._sample(candidate(*given, seed + STREAM, progress))
        rng = np.random.default_rng((seed, 3))
        spare = samples.spare.rows(np.sort(rng.permutation(len(samples.spare))[: len(truth)]))
        self.spare, self.spare_kind = self._sample(spare.showers), spare.kind
        self.floor, self.floor_kind = self._floor(spare, rng)

    @property
    def comparable(self) -> bool:
        """Whether the serving model is of the candidate's detector and particles; else GFLASH stands in for it."""
        one, two = self.candidate.generator, self.serving
        same = one.geometry.as_json()["layers"] == two.geometry.as_json()["layers"]
        same = same and one.geometry.shape == two.geometry.shape and one.geometry.cell_mm == two.geometry.cell_mm
        return same and set(one.particles) <= set(two.particles)

    @cached_property
    def gflash(self) -> Sample:
        """GFLASH at the same conditions."""
        return self._sample(self._gflash())

    @cached_property
    def served(self) -> Sample:
        """The serving model's showers, or GFLASH's, at the same conditions."""
        return self._served() if self.comparable else self.gflash

    @cached_property
    def bands(self) -> list[BandResult]:
        """The numbers of `compare`, in each band and over all."""
        generator = self.candidate.generator
        truth, made, spare = (
            Seen(sample.seen, kind)
            for sample, kind in ((self.truth, self.kind), (self.made, self.kind), (self.spare, self.spare_kind))
        )
        found = (
            compare_band(band, truth, made, spare, seed=self.seed)
            for band in bands_of(generator.particles, generator.energy_gev)
        )
        return [result for result in found if result is not None]

    @cached_property
    def classifiers(self) -> list[Found]:
        """Boosted trees without and with the layers' centres, and the network on cells, which judge."""
        features = classifiers.by_features(self._pairs, seed=self.seed)
        self._progress(0.1 * len(self.truth.seen))
        with_centres = classifiers.by_centres(self._pairs, seed=self.seed)
        self._progress(0.1 * len(self.truth.seen))
        step = len(self.truth.seen) / 300
        cells = classifiers.by_cells(self._pairs, seed=self.seed, progress=lambda: self._progress(step))
        return [features, with_centres, cells]

    @property
    def _pairs(self) -> Pairs:
        return {
            CANDIDATE: (self.truth, self.made),
            SERVING: (self.truth, self.served),
            GFLASH: (self.truth, self.gflash),
            MONTE_CARLO: self.floor,
        }

    @cached_property
    def coverage(self) -> dict[str, two_sample.Neighbours]:
        """How the candidate's, the serving model's and other Monte Carlo's showers lie among the real ones."""
        pairs = {CANDIDATE: (self.truth, self.made), SERVING: (self.truth, self.served), MONTE_CARLO: self.floor}
        return {name: two_sample.neighbours(real.seen, made.seen) for name, (real, made) in pairs.items()}

    @cached_property
    def faults(self) -> list[tuple[str, Fault]]:
        """Faults with the particle whose showers have them."""
        found = [(particle, fault) for particle, seen in self._by_particle() for fault in faults(*seen)]
        return [*found, *(("", fault) for fault in self._copies())]

    @cached_property
    def centres(self) -> list[tuple[str, Centres]]:
        """How the layers' centres stray, by particle."""
        return [
            (particle, found)
            for particle, seen in self._by_particle()
            for found in centres(*seen, seed=self.seed, resamples=bands.RESAMPLES)
        ]

    def _by_particle(self) -> Iterator[tuple[str, tuple[Observables, Observables, tuple[Observables, Observables]]]]:
        """Real and generated showers of each particle, and two samples of Monte Carlo."""
        for kind, particle in enumerate(self.candidate.generator.particles):
            rows, one, two = (np.flatnonzero(kinds == kind) for kinds in (self.kind, *self.floor_kind))
            if len(rows) < 3 or min(len(one), len(two)) < 3:
                continue
            floor = (self.floor[0].seen.rows(one), self.floor[1].seen.rows(two))
            yield particle, (self.truth.seen.rows(rows), self.made.seen.rows(rows), floor)

    @cached_property
    def posing(self) -> Auc:
        """Boosted trees between GFLASH and the candidate: near 0.5, the candidate is GFLASH."""
        return two_sample.auc_of_features(self.gflash.seen, self.made.seen, seed=self.seed)

    @cached_property
    def distances(self) -> list[distances.Distance]:
        """Of each observable."""
        floor = (self.floor[0].seen, self.floor[1].seen)
        return list(distances.distances(self.truth.seen, self.made.seen, floor, self.seed, bands.RESAMPLES))

    def scores(self) -> dict[str, dict[str, Scores]]:
        """What the gate judges, for the candidate and for what serves."""
        floor = max(self.coverage[MONTE_CARLO].coverage, 1e-9)
        return {
            name: {
                **{found.metric: found.rows[name] for found in self.classifiers},
                COVERAGE.name: self.coverage[name].covered / floor,
            }
            for name in (CANDIDATE, SERVING)
        }

    def reasons(self) -> Iterator[Reason]:
        """All checks but those of the gate's own metrics."""
        for particle, fault in self.faults:
            yield fault.reason(particle)
        yield self._posing()
        yield self._density()
        for result in self.bands:
            yield from reasons(result)
        for found in self.classifiers:
            yield from found.reasons()

    def facts(self) -> dict[str, Any]:
        """What the report says beside the verdict."""
        rng = np.random.default_rng((self.seed, 4))
        pairs = {CANDIDATE: (self.truth, self.made), GFLASH: (self.truth, self.gflash), MONTE_CARLO: self.floor}
        features = {name: (real.seen.features(), made.seen.features()) for name, (real, made) in pairs.items()}
        return {
            "bands": [result.to_json() for result in self.bands],
            "classifiers": {found.metric: found.to_json() for found in self.classifiers},
            "centres": [{"particle": particle, **found.to_json()} for particle, found in self.centres],
            "neighbours": {
                name: {"coverage": found.coverage, "density": found.density} for name, found in self.coverage.items()
            },
            "faults": [{"particle": particle, **fault.to_json()} for particle, fault in self.faults],
            "posing_as_gflash": {"auc": self.posing.value, "error": self.posing.error},
            "distances": [found.to_json() for found in self.distances],
            **{
                name: {
                    whose: dict(zip(("value", "error"), map(plain, of(*pair, rng)), strict=True))
                    for whose, pair in features.items()
                }
                for name, of in (("fpd", distances.frechet), ("kpd", distances.kernel))
            },
            "compared_with": "the serving model" if self.comparable else "GFLASH, in the place of the serving model",
        }

    def _sample(self, showers: Showers) -> Sample:
        return Sample(showers, observe(showers, self.geometry))

    def _gflash(self) -> Showers:
        truth = self.samples.truth
        seeds = np.random.default_rng((self.seed, 2)).integers(1, 2**31 - 1, len(truth))
        parts, places = [], []
        for kind, particle in enumerate(self.candidate.generator.particles):
            rows = np.flatnonzero(truth.kind == kind)
            given = truth.showers
            parts += list(
                gflash.simulate(self.geometry, particle, given.energy_gev[rows], given.theta[rows], seeds[rows])
            )
            places.append(rows)
        self._progress(0.2 * len(truth))
        return join(parts).rows(np.argsort(np.concatenate(places), kind="stable"))

    def _served(self) -> Sample:
        """The serving model's showers at the same conditions, its particles by its own numbers."""
        if self.serving.sha256 == self.candidate.generator.sha256:
            return self.made
        truth = self.samples.truth
        numbers = np.array([self.serving.particles.index(name) for name in self.candidate.generator.particles])
        given = (truth.showers.energy_gev, truth.showers.theta, numbers[truth.kind])
        return self._sample(generated(self.serving, *given, self.seed + STREAM, self._progress))

    def _floor(self, spare: Population, rng: np.random.Generator) -> tuple[tuple[Sample, Sample], tuple[Any, Any]]:
        """Two samples of Monte Carlo that share no shower, drawn from all there is at the same conditions."""
        showers = join([self.truth.showers, spare.showers])
        kind = np.concatenate([self.kind, spare.kind])
        order = rng.permutation(len(showers))
        size = min(len(self.kind), len(order) // 2)
        halves = (order[:size], order[size : 2 * size])
        one, two = (self._sample(showers.rows(half)) for half in halves)
        return (one, two), (kind[halves[0]], kind[halves[1]])

    def _copies(self) -> Iterator[Fault]:
        yield repeated(self.made.showers)
        learned = self.samples.learned.showers
        if not len(learned):
            return
        yield copied(self.made.showers, learned)
        rng = np.random.default_rng((self.seed, 5))
        some = learned.rows(np.sort(rng.permutation(len(learned))[:MOST_LEARNED]))
        part = two_sample.replayed(observe(some, self.geometry), self.made.seen, self.truth.seen)
        yield replay(part, REPLAY, len(self.truth.seen))

    def _posing(self) -> Reason:
        told = f"posing: a classifier tells the candidate from GFLASH with an AUC of {self.posing.value:.3f}"
        passed = self.posing.value >= LEAST_OVER_FLOOR
        wrong = "" if passed else f", less than {LEAST_OVER_FLOOR:g}: it is GFLASH, or not better than it"
        return Reason("posing", "other", passed, told + wrong)

    def _density(self) -> Reason:
        found, floor = (self.coverage[name].density for name in (CANDIDATE, MONTE_CARLO))
        ratio = found / floor if floor else float("nan")
        passed = DENSITY[0] <= ratio <= DENSITY[1]
        wrong = "" if passed else ": showers are too rare or too frequent where real ones are"
        told = (
            f"density: {found:.3g}, {ratio:.3g} of what Monte Carlo has, is to be from {DENSITY[0]:g} to {DENSITY[1]:g}"
        )
        return Reason("density", "other", passed, told + wrong)
