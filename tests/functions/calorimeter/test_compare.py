"""Every number of a comparison passes on the same physics, and fails where what it is for is wrong."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from functions.calorimeter import gflash
from functions.calorimeter.compare import BANDS, MEANING, compare
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.observables import Observables, observe
from functions.calorimeter.showers import Showers, from_dense, join
from functions.calorimeter.validation.bands import Band, BandResult, reasons

SIW = load_geometry("siw25")
EDGES = np.array([10.0, 30.0, 50.0])
COUNT = 1500


def made(seed: int) -> Showers:
    rng = np.random.default_rng(seed)
    energy, theta = rng.uniform(10, 50, COUNT), rng.uniform(math.radians(60), math.radians(120), COUNT)
    return join(list(gflash.simulate(SIW, "e-", energy, theta, rng.integers(1, 2**31, COUNT))))


@pytest.fixture(scope="module")
def truth() -> Observables:
    return observe(made(1), SIW)


@pytest.fixture(scope="module")
def good() -> Showers:
    return made(2)


def verdicts(truth: Observables, showers: Showers) -> dict[str, str]:
    return {number.name: number.verdict for number in compare(truth, observe(showers, SIW), EDGES, seed=1, resamples=5)}


def test_the_same_physics_passes_and_reaches_its_floor(truth: Observables, good: Showers) -> None:
    found = compare(truth, observe(good, SIW), EDGES, seed=1, resamples=20)
    assert [number.name for number in found] == list(BANDS) == list(MEANING)
    few = {"extreme_quantiles"}  # asks for 20,000 showers
    assert {number.name for number in found if number.verdict == "fail"} <= few
    assert all(number.low <= number.value <= number.high and number.floor > 0 for number in found)
    assert float(np.median([number.value / number.floor for number in found])) < 3


def test_the_same_seed_gives_the_same_intervals(truth: Observables, good: Showers) -> None:
    twice = [compare(truth, observe(good, SIW), EDGES, seed=3, resamples=4) for _ in range(2)]
    assert twice[0] == twice[1]


def scaled(showers: Showers, factor: np.ndarray) -> Showers:
    edep = (showers.edep_mev * np.repeat(factor, showers.hits)).astype(np.float32)
    return Showers(showers.energy_gev, showers.theta, showers.offsets, showers.cell, edep)


def mean_image(showers: Showers) -> Showers:
    images = np.repeat(showers.dense(SIW.shape).mean(axis=0)[None], 300, axis=0)
    scale = showers.energy_gev[:300] / showers.energy_gev.mean()
    return from_dense(showers.energy_gev[:300], showers.theta[:300], (images.T * scale).T.astype(np.float32))


def moved(showers: Showers, move: Callable[[np.ndarray], np.ndarray]) -> Showers:
    images = move(showers.part(0, 300).dense(SIW.shape))
    return from_dense(showers.energy_gev[:300], showers.theta[:300], np.ascontiguousarray(images))


def permuted(images: np.ndarray) -> np.ndarray:
    order = np.random.default_rng(1).permutation(51 * 51)
    return images.reshape(len(images), 51 * 51, 25)[:, order].reshape(images.shape)


def squeezed(showers: Showers) -> Showers:
    fraction = showers.visible_mev / showers.energy_gev
    return scaled(showers, (0.7 * fraction.mean() + 0.3 * fraction) / fraction)


def relabelled(showers: Showers) -> Showers:
    order = np.random.default_rng(1).permutation(len(showers))
    return Showers(showers.energy_gev[order], showers.theta, showers.offsets, showers.cell, showers.edep_mev)


def dead_layer(images: np.ndarray) -> np.ndarray:
    images[..., 9] = 0
    return images


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (mean_image, {"resolution", "width_hits", "mean_hits", "layer_correlation"}),
        (lambda showers: moved(showers, permuted), {"lateral_profile", "angle_resolution"}),
        (squeezed, {"resolution"}),
        (relabelled, {"mean_visible", "resolution", "separation_visible"}),
        (lambda showers: scaled(showers, np.full(len(showers), 0.95)), {"mean_visible"}),
        (lambda showers: moved(showers, dead_layer), {"longitudinal_profile", "separation_layers"}),
        (lambda showers: moved(showers, lambda images: images[:, :, ::-1]), {"angle_bias_deg", "angle_resolution"}),
        (lambda showers: moved(showers, lambda images: np.where(images > 0.5, images, 0)), {"separation_cells"}),
        (lambda showers: moved(showers, lambda images: 0 * images), set(BANDS)),
    ],
    ids=["mean image", "cells", "squeezed", "labels", "gain", "dead layer", "mirrored", "threshold", "empty"],
)
def test_what_is_wrong_fails_by_name(
    truth: Observables, good: Showers, spoil: Callable[[Showers], Showers], names: set[str]
) -> None:
    found = verdicts(truth, spoil(good))
    failed = {name for name, verdict in found.items() if verdict == "fail"}
    assert names <= failed, found


def test_what_too_few_showers_cannot_tell_is_said_so(truth: Observables, good: Showers) -> None:
    few = truth.rows(np.arange(40))
    band = Band("e-", 0, np.array([10.0, 50.0]), True)
    result = BandResult(band, 40, tuple(compare(few, observe(good, SIW), EDGES, seed=1, resamples=3)))
    told = {reason.metric: reason for reason in reasons(result) if not reason.passed}
    assert told["mean_visible"].check == "reach" and told["mean_visible"].sentence == (
        "mean_visible (e- 10-50 GeV, all): 40 showers are too few to tell the largest relative error of the mean S/E in"
        " an energy slice; test on more"
    )
    assert "inf" not in " ".join(reason.sentence for reason in told.values())
