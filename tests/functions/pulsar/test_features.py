"""What the network is shown, and the bandpass that it is shown against."""

import numpy as np
import pytest

from functions.pulsar.band import EFFELSBERG, Band
from functions.pulsar.features import SHAPES, FeatureMaker, Features, pool_samples, track_sums
from functions.pulsar.interference import Burst, Carrier
from functions.pulsar.reference import RunningBandpass
from functions.pulsar.source import Pulse

MEAN, SIGMA = np.full(256, 120, np.float32), np.full(256, 15, np.float32)


def frame_of(excess: np.ndarray | float = 0.0, seed: int = 0, level: float = 0.0) -> np.ndarray:
    cells = np.random.default_rng(seed).standard_normal((256, 256)) + excess + level
    return (MEAN[:, None] + SIGMA[:, None] * cells).round().clip(0, 255).astype(np.uint8)[None]


def features(frame: np.ndarray, mean: np.ndarray = MEAN, sigma: np.ndarray = SIGMA) -> Features:
    return FeatureMaker(EFFELSBERG.frequency_mhz)(pool_samples(frame), frame, mean, sigma)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pooling_sums_four_samples(dtype: type) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 256, 256)).astype(dtype)
    expected = frames.reshape(3, 256, 64, 4).sum(axis=3, dtype=int)
    assert np.array_equal(pool_samples(frames), expected)


def test_noise_gives_inputs_of_unit_noise() -> None:
    made = features(np.concatenate([frame_of(seed=seed) for seed in range(8)]))
    assert {name: values.shape[1:] for name, values in made.as_inputs().items()} == SHAPES
    assert np.sinh(made.image).std() * 2 == pytest.approx(1.0, abs=0.03)
    assert made.tracks.std() == pytest.approx(1.0, abs=0.3)
    assert np.sinh(made.rows[:, 0]).std() * 2 == pytest.approx(1.0, abs=0.1)
    assert np.sinh(made.columns[:, 0]).std() * 2 == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("dm, channel", [(8.0, 0), (20.0, 0), (60.0, 1), (200.0, 1)])
def test_a_faint_pulse_is_a_point_among_falling_tracks(dm: float, channel: int) -> None:
    sweep = float(np.ptp(Pulse(0.0, dm, 8e-4).arrivals(EFFELSBERG)))
    start = (100 if sweep < 256 else 128 - sweep / 2) * EFFELSBERG.sampling_time_s
    excess = Pulse(start, dm, 8e-4).render(EFFELSBERG, 0, 256)
    excess *= 15 / np.sqrt((excess**2).sum())
    peaks = features(frame_of(excess)).tracks[0].max(axis=(1, 2))
    assert peaks[channel] > 7 and peaks[channel] > peaks[2:].max() + 2


def test_an_upward_sweep_is_a_point_among_rising_tracks() -> None:
    excess = Pulse(0.004, 10.0, 8e-4, reversed_sweep=True).render(EFFELSBERG, 0, 256)
    excess *= 20 / np.sqrt((excess**2).sum())
    peaks = features(frame_of(excess)).tracks[0].max(axis=(1, 2))
    assert peaks[2] > 9 > 6 > peaks[0]


def test_stripes_leave_no_track() -> None:
    carrier = Carrier(60.0, 5.0, 8.0, 0, 256).render(EFFELSBERG, 0, 256)
    burst = Burst((130.0,), 6.0, 8.0).render(EFFELSBERG, 0, 256)
    assert features(frame_of(carrier + burst)).tracks.max() < 6


def test_a_carrier_shows_in_its_rows_and_a_burst_in_its_columns() -> None:
    carrier = features(frame_of(Carrier(60.0, 3.0, 2.0, 0, 256).render(EFFELSBERG, 0, 256)))
    burst = features(frame_of(Burst((130.0,), 3.0, 2.0).render(EFFELSBERG, 0, 256)))
    assert np.argmax(carrier.rows[0, 0]) in (59, 60, 61)
    assert np.argmax(burst.columns[0, 0]) in (129, 130, 131)


def test_a_dead_row_counts_as_on_its_reference() -> None:
    frame = frame_of()
    frame[0, 40] = 0
    sigma = SIGMA.copy()
    sigma[40] = 0
    made = features(frame, sigma=sigma)
    assert made.rows[0, 0, 40] == 0 and np.isfinite(made.image).all()


def test_repeated_rows_are_used_once() -> None:
    maker = FeatureMaker(np.repeat(Band(channels=64).frequency_mhz, 4))
    assert maker.row_weight.sum() == 64


def test_track_sums_of_nothing_are_nothing() -> None:
    assert not track_sums(np.zeros((2, 64, 64), np.float32)).any()


def pooled(count: int, level: np.ndarray | float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = rng.standard_normal((count, 256, 256)) + np.broadcast_to(np.asarray(level, float).reshape(-1, 1), (256, 1))
    return pool_samples((MEAN[:, None] + SIGMA[:, None] * cells).round().clip(0, 255).astype(np.uint8))


def started() -> RunningBandpass:
    bandpass = RunningBandpass(absorb=32)
    bandpass.start(pooled(1)[0])
    bandpass.update(pooled(32, seed=1))
    return bandpass


def test_the_bandpass_learns_level_and_noise() -> None:
    bandpass = started()
    assert np.abs(bandpass.mean - MEAN).max() < 1.5
    assert np.abs(bandpass.sigma / SIGMA - 1).max() < 0.15


def test_a_passing_carrier_is_not_learned() -> None:
    level = np.zeros(256)
    level[100:104] = 3
    bandpass = started()
    before = bandpass.mean[100:104]
    bandpass.update(pooled(16, level, seed=2))
    assert np.allclose(bandpass.mean[100:104], before)


def test_a_carrier_that_stays_becomes_bandpass() -> None:
    level = np.zeros(256)
    level[100:104] = 3
    bandpass = started()
    for seed in range(3):
        bandpass.update(pooled(16, level, seed=seed))
    assert np.abs(bandpass.mean[100:104] - (MEAN + 3 * SIGMA)[100:104]).max() < 2


def test_a_step_of_the_whole_band_is_learned_soon() -> None:
    bandpass = started()
    bandpass.update(pooled(16, 2.0, seed=3))
    assert np.abs(bandpass.mean - (MEAN + 2 * SIGMA)).max() < 3


def test_a_dead_row_has_no_noise() -> None:
    frame = pooled(1)[0]
    frame[7] = 400
    bandpass = RunningBandpass()
    bandpass.start(frame)
    assert bandpass.sigma[7] == 0


def test_samples_of_few_levels_are_learned() -> None:
    rng = np.random.default_rng(0)
    levels = (1.5 + rng.standard_normal((48, 256, 256))).round().clip(0, 3)
    sums = pool_samples((levels * 85).astype(np.uint8))
    bandpass = RunningBandpass()
    bandpass.start(sums[0])
    for start in range(1, 48, 8):
        bandpass.update(sums[start : start + 8])
    assert np.abs(bandpass.sigma / 85 / levels.std() - 1).max() < 0.2


def test_the_reference_of_a_frame_knows_nothing_of_later_frames() -> None:
    one, other = started(), started()
    assert np.array_equal(one.mean, other.mean)
    one.update(pooled(8, seed=4))
    assert not np.array_equal(one.mean, other.mean)
