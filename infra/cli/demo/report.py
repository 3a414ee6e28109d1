"""What the chain found, set against the truth where that is known."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.cli.errors import CliError

ORDER = ("none", "pulse", "nbrfi", "bbrfi", "other")
"""The labels that a person wants to see first; combinations follow in the order of their names."""


@dataclass(frozen=True)
class Confusion:
    """How often a frame of one true label was given each label."""

    counts: Mapping[tuple[str, str], int]

    @property
    def labels(self) -> list[str]:
        """All labels that occur, in the order of the table."""
        found = {label for pair in self.counts for label in pair}
        return [label for label in ORDER if label in found] + sorted(found.difference(ORDER))

    @property
    def frames(self) -> int:
        """How many frames were compared."""
        return sum(self.counts.values())

    @property
    def exact(self) -> float:
        """The part of the frames whose label is the true one."""
        return sum(count for (true, said), count in self.counts.items() if true == said) / self.frames

    def pulses(self) -> tuple[int, int]:
        """Of the frames that hold a pulse: how many are said to hold one, and how many there are."""
        holding = {pair: count for pair, count in self.counts.items() if "pulse" in pair[0].split("+")}
        found = sum(count for (_, said), count in holding.items() if "pulse" in said.split("+"))
        return found, sum(holding.values())

    def rows(self) -> list[list[Any]]:
        """The table: a row for each true label, a column for each label given; 0 is left blank."""
        return [
            [true, *(self.counts.get((true, said), "") for said in self.labels)]
            for true in self.labels
            if any(self.counts.get((true, said)) for said in self.labels)
        ]


@dataclass(frozen=True)
class Pulses:
    """Which true pulses were found as events, and what was found that is none."""

    found: list[dict[str, Any]]
    missed: list[dict[str, Any]]
    false: list[dict[str, Any]]


def pulses(events: Sequence[Mapping[str, Any]], truth: Mapping[str, Any], tolerance_s: float = 0.02) -> Pulses:
    """Pair each true pulse with the nearest event in time, each event once; strong pulses choose first."""
    free = [dict(event) for event in events]
    found, missed = [], []
    for pulse in sorted(truth["pulses"], key=lambda pulse: -pulse["snr"]):
        distance = [abs(event["time_s"] - pulse["time_s"]) for event in free]
        if distance and min(distance) <= tolerance_s:
            free.pop(distance.index(min(distance)))
            found.append(dict(pulse))
        else:
            missed.append(dict(pulse))
    return Pulses(found, missed, free)


def confusion(labels: Mapping[str, Any], truth: Mapping[str, Any]) -> Confusion:
    """Compare two sets of frames by their index. Raises CliError where a labelled frame has no truth."""
    true = {frame["index"]: frame["label"] for frame in truth["frames"]}
    counts: Counter[tuple[str, str]] = Counter()
    for frame in labels["frames"]:
        if frame["index"] not in true:
            raise CliError(f"frame {frame['index']} has no truth; the observation and its truth do not belong together")
        counts[true[frame["index"]], frame["label"]] += 1
    return Confusion(counts)


def read(path: Path) -> dict[str, Any]:
    """A JSON file that a function wrote."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return dict(value)
