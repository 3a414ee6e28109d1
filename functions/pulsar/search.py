"""The search for dispersed pulses: sums along dispersion tracks over all DMs, at time resolutions that fit them.

At resolution level j samples are summed by f = 2^j, and delays over the band of 128 to 256 such sums are tried (level
0: up to 256), which is what dispersion smears inside a row anyhow. Every sum is normalised by the rows that it has
(tracks leave the data at its ends) and by the noise measured on the sums themselves. A coarse search of 64 bins in
nu^-2 and sums of 4 f samples goes before, and decides which levels are worth their time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Floats, Positions
from functions.pulsar.clean import MIN_ROWS, CleanFrame
from functions.pulsar.dispersion import dispersion_coordinate, dm_of_delay, sum_tracks
from functions.pulsar.features import BINS, POOL
from functions.pulsar.frames import SAMPLES

DELAYS = 256
"""Largest delay over the band at each level, in sums of f samples."""
MAX_LEVELS = 8
BOXCARS = (1, 2, 4, 8, 16, 32)
GROUPS = 8
COARSE = 0.64
"""A level is searched when its coarse search finds this part of the threshold."""
UNDISPERSED = 1.6
"""A candidate of small delay is a burst when the undispersed sum there is stronger by this factor."""
_TABLE = 1024
_LINE = np.linspace(0.0, 1.0, BINS)


@dataclass(frozen=True)
class Candidate:
    """A dispersed pulse in a block of frames."""

    sample: float
    """Arrival at the highest row, samples after the block's start."""
    delay: float
    """Delay from the highest to the lowest row, samples."""
    width: float
    """Width of the best boxcar, samples."""
    snr: float
    rows: int
    """Rows of the track that lie in the data."""
    lever: float
    """Standard deviation of the pulse's power along the track, in `dispersion_coordinate`: 0.29 when even."""


class Search:
    """Searches blocks of clean frames of one band."""

    def __init__(
        self,
        frequency_mhz: Floats,
        sampling_time_s: float,
        snr_min: float,
        dm_min: float,
        dm_max: float,
        max_frames: int = 48,
    ) -> None:
        self.coordinate = dispersion_coordinate(frequency_mhz)
        self.high_mhz, self.low_mhz = float(frequency_mhz[0]), float(frequency_mhz[-1])
        self.sampling_time_s = sampling_time_s
        self.snr_min = snr_min
        if self.high_mhz > self.low_mhz:
            per_dm = 1 / float(dm_of_delay(sampling_time_s, self.high_mhz, self.low_mhz))
            self.min_delay, self.max_delay = dm_min * per_dm, dm_max * per_dm
        else:
            self.min_delay = self.max_delay = 0.0  # one channel: nothing is dispersed
        self.max_delay = min(self.max_delay, max_frames * SAMPLES, DELAYS << (MAX_LEVELS - 1))
        self.levels = 0
        while self.max_delay > 0 and (self.levels == 0 or DELAYS << (self.levels - 1) < self.max_delay):
            self.levels += 1

    @property
    def reach(self) -> int:
        """Frames before and after a frame that a pulse in it may touch."""
        return int(np.ceil(self.max_delay / SAMPLES)) if self.levels else 0

    def dm(self, delay: float) -> float:
        """The DM, pc/cm^3, whose delay over the band is `delay` samples."""
        return float(dm_of_delay(delay * self.sampling_time_s, self.high_mhz, self.low_mhz))

    def __call__(self, frames: Sequence[CleanFrame], low: int, high: int, limit: int = 16) -> list[Candidate]:
        """Pulses in a block of consecutive frames whose tracks touch frames `low` to `high` (exclusive) of it.

        At most `limit`, the strongest first; weaker ones whose tracks meet a stronger one's are taken for its echoes.
        """
        found: list[Candidate] = []
        for level in self._promising(frames, low, high):
            found += self._level(frames, low, high, level)
        found.sort(key=lambda candidate: -candidate.snr)
        kept: list[Candidate] = []
        for candidate in found:
            if len(kept) == limit:
                break
            if any(_meet(candidate, other) for other in kept):
                continue
            refined = self._refine(frames, candidate)
            if refined is not None and not any(_meet(refined, other) for other in kept):
                kept.append(refined)
        return kept

    def _promising(self, frames: Sequence[CleanFrame], low: int, high: int) -> list[int]:
        """Levels at which the coarse search sees anything."""
        promising = set()
        for level in range(self.levels):
            factor = POOL << level
            margin = int(np.ceil(BINS * factor / SAMPLES)) + 1
            first, last = max(0, low - margin), min(len(frames), high + margin)
            rows = np.concatenate([frame.coarse for frame in frames[first:last]], axis=1)
            if level:
                rows = rows[:, : rows.shape[1] >> level << level]
                rows = rows.reshape(BINS, -1, 1 << level).sum(axis=2) * np.float32(2 ** (-level / 2))
            begin, end = (low - first) * SAMPLES // factor, (high - first) * SAMPLES // factor
            length = rows.shape[1]
            padded = np.concatenate([np.zeros((BINS, BINS), np.float32), rows], axis=1)
            lowest = max(1, int(self.min_delay / factor)) if level == 0 else BINS // 2
            delays = np.arange(lowest, min(BINS, int(self.max_delay / factor) + 1) + 1)
            if not len(delays):
                continue  # every delay that is asked for belongs to a coarser level
            start, stop = max(0, begin - int(delays[-1]) + BINS - 1), min(end + BINS + 1, padded.shape[1])
            sums = sum_tracks(padded, _LINE, BINS)[delays[0] : delays[-1] + 1, start:stop]
            grid = np.arange(start, stop) - BINS
            enter = np.ceil(np.clip(-grid / delays[:, None], 0, 1) * (BINS - 1))
            leave = np.ceil(np.clip((length - grid) / delays[:, None], 0, 1) * (BINS - 1)) + 1
            norm = 1 / np.sqrt(np.maximum(leave - enter, 4))
            running = np.cumsum(np.pad(sums, ((0, 0), (1, 0))), axis=1)
            for width in (1, 2, 4, 8):
                if width >= sums.shape[1]:
                    break
                snr = (running[:, width:] - running[:, :-width]) * norm[:, : norm.shape[1] - width + 1] / width**0.5
                snr[delays < 0.5 * width] = 0
                best = np.unravel_index(int(np.argmax(snr)), snr.shape)
                if snr[best] >= COARSE * self.snr_min:
                    strong = delays[(snr >= COARSE * self.snr_min).any(axis=1)]
                    promising.add(level)
                    if strong.max() > 0.85 * BINS:
                        promising.add(level + 1)
                    if strong.min() < 0.6 * BINS:
                        promising.add(level - 1)
        return [level for level in range(self.levels) if level in promising]

    def _level(self, frames: Sequence[CleanFrame], low: int, high: int, level: int) -> list[Candidate]:
        factor = 1 << level
        margin = int(np.ceil(DELAYS * factor / SAMPLES)) + 1
        first, last = max(0, low - margin), min(len(frames), high + margin)
        rows, cells_good = self._rows(frames[first:last], factor)
        begin = (low - first) * SAMPLES // factor
        end = (high - first) * SAMPLES // factor
        length = rows.shape[1]
        padded = np.concatenate([np.zeros((len(rows), DELAYS), np.float32), rows], axis=1)
        sums = sum_tracks(padded, self.coordinate, DELAYS)
        lowest = max(3, int(np.ceil(self.min_delay / factor))) if level == 0 else DELAYS // 2 + 1
        highest = min(DELAYS, int(np.floor(self.max_delay / factor)))
        if lowest > highest:
            return []
        delays = np.arange(lowest, highest + 1)
        # tracks that touch the window begin between its start minus their delay and its end
        start, stop = max(0, begin - highest + DELAYS), min(end + DELAYS, padded.shape[1])
        grid = np.arange(start, stop) - DELAYS
        part = sums[lowest : highest + 1, start:stop]
        count = self._rows_inside(delays, grid, length, cells_good)
        touches = (grid[None, :] + delays[:, None] > begin) & (count >= MIN_ROWS)
        running = np.cumsum(np.pad(part, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
        best = np.full(part.shape, -np.inf, np.float32)
        width_of = np.zeros(part.shape, np.int16)
        norm = 1 / np.sqrt(np.maximum(count, 1))
        for width in BOXCARS:
            if width > part.shape[1] // 4 or (level > 0 and width > 16):
                break
            snr = np.full(part.shape, -np.inf, np.float32)
            snr[:, : part.shape[1] - width + 1] = (running[:, width:] - running[:, :-width]) / np.sqrt(width)
            snr *= norm
            sample = snr[::4, : part.shape[1] - width + 1][touches[::4, : part.shape[1] - width + 1]]
            spread = 1.4826 * np.median(np.abs(sample - np.median(sample))) if sample.size > 64 else 1.0
            snr /= max(1.0, float(spread))
            snr[delays < 0.75 * width] = -np.inf
            better = snr > best
            best = np.where(better, snr, best)
            width_of = np.where(better, np.int16(width), width_of)
        best[~touches] = -np.inf
        return self._peaks(best, width_of, delays, grid + first * SAMPLES // factor, factor)

    def _rows(self, frames: Sequence[CleanFrame], factor: int) -> tuple[Floats, Floats]:
        """Rows at a resolution in sigmas, and how good each row is (0 to 1)."""
        if factor < POOL:
            rows = np.concatenate([frame.cells for frame in frames], axis=1)
            left = factor
        else:
            rows = np.concatenate([frame.pooled for frame in frames], axis=1)
            left = factor // POOL
        if left > 1:
            rows = rows[:, : rows.shape[1] // left * left]
            rows = rows.reshape(len(rows), -1, left).sum(axis=2) * np.float32(left**-0.5)
        good: Floats = np.asarray(np.mean([frame.good for frame in frames], axis=0, dtype=np.float64))
        return np.ascontiguousarray(rows, dtype=np.float32), good

    def _rows_inside(
        self,
        delays: Positions,
        grid: Positions,
        length: int,
        good: Floats,
    ) -> Floats:
        """Good rows of each track (delay, start) that lie in 0..length, shape (delays, grid)."""
        edges = np.searchsorted(self.coordinate, np.arange(_TABLE + 1) / _TABLE)
        edges[-1] = len(good)
        table = np.concatenate([[0.0], np.cumsum(good)])[edges]
        inverse = _TABLE / delays[:, None]
        enter = np.clip(np.ceil(-grid[None, :] * inverse), 0, _TABLE).astype(np.int64)
        leave = np.clip(np.ceil((length - grid[None, :]) * inverse), 0, _TABLE).astype(np.int64)
        return np.asarray(np.maximum(table[leave] - table[enter], 0))

    def _peaks(
        self,
        best: Floats,
        width_of: Floats,
        delays: Positions,
        grid: Positions,
        factor: int,
    ) -> list[Candidate]:
        """Strongest points above a loose threshold, no two of which have tracks that meet."""
        peaks: list[Candidate] = []
        above = np.argwhere(best >= 0.9 * self.snr_min)
        order = np.argsort(-best[above[:, 0], above[:, 1]])[:2000]
        for row, column in above[order]:
            width = int(width_of[row, column])
            candidate = Candidate(
                sample=(grid[column] + (width - 1) / 2 + 0.5) * factor - 0.5,
                delay=float(delays[row] * factor),
                width=float(width * factor),
                snr=float(best[row, column]),
                rows=0,
                lever=0.0,
            )
            if not any(_meet(candidate, peak) for peak in peaks):
                peaks.append(candidate)
                if len(peaks) == 32:
                    break
        return peaks

    def _refine(self, frames: Sequence[CleanFrame], candidate: Candidate) -> Candidate | None:
        """The candidate measured row by row, or None when it is too weak or only a part of the band shows it."""
        factor = 1
        while factor * 2 <= max(1.0, candidate.width / 4):
            factor *= 2
        margin = int(candidate.width) * 4 + 4 * factor
        first = max(0, int((candidate.sample - margin) // SAMPLES))
        last = min(len(frames), int((candidate.sample + candidate.delay + margin) // SAMPLES) + 1)
        if first >= last:
            return None
        rows, good = self._rows(frames[first:last], factor)
        start = (candidate.sample - first * SAMPLES + 0.5) / factor - 0.5
        delay, width = candidate.delay / factor, candidate.width / factor
        running = np.pad(np.cumsum(rows, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
        step = max(0.5, width / 4)
        reach = int(np.ceil(width * 1.5)) + 2
        curves: dict[int, list[float]] = {}
        shifts = np.arange(-8, 9) * step
        for try_width in sorted({max(1, round(width * ratio)) for ratio in (0.5, 0.7, 1.0, 1.4, 2.0)}):
            curves[try_width] = [
                self._strongest(running, good, start, delay + shift, try_width, reach)[0] for shift in shifts
            ]
        best_width = max(curves, key=lambda key: max(curves[key]))
        curve = np.array(curves[best_width])
        top = int(np.argmax(curve))
        # the curve of S/N against delay is even about the true delay, so its centroid is known better than its top
        near = np.abs(np.arange(len(curve)) - top) <= 4
        weight = np.where(near, np.maximum(curve - 0.75 * curve[top], 0), 0)
        shift = float(np.sum(weight * shifts) / np.sum(weight)) if curve[top] > 0 else 0.0
        best_snr, at, best_profile = self._strongest(running, good, start, delay + shift, best_width, reach)
        best = (start + at, delay + shift, float(best_width))
        # the search measured the noise of such sums, which interference may have raised
        snr = min(best_snr, 1.15 * candidate.snr)
        there = np.flatnonzero(~np.isnan(best_profile))
        if snr < self.snr_min or len(there) < MIN_ROWS or not _broadband(best_profile[there], snr):
            return None
        refined = Candidate(
            sample=(best[0] + 0.5) * factor - 0.5 + first * SAMPLES,
            delay=best[1] * factor,
            width=best[2] * factor,
            snr=snr,
            rows=len(there),
            lever=_lever(self.coordinate[there], best_profile[there]),
        )
        if refined.delay < max(self.min_delay, 0.75 * refined.width) or self._undispersed(frames, refined):
            return None
        return refined

    def _undispersed(self, frames: Sequence[CleanFrame], candidate: Candidate) -> bool:
        """Whether a candidate of small delay is what is left of a broad-band burst, which is stronger without delay."""
        if candidate.delay > 4 * candidate.width + 16:
            return False
        level = np.concatenate([frame.level for frame in frames])
        low = max(0, int(candidate.sample - 2 * candidate.width))
        high = int(candidate.sample + candidate.delay + 2 * candidate.width) + 1
        part = level[low:high]
        strongest = -np.inf
        for width in {1, max(1, round(candidate.width / 2)), max(1, round(candidate.width))}:
            if width <= len(part):
                sums = np.convolve(part, np.ones(width), "valid") / np.sqrt(width)
                strongest = max(strongest, float(sums.max()))
        return strongest > UNDISPERSED * candidate.snr

    def _strongest(
        self, running: Floats, good: Floats, start: float, delay: float, width: int, reach: int
    ) -> tuple[float, float, Floats]:
        """The strongest boxcar near a start: its S/N, its offset, and its sums row by row (NaN outside of the data)."""
        profile = self._along(running, start, delay, width, reach)
        inside = ~np.isnan(profile) & (good[:, None] > 0.3)
        sums = np.where(inside, profile, 0).sum(axis=0) / np.sqrt(np.maximum(inside.sum(axis=0), 1))
        at = int(np.argmax(sums))
        return float(sums[at]), float(at - reach), np.where(inside[:, at], profile[:, at], np.nan)

    def _along(self, running: Floats, start: float, delay: float, width: int, reach: int) -> Floats:
        """Boxcar sums in sigmas of each row along a track, at starts from -reach to reach; NaN outside of the data.

        `running` are the cumulative sums of the rows from 0, shape (256, samples + 1); `start` is the boxcar's centre
        in the highest row; shape (256, 2 reach + 1).
        """
        length = running.shape[1] - 1
        begin = np.round(start - (width - 1) / 2 + delay * self.coordinate).astype(int)[:, None]
        begin = begin + np.arange(-reach, reach + 1)[None, :]
        inside = (begin >= 0) & (begin + width <= length)
        safe = np.where(inside, begin, 0)
        row = np.arange(len(running))[:, None]
        sums = (running[row, np.minimum(safe + width, length)] - running[row, safe]) / np.sqrt(width)
        return np.where(inside, sums, np.nan).astype(np.float32)


def _broadband(profile: Floats, snr: float) -> bool:
    """Whether a pulse of (rows,) sigmas is spread over its rows, and not the doing of one narrow part of them.

    A bright pulse may scintillate: it must show in fewer of the eight parts of its track than a faint one.
    """
    groups = np.array([group.sum() / np.sqrt(len(group)) for group in np.array_split(profile, GROUPS)])
    total = groups.sum() / np.sqrt(GROUPS)
    rest = np.delete(groups, int(np.argmax(groups))).sum() / np.sqrt(GROUPS - 1)
    shown = int(np.sum(groups > 0.25 * total / np.sqrt(GROUPS)))
    return bool(rest >= 0.5 * total and shown >= (5 if snr < 10 else 4))


def _lever(coordinate: Floats, profile: Floats) -> float:
    """Standard deviation of the coordinate, weighted by the power in groups of rows."""
    power = np.array([max(float(group.mean()), 0.0) for group in np.array_split(profile, GROUPS)])
    centres = np.array([float(group.mean()) for group in np.array_split(coordinate, GROUPS)])
    if power.sum() <= 0:
        return float(coordinate.std())
    mean = np.sum(power * centres) / power.sum()
    return float(np.sqrt(np.sum(power * (centres - mean) ** 2) / power.sum()))


def _meet(one: Candidate, other: Candidate) -> bool:
    """Whether two tracks cross, or come close at either end."""
    near = 2 * (one.width + other.width) + 16
    top = one.sample - other.sample
    bottom = top + one.delay - other.delay
    return top * bottom <= 0 or min(abs(top), abs(bottom)) < near
