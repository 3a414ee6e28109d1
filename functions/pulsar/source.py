r"""Pulses of a source in the sky, and what the interstellar medium makes of them.

The spin phase is $\phi(t) = \phi_0 + f t$; the beam is a lighthouse: at spin phase $\phi$ the line of sight is at the
angle $\rho$ from the magnetic axis, $\cos\rho = \cos\alpha\cos(\alpha+\beta) + \sin\alpha\sin(\alpha+\beta)\cos\phi$
(Gil, Gronkowski & Rudnicki 1984, A&A 132, 312), and the intensity is a Gaussian of $\rho$.
"""

from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Floats
from functions.pulsar.band import Band
from functions.pulsar.dispersion import delay_s, smearing_s

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation."""


@dataclass(frozen=True)
class Pulse:
    """One dispersed, scattered pulse; amplitudes are in units of a cell's noise sigma."""

    time_s: float
    """Arrival at the centre of the band's highest channel, s after the start."""
    dm_pc_cm3: float
    width_s: float
    """Intrinsic full width at half maximum, s."""
    amplitude: float = 1.0
    """Peak of the unsmeared pulse at the band's centre."""
    scattering_s: float = 0.0
    """Scattering time at the band's centre, s; scales as nu^-4 (thin screen)."""
    spectral_index: float = -1.6
    scintillation_mhz: float = 0.0
    """Decorrelation bandwidth; 0 for none."""
    scintillation_seed: int = 0
    reversed_sweep: bool = False
    """A sweep of the wrong sign: no pulse, but class `other`."""

    def arrivals(self, band: Band) -> Floats:
        """Arrival time in each channel, samples after the observation's start, shape (channels,)."""
        frequency = band.frequency_mhz
        delays = delay_s(self.dm_pc_cm3, frequency, float(frequency[0]))
        if self.reversed_sweep:
            delays = delays[-1] - delays
        return np.asarray((self.time_s + delays) / band.sampling_time_s)

    def widths(self, band: Band) -> Floats:
        """Gaussian standard deviation in each channel, samples: intrinsic, smearing and sampling in quadrature."""
        smearing = smearing_s(self.dm_pc_cm3, band.frequency_mhz, band.channel_width_mhz)
        fwhm = np.sqrt(self.width_s**2 + smearing**2 + band.sampling_time_s**2) / band.sampling_time_s
        return np.asarray(fwhm / FWHM)

    def extent(self, band: Band) -> tuple[int, int]:
        """First sample, and one past the last one, in which the pulse is above 1e-3 of its peak anywhere."""
        arrivals, widths = self.arrivals(band), self.widths(band)
        tail = 7 * self.scattering_s / band.sampling_time_s * (band.centre_mhz / band.frequency_mhz) ** 4
        return int(np.floor((arrivals - 4 * widths).min())), int(np.ceil((arrivals + 4 * widths + tail).max())) + 1

    def render(self, band: Band, first: int, samples: int) -> Floats:
        """Excess power in sigma, shape (channels, samples), of the samples from `first` on."""
        out = np.zeros((band.channels, samples), np.float32)
        begin, end = self.extent(band)
        start, stop = max(begin, first), min(end, first + samples)
        if start >= stop:
            return out
        frequency = band.frequency_mhz
        widths = self.widths(band)
        arrivals = self.arrivals(band)
        # the fluence is conserved: what is broader is lower
        gain = self.amplitude * (self.width_s / band.sampling_time_s / FWHM) / widths
        gain *= (frequency / band.centre_mhz) ** self.spectral_index
        if self.scintillation_mhz > 0:
            gain *= scintles(self.scintillation_mhz, band, np.random.default_rng(self.scintillation_seed))
        tails = self.scattering_s / band.sampling_time_s * (band.centre_mhz / frequency) ** 4
        here = (arrivals + 4 * widths + 7 * tails > start) & (arrivals - 4 * widths < stop)
        if not here.any():
            return out
        if self.scattering_s > 0:  # the convolution needs each pulse from its beginning
            begin = min(start, int(np.floor((arrivals - 4 * widths)[here].min())))
        else:
            begin = start
        times = np.arange(begin, stop, dtype=np.float32)
        offset = (times - arrivals[here, None].astype(np.float32)) / widths[here, None].astype(np.float32)
        profile = gain[here, None].astype(np.float32) * np.exp(np.float32(-0.5) * offset * offset)
        if self.scattering_s > 0:
            profile = _scatter(profile, tails[here])[:, start - begin :]
        out[here, start - first : stop - first] = profile
        return out


def _scatter(profile: Floats, tails: Floats) -> Floats:
    """Convolve each row with exp(-t/tau)/tau, tau in samples, through its Fourier transform 1 / (1 + i omega tau)."""
    samples = profile.shape[1]
    padded = samples + int(7 * tails.max()) + 1
    omega = 2 * np.pi * np.fft.rfftfreq(padded)
    spectrum = np.fft.rfft(profile, padded, axis=1) / (1 + 1j * omega * tails[:, None])
    return np.fft.irfft(spectrum, padded, axis=1)[:, :samples].astype(np.float32)


def scintles(bandwidth_mhz: float, band: Band, rng: np.random.Generator) -> Floats:
    """Fully modulated scintillation gain per channel, mean 1: |complex Gaussian|^2 correlated over `bandwidth_mhz`."""
    width = max(bandwidth_mhz / band.channel_width_mhz, 0.1)
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= np.sqrt(np.sum(kernel**2))
    count = band.channels + 2 * reach
    field = rng.standard_normal(count) + 1j * rng.standard_normal(count)
    return np.asarray(np.abs(np.convolve(field, kernel, "valid")) ** 2 / 2)


def scattering_time_s(dm_pc_cm3: float, frequency_mhz: float) -> float:
    r"""Mean scattering time of Galactic pulsars, s.

    $\log_{10}\tau_\mathrm{ms} = -6.46 + 0.154\log\mathrm{DM} + 1.07\log^2\mathrm{DM} - 3.86\log\nu_\mathrm{GHz}$
    (Bhat et al. 2004, ApJ 605, 759, eq. 7); single pulsars scatter by an order of magnitude about it.

    >>> round(scattering_time_s(100.0, 1400.0) * 1e6, 2)
    3.66
    """
    log_dm = np.log10(dm_pc_cm3)
    return float(10 ** (-6.46 + 0.154 * log_dm + 1.07 * log_dm**2 - 3.86 * np.log10(frequency_mhz / 1000.0)) * 1e-3)


def impact_angle(phase: float | Floats, alpha: float, beta: float) -> Floats:
    """Angle between line of sight and magnetic axis at a spin phase, all in radians (formula in the module's head).

    At phase 0 it is |beta|:

    >>> round(float(impact_angle(0.0, 1.0, 0.05)), 6)
    0.05
    """
    cosine = np.cos(alpha) * np.cos(alpha + beta) + np.sin(alpha) * np.sin(alpha + beta) * np.cos(phase)
    return np.asarray(np.arccos(np.clip(cosine, -1.0, 1.0)))


@dataclass(frozen=True)
class Pulsar:
    """A rotating source: its geometry gives the pulse width, its statistics the energy of each pulse."""

    period_s: float
    dm_pc_cm3: float
    alpha: float = 1.05
    """Angle between spin and magnetic axis, rad."""
    beta: float = 0.03
    """Closest approach of the line of sight to the magnetic axis, rad."""
    beam: float = 0.06
    """Standard deviation of the beam's Gaussian, rad."""
    spectral_index: float = -1.6
    energy_scatter: float = 0.3
    """Standard deviation of log10 of a pulse's energy (log-normal)."""
    nulling: float = 0.1
    """Fraction of rotations without a pulse, in runs of 10 rotations on average (two-state Markov chain)."""
    jitter: float = 0.01
    """Standard deviation of a pulse's phase, turns."""

    @property
    def width_s(self) -> float:
        """Full width at half maximum of the pulse at phase 0, s."""
        phase = np.linspace(0, np.pi, 4097)
        intensity = np.exp(-0.5 * (impact_angle(phase, self.alpha, self.beta) / self.beam) ** 2)
        below = np.flatnonzero(intensity < intensity[0] / 2)
        half = phase[below[0]] if len(below) else np.pi
        return float(2 * half / (2 * np.pi) * self.period_s)

    def pulses(self, duration_s: float, amplitude: float, rng: np.random.Generator) -> list[Pulse]:
        """The pulses of `duration_s` s, whose median amplitude is `amplitude`."""
        count = int(duration_s / self.period_s) + 1
        first = rng.uniform(0, self.period_s)
        on = rng.random() >= self.nulling
        pulses = []
        for rotation in range(count):
            leaves = 0.1 if not on else 0.1 * self.nulling / max(1 - self.nulling, 1e-9)
            if rng.random() < leaves:
                on = not on
            time_s = first + (rotation + rng.normal(0, self.jitter)) * self.period_s
            energy = 10 ** rng.normal(0, self.energy_scatter)
            if on and 0 <= time_s < duration_s:
                pulses.append(
                    Pulse(time_s, self.dm_pc_cm3, self.width_s, amplitude * energy, spectral_index=self.spectral_index)
                )
        return pulses
