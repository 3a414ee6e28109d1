"""What is not from the sky: narrow- and broad-band interference, and faults of the receiver.

Every component has `extent` (samples touched) and `render` (excess power in units of a cell's noise sigma); a fault
has `distort`, which changes the quantised level of all channels at once.
"""

from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Floats
from functions.pulsar.band import Band


@dataclass(frozen=True)
class Carrier:
    """Narrow-band interference: a transmitter in some channels, keyed on and off, perhaps drifting."""

    channel: float
    """Centre, channels from the top of the band."""
    width: float
    """Full width, channels."""
    amplitude: float
    start: int
    stop: int
    """Samples between which it is on."""
    period: float = 0.0
    """Keying period, samples (time-division transmitters); 0 for a constant carrier."""
    duty: float = 1.0
    phase: float = 0.0
    drift: float = 0.0
    """Channels per sample."""
    gaussian: bool = False
    """Gaussian instead of flat across its channels."""

    def extent(self, band: Band) -> tuple[int, int]:
        return self.start, self.stop

    def render(self, band: Band, first: int, samples: int) -> Floats:
        """Shape (channels, samples)."""
        out = np.zeros((band.channels, samples), np.float32)
        start, stop = max(self.start, first), min(self.stop, first + samples)
        if start >= stop:
            return out
        times = np.arange(start, stop)
        on = np.full(len(times), self.amplitude, np.float32)
        if self.period > 0:
            on[((times - self.start) / self.period + self.phase) % 1.0 >= self.duty] = 0
        centres = self.channel + self.drift * (times - self.start)
        reach = 2 * self.width + 1 if self.gaussian else self.width / 2 + 1
        low = int(max(0, np.floor(centres.min() - reach)))
        high = int(min(band.channels, np.ceil(centres.max() + reach) + 1))
        if low >= high:
            return out
        distance = np.abs(np.arange(low, high)[:, None] - centres[None, :])
        if self.gaussian:
            shape = np.exp(-0.5 * (distance / (self.width / 2.355)) ** 2)
        else:  # a flat top, with partly covered channels at its sides
            shape = np.clip(self.width / 2 + 0.5 - distance, 0, 1)
        out[low:high, start - first : stop - first] = shape * on
        return out


@dataclass(frozen=True)
class Burst:
    """Broad-band interference: the same samples in most of the band, once or again and again."""

    times: tuple[float, ...]
    """Centres (Gaussian) or onsets (decaying), samples."""
    width: float
    """Full width at half maximum, or decay time, samples."""
    amplitude: float
    decaying: bool = False
    """A sharp onset and an exponential decay (lightning) instead of a Gaussian."""
    tilt: float = 0.0
    """Spectral index across the band."""
    low: float = 0.0
    high: float = 1.0
    """Part of the band that is touched, 0 at the top."""

    def extent(self, band: Band) -> tuple[int, int]:
        reach = 7 * self.width + 1
        return int(min(self.times) - reach), int(max(self.times) + reach) + 1

    def render(self, band: Band, first: int, samples: int) -> Floats:
        """Shape (channels, samples)."""
        grid = np.arange(first, first + samples, dtype=np.float64)
        profile = np.zeros(samples)
        for time in self.times:
            if self.decaying:
                since = grid - time
                profile += np.where(since >= 0, np.exp(-np.clip(since, 0, None) / self.width), 0)
            else:
                profile += np.exp(-0.5 * ((grid - time) / max(self.width / 2.355, 0.3)) ** 2)
        spectrum = self.amplitude * (band.frequency_mhz / band.centre_mhz) ** self.tilt
        position = (np.arange(band.channels) + 0.5) / band.channels
        spectrum[(position < self.low) | (position > self.high)] = 0
        return (spectrum[:, None] * profile[None, :]).astype(np.float32)


@dataclass(frozen=True)
class Fault:
    """A fault of the receiver: class `other`.

    `kind` is "dropout" (the level falls to `strength` of itself), "gain" (it rises by `strength` sigma) or
    "saturation" (it sticks at full scale).
    """

    kind: str
    start: int
    stop: int
    strength: float = 0.0

    def extent(self, band: Band) -> tuple[int, int]:
        return self.start, self.stop

    def distort(self, counts: Floats, sigma: Floats, first: int, full_scale: float) -> None:
        """Change `counts`, shape (channels, samples), in place; `sigma` has shape (channels, 1)."""
        start, stop = max(self.start - first, 0), min(self.stop - first, counts.shape[1])
        if start >= stop:
            return
        part = counts[:, start:stop]
        if self.kind == "dropout":
            part *= np.float32(self.strength)
        elif self.kind == "gain":
            part += np.float32(self.strength) * sigma
        else:
            part[:] = full_scale


Interference = Carrier | Burst
