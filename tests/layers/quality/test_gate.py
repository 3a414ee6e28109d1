"""The gate: every check has a case that it lets through and one that it must refuse."""

import re
from dataclasses import replace

import numpy as np
import pytest

from layers.quality import Gate, Metric, Rule, Verdict, judge, leak
from layers.quality.interval import Sampling

RIGHT = Metric("right", "part that is right", "higher")
ALARMS = Metric("alarms", "false alarms a frame", "lower")
COVERAGE = Metric("coverage", "part of the truths within their errors", "higher")
GATE = Gate(
    model="toy",
    deciding="right",
    rules=(
        Rule(RIGHT, samples=200, floor=0.7),
        Rule(ALARMS, samples=200, bound=0.1, margin=0.02),
        Rule(COVERAGE, samples=200, floor=0.6, bound=0.8, margin=0.05),
    ),
    sampling=Sampling(resamples=400),
)


def scores(
    right: float = 0.85, alarms: float = 0.05, coverage: float = 0.7, count: int = 1000
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)  # the same samples are the hard ones for every model
    hard = rng.permutation(count) / count
    return {"right": hard < right, "alarms": hard < alarms, "coverage": hard < coverage}


def verdict(gate: Gate = GATE, serving: dict[str, np.ndarray] | None = None, **candidate: float) -> Verdict:
    return judge(gate, scores(**candidate), serving or scores(right=0.8), seed=1)


def refused_by(found: Verdict) -> list[tuple[str, str]]:
    return [(reason.metric, reason.check) for reason in found.reasons if not reason.passed]


def test_a_better_candidate_that_keeps_all_limits_passes() -> None:
    found = verdict()
    assert found.passed and found.refusals == ()
    assert {reason.check for reason in found.reasons} == {"samples", "floor", "bound", "better", "not worse"}


def test_a_worse_candidate_is_refused() -> None:
    found = verdict(right=0.77)
    assert refused_by(found) == [("right", "better")]
    assert "is none for the better" in found.refusals[0]


def test_one_that_is_better_within_noise_is_refused() -> None:
    candidate, serving = scores(right=0.8), scores(right=0.8)
    right = np.flatnonzero(serving["right"])
    wrong = np.flatnonzero(~serving["right"])
    candidate["right"][wrong[:30]], candidate["right"][right[:22]] = True, False  # 0.8 % better by luck
    assert candidate["right"].mean() > serving["right"].mean()
    found = judge(GATE, candidate, serving, seed=1)
    assert refused_by(found) == [("right", "better")]
    assert "it may be noise" in found.refusals[0]


def test_of_equally_good_models_luck_promotes_one_in_forty() -> None:
    gate = Gate("toy", "right", (Rule(RIGHT, samples=200, floor=0.5),), Sampling(resamples=200))
    rng = np.random.default_rng(9)
    promoted = 0
    for _ in range(120):
        hard = rng.random(300)
        one, other = ({"right": hard + rng.normal(0, 0.1, 300) < 0.8} for _ in range(2))
        promoted += judge(gate, one, other, seed=1).passed
    assert promoted <= 9  # 3 expected; more than 9 happen once in a thousand times


def test_the_serving_model_itself_is_refused() -> None:
    assert refused_by(judge(GATE, scores(), scores(), seed=1)) == [("right", "better")]


def test_less_is_better_where_the_metric_says_so() -> None:
    gate = replace(GATE, deciding="alarms")
    assert verdict(gate, serving=scores(alarms=0.08)).passed
    assert refused_by(verdict(gate, serving=scores(alarms=0.02))) == [("alarms", "better")]


@pytest.mark.parametrize(
    "candidate, metric, check",
    [
        ({"right": 0.71}, "right", "floor"),  # the value lies above it, but not the whole interval
        ({"alarms": 0.095}, "alarms", "bound"),
        ({"coverage": 0.5}, "coverage", "floor"),
        ({"coverage": 0.9}, "coverage", "bound"),
    ],
)
def test_a_limit_that_is_not_shown_to_be_kept_refuses(candidate: dict[str, float], metric: str, check: str) -> None:
    lenient = tuple(replace(rule, margin=1.0) for rule in GATE.rules)
    serving = scores(right=0.5, coverage=candidate.get("coverage", 0.7), alarms=candidate.get("alarms", 0.05))
    found = verdict(replace(GATE, rules=lenient), serving=serving, **candidate)
    assert refused_by(found) == [(metric, check)]
    assert re.search(r"\[0\.\d+, 0\.\d+\] lies not wholly (above the floor|below the bound) 0\.\d", found.refusals[0])


def test_too_few_samples_refuse_however_good_the_candidate_is() -> None:
    found = judge(GATE, scores(right=1.0, alarms=0.0, count=199), scores(right=0.5, count=199), seed=1)
    assert ("right", "samples") in refused_by(found) and ("alarms", "samples") in refused_by(found)
    assert "right: 199 samples, fewer than the 200 asked for" in found.refusals


def test_no_samples_refuse() -> None:
    empty = {name: values[:0] for name, values in scores().items()}
    found = judge(GATE, empty, empty, seed=1)
    assert {check for _, check in refused_by(found)} == {"samples", "floor", "bound", "better", "not worse"}


def test_a_metric_that_does_not_decide_may_be_worse_within_its_margin_only() -> None:
    assert verdict(alarms=0.052).passed
    found = verdict(alarms=0.07)
    assert refused_by(found) == [("alarms", "not worse")]
    assert "may be worse than the margin of 0.02 allows" in found.refusals[0]


def test_limits_that_a_perfect_model_would_not_keep_want_more_samples() -> None:
    found = judge(GATE, scores(), scores(right=0.8), seed=1, perfect={"alarms": 0.2})
    assert refused_by(found) == [("alarms", "reach")]
    assert "a perfect model scores 0.2, which does not keep the limits; test on more" in found.refusals[0]
    found = judge(GATE, scores(), scores(right=0.8), seed=1, perfect={"alarms": 0.01, "right": 0.99})
    assert found.passed and found.to_json()["metrics"][1]["perfect"] == 0.01
    assert refused_by(judge(GATE, scores(), scores(right=0.8), seed=1, perfect={"right": np.nan})) == [
        ("right", "reach")
    ]


class Pairs:
    """Reference and generated values, a pair a row: what a distance between two samples is computed from."""

    def __init__(self, reference: np.ndarray, generated: np.ndarray) -> None:
        self.reference, self.generated = reference, generated

    def __len__(self) -> int:
        return len(self.reference)

    def __getitem__(self, rows: np.ndarray) -> "Pairs":
        return Pairs(self.reference[rows], self.generated[rows])


def test_scores_may_be_anything_that_gives_rows() -> None:
    from scipy.stats import wasserstein_distance

    distance = Metric("distance", "", "lower", lambda rows: wasserstein_distance(rows.reference, rows.generated))
    gate = Gate("toy", "distance", (Rule(distance, samples=200, bound=0.5),), Sampling(resamples=200))
    rng = np.random.default_rng(3)
    reference = rng.normal(0, 1, 400)
    near, far = (Pairs(reference, rng.normal(shift, 1, 400)) for shift in (0.1, 0.6))
    perfect = {"distance": wasserstein_distance(*np.split(reference, 2))}
    assert judge(gate, {"distance": near}, {"distance": far}, seed=1, perfect=perfect).passed
    refused = refused_by(judge(gate, {"distance": far}, {"distance": near}, seed=1, perfect=perfect))
    assert refused == [("distance", "bound"), ("distance", "better")]


def test_scores_that_are_no_numbers_refuse() -> None:
    broken = scores()
    broken["right"] = np.full(1000, np.nan)
    found = judge(GATE, broken, scores(), seed=1)
    assert {("right", "floor"), ("right", "better")} <= set(refused_by(found))
    assert found.to_json()["metrics"][0]["candidate"] == {"value": None, "low": None, "high": None}


def test_scores_that_are_missing_or_of_other_samples_are_an_error() -> None:
    some = {name: values for name, values in scores().items() if name != "alarms"}
    with pytest.raises(ValueError, match="the candidate has no scores of alarms"):
        judge(GATE, some, scores(), seed=1)
    with pytest.raises(ValueError, match="are no pairs"):
        judge(GATE, scores(), scores(count=999), seed=1)


def test_a_candidate_that_saw_the_test_data_is_refused_whatever_its_scores() -> None:
    seen = leak(["ab" * 32, "cd" * 32], ["ef" * 32, "sha256:" + "CD" * 32])
    assert not seen.passed and "cd" * 32 in seen.sentence
    found = judge(GATE, scores(), scores(right=0.8), seed=1, others=[seen])
    assert refused_by(found) == [("", "leak")]
    unseen = leak(["ab" * 32], ["ef" * 32])
    assert judge(GATE, scores(), scores(right=0.8), seed=1, others=[unseen]).passed


def test_a_candidate_that_saw_nothing_leaks_nothing() -> None:
    assert leak([], ["ef" * 32]).passed and leak([], []).passed


def test_no_reason_is_no_pass() -> None:
    assert not Verdict("toy", 0.95, (), ()).passed


def test_the_same_seed_gives_the_same_verdict() -> None:
    assert verdict() == verdict()


@pytest.mark.parametrize(
    "wrong, why",
    [
        ({"deciding": "speed"}, "has no rule"),
        ({"rules": (GATE.rules[0], GATE.rules[0])}, "the same metric"),
        ({"rules": (Rule(RIGHT, samples=200),)}, "no rule has a floor or a bound"),
    ],
)
def test_a_gate_that_would_hold_nothing_back_is_refused(wrong: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(GATE, **wrong)


def test_a_rule_without_samples_or_with_a_negative_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="samples: 1 is less than 2"):
        Rule(RIGHT, samples=1)
    with pytest.raises(ValueError, match=r"margin: -0\.1 is negative"):
        Rule(RIGHT, samples=10, margin=-0.1)
