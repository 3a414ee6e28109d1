"""What the layers' centres do is told where no number and no feature shows it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from functions.calorimeter import gflash
from functions.calorimeter.gate import AUC_CENTRES, gate
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.observables import Observables, observe
from functions.calorimeter.showers import join
from functions.calorimeter.validation.centres import Centres, centres
from functions.calorimeter.validation.classifiers import CANDIDATE, GFLASH, MONTE_CARLO, Sample, by_centres, by_features

SIW = load_geometry("siw25")
COUNT = 900


def sample(seed: int) -> Sample:
    """Showers whose layers stray from the axis together."""
    rng = np.random.default_rng(seed)
    energy, theta = rng.uniform(10, 20, COUNT), rng.uniform(math.radians(60), math.radians(120), COUNT)
    showers = join(list(gflash.simulate(SIW, "e-", energy, theta, rng.integers(1, 2**31, COUNT))))
    seen = observe(showers, SIW)
    return Sample(showers, replace(seen, layer_x=seen.layer_x + rng.normal(0, 1, COUNT)[:, None]))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample(seed) for seed in range(4)]


def mirrored(given: Sample) -> Sample:
    """Each layer of each shower in x or not, by lot: no layer's own distribution changes."""
    signs = np.random.default_rng(9).choice([-1, 1], given.seen.layer_x.shape)
    return Sample(given.showers, replace(given.seen, layer_x=given.seen.layer_x * signs))


def in_x(samples: list[Sample], made: Observables) -> Centres:
    truth, _, *floor = (one.seen for one in samples)
    along_x, along_y = centres(truth, made, (floor[0], floor[1]), seed=1, resamples=20)
    assert (along_x.axis, along_y.axis) == ("x", "y")
    assert along_y.spread.value < 5 * along_y.spread.floor, "y is as it was"
    return along_x


def test_the_same_physics_is_near_its_floor(samples: list[Sample]) -> None:
    found = in_x(samples, samples[1].seen)
    assert found.spread.value < 0.15 and found.correlation.value < 0.15
    for number in (found.spread, found.correlation):
        assert number.low <= number.value <= number.high and 0 < number.floor < 0.25
    assert len(found.layers) > 10 and found.correlations.shape == (2, len(found.layers) - 1)
    assert found.to_json()["spread"]["value"] == found.spread.value


def test_centres_that_are_too_still(samples: list[Sample]) -> None:
    made = samples[1].seen
    found = in_x(samples, replace(made, layer_x=0.7 * made.layer_x))
    assert found.spread.value == pytest.approx(0.3, abs=0.08) and found.spread.low > found.spread.floor
    assert np.median(found.spreads) == pytest.approx(0.7, abs=0.05)


def test_layers_that_stray_alone(samples: list[Sample]) -> None:
    made = mirrored(samples[1])
    found = in_x(samples, made.seen)
    assert found.correlation.value > 0.4 and found.spread.value < 0.15
    pairs = {name: (samples[0], one) for name, one in ((CANDIDATE, made), (MONTE_CARLO, samples[2]), (GFLASH, made))}
    blind, seeing = by_features(pairs, seed=1).areas, by_centres(pairs, seed=1).areas
    assert abs(blind[CANDIDATE].value - 0.5) < 3 * blind[CANDIDATE].error
    assert seeing[CANDIDATE].value > 0.6 > seeing[MONTE_CARLO].value
    assert gate().deciding == AUC_CENTRES.name, "what sees it decides"


def test_centres_that_never_move_are_no_numbers_but_null(samples: list[Sample]) -> None:
    made = samples[1].seen
    found = in_x(samples, replace(made, layer_x=np.zeros_like(made.layer_x))).to_json()
    assert found["spread"]["value"] == 1 and found["correlation"]["value"] is None
    assert "NaN" not in json.dumps(found) and set(found["correlations"]["generated"]) == {None}


def test_too_few_showers_say_nothing(samples: list[Sample]) -> None:
    few = samples[0].seen.rows(np.arange(10))
    assert list(centres(few, few, (few, few), seed=1)) == []
