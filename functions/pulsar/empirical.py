"""The empirical generator: it resynthesises what was measured on frames, with no physics of its own.

`learn` measures a frames file: the bandpass and its noise (sigma, skewness, lag-1 autocorrelation), and the stripes
that stand out of it: position, width, strength and duty of horizontal ones (narrow-band), width and strength of
vertical ones (broad-band). `empirical_model` draws from these. Without a file it uses `PUBLISHED`, the uniform
ranges of the generator that the ML-PPA group published: Gaussian stripes of 0.2 to 15 pixels over all of a frame.
"""

from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Flags, Floats
from functions.pulsar.band import Band
from functions.pulsar.frames import FramesFile
from functions.pulsar.interference import Burst, Carrier
from functions.pulsar.receiver import Receiver
from functions.pulsar.scene import PULSE_SAMPLES, RFI_SIGMA, Model, log_uniform
from functions.pulsar.source import Pulse

MAX_LEARNED_FRAMES = 512
STRIPE_SIGMA = 5.0
"""A row or column stands out when its mean over the frame does by this many standard errors."""


@dataclass(frozen=True)
class Template:
    """What was measured; arrays of stripes hold one row for each."""

    mean: Floats
    """Bandpass, counts, shape (256,)."""
    sigma: Floats
    skewness: float
    autocorrelation: float
    carriers: Floats
    """Shape (n, 4): centre (0 to 1, from the top), width (fraction of the band), amplitude (sigma), duty."""
    bursts: Floats
    """Shape (m, 2): width (samples), amplitude (sigma)."""


def _published() -> Template:
    rng = np.random.default_rng(59000)
    count = 512
    carriers = np.stack(
        [
            rng.uniform(0, 1, count),
            rng.uniform(0.2, 15, count) / 256,
            np.exp(rng.uniform(np.log(RFI_SIGMA[0]), np.log(RFI_SIGMA[1]), count)),
            np.ones(count),
        ],
        axis=1,
    )
    strengths = np.exp(rng.uniform(np.log(RFI_SIGMA[0]), np.log(RFI_SIGMA[1]), count))
    bursts = np.stack([rng.uniform(0.2, 15, count), strengths], axis=1)
    position = np.linspace(-1, 1, 256)
    shape = (1 - 0.1 * position**2) / (1 + np.exp((np.abs(position) - 0.98) / 0.01))
    return Template(
        mean=(120 * np.clip(shape, 0.3, None)).astype(np.float32),
        sigma=(18 * np.clip(shape, 0.3, None)).astype(np.float32),
        skewness=0.125,
        autocorrelation=0.0,
        carriers=carriers.astype(np.float32),
        bursts=bursts.astype(np.float32),
    )


def learn(frames: FramesFile) -> Template:
    """Measure a frames file: at most 512 frames, spread over it."""
    stride = max(1, -(-len(frames) // MAX_LEARNED_FRAMES))
    chosen = np.concatenate([frames.read(i, i + 1) for i in range(0, len(frames), stride)]).astype(np.float32)
    mean = np.median(chosen, axis=(0, 2))
    sigma = np.clip(1.4826 * np.median(np.abs(chosen - mean[:, None]), axis=(0, 2)), 0.5, None)
    z = (chosen - mean[:, None]) / sigma[:, None]
    quiet = z[:, (np.abs(z).max(axis=(0, 2)) < 6)] if (np.abs(z).max(axis=(0, 2)) < 6).any() else np.clip(z, -4, 4)
    carriers = [stripe for frame in z for stripe in _horizontal(frame)]
    bursts = [stripe for frame in z for stripe in _vertical(frame)]
    published = PUBLISHED
    return Template(
        mean=mean.astype(np.float32),
        sigma=sigma.astype(np.float32),
        skewness=float(np.clip(np.mean(quiet**3), -1, 1)),
        autocorrelation=float(np.clip(np.mean(quiet[..., 1:] * quiet[..., :-1]), 0, 0.6)),
        carriers=np.array(carriers, np.float32) if carriers else published.carriers,
        bursts=np.array(bursts, np.float32) if bursts else published.bursts,
    )


def _runs(above: Flags) -> list[tuple[int, int]]:
    """Start and end of each run of True.

    >>> _runs(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _horizontal(z: Floats) -> list[tuple[float, float, float, float]]:
    rows = z.mean(axis=1)
    stripes = []
    for low, high in _runs(rows * np.sqrt(z.shape[1]) > STRIPE_SIGMA):
        if high - low > 48:
            continue  # most of the band is no narrow-band stripe
        profile = z[low:high].mean(axis=0)
        level = np.quantile(profile, 0.9)
        duty = float(np.mean(profile > level / 2)) if level > 0 else 1.0
        stripes.append(((low + high) / 2 / len(z), (high - low) / len(z), float(np.clip(level, *RFI_SIGMA)), duty))
    return stripes


def _vertical(z: Floats) -> list[tuple[float, float]]:
    columns = np.median(z, axis=0)
    noise = 1.2533 / np.sqrt(len(z))
    return [
        (float(high - low), float(np.clip(columns[low:high].max(), *RFI_SIGMA)))
        for low, high in _runs(columns > STRIPE_SIGMA * noise)
        if high - low <= 48
    ]


PUBLISHED = _published()


def empirical_model(template: Template = PUBLISHED) -> Model:
    """A generator that draws receivers and interference from `template`, and pulses as plain Gaussian tracks."""

    def receiver(band: Band, rng: np.random.Generator, bits: int = 8) -> Receiver:
        grid = np.linspace(0, 255, band.channels)
        unit = ((1 << bits) - 1) / 255
        level = rng.uniform(0.9, 1.1) * unit
        return Receiver(
            mean=(np.interp(grid, np.arange(256), template.mean) * level).astype(np.float32),
            sigma=(np.interp(grid, np.arange(256), template.sigma) * level).astype(np.float32),
            skewness=template.skewness,
            bits=bits,
            drift_sigma=0.02,
            drift_phase=float(rng.random()),
            autocorrelation=template.autocorrelation,
        )

    def carrier(band: Band, first: int, samples: int, rng: np.random.Generator) -> Carrier:
        centre, width, amplitude, duty = (float(value) for value in rng.choice(template.carriers))
        keyed = duty < 0.9
        return Carrier(
            channel=(centre + float(rng.normal(0, 0.01))) * band.channels,
            width=max(width * band.channels, 0.2),
            amplitude=amplitude,
            start=first,
            stop=first + samples,
            period=log_uniform(rng, 16, 256) if keyed else 0.0,
            duty=max(duty, 0.1) if keyed else 1.0,
            phase=float(rng.random()),
            gaussian=True,
        )

    def burst(band: Band, first: int, samples: int, rng: np.random.Generator) -> Burst:
        width, amplitude = (float(value) for value in rng.choice(template.bursts))
        times = tuple(float(rng.uniform(first, first + samples)) for _ in range(int(rng.integers(1, 4))))
        return Burst(times, width, amplitude)

    def pulse(band: Band, dm: float, rng: np.random.Generator) -> Pulse:
        width = log_uniform(rng, *PULSE_SAMPLES) * band.sampling_time_s
        return Pulse(time_s=0.0, dm_pc_cm3=dm, width_s=width, spectral_index=0.0)

    return Model("empirical", receiver, carrier, burst, pulse)
