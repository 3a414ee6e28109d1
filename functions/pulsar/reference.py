"""The running bandpass: what each row's level and noise were in past frames, and never in future ones.

Each row's mean and variance are averaged over the frames in which the row was where it used to be (within
`DEVIATION` standard errors), with a memory of `MEMORY` frames. A row that stays elsewhere for `absorb` frames has a new
bandpass: a carrier that stays on is interference until then, and bandpass from then on. When most of the band
moved at once (a gain step), `BAND_ABSORB` frames are enough.
"""

import numpy as np

from functions.pulsar.arrays import Floats
from functions.pulsar.features import POOL
from functions.pulsar.frames import ROWS, SAMPLES

MEMORY = 128
DEVIATION = 6.0
BAND_ABSORB = 8
SIGMA_FLOOR = 0.25
"""Counts; a row that varies less is dead, and its sigma is given as 0."""


class RunningBandpass:
    """Level and noise of the 256 rows, in counts of a sample."""

    def __init__(self, absorb: int = 256) -> None:
        self.absorb = absorb
        self.frames = 0
        self._mean = np.zeros(ROWS)
        self._variance = np.zeros(ROWS)
        self._elsewhere = np.zeros(ROWS, int)
        self._band_elsewhere = 0

    @property
    def mean(self) -> Floats:
        """Shape (256,)."""
        return self._mean.astype(np.float32)

    @property
    def sigma(self) -> Floats:
        """Standard deviation of a sample, shape (256,); 0 for a dead row."""
        sigma = np.sqrt(self._variance)
        return np.where(sigma < SIGMA_FLOOR, 0, sigma).astype(np.float32)

    def start(self, pooled: Floats) -> None:
        """Take the first frame's robust level and noise (median, MAD), shape (256, samples / 4), as the reference."""
        median = np.median(pooled, axis=1)
        spread = 1.4826 * np.median(np.abs(pooled - median[:, None]), axis=1)
        # the MAD of few levels may be far too small, and a row whose noise is underestimated would never be learned
        spread = np.maximum(spread, 0.7 * pooled.std(axis=1))
        self._mean = median.astype(np.float64) / POOL
        # the sum of four samples has four times a sample's variance
        self._variance = spread.astype(np.float64) ** 2 / POOL
        self.frames = 1

    def update(self, pooled: Floats) -> None:
        """Learn from frames that have been labelled, `pool_samples` of shape (n, 256, 64), in order of time."""
        means = pooled.mean(axis=2, dtype=np.float64) / POOL
        variances = pooled.var(axis=2, dtype=np.float64) / POOL
        sigma = np.sqrt(np.maximum(self._variance, SIGMA_FLOOR**2))
        # two frames' means differ by sqrt(1 + 1/frames) standard errors; drift of the gain comes on top
        tolerance = DEVIATION * sigma / np.sqrt(SAMPLES) * np.sqrt(1 + 1 / max(self.frames, 1)) + 0.1 * sigma
        wide = 3.0 if self.frames < 4 else 2.0
        steady = (np.abs(means - self._mean) <= tolerance) & (variances <= wide * np.maximum(self._variance, 0.1))
        count = steady.sum(axis=0)
        weight = count / (min(self.frames, MEMORY) + np.maximum(count, 1))
        safe = np.maximum(count, 1)
        self._mean += weight * (np.where(steady, means - self._mean, 0).sum(axis=0) / safe)
        self._variance += weight * (np.where(steady, variances - self._variance, 0).sum(axis=0) / safe)
        self.frames += len(pooled)
        self._elsewhere = np.where(count > 0, 0, self._elsewhere + len(pooled))
        moved = np.mean(~steady, axis=1) > 0.5
        self._band_elsewhere = self._band_elsewhere + len(moved) if moved.all() else 0
        new = self._elsewhere >= (BAND_ABSORB if self._band_elsewhere >= BAND_ABSORB else self.absorb)
        if new.any():
            self._mean[new] = np.median(means[:, new], axis=0)
            self._variance[new] = np.median(variances[:, new], axis=0)
            self._elsewhere[new] = 0
