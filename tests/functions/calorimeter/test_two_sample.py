"""A classifier tells what is generated where it can be told, and only there; replays and holes are found."""

import math

import numpy as np
import pytest

from functions.calorimeter import geant4, gflash
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.observables import Observables, observe
from functions.calorimeter.showers import Floats, join
from functions.calorimeter.two_sample import auc, auc_of_features, neighbours, replayed

SIW = load_geometry("siw25")


def fast(seed: int, count: int = 900, low: float = 5.0) -> Observables:
    energy, theta, seeds = primaries(seed, count, low)
    return observe(join(list(gflash.simulate(SIW, "e-", energy, theta, seeds))), SIW)


def primaries(seed: int, count: int, low: float) -> tuple[Floats, Floats, np.ndarray]:
    rng = np.random.default_rng(seed)
    energy, theta = rng.uniform(low, 10, count), rng.uniform(math.radians(60), math.radians(120), count)
    return energy, theta, rng.integers(1, 2**31, count)


@pytest.fixture(scope="module")
def truth() -> Observables:
    return fast(1)


@pytest.fixture(scope="module")
def same() -> Observables:
    return fast(2)


def test_two_samples_of_one_physics_cannot_be_told_apart(truth: Observables, same: Observables) -> None:
    found = auc_of_features(truth, same, seed=1)
    assert abs(found.value - 0.5) < 4 * found.error and found.showers == 600


def test_gflash_is_told_from_geant4(truth: Observables) -> None:
    energy, theta, seeds = primaries(3, 250, 5.0)
    given = geant4.Primaries("e-", energy, theta, seeds)
    full = observe(join(list(geant4.simulate(SIW, given))), SIW)
    assert auc_of_features(full, truth, seed=1).value > 0.9


def test_a_classifier_has_enough_to_learn_from(truth: Observables) -> None:
    with pytest.raises(ValueError, match="20 showers are too few"):
        auc(truth.features()[:20], truth.features(), seed=1)


def test_a_sample_that_leaves_out_a_part_covers_less(truth: Observables, same: Observables) -> None:
    whole, part = neighbours(truth, same), neighbours(truth, fast(4, low=8.5))
    assert whole.coverage > 0.9 and 0.8 < whole.density < 1.2
    assert part.coverage < 0.7


def test_a_replay_of_the_training_set_is_found(truth: Observables, same: Observables) -> None:
    assert replayed(truth, fast(5), same) < 0.1
    assert replayed(truth, truth, same) == 1.0


def test_a_seed_of_64_bits_as_jobs_have_it_will_do() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 3))
    assert 0 <= auc(rows[:30], rows[30:], seed=2**64 - 1).value <= 1
