"""The smallest model there is, a straight line through noisy points, and its gate."""

import json
from pathlib import Path

import numpy as np

from layers.quality import Gate, Metric, Rule

MODEL = "line"
GATE = Gate(
    model=MODEL,
    deciding="error",
    rules=(Rule(Metric("error", "mean distance to the points", "lower"), samples=200, bound=1.0),),
)


def points(count: int, seed: tuple[int, ...]) -> np.ndarray:
    """Points of y = 2 x + 1 with noise of 0.5, shape (count, 2)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, count)
    return np.stack([x, 2 * x + 1 + rng.normal(0, 0.5, count)], axis=1)


def fitted(some: np.ndarray) -> bytes:
    """The model: slope and offset."""
    slope, offset = np.polyfit(some[:, 0], some[:, 1], 1)
    return json.dumps({"slope": round(float(slope), 6), "offset": round(float(offset), 6)}).encode()


def errors(model: Path, some: np.ndarray) -> np.ndarray:
    """A row a point: how far it is from the line."""
    line = json.loads(model.read_text())
    return np.abs(line["slope"] * some[:, 0] + line["offset"] - some[:, 1])
