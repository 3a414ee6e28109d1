"""What may happen in a dynamic spectrum, drawn at random: the theoretical model's populations.

Ranges are the ones that the classifier is trained and judged on: pulses of DM 5 to 500 pc/cm^3 and 3 to 30 samples,
interference of 1 to 10 sigma in a cell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from functions.pulsar.band import Band
from functions.pulsar.frames import SAMPLES
from functions.pulsar.interference import Burst, Carrier, Fault, Interference
from functions.pulsar.receiver import Receiver, draw_receiver
from functions.pulsar.source import Pulse, scattering_time_s

RFI_SIGMA = (1.0, 10.0)
"""Amplitude of interference in one cell, in sigmas of the noise; log-uniform."""

PULSE_SAMPLES = (3.0, 30.0)
"""Intrinsic full width at half maximum of a pulse, samples; log-uniform."""

Draw = Callable[[Band, int, int, np.random.Generator], Interference]


@dataclass(frozen=True)
class Model:
    """A generator: how its receivers, pulses and interference are drawn.

    `draw_carrier` and `draw_burst` take band, first sample, number of samples in which the component lies, and rng.
    """

    name: str
    draw_receiver: Callable[[Band, np.random.Generator, int], Receiver]
    draw_carrier: Draw
    draw_burst: Draw
    draw_pulse: Callable[[Band, float, np.random.Generator], Pulse]
    """Band, DM and rng -> a pulse of unit amplitude at time 0."""


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between `low` and `high` whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def sweep_samples(pulse: Pulse, band: Band) -> float:
    """Delay of the pulse from the highest to the lowest channel, samples."""
    arrivals = pulse.arrivals(band)
    return float(abs(arrivals[-1] - arrivals[0]))


def track_inside(pulse: Pulse, band: Band, first: int) -> bool:
    """Whether enough of a pulse's track lies in the frame that begins at sample `first` for the frame to be a pulse.

    Enough is a quarter of what can lie inside at most, min(sweep, frame); what only clips a corner is no pulse.
    """
    arrivals = pulse.arrivals(band)
    low, high = float(arrivals.min()), float(arrivals.max())
    inside = min(high, first + SAMPLES) - max(low, first)
    return inside >= 0.25 * min(high - low, SAMPLES) and inside >= 0


def physical_pulse(band: Band, dm: float, rng: np.random.Generator) -> Pulse:
    """A pulse as the interstellar medium leaves it: smeared, often scattered, sometimes scintillating."""
    centre = band.centre_mhz
    scattering = scattering_time_s(dm, centre) * 10 ** rng.normal(0, 0.7)
    visible = 0.5 * band.sampling_time_s < scattering
    scintillates = rng.random() < 0.25
    return Pulse(
        time_s=0.0,
        dm_pc_cm3=dm,
        width_s=log_uniform(rng, *PULSE_SAMPLES) * band.sampling_time_s,
        scattering_s=min(scattering, 20 * band.sampling_time_s) if visible else 0.0,
        spectral_index=float(rng.normal(-1.6, 0.7)),
        scintillation_mhz=log_uniform(rng, 0.02, 0.2) * band.bandwidth_mhz if scintillates else 0.0,
        scintillation_seed=int(rng.integers(1 << 31)),
    )


def physical_carrier(band: Band, first: int, samples: int, rng: np.random.Generator) -> Carrier:
    """Satellite and ground transmitters: 1 to 7 channels, at times a band of up to 28; constant, keyed or drifting."""
    kind = rng.random()
    wide = rng.random() < 0.15
    width = log_uniform(rng, 7, 28) if wide else log_uniform(rng, 1, 7)
    width *= band.channels / 256
    keyed = 0.4 < kind < 0.75
    return Carrier(
        channel=float(rng.uniform(0, band.channels - 1)),
        width=max(width, 1.0),
        amplitude=log_uniform(rng, *RFI_SIGMA),
        start=first,
        stop=first + samples,
        period=log_uniform(rng, 16, 256) if keyed else 0.0,
        duty=float(rng.uniform(0.3, 0.8)) if keyed else 1.0,
        phase=float(rng.random()),
        drift=float(rng.uniform(-3, 3)) / SAMPLES * band.channels / 256 if kind >= 0.75 else 0.0,
        gaussian=bool(rng.random() < 0.3),
    )


def physical_burst(band: Band, first: int, samples: int, rng: np.random.Generator) -> Burst:
    """Radar (regular bursts), lightning (clusters with decay), ignition (spikes), single flashes."""
    kind = rng.random()
    amplitude = log_uniform(rng, *RFI_SIGMA)
    tilt = float(rng.uniform(-1.5, 1.5))
    low, high = (0.0, 1.0) if rng.random() < 0.75 else sorted((float(rng.uniform(0, 0.2)), float(rng.uniform(0.7, 1))))
    where = (low, high) if rng.random() < 0.5 else (1 - high, 1 - low)
    if kind < 0.45:
        times: tuple[float, ...] = (float(rng.uniform(first, first + samples)),)
        return Burst(times, log_uniform(rng, 1, 16), amplitude, False, tilt, *where)
    if kind < 0.65:
        period = log_uniform(rng, 20, 150)
        count = int(rng.integers(2, 8))
        onset = rng.uniform(first, first + max(samples - period, 1))
        times = tuple(float(onset + i * period) for i in range(count))
        return Burst(times, log_uniform(rng, 1, 6), amplitude, False, tilt, *where)
    count = int(rng.integers(1, 6))
    times = tuple(float(time) for time in np.sort(rng.uniform(first, first + samples, count)))
    if kind < 0.85:
        return Burst(times, log_uniform(rng, 2, 16), amplitude, True, tilt, *where)
    return Burst(times, 1.0, amplitude, False, tilt, *where)


def draw_other(band: Band, first: int, samples: int, rng: np.random.Generator) -> Pulse | Fault:
    """What is neither: a sweep that rises in frequency (unit amplitude), a dropout, a gain step, saturation."""
    kind = rng.random()
    start = int(first + rng.uniform(0, 0.7) * samples)
    stop = min(first + samples, start + int(log_uniform(rng, 16, max(17, samples))))
    if kind < 0.4:
        pulse = physical_pulse(band, log_uniform(rng, 5, 500), rng)
        return Pulse(**{**vars(pulse), "reversed_sweep": True})
    if kind < 0.6:
        return Fault("dropout", start, stop, float(rng.uniform(0, 0.4)))
    if kind < 0.8:
        return Fault("gain", start, first + samples, float(rng.choice([-1, 1])) * log_uniform(rng, 0.5, 4))
    return Fault("saturation", start, stop)


def physical_receiver(band: Band, rng: np.random.Generator, bits: int = 8) -> Receiver:
    return draw_receiver(band, rng, bits)


THEORETICAL = Model("theoretical", physical_receiver, physical_carrier, physical_burst, physical_pulse)
