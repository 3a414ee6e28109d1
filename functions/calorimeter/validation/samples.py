"""The Monte Carlo that a candidate is tested on: showers that it has not seen, and those that it has.

A file whose SHA-256 the candidate's manifest names is one that it was trained on; of it, what the training held out
(`training.split`) was not seen. Every other file is there to test on. What is left of the Monte Carlo, seen or not,
serves for the floors: Monte Carlo is Monte Carlo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.candidate import Candidate
from functions.calorimeter.checks import refuse_generated
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.observables import THRESHOLD_MEV
from functions.calorimeter.showers import Counts, Showers, join
from functions.calorimeter.training.split import held_out
from layers.runtime import Input, InputError

LEAST_SHOWERS = 60
"""To test on, below which no classifier can be trained."""


@dataclass(frozen=True)
class Population:
    """Showers with the particle of each, as its number in the candidate's list, shape (n,)."""

    showers: Showers
    kind: Counts

    def __len__(self) -> int:
        return len(self.showers)

    def rows(self, chosen: NDArray[np.integer[Any]]) -> "Population":
        """The chosen showers."""
        return Population(self.showers.rows(chosen), self.kind[chosen])


@dataclass(frozen=True)
class Samples:
    """The Monte Carlo of one validation."""

    truth: Population
    """What the candidate is compared with; it has not seen it."""
    spare: Population
    """Other Monte Carlo at the same conditions."""
    learned: Population
    """What the candidate was trained on."""
    engines: tuple[str, ...]
    """Who has simulated what it is compared with."""
    leaked: int
    """Showers to test on that the candidate has learned from; they are left out."""
    unseen_files: int
    """Files that it was trained on and that are not among the inputs."""
    facts: dict[str, Any]


@dataclass(frozen=True)
class _File:
    item: Input
    particle: str
    engine: str
    showers: Showers
    learned: NDArray[np.bool_]


def read_samples(name: str, inputs: Sequence[Input], candidate: Candidate, most: int, seed: int) -> Samples:
    """The showers of the files among `inputs`; at most `most`, drawn evenly, are to test on.

    Raises InputError where a file is of another detector or particle, or where too few are left to test on.
    """
    files = [_read(item, candidate) for item in inputs if item.key.endswith(".h5")]
    known = candidate.manifest.data_hashes
    tests = [file for file in files if file.item.sha256 not in known]
    trained = [file for file in files if file.item.sha256 in known]
    if not tests:
        raise InputError(f"{name}: inputs: names no showers to test on; name the file of held-out ones (.h5)")
    everything, learned = _pool(tests, candidate), _pool(trained, candidate)
    flags = np.concatenate([file.learned for file in trained]) if trained else np.zeros(0, bool)
    learned = learned.rows(np.flatnonzero(flags))
    there = _within(everything.showers, candidate)
    leaked = np.isin(_identity(everything), _identity(learned))
    fresh = np.flatnonzero(there & ~leaked)
    if len(fresh) < LEAST_SHOWERS:
        raise InputError(
            f"{name}: inputs: {len(fresh)} showers are left to test on ({int((~there).sum())} lie outside the model's"
            f" range, {int(leaked.sum())} were learned from); name {LEAST_SHOWERS} at least, 5000 to promote"
        )
    order = np.random.default_rng((seed, 1)).permutation(fresh)
    truth, rest = np.sort(order[:most]), np.sort(order[most:])
    seen = np.flatnonzero(_within(learned.showers, candidate))
    spare = _together(everything.rows(rest), learned.rows(seen))
    return Samples(
        truth=everything.rows(truth),
        spare=spare,
        learned=learned,
        engines=tuple(sorted({file.engine for file in tests})),
        leaked=int(leaked.sum()),
        unseen_files=len(known - {file.item.sha256 for file in trained}),
        facts={
            "tested_on": len(truth),
            "other_monte_carlo": len(spare),
            "learned_from": len(learned),
            "outside_the_range": int((~there).sum()),
            "files": [_told(file, file in trained) for file in files],
        },
    )


def _read(item: Input, candidate: Candidate) -> _File:
    generator = candidate.generator
    with ShowersHdf5(item.path) as file:
        refuse_generated(file.about, item.key, "and are no Monte Carlo to compare with")
        if file.geometry.as_json() != generator.geometry.as_json() and _cells(file) != _cells(generator):
            raise InputError(
                f"{item.key}: is of the geometry {file.geometry.name}, and the model of {generator.geometry.name}; name"
                " showers of its own detector"
            )
        if file.particle not in generator.particles:
            known = ", ".join(generator.particles)
            raise InputError(f"{item.key}: holds showers of {file.particle}, and the model makes {known}; take it out")
        if file.threshold_mev > THRESHOLD_MEV:
            raise InputError(
                f"{item.key}: has no cells below {file.threshold_mev:g} MeV, and showers are compared from"
                f" {THRESHOLD_MEV:g} MeV; prepare it with a lower THRESHOLD_MEV"
            )
        parts = list(file.read())
        particle, engine = file.particle, str(file.about.get("engine", ""))
    if not parts:
        raise InputError(f"{item.key}: holds no showers; take it out of inputs")
    showers = join(parts)
    part = candidate.held_out
    out = held_out(item.sha256, showers.energy_gev, part) if part else np.zeros(len(showers), bool)
    return _File(item, particle, engine, showers, ~out)


def _cells(of: Any) -> dict[str, Any]:
    """A geometry without what is only for its reader."""
    return {key: value for key, value in of.geometry.as_json().items() if key not in ("name", "title")}


def _pool(files: Sequence[_File], candidate: Candidate) -> Population:
    if not files:
        return Population(_no_showers(), np.zeros(0, np.int64))
    kinds = [candidate.generator.particles.index(file.particle) for file in files]
    sizes = [len(file.showers) for file in files]
    return Population(join([file.showers for file in files]), np.repeat(kinds, sizes))


def _together(one: Population, two: Population) -> Population:
    return Population(join([one.showers, two.showers]), np.concatenate([one.kind, two.kind]))


def _no_showers() -> Showers:
    return Showers(np.zeros(0), np.zeros(0), np.zeros(1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32))


def _identity(of: Population) -> NDArray[np.complex128]:
    """Energy and angle in float64: no two showers that were drawn share them."""
    return np.asarray(of.showers.energy_gev + 1j * (of.showers.theta + 10 * of.kind))


def _within(showers: Showers, candidate: Candidate) -> NDArray[np.bool_]:
    energy, theta = candidate.generator.energy_gev, np.radians(candidate.generator.theta_deg)
    inside = (showers.energy_gev >= energy[0]) & (showers.energy_gev <= energy[1])
    return np.asarray(inside & (showers.theta >= theta[0]) & (showers.theta <= theta[1]))


def _told(file: _File, trained: bool) -> dict[str, Any]:
    item = file.item
    use = "trained on" if trained else "to test on"
    return {"key": f"{item.bucket}/{item.key}", "sha256": item.sha256, "showers": len(file.showers), "use": use}
