"""A scan over prototypes: what each would resolve, which ones no other beats, and which one to build."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from functions.calorimeter.prototyping.fast import Prototype, resolution
from functions.calorimeter.prototyping.production import deepened
from functions.calorimeter.prototyping.stack import Stack
from functions.calorimeter.showers import Floats


@dataclass(frozen=True)
class Point:
    """A prototype and what the fast model says of it, at one energy."""

    stack: Stack
    resolution: float
    """Standard deviation over mean of the energy in all sensors."""
    error: float
    """Statistical error of `resolution`."""
    fraction: float
    """Part of the energy of the primary that is seen."""
    contained: float
    """Part of what a stack without end would see that this one does, on average."""


def scanned(
    model: Prototype, stacks: Sequence[Stack], counts: Sequence[int], particle: str, energies: Floats, seed: int
) -> Iterator[list[Point]]:
    """The points of each stack with each of these numbers of layers.

    One set of showers serves all numbers of layers of a stack, so that their differences are no statistics.
    """
    for number, stack in enumerate(stacks):
        deepest = replace(stack, layers=max(*counts, deepened(stack).layers))
        whole = model.generate(deepest, particle, energies, _seed(seed, number))
        yield [_point(replace(stack, layers=count), whole, energies) for count in counts]


def front(points: Sequence[Point], depths: Sequence[float]) -> list[int]:
    """The places of those that no other one beats in both depth and resolution, by depth.

    >>> stack = Stack("W", 3.5, 10, 0.5, 2.0)
    >>> points = [Point(stack, width, 0.0, 0.0, 1.0) for width in (0.1, 0.05, 0.06)]
    >>> front(points, [100.0, 200.0, 300.0])
    [0, 1]
    """
    best, found = math.inf, []
    for place in sorted(range(len(points)), key=lambda place: (depths[place], points[place].resolution)):
        if points[place].resolution < best:
            best = points[place].resolution
            found.append(place)
    return found


def knee(points: Sequence[Point], depths: Sequence[float], places: Sequence[int]) -> int:
    """The place on a front that is the farthest below the line from its first to its last.

    Both axes are logarithms, scaled to the front's ends (Satopaa et al., ICDCSW 2011, in the plane of logarithms).
    """
    x = np.log([depths[place] for place in places])
    y = np.log([points[place].resolution for place in places])
    if len(places) < 3:
        return places[-1]
    below = 1 - (x - x[0]) / (x[-1] - x[0]) - (y - y[-1]) / (y[0] - y[-1])
    return places[int(np.argmax(below))]


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _point(stack: Stack, whole: Floats, energies: Floats) -> Point:
    sums = whole[:, : stack.layers].sum(axis=1)
    width, error = resolution(sums / energies)
    everything = whole.sum(axis=1).mean()
    return Point(stack, width, error, float(sums.mean() / energies.mean() / 1e3), float(sums.mean() / everything))
