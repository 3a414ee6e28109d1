"""What a gate says, as data: one reason a check, each with its sentence."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from layers.quality.interval import Interval

Check = Literal["leak", "samples", "reach", "floor", "bound", "better", "not worse", "other"]


@dataclass(frozen=True)
class Reason:
    """One check and how it ended; `metric` is empty where it is about none."""

    metric: str
    check: Check
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Result:
    """One metric of the candidate, of the serving model, and the difference candidate minus serving."""

    metric: str
    meaning: str
    better: str
    deciding: bool
    samples: int
    floor: float | None
    bound: float | None
    margin: float
    candidate: Interval
    serving: Interval
    difference: Interval
    perfect: float | None = None
    """What a perfect model scores on as many samples, where that is not plain."""


@dataclass(frozen=True)
class Verdict:
    """All checks of a candidate; it passes when every one of them does."""

    model: str
    level: float
    results: tuple[Result, ...]
    reasons: tuple[Reason, ...]

    @property
    def passed(self) -> bool:
        return bool(self.reasons) and all(reason.passed for reason in self.reasons)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why it fails, a sentence each."""
        return tuple(reason.sentence for reason in self.reasons if not reason.passed)

    def to_json(self) -> dict[str, Any]:
        """The verdict for programs; what is not finite is null."""
        return {
            "model": self.model,
            "passed": self.passed,
            "level": self.level,
            "reasons": [dict(vars(reason)) for reason in self.reasons],
            "metrics": [
                {name: _plain(value) for name, value in vars(result).items() if value is not None}
                for result in self.results
            ],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return {name: _plain(number) for name, number in vars(value).items()}
    return None if isinstance(value, float) and not isfinite(value) else value
