"""The gate of a model: what a candidate must show before it serves.

A candidate passes when, on the same samples as the serving model,

- every metric has enough samples, also for a perfect model to keep the limits, and its whole confidence interval lies
  above the floor and below the bound;
- the deciding metric is better: the interval of the paired difference excludes zero on the right side;
- every other metric is not worse by more than its margin: nor is any value in the interval of its difference.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from layers.quality.interval import Interval, Sampling, difference, interval
from layers.quality.metric import Metric, Scores
from layers.quality.verdict import Reason, Result, Verdict


@dataclass(frozen=True)
class Rule:
    """What one metric of a candidate must show."""

    metric: Metric
    samples: int
    """Fewest rows of scores. Where nothing ever goes wrong in n samples, up to 3 / n may (95 %): ask for 3 / bound."""
    floor: float | None = None
    """The interval must lie at or above it."""
    bound: float | None = None
    """The interval must lie at or below it."""
    margin: float = 0.0
    """How much worse than the serving model it may be, where it does not decide."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"{self.metric.name}: samples: {self.samples} is less than 2")
        if self.margin < 0:
            raise ValueError(f"{self.metric.name}: margin: {self.margin} is negative")


@dataclass(frozen=True)
class Gate:
    """The declared gate of a twin's model; `deciding` names the metric that a candidate must improve."""

    model: str
    deciding: str
    rules: tuple[Rule, ...]
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        names = [rule.metric.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.model}: two rules are about the same metric")
        if self.deciding not in names:
            raise ValueError(f'{self.model}: the deciding metric "{self.deciding}" has no rule')
        if all(rule.floor is None and rule.bound is None for rule in self.rules):
            raise ValueError(f"{self.model}: no rule has a floor or a bound; the first model would be compared only")


def judge(
    gate: Gate,
    candidate: Mapping[str, Scores],
    serving: Mapping[str, Scores],
    *,
    seed: int,
    others: Iterable[Reason] = (),
    perfect: Mapping[str, float] | None = None,
) -> Verdict:
    """Compare the scores of two models, by metric, row by row of the same samples; `others` are checks made before.

    `perfect` is what a perfect model scores on as many samples, for metrics such as distances, where that is not zero:
    the distance between two halves of the reference, say. A limit that even that does not keep wants more samples.

    Raises ValueError where a metric has no scores, or scores that are not of the same samples.
    """
    sampling = replace(gate.sampling, seed=seed)
    results, reasons = [], list(others)
    for rule in gate.rules:
        name = rule.metric.name
        for whose, scores in (("candidate", candidate), ("serving model", serving)):
            if name not in scores:
                raise ValueError(f"{gate.model}: the {whose} has no scores of {name}")
        result = Result(
            metric=name,
            meaning=rule.metric.meaning,
            better=rule.metric.better,
            deciding=name == gate.deciding,
            samples=len(candidate[name]),
            floor=rule.floor,
            bound=rule.bound,
            margin=rule.margin,
            candidate=interval(rule.metric, candidate[name], sampling),
            serving=interval(rule.metric, serving[name], sampling),
            difference=difference(rule.metric, candidate[name], serving[name], sampling),
            perfect=(perfect or {}).get(name),
        )
        results.append(result)
        reasons += _limits(rule, result)
        reasons.append(_better(rule, result) if result.deciding else _not_worse(rule, result))
    return Verdict(gate.model, sampling.level, tuple(results), tuple(reasons))


def _limits(rule: Rule, result: Result) -> Iterator[Reason]:
    name, found = result.metric, result.candidate
    enough = result.samples >= rule.samples
    than = "at least" if enough else "fewer than"
    yield Reason(name, "samples", enough, f"{name}: {result.samples} samples, {than} the {rule.samples} asked for")
    if result.perfect is not None:
        low, high = -inf if rule.floor is None else rule.floor, inf if rule.bound is None else rule.bound
        reached = low <= result.perfect <= high
        how = "keeps" if reached else "does not keep"
        more = "" if reached else "; test on more"
        told = f"{name}: on so many samples a perfect model scores {result.perfect:.4g}, which {how} the limits{more}"
        yield Reason(name, "reach", reached, told)
    if rule.floor is not None:
        above = found.low >= rule.floor
        how = "at or above" if above else "not wholly above"
        yield Reason(name, "floor", above, f"{name}: {_told(found)} lies {how} the floor {rule.floor:g}")
    if rule.bound is not None:
        below = found.high <= rule.bound
        how = "at or below" if below else "not wholly below"
        yield Reason(name, "bound", below, f"{name}: {_told(found)} lies {how} the bound {rule.bound:g}")


def _better(rule: Rule, result: Result) -> Reason:
    low, high = _gain(rule, result.difference)
    change = f"{result.metric}: the difference to the serving model, {_told(result.difference, '+')},"
    if low > 0:
        return Reason(result.metric, "better", True, f"{change} is an improvement ({rule.metric.better} is better)")
    how = "is none for the better" if high < 0 else "does not exclude zero: it may be noise"
    return Reason(result.metric, "better", False, f"{change} {how}")


def _not_worse(rule: Rule, result: Result) -> Reason:
    low, _ = _gain(rule, result.difference)
    passed = low >= -rule.margin
    change = f"{result.metric}: the difference to the serving model, {_told(result.difference, '+')},"
    how = "is not" if passed else "may be"
    sentence = f"{change} {how} worse than the margin of {rule.margin:g} allows"
    return Reason(result.metric, "not worse", passed, sentence)


def _gain(rule: Rule, change: Interval) -> tuple[float, float]:
    """The interval of a difference, turned so that up is better."""
    if rule.metric.sign > 0:
        return change.low, change.high
    return -change.high, -change.low


def _told(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.4g} [{found.low:{sign}.4g}, {found.high:{sign}.4g}]"
