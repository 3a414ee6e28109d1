r"""The receiver: its noise by the radiometer equation, its bandpass, its gain drift, its digitiser.

Detected power of noise is chi-square with $4\,\Delta\nu\,\Delta t$ degrees of freedom (two polarisations), whose
skewness is $\sqrt{8/k}$; it is drawn as $x + \frac{s}{6}(x^2 - 1)$ with Gaussian $x$ (Cornish & Fisher, first order).
"""

from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Floats, Samples
from functions.pulsar.band import Band


def radiometer_sigma_jy(sefd_jy: float, bandwidth_mhz: float, time_s: float, polarisations: int = 2) -> float:
    r"""Noise of a flux, Jy: $S_\mathrm{sys} / \sqrt{n_p\,\Delta\nu\,\Delta t}$ (Lorimer & Kramer, eq. A1.21).

    The Crab Nebula in the Effelsberg beam, all of the band, one sample:

    >>> round(radiometer_sigma_jy(892.0, 320.0, 102.4e-6), 1)
    3.5
    """
    return float(sefd_jy / np.sqrt(polarisations * bandwidth_mhz * 1e6 * time_s))


@dataclass(frozen=True)
class Receiver:
    """Level, noise and drift of each channel, in counts of the digitiser."""

    mean: Floats
    """Shape (channels,)."""
    sigma: Floats
    """Shape (channels,)."""
    skewness: float
    bits: int = 8
    drift_sigma: float = 0.0
    """Standard deviation of the slow gain drift, in noise sigmas."""
    drift_period: float = 20_000.0
    """Its longest period, samples."""
    drift_phase: float = 0.0
    autocorrelation: float = 0.0
    """Lag-1 autocorrelation of the noise in a channel."""

    @property
    def full_scale(self) -> float:
        return float((1 << self.bits) - 1)

    def noise(self, samples: int, rng: np.random.Generator) -> Floats:
        """Noise of unit variance, shape (channels, samples)."""
        noise = rng.standard_normal((len(self.mean), samples), dtype=np.float32)
        if self.autocorrelation:
            weight = np.float32(self.autocorrelation)
            noise[:, 1:] += weight * noise[:, :-1]
            noise /= np.sqrt(1 + weight * weight)
        if self.skewness:
            noise += np.float32(self.skewness / 6) * (noise * noise - 1)
        return noise

    def drift(self, first: int, samples: int) -> Floats:
        """The gain drift common to all channels, in sigmas, shape (samples,): three octaves of a slow wave."""
        if not self.drift_sigma:
            return np.zeros(samples, np.float32)
        angle = 2 * np.pi * (np.arange(first, first + samples) / self.drift_period + self.drift_phase)
        wave = np.sin(angle) + 0.5 * np.sin(2.3 * angle + 1.0) + 0.25 * np.sin(5.1 * angle + 2.0)
        return (self.drift_sigma * wave / 0.81).astype(np.float32)

    def counts(self, cells: Floats, first: int) -> Floats:
        """Noise plus excess in sigma, shape (channels, samples), as unquantised counts; changes `cells` in place."""
        if self.drift_sigma:
            cells += self.drift(first, cells.shape[1])
        cells *= self.sigma[:, None]
        cells += self.mean[:, None]
        return cells

    def quantise(self, counts: Floats) -> Samples:
        """Round and clip to the digitiser's range; changes `counts` in place."""
        counts += np.float32(0.5)
        np.clip(counts, 0, self.full_scale, out=counts)
        return counts.astype(np.uint16 if self.bits == 16 else np.uint8)


def draw_receiver(band: Band, rng: np.random.Generator, bits: int = 8) -> Receiver:
    """A receiver as telescopes have them: roll-off at the band's edges, slow polynomial, ripple of standing waves.

    At 8 bits the mean is 90 to 150 counts and sigma 8 to 28 (real files: 94 to 146, and 16 to 24); at other depths
    both scale with the range, and 1 or 2 bits are centred.
    """
    position = np.linspace(-1, 1, band.channels)
    shape = 1 + rng.normal(0, 0.08) * position + rng.normal(0, 0.08) * position**2
    shape += rng.uniform(0, 0.04) * np.sin(2 * np.pi * (rng.uniform(2, 12) * position + rng.random()))
    shape += 0.02 * rng.standard_normal(band.channels)
    edge = rng.uniform(0.02, 0.06)
    shape *= 1 / (1 + np.exp((np.abs(position) - 1 + edge / 3) / (edge / 3)))
    unit = ((1 << bits) - 1) / 255
    mean = rng.uniform(90, 150) * unit * np.clip(shape, 0.3, None)
    sigma = rng.uniform(8, 28) * unit * np.clip(shape, 0.3, None)
    if bits <= 2:  # few levels: such digitisers follow the level of each channel, and sigma spans a level
        mean, sigma = np.full(band.channels, ((1 << bits) - 1) / 2), np.ones(band.channels)
    degrees = 4 * band.channel_width_mhz * 1e6 * band.sampling_time_s
    return Receiver(
        mean=mean.astype(np.float32),
        sigma=sigma.astype(np.float32),
        skewness=float(np.sqrt(8 / max(degrees, 8.0))),
        bits=bits,
        drift_sigma=float(rng.uniform(0, 0.08)),
        drift_period=float(rng.uniform(4_000, 200_000)),
        drift_phase=float(rng.random()),
        autocorrelation=float(max(0.0, rng.uniform(-0.1, 0.1))),
    )
