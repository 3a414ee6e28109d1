"""Pulses confirmed: frames in which the classifier suspects a pulse are searched, with the frames around them.

A pulse is often longer than a frame, so the frames of a pulse's reach before a suspect are kept in a ring buffer, and
the search waits for those after it. What it finds is merged over frames into events.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Floats, Samples
from functions.pulsar.clean import CleanFrame
from functions.pulsar.features import FeatureMaker
from functions.pulsar.frames import SAMPLES
from functions.pulsar.search import Candidate, Search

MAX_WINDOW = 16
"""Suspect frames that are searched together, at most."""


@dataclass(frozen=True)
class Event:
    """A confirmed pulse."""

    time_s: float
    """Arrival at the highest row, s after the observation's start."""
    dm_pc_cm3: float
    dm_error_pc_cm3: float
    width_s: float
    """Width of the boxcar that fits best."""
    snr: float
    sweep_s: float
    """Delay from the highest to the lowest row."""
    frames: tuple[int, ...]
    """Positions of the frames that its track touches."""
    frame_snr: tuple[float, ...]
    """Its signal-to-noise ratio in each of them."""


@dataclass(frozen=True)
class _Held:
    index: int
    frame: Samples
    mean: Floats
    sigma: Floats
    valid: int


class Confirmer:
    """Takes labelled frames in order of time, gives events; holds a bounded number of frames."""

    def __init__(self, search: Search, maker: FeatureMaker) -> None:
        self.search = search
        self.maker = maker
        self._held: deque[_Held] = deque(maxlen=2 * search.reach + MAX_WINDOW + 3)
        self._clean: dict[int, CleanFrame] = {}
        self._window: tuple[int, int] | None = None
        self._last: list[Event] = []

    def push(
        self, index: int, frame: Samples, mean: Floats, sigma: Floats, suspect: bool, valid: int = SAMPLES
    ) -> Iterator[Event]:
        """Take the next frame (256, 256) with its reference; yield the events that are decided by now."""
        if self._held and index != self._held[-1].index + 1:
            yield from self.flush()
            self.forget()  # a gap: what follows has no past
        self._held.append(_Held(index, frame, mean, sigma, valid))
        if suspect and self._window is None:
            self._window = (index, index + 1)
        elif suspect and self._window is not None:
            if index - self._window[1] <= 2 and index + 1 - self._window[0] <= MAX_WINDOW:
                self._window = (self._window[0], index + 1)
            else:
                yield from self._search()
                self._window = (index, index + 1)
        if self._window is not None and index >= self._window[1] - 1 + self.search.reach + 1:
            yield from self._search()

    def flush(self) -> Iterator[Event]:
        """The events of what is still waiting; call it at the end."""
        if self._window is not None:
            yield from self._search()

    def forget(self) -> None:
        """Drop the past: the next frame does not follow on the last one."""
        self._held.clear()
        self._clean.clear()
        self._last = []

    def _search(self) -> Iterator[Event]:
        assert self._window is not None
        low, high = self._window
        self._window = None
        first = self._held[0].index
        for index in [index for index in self._clean if index < first]:
            del self._clean[index]
        frames = []
        for held in self._held:
            if held.index not in self._clean:
                self._clean[held.index] = CleanFrame(held.frame, held.mean, held.sigma, self.maker, held.valid)
            frames.append(self._clean[held.index])
        for candidate in self.search(frames, low - first, high - first):
            event = self._event(candidate, first, len(frames))
            if not any(_same(event, other) for other in self._last):
                self._last = [*self._last[-31:], event]
                yield event

    def _event(self, candidate: Candidate, first: int, frames: int) -> Event:
        search = self.search
        interval = search.sampling_time_s
        start = candidate.sample + first * SAMPLES
        # a line fitted through arrivals, each known to a Gaussian's width over its S/N, whose lever arm is the spread
        # of the pulse's power along the track; the grid of delays that was tried comes on top
        fitted = candidate.width / 2.355 / candidate.snr / max(candidate.lever, 0.02)
        delay_error = float(np.hypot(fitted, max(0.5, candidate.width / 8)))
        positions = (start + candidate.delay * search.coordinate) // SAMPLES
        touched = np.arange(
            max(first, int((start - candidate.width / 2) // SAMPLES)),
            min(first + frames, int((start + candidate.delay + candidate.width / 2) // SAMPLES) + 1),
        )
        share = np.array([np.mean(positions == index) for index in touched]) * len(positions) / max(candidate.rows, 1)
        return Event(
            time_s=start * interval,
            dm_pc_cm3=search.dm(candidate.delay),
            dm_error_pc_cm3=search.dm(delay_error),
            width_s=candidate.width * interval,
            snr=candidate.snr,
            sweep_s=candidate.delay * interval,
            frames=tuple(int(index) for index in touched),
            frame_snr=tuple(float(value) for value in candidate.snr * np.sqrt(share)),
        )


def _same(one: Event, other: Event) -> bool:
    """Whether two events are one pulse: their tracks cross, or end close together."""
    near = 2 * (one.width_s + other.width_s)
    top = one.time_s - other.time_s
    bottom = top + one.sweep_s - other.sweep_s
    return top * bottom <= 0 or min(abs(top), abs(bottom)) < near
