"""The classifier's inputs: what a frame looks like against its bandpass reference, at four aspects.

- `image`, (1, 64, 64): the frame in sigmas, pooled to 64 bins that are equal in nu^-2 by 64 of four samples. In this
  coordinate a dispersed pulse of any DM in any band is a straight line.
- `tracks`, (4, 64, 128): sums along straight lines of the cleaned image, in sigmas of such a sum: falling steep ones by
  their delay over the band, falling shallow ones by their fall over the frame, and the same of rising ones. Cleaned is:
  clipped, each row and each column minus its mean, and scaled down where it varies too much, which takes stripes
  away. A faint pulse is a point here.
- `rows`, (2, 256): mean and standard deviation of each row in sigmas: narrow-band interference.
- `columns`, (2, 256): band mean of each sample, and spread over the rows of each four: broad-band interference.
"""

from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Flags, Floats, Samples
from functions.pulsar.dispersion import dispersion_coordinate, sum_tracks
from functions.pulsar.frames import ROWS, SAMPLES

BINS = 64
POOL = 4
CLIP = 6.0
SHAPES = {"image": (1, BINS, BINS), "tracks": (4, BINS, 2 * BINS), "rows": (2, ROWS), "columns": (2, SAMPLES)}


@dataclass(frozen=True)
class Features:
    """The inputs of n frames, each of shape (n, *SHAPES[name]), float32."""

    image: Floats
    tracks: Floats
    rows: Floats
    columns: Floats

    def as_inputs(self) -> dict[str, Floats]:
        return {"image": self.image, "tracks": self.tracks, "rows": self.rows, "columns": self.columns}


def pool_samples(frames: Samples) -> Floats:
    """Sums of four consecutive samples, shape (n, 256, 64)."""
    if frames.dtype == np.uint8:  # two samples in each half of a wider word: no strided access
        pairs = np.ascontiguousarray(frames).view("<u2")
        sums = (pairs & 0xFF) + (pairs >> 8)
        quads = sums.view("<u4")
        return np.asarray((quads & 0xFFFF) + (quads >> 16), dtype=np.float32)
    sums = frames.reshape(*frames.shape[:-1], -1, POOL).sum(axis=-1, dtype=np.uint32)
    return np.asarray(sums, dtype=np.float32)


class FeatureMaker:
    """Makes the features of frames of one band."""

    def __init__(self, frequency_mhz: Floats) -> None:
        coordinate = dispersion_coordinate(frequency_mhz)
        repeated = np.concatenate([[False], np.diff(frequency_mhz) == 0])  # fewer than 256 channels
        self.row_weight = np.where(repeated, 0.0, 1.0).astype(np.float32)
        bins = np.minimum((coordinate * BINS).astype(int), BINS - 1)
        weights = np.zeros((BINS, ROWS), np.float32)
        for bin_, row in zip(bins, range(ROWS), strict=True):
            if not repeated[row]:
                weights[bin_, row] = 1
        unique = np.flatnonzero(~repeated)
        for empty in np.flatnonzero(weights.sum(axis=1) == 0):
            weights[empty, unique[np.argmin(np.abs(coordinate[unique] - (empty + 0.5) / BINS))]] = 1
        self._bins = weights

    def bins(self, rows: Floats, good: Flags) -> Floats:
        """Rows (256, samples) summed to 64 bins of nu^-2, all in their sigmas; rows that are not good must be 0."""
        norm = np.sqrt(np.maximum(np.square(self._bins) @ good.astype(np.float32), 1))
        return np.asarray(self._bins @ rows / norm[:, None])

    def __call__(self, pooled: Floats, frames: Samples, mean: Floats, sigma: Floats) -> Features:
        """Features of frames (n, 256, 256) and their `pool_samples`, against references (256,) or (n, 256).

        A row whose sigma is 0 carries no information and counts as exactly on its reference.
        """
        mean, sigma = np.atleast_2d(mean), np.atleast_2d(sigma)
        good = (sigma > 0) * self.row_weight
        inverse = (good / np.where(sigma > 0, sigma, 1)).astype(np.float32)
        z = pooled * (inverse / 2)[:, :, None]
        z -= (2 * mean * inverse)[:, :, None]
        # a bin's sum has the standard deviation sqrt(number of good rows in it)
        norm = np.sqrt(np.maximum(np.square(self._bins) @ good[:, :, None], 1e-9))
        norm = np.where(norm < 0.5, 1, norm)
        image = (self._bins @ z) / norm
        tracks = track_sums(without_columns((self._bins @ without_rows(z)) / norm))
        row_mean = z.mean(axis=2) * 8
        row_rms = np.sqrt(np.einsum("nrt,nrt->nr", z, z) / z.shape[2])
        rows = np.stack([np.arcsinh(row_mean / 2), np.minimum(row_rms, 20) - good], axis=1)
        count = np.maximum(good.sum(axis=1, keepdims=True), 1)
        level = np.matmul(inverse[:, None, :], frames.astype(np.float32))[:, 0]
        level = (level - np.sum(mean * inverse, axis=1, keepdims=True)) / np.sqrt(count)
        spread = np.sqrt(np.einsum("nrt,nrt->nt", z, z) / count) - 1
        columns = np.stack([np.arcsinh(level / 2), np.repeat(np.minimum(spread, 20), POOL, axis=1)], axis=1)
        return Features(
            image=np.arcsinh(image / 2)[:, None].astype(np.float32),
            tracks=tracks,
            rows=rows.astype(np.float32),
            columns=columns.astype(np.float32),
        )


def without_rows(z: Floats) -> Floats:
    """(n, 256, 64) in sigmas, clipped, each row minus its mean; rows that vary too much are scaled down."""
    clean = np.clip(z, -CLIP, CLIP)
    clean -= clean.mean(axis=2, keepdims=True)
    power = np.einsum("nrt,nrt->nr", clean, clean) / z.shape[2]
    clean /= np.sqrt(np.maximum(power, 1))[:, :, None]
    return clean


def without_columns(image: Floats) -> Floats:
    """(n, 64, 64) in sigmas, each column minus its mean; columns that vary too much are scaled down."""
    clean = np.clip(image, -CLIP, CLIP)
    clean -= clean.mean(axis=1, keepdims=True)
    power = np.einsum("nrt,nrt->nt", clean, clean) / image.shape[1]
    clean /= np.sqrt(np.maximum(power, 1))[:, None, :]
    return clean


def track_sums(clean: Floats) -> Floats:
    """The `tracks` of images (n, 64, 64) in sigmas, shape (n, 4, 64, 128)."""
    out = np.empty((len(clean), *SHAPES["tracks"]), np.float32)
    channel = 0
    for image in (clean, clean[:, :, ::-1]):
        for axis in (1, 2):
            rows = np.zeros((BINS, 2 * BINS, len(image)), np.float32)
            rows[:, BINS:] = image.transpose((1, 2, 0) if axis == 1 else (2, 1, 0))
            sums = sum_tracks(rows, _LINE, BINS - 1)
            sums *= _INVERSE_NOISE[:, :, None]
            out[:, channel] = sums.transpose(2, 0, 1)
            channel += 1
    return out


def _inverse_noise() -> Floats:
    """1 / standard deviation of each track sum of unit noise; short tracks, in the corners, are weighed down."""
    rows = np.zeros((BINS, 2 * BINS), np.float32)
    rows[:, BINS:] = 1
    cells = sum_tracks(rows, _LINE, BINS - 1)
    return (1 / np.sqrt(np.maximum(cells, 8))).astype(np.float32)


_LINE = np.linspace(0.0, 1.0, BINS)
_INVERSE_NOISE = _inverse_noise()
