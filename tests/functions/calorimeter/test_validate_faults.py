"""What spoils showers is found by its name; a fresh sample of the truth has no fault."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from functions.calorimeter import gflash
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.showers import Showers, join
from functions.calorimeter.validation import bands
from functions.calorimeter.validation.comparison import Comparison
from tests.functions.calorimeter.validated import (
    compared,
    mean_image,
    permuted,
    relabelled,
    scaled,
    squeezed,
    without_layer,
)

SIW = load_geometry("siw25")
COUNT = 300


def fast(seed: int) -> Showers:
    """GFLASH plays the truth here: other layers are made brighter, so that it is not its own baseline."""
    rng = np.random.default_rng(seed)
    energy, theta = rng.uniform(5, 15, COUNT), rng.uniform(math.radians(60), math.radians(120), COUNT)
    made = join(list(gflash.simulate(SIW, "e-", energy, theta, rng.integers(1, 2**31, COUNT))))
    brighter = np.where(made.cell % 25 % 2 == 0, 1.4, 0.6)
    return Showers(made.energy_gev, made.theta, made.offsets, made.cell, (made.edep_mev * brighter).astype(np.float32))


@pytest.fixture(autouse=True)
def one_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "PARTS", 1)
    monkeypatch.setattr(bands, "RESAMPLES", 3)


@pytest.fixture(scope="module")
def samples() -> tuple[Showers, Showers, Showers, Showers]:
    """Truth, a fresh sample, spare Monte Carlo, and what was trained on."""
    return fast(1), fast(2), fast(3), fast(4)


Samples = tuple[Showers, Showers, Showers, Showers]


def comparison(samples: Samples, made: Showers) -> Comparison:
    truth, _, spare, learned = samples
    return compared(truth, made, spare, learned, SIW)


def failed(found: Comparison) -> set[str]:
    return {fault.name for _, fault in found.faults if not fault.passed}


def test_a_fresh_sample_of_the_truth_has_no_fault(samples: Samples) -> None:
    found = comparison(samples, samples[1])
    assert failed(found) == set()
    assert all(fault.floor is not None for _, fault in found.faults), "every number has its floor"
    assert found.posing.value > 0.95, "and it is not taken for GFLASH"
    assert all(reason.passed for reason in (found._posing(), found._density()))


@pytest.mark.parametrize(
    ("spoil", "name", "words"),
    [
        (lambda showers: mean_image(showers, SIW), "diversity", "a mean image"),
        (lambda showers: permuted(showers, SIW), "cells", "cells are permuted"),
        (squeezed, "spread", "the resolution is squeezed"),
        (relabelled, "energy_labels", "labels are shuffled"),
        (relabelled, "angle_labels", "labels are shuffled"),
        (lambda showers: scaled(showers, 0.95), "gain", "all energies are too low"),
        (lambda showers: without_layer(showers, SIW, 8), "weakest_layer", "layer 8 is dead"),
        (lambda showers: scaled(showers, 0.0), "empty", "showers are empty"),
    ],
    ids=["mean image", "cells", "squeezed", "labels", "angles", "gain", "dead layer", "empty"],
)
def test_what_is_wrong_is_named(samples: Samples, spoil: Callable[[Showers], Showers], name: str, words: str) -> None:
    found = comparison(samples, spoil(samples[1]))
    (fault,) = [fault for _, fault in found.faults if fault.name == name]
    assert not fault.passed and words in fault.reason("e-").sentence, fault
    assert any(result.verdict == "fail" for result in found.bands), "and the numbers of the bands see it"


def test_a_gain_error_alone_has_no_other_name(samples: Samples) -> None:
    assert failed(comparison(samples, scaled(samples[1], 0.95))) == {"gain"}


def test_a_replay_of_the_training_set_is_named(samples: Samples) -> None:
    assert failed(comparison(samples, samples[3])) == {"copied", "replay"}
    shaken = scaled(samples[3], np.random.default_rng(1).normal(1, 1e-3, COUNT))
    assert failed(comparison(samples, shaken)) == {"replay"}, "though no shower is one of the training's, bit by bit"


def test_showers_that_come_again_are_named(samples: Samples) -> None:
    some = samples[1].rows(np.arange(COUNT) % 50)
    assert "repeated" in failed(comparison(samples, some))


def test_gflash_that_poses_as_a_model_is_named(samples: Samples) -> None:
    truth = samples[0]
    seeds = np.random.default_rng(77).integers(1, 2**31, COUNT)
    posing = join(list(gflash.simulate(SIW, "e-", truth.energy_gev, truth.theta, seeds)))
    reason = comparison(samples, posing)._posing()
    assert not reason.passed and "it is GFLASH" in reason.sentence
