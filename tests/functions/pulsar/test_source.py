"""Pulses, interference and the receiver obey their formulas."""

import numpy as np
import pytest

from functions.pulsar.band import EFFELSBERG, Band
from functions.pulsar.dispersion import delay_s
from functions.pulsar.interference import Burst, Carrier, Fault
from functions.pulsar.receiver import Receiver, draw_receiver, radiometer_sigma_jy
from functions.pulsar.source import Pulsar, Pulse, impact_angle, scattering_time_s, scintles

RNG = np.random.default_rng


def arrival(row: np.ndarray) -> float:
    return float(np.sum(row * np.arange(len(row))) / np.sum(row))


def test_a_pulse_arrives_in_each_channel_after_its_delay() -> None:
    pulse = Pulse(0.01, 56.77, 5e-4)
    cells = pulse.render(EFFELSBERG, 0, 1024)
    for channel in (0, 100, 255):
        expected = 0.01 + float(delay_s(56.77, EFFELSBERG.frequency_mhz[channel], EFFELSBERG.frequency_mhz[0]))
        assert arrival(cells[channel]) * EFFELSBERG.sampling_time_s == pytest.approx(expected, abs=2e-5)


def test_a_pulse_is_the_same_whether_rendered_whole_or_in_frames() -> None:
    for scattering in (0.0, 1e-3):
        pulse = Pulse(0.02, 120.0, 1e-3, 3.0, scattering_s=scattering, scintillation_mhz=20.0, scintillation_seed=4)
        whole = pulse.render(EFFELSBERG, 0, 2048)
        parts = np.concatenate([pulse.render(EFFELSBERG, first, 256) for first in range(0, 2048, 256)], axis=1)
        assert np.allclose(whole, parts, atol=0.05)


def test_smearing_and_scattering_conserve_the_fluence() -> None:
    plain = Pulse(0.02, 0.01, 1e-3, spectral_index=0.0).render(EFFELSBERG, 0, 4096)[128].sum()
    smeared = Pulse(0.02, 300.0, 1e-3, spectral_index=0.0).render(EFFELSBERG, 0, 4096)[128].sum()
    scattered = Pulse(0.02, 300.0, 1e-3, spectral_index=0.0, scattering_s=2e-3).render(EFFELSBERG, 0, 4096)[128].sum()
    assert smeared == pytest.approx(plain, rel=0.01)
    assert scattered == pytest.approx(plain, rel=0.02)


def test_scattering_delays_the_centre_by_its_time_and_grows_as_the_fourth_power() -> None:
    plain = Pulse(0.02, 10.0, 1e-3).render(EFFELSBERG, 0, 4096)
    late = Pulse(0.02, 10.0, 1e-3, scattering_s=2e-3).render(EFFELSBERG, 0, 4096)
    shift = [(arrival(late[c]) - arrival(plain[c])) * EFFELSBERG.sampling_time_s for c in (0, 255)]
    ratio = (EFFELSBERG.frequency_mhz[0] / EFFELSBERG.frequency_mhz[255]) ** 4
    assert shift[1] / shift[0] == pytest.approx(ratio, rel=0.05)


def test_an_upward_sweep_arrives_in_the_lowest_channel_first() -> None:
    arrivals = Pulse(0.0, 50.0, 1e-3, reversed_sweep=True).arrivals(EFFELSBERG)
    assert arrivals[-1] == pytest.approx(0.0) and arrivals[0] > 500


def test_a_scattered_pulse_of_a_low_band_is_rendered_in_bounded_memory() -> None:
    band = Band(350.0, 100.0, 256, 81.92e-6)
    pulse = Pulse(0.0, 500.0, 1e-3, scattering_s=1e-3)
    assert pulse.render(band, 40_000, 256).shape == (256, 256)


def test_scintles_have_mean_one_and_full_modulation() -> None:
    gains = np.concatenate([scintles(10.0, EFFELSBERG, RNG(seed)) for seed in range(300)])
    assert gains.mean() == pytest.approx(1.0, abs=0.05)
    assert gains.std() == pytest.approx(1.0, abs=0.1)


def test_scattering_time_falls_with_frequency() -> None:
    ratio = scattering_time_s(100.0, 700.0) / scattering_time_s(100.0, 1400.0)
    assert ratio == pytest.approx(2**3.86, rel=1e-9)


def test_the_lighthouse_is_nearest_at_phase_zero() -> None:
    phases = np.linspace(-np.pi, np.pi, 101)
    angles = impact_angle(phases, 1.0, -0.05)
    assert int(np.argmin(angles)) == 50 and angles.min() == pytest.approx(0.05)


def test_a_rotating_pulsar_pulses_once_a_period_but_for_nulls() -> None:
    pulses = Pulsar(0.0338, 56.77, nulling=0.1).pulses(60.0, 1.0, RNG(0))
    assert len(pulses) / (60 / 0.0338) == pytest.approx(0.9, abs=0.05)
    spacing = np.diff([pulse.time_s for pulse in pulses])
    assert np.median(spacing) == pytest.approx(0.0338, rel=0.02)


def test_pulse_energies_are_log_normal() -> None:
    energies = np.log10([p.amplitude for p in Pulsar(0.01, 10.0, energy_scatter=0.3).pulses(60.0, 2.0, RNG(1))])
    assert energies.mean() == pytest.approx(np.log10(2.0), abs=0.02)
    assert energies.std() == pytest.approx(0.3, abs=0.02)


def test_the_radiometer_noise_falls_with_the_root_of_band_and_time() -> None:
    assert radiometer_sigma_jy(100, 400, 1e-3) == pytest.approx(radiometer_sigma_jy(100, 100, 1e-3) / 2)


def test_receiver_noise_has_unit_variance_and_the_skewness_asked_for() -> None:
    receiver = Receiver(np.full(64, 100, np.float32), np.full(64, 10, np.float32), 0.125)
    noise = receiver.noise(20_000, RNG(2))
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    assert float(np.mean(noise**3)) == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_digitiser_uses_its_range_without_much_clipping(bits: int) -> None:
    receiver = draw_receiver(EFFELSBERG, RNG(3), bits)
    counts = receiver.quantise(receiver.counts(receiver.noise(2048, RNG(4)), 0))
    middle = counts[100:150]
    assert middle.std() > 0.3
    assert np.mean((middle == 0) | (middle == (1 << bits) - 1)) < (0.02 if bits >= 8 else 1.01)


def test_a_carrier_stays_in_its_channels_and_times() -> None:
    cells = Carrier(100.0, 3.0, 5.0, 50, 150).render(EFFELSBERG, 0, 256)
    assert cells[99:102, 50:150].min() == 5.0
    assert cells[:97].max() == cells[104:].max() == cells[:, :50].max() == cells[:, 150:].max() == 0


def test_a_keyed_carrier_is_on_for_its_duty() -> None:
    cells = Carrier(100.0, 1.0, 1.0, 0, 10_000, period=100.0, duty=0.3).render(EFFELSBERG, 0, 10_000)
    assert cells[100].mean() == pytest.approx(0.3, abs=0.01)


def test_a_drifting_carrier_moves() -> None:
    cells = Carrier(100.0, 1.0, 1.0, 0, 256, drift=10 / 256).render(EFFELSBERG, 0, 256)
    assert abs(int(np.argmax(cells[:, 255])) - int(np.argmax(cells[:, 0]))) == 10


def test_a_burst_is_in_all_channels_at_once() -> None:
    cells = Burst((100.0,), 4.0, 6.0).render(EFFELSBERG, 0, 256)
    assert (np.argmax(cells, axis=1) == 100).all()
    assert cells[:, 100].min() == pytest.approx(6.0)


def test_a_decaying_burst_has_a_sharp_onset() -> None:
    profile = Burst((100.0,), 10.0, 6.0, decaying=True).render(EFFELSBERG, 0, 256)[0]
    assert profile[99] == 0 and profile[100] == pytest.approx(6.0) and profile[110] == pytest.approx(6 / np.e, rel=0.01)


@pytest.mark.parametrize("kind, level", [("dropout", 20.0), ("gain", 120.0), ("saturation", 255.0)])
def test_a_fault_changes_the_level_of_all_channels_for_its_time(kind: str, level: float) -> None:
    counts = np.full((256, 256), 100, np.float32)
    strength = {"dropout": 0.2, "gain": 2.0, "saturation": 0.0}[kind]
    Fault(kind, 1050, 1100, strength).distort(counts, np.full((256, 1), 10, np.float32), 1000, 255.0)
    assert (counts[:, 50:100] == level).all() and (counts[:, :50] == 100).all() and (counts[:, 100:] == 100).all()


def test_a_band_leaves_no_room_below_zero() -> None:
    with pytest.raises(ValueError, match="bandwidth_mhz"):
        Band(100.0, 300.0)
