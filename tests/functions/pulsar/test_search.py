"""Dedispersion confirms pulses, and nothing else."""

import numpy as np
import pytest

from functions.pulsar.band import EFFELSBERG
from functions.pulsar.clean import CleanFrame
from functions.pulsar.confirm import Confirmer, Event
from functions.pulsar.features import FeatureMaker
from functions.pulsar.interference import Burst, Carrier
from functions.pulsar.search import Search
from functions.pulsar.source import Pulse

MEAN, SIGMA = np.full(256, 120, np.float32), np.full(256, 15, np.float32)
MAKER = FeatureMaker(EFFELSBERG.frequency_mhz)


def search(dm_max: float = 500.0) -> Search:
    return Search(EFFELSBERG.frequency_mhz, EFFELSBERG.sampling_time_s, 7.0, 3.0, dm_max)


def frames_with(*components: Pulse | Carrier | Burst, frames: int = 12, seed: int = 0) -> list[np.ndarray]:
    cells = np.random.default_rng(seed).standard_normal((256, frames * 256), dtype=np.float32)
    for component in components:
        cells += component.render(EFFELSBERG, 0, frames * 256)
    counts = (MEAN[:, None] + SIGMA[:, None] * cells).round().clip(0, 255).astype(np.uint8)
    return [np.ascontiguousarray(counts[:, i * 256 : (i + 1) * 256]) for i in range(frames)]


def pulse_of(dm: float, snr: float, time_s: float = 0.06, width_s: float = 8e-4) -> Pulse:
    """A pulse whose signal-to-noise ratio over all of its sweep is `snr`."""
    pulse = Pulse(time_s, dm, width_s, spectral_index=0.0)
    cells = pulse.render(EFFELSBERG, 0, 12 * 256)
    return Pulse(time_s, dm, width_s, snr / float(np.sqrt((cells**2).sum())), spectral_index=0.0)


def events(frames: list[np.ndarray], suspects: set[int], dm_max: float = 500.0) -> list[Event]:
    confirmer = Confirmer(search(dm_max), MAKER)
    found = []
    for index, frame in enumerate(frames):
        found += confirmer.push(index, frame, MEAN, SIGMA, index in suspects)
    return [*found, *confirmer.flush()]


@pytest.mark.parametrize("dm, width_s", [(5.0, 4e-4), (20.0, 1e-3), (56.77, 3e-4), (120.0, 2e-3), (200.0, 1e-3)])
def test_a_pulse_is_measured(dm: float, width_s: float) -> None:
    frames = frames_with(pulse_of(dm, 20.0, width_s=width_s))
    (event,) = events(frames, {2, 3})
    assert event.time_s == pytest.approx(0.06, abs=1e-3)
    assert event.dm_pc_cm3 == pytest.approx(dm, abs=4 * event.dm_error_pc_cm3)
    assert event.dm_error_pc_cm3 < max(1.0, 0.05 * dm)
    assert 13 < event.snr < 24


def test_a_pulse_of_nine_sigmas_over_many_frames_is_found() -> None:
    (event,) = events(frames_with(pulse_of(150.0, 10.5, 0.05)), {4})
    assert event.dm_pc_cm3 == pytest.approx(150.0, abs=2.0)
    assert len(event.frames) >= 6
    assert sum(snr**2 for snr in event.frame_snr) == pytest.approx(event.snr**2, rel=0.1)


def test_frames_that_are_not_suspected_are_not_searched() -> None:
    assert events(frames_with(pulse_of(20.0, 30.0)), set()) == []


def test_a_pulse_over_several_suspects_is_one_event() -> None:
    assert len(events(frames_with(pulse_of(150.0, 30.0, 0.03)), {1, 2, 3, 6, 7})) == 1


def test_two_pulses_are_two_events() -> None:
    found = events(frames_with(pulse_of(57.0, 20.0, 0.03), pulse_of(57.0, 20.0, 0.09)), {1, 2, 3, 4, 5})
    assert sorted(round(event.time_s, 2) for event in found) == [0.03, 0.09]


@pytest.mark.parametrize("seed", range(3))
def test_noise_gives_no_event(seed: int) -> None:
    assert events(frames_with(seed=seed), set(range(12))) == []


def test_interference_gives_no_event() -> None:
    components = (
        Carrier(60.0, 4.0, 8.0, 300, 1400),
        Carrier(120.0, 2.0, 5.0, 0, 3072, period=40.0, duty=0.5),
        Carrier(200.0, 1.0, 6.0, 500, 2500, drift=8 / 256),
        Burst((700.0, 900.0), 8.0, 6.0, tilt=1.5),
        Burst((1500.0,), 5.0, 10.0, decaying=True, low=0.0, high=0.7),
        Burst((2000.0, 2040.0, 2080.0, 2120.0), 3.0, 4.0, low=0.2),
    )
    assert events(frames_with(*components), set(range(12))) == []


def test_an_upward_sweep_gives_no_event() -> None:
    sweep = Pulse(0.06, 40.0, 8e-4, 4.0, reversed_sweep=True)
    assert events(frames_with(sweep), set(range(12))) == []


def test_a_pulse_under_interference_is_found() -> None:
    frames = frames_with(pulse_of(57.0, 25.0), Carrier(60.0, 6.0, 8.0, 0, 3072), Burst((800.0,), 5.0, 6.0))
    assert any(abs(event.dm_pc_cm3 - 57.0) < 1 for event in events(frames, {2, 3, 4}))


def test_channels_rolled_at_random_hold_no_pulse() -> None:
    frames = np.concatenate(frames_with(pulse_of(57.0, 30.0)), axis=1)
    rng = np.random.default_rng(5)
    rolled = np.stack([np.roll(row, rng.integers(len(row))) for row in frames])
    pieces = [np.ascontiguousarray(rolled[:, i : i + 256]) for i in range(0, rolled.shape[1], 256)]
    assert events(pieces, set(range(12))) == []


def test_a_pulse_in_a_single_frame_is_found_from_its_part_of_the_track() -> None:
    pulse = Pulse(-0.02, 150.0, 8e-4, spectral_index=0.0)
    part = pulse.render(EFFELSBERG, 0, 256)
    loud = Pulse(-0.02, 150.0, 8e-4, 25 / float(np.sqrt((part**2).sum())), spectral_index=0.0)
    (event,) = events(frames_with(loud, frames=1), {0})
    assert event.dm_pc_cm3 == pytest.approx(150.0, abs=max(10.0, 4 * event.dm_error_pc_cm3))


def test_a_gap_in_the_frames_ends_what_was_known() -> None:
    confirmer = Confirmer(search(), MAKER)
    frames = frames_with(pulse_of(57.0, 30.0))
    found = list(confirmer.push(2, frames[2], MEAN, SIGMA, True))
    assert found == []
    found += confirmer.push(50, frames[3], MEAN, SIGMA, False)
    assert len(found) <= 1 and len(confirmer._held) == 1


def test_the_confirmer_holds_a_bounded_number_of_frames() -> None:
    confirmer = Confirmer(search(), MAKER)
    frame = frames_with(frames=1)[0]
    for index in range(400):
        list(confirmer.push(index, frame, MEAN, SIGMA, index % 50 == 0))
    assert len(confirmer._held) <= 2 * confirmer.search.reach + 19
    assert len(confirmer._clean) <= len(confirmer._held) + 1


def test_a_band_of_one_channel_is_not_searched() -> None:
    assert Search(np.full(256, 1400.0), 1e-4, 7.0, 3.0, 500.0).levels == 0


def test_bad_rows_are_left_out_of_a_clean_frame() -> None:
    frame = frames_with(Carrier(60.0, 2.0, 9.0, 0, 256, period=20.0, duty=0.5), frames=1)[0]
    clean = CleanFrame(frame, MEAN, SIGMA, MAKER)
    assert not clean.good[60] and clean.good.sum() > 240
    assert not clean.cells[60].any()


def test_what_lies_after_the_end_of_the_data_is_zero() -> None:
    clean = CleanFrame(frames_with(frames=1)[0], MEAN, SIGMA, MAKER, valid=100)
    assert not clean.cells[:, 100:].any() and clean.cells[:, :100].any()
