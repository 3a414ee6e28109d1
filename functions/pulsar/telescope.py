"""An observation of the twin: what happens in it is drawn at first, then it is observed block by block.

Memory is that of one block and of the list of what happens, whatever the length.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from functions.pulsar.arrays import Floats, Samples
from functions.pulsar.band import Band
from functions.pulsar.frames import SAMPLES
from functions.pulsar.interference import Burst, Carrier, Fault
from functions.pulsar.labels import COMPONENTS, SNR_MIN, class_name
from functions.pulsar.observation import pack
from functions.pulsar.receiver import Receiver
from functions.pulsar.scene import Model, draw_other, log_uniform, sweep_samples, track_inside
from functions.pulsar.source import Pulsar, Pulse


@dataclass(frozen=True)
class Rates:
    """What happens how often; counts are per minute."""

    pulses: float
    nbrfi: float
    bbrfi: float
    other: float
    dm_pc_cm3: tuple[float, float]
    pulse_snr: tuple[float, float]
    period_s: float = 0.0
    pulsar_dm_pc_cm3: float = 56.77
    pulsar_snr: float = 8.0


@dataclass
class Happening:
    """A component with what it left in each frame, by the label it causes."""

    label: int
    """Position in COMPONENTS."""
    component: Pulse | Carrier | Burst | Fault
    start: int
    stop: int
    """Samples that it touches."""
    frame_snr: dict[int, float]


@dataclass(frozen=True)
class Plan:
    """An observation before it is observed."""

    model: str
    band: Band
    frames: int
    receiver: Receiver
    happenings: list[Happening]
    """In order of their first sample."""


def draw_plan(model: Model, band: Band, frames: int, rates: Rates, bits: int, rng: np.random.Generator) -> Plan:
    """Draw an observation of `frames` frames."""
    receiver = model.draw_receiver(band, rng, bits)
    total = frames * SAMPLES
    minutes = total * band.sampling_time_s / 60
    found: list[tuple[int, Pulse | Carrier | Burst | Fault]] = []
    count = max(1, round(rates.pulses * minutes)) if rates.pulses else 0
    for number in range(count):
        pulse = model.draw_pulse(band, log_uniform(rng, *rates.dm_pc_cm3), rng)
        # spread over the observation, so that few overlap; all of a sweep lies inside if it can
        room = max(0.0, total - sweep_samples(pulse, band))
        at = (number + rng.uniform(0.1, 0.9)) / count * room * band.sampling_time_s
        pulse = replace(pulse, time_s=float(at))
        found.append(
            (0, replace(pulse, amplitude=log_uniform(rng, *rates.pulse_snr) / _best_frame(pulse, band, total)))
        )
    if rates.period_s:
        pulsar = Pulsar(rates.period_s, rates.pulsar_dm_pc_cm3)
        middle = Pulse(total * band.sampling_time_s / 2, pulsar.dm_pc_cm3, pulsar.width_s)
        amplitude = rates.pulsar_snr / _best_frame(middle, band, total)
        found += [(0, pulse) for pulse in pulsar.pulses(total * band.sampling_time_s, amplitude, rng)]
    for _ in range(rng.poisson(rates.nbrfi * minutes)):
        length = int(log_uniform(rng, 0.2, 8) * SAMPLES)
        found.append((1, model.draw_carrier(band, int(rng.integers(0, total)), length, rng)))
    for _ in range(rng.poisson(rates.bbrfi * minutes)):
        found.append((2, model.draw_burst(band, int(rng.integers(0, total)), SAMPLES, rng)))
    for _ in range(rng.poisson(rates.other * minutes)):
        found.append((3, _other(band, int(rng.integers(0, total)), total, rng)))
    happenings = [Happening(label, component, *component.extent(band), {}) for label, component in found]
    happenings.sort(key=lambda happening: (happening.start, happening.label))
    return Plan(model.name, band, frames, receiver, happenings)


def _other(band: Band, first: int, total: int, rng: np.random.Generator) -> Pulse | Fault:
    other = draw_other(band, first, SAMPLES, rng)
    if isinstance(other, Pulse):
        other = replace(other, time_s=first * band.sampling_time_s)
        return replace(other, amplitude=log_uniform(rng, 10, 50) / _best_frame(other, band, total))
    return other


def _best_frame(pulse: Pulse, band: Band, total: int) -> float:
    """Largest in-frame signal-to-noise ratio of a pulse among the frames of the observation, at amplitude as given."""
    low, high = pulse.extent(band)
    first = max(0, low) // SAMPLES
    last = min(total, high) // SAMPLES + 1
    best = 1e-6
    for frame in range(first, min(last, first + 4096)):
        cells = pulse.render(band, frame * SAMPLES, SAMPLES)
        best = max(best, float(np.sqrt(np.sum(np.square(cells), dtype=np.float64))))
    return best


def observe(plan: Plan, frames_per_block: int, rng: np.random.Generator) -> Iterator[Samples]:
    """Yield (samples, channels) blocks, the highest channel first; fills in the plan's `frame_snr` on the way."""
    waiting = list(reversed(plan.happenings))
    active: list[Happening] = []
    for first_frame in range(0, plan.frames, frames_per_block):
        count = min(frames_per_block, plan.frames - first_frame)
        first, samples = first_frame * SAMPLES, count * SAMPLES
        cells = plan.receiver.noise(samples, rng)
        while waiting and waiting[-1].start < first + samples:
            active.append(waiting.pop())
        active = [happening for happening in active if happening.stop > first]
        for happening in active:
            _add(happening, plan.band, cells, first)
        counts = plan.receiver.counts(cells, first)
        for happening in active:
            if isinstance(happening.component, Fault):
                happening.component.distort(counts, plan.receiver.sigma[:, None], first, plan.receiver.full_scale)
        yield np.ascontiguousarray(plan.receiver.quantise(counts).T)


def _add(happening: Happening, band: Band, cells: Floats, first: int) -> None:
    """Add a component to the block of cells that begins at sample `first`, and note its strength in each frame."""
    component = happening.component
    block_frames = cells.shape[1] // SAMPLES
    low = max(0, (happening.start - first) // SAMPLES)
    high = min(block_frames, -(-(happening.stop - first) // SAMPLES))
    for frame in range(low, high):
        begin = first + frame * SAMPLES
        if isinstance(component, Fault):
            inside = min(component.stop, begin + SAMPLES) - max(component.start, begin)
            if inside >= 8:
                happening.frame_snr[begin // SAMPLES] = float("inf")
            continue
        excess = component.render(band, begin, SAMPLES)
        power = float(np.sum(np.square(excess), dtype=np.float64))
        if power > 0:
            cells[:, frame * SAMPLES : (frame + 1) * SAMPLES] += excess
            happening.frame_snr[begin // SAMPLES] = float(np.sqrt(power))


def to_bytes(spectra: Samples, bits: int) -> bytes:
    """Samples as a filterbank stores them."""
    if bits == 16:
        return np.ascontiguousarray(spectra, dtype="<u2").tobytes()
    contiguous = np.ascontiguousarray(spectra, dtype=np.uint8)
    return contiguous.tobytes() if bits == 8 else pack(contiguous, bits).tobytes()


def truth(plan: Plan) -> dict[str, Any]:
    """The truth of an observed plan, frame by frame and pulse by pulse."""
    power = np.zeros((plan.frames, len(COMPONENTS)))
    for happening in plan.happenings:
        for frame, value in happening.frame_snr.items():
            if happening.label == 0 and isinstance(happening.component, Pulse):
                if not track_inside(happening.component, plan.band, frame * SAMPLES):
                    continue  # it clips a corner only
                power[frame, 0] = max(power[frame, 0], value**2)
            else:
                power[frame, happening.label] += value**2
    snr = np.sqrt(power)
    present = snr >= SNR_MIN
    frame_s = SAMPLES * plan.band.sampling_time_s
    frames = []
    for index in range(plan.frames):
        name = class_name(present[index])
        parts = ["other"] if name == "other" else [part for part in name.split("+") if part != "none"]
        entry: dict[str, Any] = {"index": index, "start_s": round(index * frame_s, 9), "label": name, "labels": parts}
        if snr[index, 0] > 0:
            entry["pulse_snr"] = round(float(snr[index, 0]), 3)
        frames.append(entry)
    return {"frame_s": frame_s, "frames": frames, "pulses": [_pulse(h, plan.band) for h in _pulses(plan)]}


def _pulses(plan: Plan) -> list[Happening]:
    return [happening for happening in plan.happenings if happening.label == 0 and happening.frame_snr]


def _pulse(happening: Happening, band: Band) -> dict[str, Any]:
    pulse = happening.component
    assert isinstance(pulse, Pulse)
    values = happening.frame_snr
    return {
        "time_s": round(pulse.time_s, 9),
        "dm_pc_cm3": round(pulse.dm_pc_cm3, 4),
        "snr": round(float(np.sqrt(sum(value**2 for value in values.values()))), 3),
        "in_frame_snr": round(max(values.values()), 3),
        "width_s": round(pulse.width_s, 9),
        "scattering_s": round(pulse.scattering_s, 9),
        "sweep_s": round(sweep_samples(pulse, band) * band.sampling_time_s, 9),
        "frames": sorted(values),
    }
