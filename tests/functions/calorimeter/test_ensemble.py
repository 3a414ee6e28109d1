"""Bands of an ensemble cover what they promise, with a factor of other slices; and coverage can be seen to fail."""

import numpy as np
import pytest

from functions.calorimeter import ensemble
from functions.calorimeter.ensemble import OBSERVABLES, Slices, Sums, bands, calibrated, coverage, student_t, width
from layers.runtime import InputError

SLICES = Slices(tuple(np.linspace(10.0, 100.0, 21)), (60.0, 80.0, 100.0, 120.0))
BINS = 30
COUNT = 400
NOISE = 0.2
"""Of one shower, relative."""


def sums(means: dict[str, np.ndarray], rng: np.random.Generator) -> Sums:
    """`COUNT` showers in each slice, around these means."""
    made = Sums(SLICES)
    made.count[:] = COUNT
    for name, mean in means.items():
        seen = mean * (1 + NOISE / np.sqrt(COUNT) * rng.standard_normal(mean.shape))
        made.first[name] = seen * COUNT
        made.second[name] = (seen**2 + (NOISE * mean) ** 2) * COUNT
        made.filled[name] = np.full(mean.shape, COUNT)
    return made


def experiment(members: int, spread: float, bias: np.ndarray | float, seed: int = 1) -> tuple[Sums, list[Sums]]:
    """Members that are off by `spread` each on its own, and Monte Carlo that is off by `bias`; both relative."""
    rng = np.random.default_rng(seed)
    shape = (len(SLICES), BINS)

    def off(by: np.ndarray | float) -> dict[str, np.ndarray]:
        return {name: 1 + by * rng.standard_normal(shape) for name in OBSERVABLES}

    return sums(off(bias), rng), [sums(off(spread), rng) for _ in range(members)]


def colours() -> tuple[np.ndarray, np.ndarray]:
    even = np.array([SLICES.even(number) for number in range(len(SLICES))])
    return even, ~even


@pytest.mark.parametrize(("members", "bias"), [(4, 0.05), (6, 0.05), (5, 0.15), (5, 0.0)])
def test_bands_cover_what_they_promise_in_slices_that_they_were_not_calibrated_on(members: int, bias: float) -> None:
    found = bands(*experiment(members, 0.05, bias))["longitudinal"]
    even, odd = colours()
    told = coverage(found, calibrated(found, even), odd, seed=1)
    assert told["bins"] == odd.sum() * BINS
    assert 0.62 < told["value"] < 0.74 and told["low"] < told["value"] < told["high"]


def test_one_slice_has_no_interval() -> None:
    found = bands(*experiment(5, 0.05, 0.05))["longitudinal"]
    only = np.arange(len(SLICES)) == 1
    told = coverage(found, 1.0, only, seed=1)
    assert told["value"] is not None and (told["slices"], told["low"], told["high"]) == (1, None, None)


def test_the_factor_grows_with_what_the_members_share_and_cannot_show() -> None:
    even, _ = colours()
    small, large = (calibrated(bands(*experiment(5, 0.05, bias))["spectrum"], even) for bias in (0.05, 0.2))
    assert 3 < large / small < 6


def test_coverage_falls_where_the_truth_leaves_what_was_calibrated() -> None:
    even, odd = colours()
    truth, members = experiment(5, 0.05, np.where(odd, 0.3, 0.05)[:, None])
    found = bands(truth, members)["longitudinal"]
    assert coverage(found, calibrated(found, even), odd, seed=1)["value"] < 0.45


def test_where_members_disagree_bands_are_wider() -> None:
    even, odd = colours()
    truth, members = experiment(5, 0.05, 0.05)
    for member, by in zip(members, (0.6, 0.8, 1.0, 1.2, 1.4), strict=True):
        member.first["visible"][odd] *= by
    found = bands(truth, members)["visible"]
    assert width(found, 1.0, odd) > 2 * width(found, 1.0, even)


def test_without_the_factor_and_student_s_t_few_members_promise_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    _, odd = colours()
    monkeypatch.setattr(ensemble, "student_t", lambda _: 1.0)
    bare = bands(*experiment(4, 0.05, 0.05))["lateral_x"]
    assert coverage(bare, 0.8, odd, seed=1)["value"] < 0.60


def test_student_s_t_makes_up_for_few() -> None:
    assert student_t(4) == pytest.approx(1.197, abs=1e-3) and student_t(100) == pytest.approx(1.005, abs=1e-3)


def test_three_are_no_ensemble_and_copies_none_at_all() -> None:
    truth, members = experiment(4, 0.05, 0.05)
    with pytest.raises(InputError, match="an ensemble of 3"):
        bands(truth, members[:3])
    even, _ = colours()
    with pytest.raises(InputError, match="do not differ"):
        calibrated(bands(truth, [members[0]] * 4)["spectrum"], even)


def test_slices_with_few_showers_are_not_looked_at() -> None:
    truth, members = experiment(4, 0.05, 0.05)
    truth.count[:] = ensemble.LEAST_SHOWERS - 1
    found = bands(truth, members)["spectrum"]
    assert not found.used.any()
    with pytest.raises(InputError, match="fill no slice"):
        calibrated(found, np.ones(len(SLICES), bool))


def test_showers_are_counted_in_their_slices() -> None:
    slices = Slices((10.0, 20.0, 40.0), (60.0, 90.0, 120.0))
    energy = np.array([10.0, 19.9, 20.0, 40.0, 41.0, 9.9])
    theta = np.radians([60.0, 90.0, 91.0, 120.0, 90.0, 90.0])
    assert slices.of(energy, theta).tolist() == [0, 1, 3, 3, -1, -1]
    assert slices.edges(1) == ((10.0, 20.0), (90.0, 120.0))
    assert [slices.even(number) for number in range(4)] == [True, False, False, True]
    assert [slices.within(number, (10, 30), (60, 120)) for number in range(4)] == [True, True, False, False]
