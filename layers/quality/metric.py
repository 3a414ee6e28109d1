"""A metric: one number from the scores of many samples, and which way is better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np


class Scores(Protocol):
    """Rows, one a sample: an array, or what gives some of its rows for an array of row numbers (which may repeat).

    Rows must be independent: of a Markov chain or of a time series a row is a block, not a step.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def mean(scores: Any) -> float:
    """Mean of the rows: a part, a rate, an average distance.

    >>> mean(np.array([True, False, True, True]))
    0.75
    """
    return float(np.mean(scores))


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is.

    `value` maps scores to it; it is called on resampled rows, so it depends on their order in no way.
    """

    name: str
    meaning: str
    """What it says, a phrase with the unit."""
    better: Literal["higher", "lower"]
    value: Callable[[Any], float] = mean

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise ValueError(f'{self.name}: better: "{self.better}" is neither "higher" nor "lower"')

    @property
    def sign(self) -> int:
        """+1 where more is better, else -1."""
        return 1 if self.better == "higher" else -1
