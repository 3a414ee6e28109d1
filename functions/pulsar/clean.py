"""A frame without its interference, as the search for pulses wants it."""

from functools import cached_property

import numpy as np

from functions.pulsar.arrays import Flags, Floats, Samples
from functions.pulsar.features import POOL, FeatureMaker, pool_samples
from functions.pulsar.frames import SAMPLES

CLIP = 5.0
"""Sigmas at which single cells are cut off."""
MIN_ROWS = 10
"""A frame with fewer good rows carries no information."""


class CleanFrame:
    """A frame in sigmas without interference: bad rows are 0, each row's and each sample's mean is taken away."""

    def __init__(self, frame: Samples, mean: Floats, sigma: Floats, maker: FeatureMaker, valid: int = SAMPLES) -> None:
        """`frame` is (256, 256) counts, its reference (256,); only its first `valid` samples are there."""
        self._frame, self._mean, self._valid = frame, mean, valid
        usable = (sigma > 0) & (maker.row_weight > 0)
        self._inverse = np.where(usable, 1 / np.where(sigma > 0, sigma, 1), 0).astype(np.float32)
        z = (pool_samples(frame) - POOL * mean[:, None]) * (self._inverse / 2)[:, None]
        whole = valid // POOL
        part = z[:, :whole] if whole else z
        self._offset = np.clip(part, -3, 3).mean(axis=1, dtype=np.float32)
        z -= self._offset[:, None]
        limited = np.clip(part, -3, 3)  # a bright pulse fills few samples of a row, interference many
        power = np.einsum("rt,rt->r", limited, limited) / part.shape[1] - limited.mean(axis=1) ** 2
        good = usable & (power < 2.56) & (power > 0.25) & (np.abs(self._offset) < 1.5)
        self.good: Flags = good if good.sum() >= MIN_ROWS else np.zeros_like(good)
        """Rows that carry information, shape (256,)."""
        z[:, whole:] = 0
        self.pooled: Floats = _without_zero_dm(z, self.good)
        """Sums of four samples in their sigmas, shape (256, 64)."""
        self.coarse: Floats = maker.bins(self.pooled, self.good)
        """The same in 64 bins of nu^-2, shape (64, 64)."""

    @cached_property
    def _cells(self) -> tuple[Floats, Floats]:
        cells = (self._frame.astype(np.float32) - self._mean[:, None]) * self._inverse[:, None]
        cells -= self._offset[:, None] / 2
        cells[:, self._valid :] = 0
        level = cells[self.good].sum(axis=0) / np.sqrt(max(int(self.good.sum()), 1))
        return _without_zero_dm(cells, self.good), level

    @property
    def cells(self) -> Floats:
        """Shape (256, 256)."""
        return self._cells[0]

    @property
    def level(self) -> Floats:
        """Sum of the good rows of each sample in its sigmas, before the mean was taken away, shape (256,)."""
        return self._cells[1]


def _without_zero_dm(cells: Floats, good: Flags) -> Floats:
    np.clip(cells, -CLIP, CLIP, out=cells)
    cells *= good[:, None]
    cells -= cells.sum(axis=0) / max(int(good.sum()), 1) * good[:, None]
    return cells
