"""An unchanged stream raises no alarm, however many files there are; a changed one does, with the cause by its name."""

import dataclasses
import math

import numpy as np
import pytest

from functions.calorimeter import drift, gflash
from functions.calorimeter.compare import BANDS
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.showers import Showers, join

SIW = load_geometry("siw25")
LAYERS = len(SIW.layers)
CONDITIONS = [(energy, math.radians(angle)) for energy in (10.0, 20.0, 40.0, 60.0) for angle in (70, 90)]
EACH = 300
PER_SHOWER = 2
RATE = 0.001


@pytest.fixture(scope="module")
def pool() -> Showers:
    """`EACH` showers of each condition: those of one may stand for those that a perfect model generates for another."""
    rng = np.random.default_rng(5)
    energy, theta = (np.repeat(values, EACH) for values in zip(*CONDITIONS, strict=True))
    return join(list(gflash.simulate(SIW, "e-", energy, theta, rng.integers(1, 2**31, len(energy)))))


@pytest.fixture(scope="module")
def known(pool: Showers) -> drift.Rows:
    return seen(pool)


def seen(showers: Showers) -> drift.Rows:
    return drift.rows(showers, SIW, 0.1)


def drawn(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a stream of `count` showers, and of those generated for each of them; all different."""
    each = count // len(CONDITIONS)
    orders = [EACH * place + rng.permutation(EACH)[: each * (1 + PER_SHOWER)] for place in range(len(CONDITIONS))]
    stream = np.concatenate([order[:each] for order in orders])
    return stream, np.concatenate([order[each:] for order in orders])


def judged(
    stream: drift.Rows, generated: drift.Rows, rng: np.random.Generator, count: int = 200
) -> tuple[list[drift.Deviation], list[str]]:
    one, two = drawn(count, rng)
    new, made = stream.chosen(one), generated.chosen(two)
    found = drift.deviations(new, made, PER_SHOWER, RATE)
    return found, drift.causes(new, made.means(PER_SHOWER), found)


def scaled(showers: Showers, factor: float) -> Showers:
    return dataclasses.replace(showers, edep_mev=showers.edep_mev * np.float32(factor))


def weighted(showers: Showers, layer: int, factor: float) -> Showers:
    edep = np.where(showers.cell % LAYERS == layer, np.float32(factor) * showers.edep_mev, showers.edep_mev)
    return dataclasses.replace(showers, edep_mev=edep.astype(np.float32))


def test_many_unchanged_files_raise_no_alarm(known: drift.Rows) -> None:
    rng = np.random.default_rng(1)
    for count in (104, 200, 800):
        for _ in range(60):
            found, causes = judged(known, known, rng, count)
            assert [one for one in found if one.drifted] == [] and causes == []
            assert len(found) > 50


def test_without_tolerances_alarms_are_as_rare_as_asked_for(known: drift.Rows) -> None:
    rng, alarms, files, rate = np.random.default_rng(2), 0, 200, 0.2
    for _ in range(files):
        found, _ = judged(known, known, rng)
        alarms += any(drift.holm([drift.excess(one.effect, one.error, 0.0, 200) for one in found], rate))
    assert 0.02 * files < alarms <= files * (rate + 2 * math.sqrt(rate * (1 - rate) / files))


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_gain_of_five_per_cent_is_seen_and_named(pool: Showers, known: drift.Rows, factor: float) -> None:
    rng, changed = np.random.default_rng(3), seen(scaled(pool, factor))
    for _ in range(10):
        found, (cause,) = judged(changed, known, rng, 400)
        assert next(one for one in found if one.name == "visible").drifted
        start, percent, rest = cause.partition(cause.split()[3])
        assert (start, rest) == ("all layers read ", f" % {'low' if factor < 1 else 'high'}: gain")
        assert float(percent) == pytest.approx(5, abs=2.5)


def test_what_a_model_may_be_off_is_no_drift(pool: Showers, known: drift.Rows) -> None:
    tolerated = BANDS["mean_visible"].must
    rng, changed = np.random.default_rng(4), seen(scaled(pool, 1 - tolerated))
    assert not any(one.drifted for _ in range(30) for one in judged(changed, known, rng, 800)[0])


@pytest.mark.parametrize("layer", [3, 7, 22])
def test_a_dead_layer_is_seen_and_named(pool: Showers, known: drift.Rows, layer: int) -> None:
    changed = seen(weighted(pool, layer, 0))
    for _, causes in (judged(changed, known, np.random.default_rng(seed)) for seed in range(5)):
        assert causes == [f"layer {layer} reads nothing"]


def test_a_dead_layer_and_a_gain_are_told_apart(pool: Showers, known: drift.Rows) -> None:
    changed = seen(weighted(scaled(pool, 0.93), 9, 0))
    _, causes = judged(changed, known, np.random.default_rng(6))
    assert causes[0] == "layer 9 reads nothing" and causes[1].startswith("all other layers read ")


def test_a_weak_layer_is_named(pool: Showers, known: drift.Rows) -> None:
    _, causes = judged(seen(weighted(pool, 8, 0.5)), known, np.random.default_rng(7))
    (cause,) = causes
    assert cause.startswith("layer 8 reads ") and cause.endswith(" % low, apart from the others")


def test_noise_is_seen_in_the_hits(pool: Showers, known: drift.Rows) -> None:
    rng = np.random.default_rng(8)
    size = int(np.prod(SIW.shape))
    shower = np.concatenate([np.repeat(np.arange(len(pool)), pool.hits), np.repeat(np.arange(len(pool)), 90)])
    cell = np.concatenate([pool.cell, rng.integers(0, size, 90 * len(pool))])
    edep = np.concatenate([pool.edep_mev, np.full(90 * len(pool), 0.11)])
    place, inverse = np.unique(shower * size + cell, return_inverse=True)
    offsets = np.searchsorted(place, np.arange(len(pool) + 1) * size)
    edep = np.bincount(inverse, edep).astype(np.float32)
    noisy = Showers(pool.energy_gev, pool.theta, offsets, (place % size).astype(np.uint32), edep)
    _, causes = judged(seen(noisy), known, np.random.default_rng(9))
    assert any("cells are hit: noise" in cause for cause in causes), causes


def test_a_smeared_response_is_seen_in_the_resolution(pool: Showers, known: drift.Rows) -> None:
    factors = np.random.default_rng(10).normal(1, 0.12, len(pool)).astype(np.float32)
    smeared = dataclasses.replace(pool, edep_mev=pool.edep_mev * np.repeat(factors, pool.hits))
    found, causes = judged(seen(smeared), known, np.random.default_rng(11), 800)
    assert [one.name for one in found if one.drifted] == ["resolution"]
    assert causes[0].startswith("the width of S/E is ")


def test_empty_showers_are_judged_as_well(pool: Showers, known: drift.Rows) -> None:
    blind = Showers(pool.energy_gev, pool.theta, np.zeros_like(pool.offsets), pool.cell[:0], pool.edep_mev[:0])
    found, causes = judged(seen(blind), known, np.random.default_rng(12))
    assert causes == ["no layer reads anything"] and any(one.drifted for one in found)


def test_other_numbers_of_showers_than_said_are_refused(known: drift.Rows) -> None:
    with pytest.raises(ValueError, match="3 for each of 2400"):
        drift.deviations(known, known, 3, RATE)
