"""Labelled frames, each from an observation of its own: what the classifier learns from and is judged on.

A frame's components are added in sigma before its one realisation of noise and before quantisation; nothing is
scaled afterwards. Its reference is the bandpass as a running estimate would know it from past frames, with its error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Flags, Floats, Samples
from functions.pulsar.band import EFFELSBERG, Band
from functions.pulsar.frames import SAMPLES
from functions.pulsar.interference import Burst, Carrier, Fault
from functions.pulsar.labels import CLASSES, COMPONENTS, SNR_MIN, components_of
from functions.pulsar.scene import THEORETICAL, Model, draw_other, log_uniform, sweep_samples, track_inside
from functions.pulsar.source import Pulse


@dataclass(frozen=True)
class Population:
    """What frames are drawn from."""

    models: tuple[Model, ...] = (THEORETICAL,)
    bands: tuple[Band, ...] = (EFFELSBERG,)
    """The first one for `first_band` of the frames, the others in equal parts for the rest."""
    first_band: float = 1.0
    pulse_snr: tuple[float, float] = (SNR_MIN, 50.0)
    """In-frame signal-to-noise ratio, log-uniform."""
    dm_pc_cm3: tuple[float, float] = (5.0, 500.0)
    """In the first band; in others the range that sweeps through them in as many samples."""
    uniform_dm: float = 0.0
    """Part of the pulses whose DM is uniform instead of log-uniform."""


@dataclass(frozen=True)
class LabelledFrame:
    """One frame with its truth."""

    frame: Samples
    """Shape (256, 256)."""
    reference_mean: Floats
    """Shape (256,), counts."""
    reference_sigma: Floats
    present: Flags
    """Which COMPONENTS are there, shape (4,)."""
    snr: float
    """In-frame signal-to-noise ratio of the pulse, 0 without one."""
    dm_pc_cm3: float
    width_s: float
    band: Band
    model: str


def draw_frame(population: Population, class_name: str, rng: np.random.Generator) -> LabelledFrame:
    """A frame of the given class."""
    model = population.models[int(rng.integers(len(population.models)))]
    band = population.bands[0]
    if len(population.bands) > 1 and rng.random() >= population.first_band:
        band = population.bands[1 + int(rng.integers(len(population.bands) - 1))]
    receiver = model.draw_receiver(band, rng, 8)
    present = components_of(class_name)
    first = int(rng.integers(1 << 20))
    cells = receiver.noise(SAMPLES, rng)
    snr = dm = width = 0.0
    fault = None
    if present[0]:
        low, high = population.dm_pc_cm3
        dm = float(rng.uniform(low, high)) if rng.random() < population.uniform_dm else log_uniform(rng, low, high)
        dm *= _sweep_of_unit_dm(population.bands[0]) / _sweep_of_unit_dm(band)
        pulse = placed(model.draw_pulse(band, dm, rng), band, rng)
        excess = pulse.render(band, 0, SAMPLES)
        snr = log_uniform(rng, *population.pulse_snr)
        cells += excess * np.float32(snr / max(in_frame_snr(excess), 1e-6))
        width = pulse.width_s
    if present[1]:
        for _ in range(1 if rng.random() < 0.7 else int(rng.integers(2, 5))):
            cells += _visible_carrier(model, band, rng)
    if present[2]:
        cells += _visible_burst(model, band, rng)
    if present[3]:
        other = draw_other(band, 0, SAMPLES, rng)
        if isinstance(other, Pulse):
            excess = placed(other, band, rng).render(band, 0, SAMPLES)
            cells += excess * np.float32(log_uniform(rng, 10, 50) / max(in_frame_snr(excess), 1e-6))
        else:
            fault = other
    counts = receiver.counts(cells, first)
    if isinstance(fault, Fault):
        fault.distort(counts, receiver.sigma[:, None], 0, receiver.full_scale)
    frame = receiver.quantise(counts).astype(np.uint8)
    past = log_uniform(rng, 1, 128)
    error = rng.standard_normal(len(receiver.mean)) / np.sqrt(SAMPLES * past)
    spread = 1 + rng.standard_normal(len(receiver.mean)) / np.sqrt(SAMPLES * past / 4)
    drift = receiver.drift(first - int(past * SAMPLES / 2) - SAMPLES, 1)[0]
    sigma = np.sqrt(receiver.sigma**2 + 1 / 12)
    return LabelledFrame(
        frame=frame,
        reference_mean=(receiver.mean + sigma * (error + drift)).astype(np.float32),
        reference_sigma=(sigma * spread).astype(np.float32),
        present=present,
        snr=snr,
        dm_pc_cm3=dm,
        width_s=width,
        band=band,
        model=model.name,
    )


def draw_frames(population: Population, classes: Sequence[str], rng: np.random.Generator) -> list[LabelledFrame]:
    """One frame for each name in `classes`."""
    return [draw_frame(population, name, rng) for name in classes]


def balanced(count: int, rng: np.random.Generator) -> list[str]:
    """`count` class names, the nine classes in equal parts, shuffled."""
    names = [CLASSES[i % len(CLASSES)] for i in range(count)]
    return [names[i] for i in rng.permutation(count)]


def in_frame_snr(excess: Floats) -> float:
    """Matched-filter signal-to-noise ratio of an excess in units of sigma: sqrt(sum s^2).

    >>> in_frame_snr(np.full((2, 8), 0.5, np.float32))
    2.0
    """
    return float(np.sqrt(np.sum(np.square(excess, dtype=np.float32), dtype=np.float64)))


def placed(pulse: Pulse, band: Band, rng: np.random.Generator) -> Pulse:
    """The pulse at a random time such that enough of its track lies in the frame that begins at sample 0."""
    sweep = sweep_samples(pulse, band)
    while True:
        time_s = float(rng.uniform(-sweep, SAMPLES)) * band.sampling_time_s
        moved = Pulse(**{**vars(pulse), "time_s": time_s})
        if track_inside(moved, band, 0) and in_frame_snr(moved.render(band, 0, SAMPLES)) > 0:
            return moved


def _sweep_of_unit_dm(band: Band) -> float:
    return sweep_samples(Pulse(0.0, 1.0, band.sampling_time_s), band)


def _visible_carrier(model: Model, band: Band, rng: np.random.Generator) -> Floats:
    while True:
        length = SAMPLES if rng.random() < 0.6 else int(rng.integers(48, SAMPLES))
        start = int(rng.integers(0, SAMPLES - length + 1))
        carrier = model.draw_carrier(band, start, length, rng)
        assert isinstance(carrier, Carrier)
        excess = carrier.render(band, 0, SAMPLES)
        if in_frame_snr(excess) >= 1.5 * SNR_MIN:
            return excess


def _visible_burst(model: Model, band: Band, rng: np.random.Generator) -> Floats:
    while True:
        burst = model.draw_burst(band, 0, SAMPLES, rng)
        assert isinstance(burst, Burst)
        excess = burst.render(band, 0, SAMPLES)
        if in_frame_snr(excess) >= 1.5 * SNR_MIN:
            return excess


def labels_of(frames: Sequence[LabelledFrame]) -> Flags:
    """The truth of `frames`, shape (n, 4) in the order of COMPONENTS."""
    return np.array([frame.present for frame in frames]).reshape(-1, len(COMPONENTS))
