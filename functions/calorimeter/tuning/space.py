"""The space of hyper-parameters that is searched: a range or a list of choices for each name."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layers.runtime import InputError

if TYPE_CHECKING:
    import optuna

Value = int | float | str | bool
NOT_TUNED = ("steps",)
"""More of them is better, and costs more: what is best of them says nothing."""
FACTOR = 4.0
SPACES: dict[str, dict[str, Any]] = {
    "two-stage": {
        "learning_rate": {"low": 3e-4, "high": 6e-3, "log": True},
        "cells_learning_rate": {"low": 1e-3, "high": 2e-2, "log": True},
        "weight_decay": {"low": 1e-4, "high": 0.1, "log": True},
        "dropout": {"low": 0.0, "high": 0.3},
        "average": {"choices": [0.95, 0.98, 0.99, 0.995, 0.998]},
        "warm_up": {"low": 0.02, "high": 0.3, "log": True},
    },
    "transformer": {
        "learning_rate": {"low": 3e-4, "high": 6e-3, "log": True},
        "average": {"choices": [0.95, 0.98, 0.99, 0.995, 0.998]},
        "width": {"choices": [32, 48, 64, 96]},
        "blocks": {"low": 1, "high": 4},
    },
}
"""What is searched where a request does not say. Of the model that serves, what leaves the cost of a step as it is."""
KEYS = ("low", "high", "log", "choices")


@dataclass(frozen=True)
class Axis:
    """One hyper-parameter: choices, or a range with both ends, even in the logarithm where `log` is true."""

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Value, ...] = ()

    def suggest(self, trial: "optuna.Trial") -> Value:
        """A value for a trial."""
        if self.choices:
            chosen: Value = trial.suggest_categorical(self.name, self.choices)
            return chosen
        if self.whole:
            return int(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return float(trial.suggest_float(self.name, self.low, self.high, log=self.log))

    @property
    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """The same for a trial that has been."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether `value` is on it."""
        return value in self.choices if self.choices else self.low <= value <= self.high

    def as_json(self) -> dict[str, Any]:
        """What `read_space` reads."""
        if self.choices:
            return {"choices": list(self.choices)}
        low, high = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        return {"low": low, "high": high, "log": self.log}


def default_space(family: str, parameters: type[Any]) -> dict[str, Any]:
    """The family's in `SPACES`, or a quarter to four times its learning rate, and its batch, as far as it has these."""
    if family in SPACES:
        return SPACES[family]
    found: dict[str, Any] = {}
    defaults = vars(parameters())
    if (rate := defaults.get("learning_rate")) is not None:
        found["learning_rate"] = {"low": rate / FACTOR, "high": rate * FACTOR, "log": True}
    if (batch := defaults.get("batch")) is not None:
        found["batch"] = {"choices": [max(1, batch // 2), batch, 2 * batch]}
    return found


def read_space(told: Mapping[str, Any], parameters: type[Any], fixed: Mapping[str, Any], where: str) -> list[Axis]:
    """The axes that `told` describes, by name, of the fields of `parameters` that are not `fixed`.

    Raises InputError, naming the axis and the mend.
    """
    fields = {field.name: field for field in dataclasses.fields(parameters)}
    if not told:
        raise InputError(f"{where}: is empty, so there is nothing to tune; name a parameter, or leave it out")
    for name in told:
        if name not in fields or name in NOT_TUNED:
            close = difflib.get_close_matches(name, [field for field in fields if field not in NOT_TUNED], n=1)
            mend = f'write "{close[0]}"' if close else "those are " + ", ".join(sorted(set(fields) - set(NOT_TUNED)))
            raise InputError(f"{where}.{name}: is no parameter that can be tuned; {mend}")
        if name in fixed:
            raise InputError(f"{where}.{name}: is in parameters, too; take it out of one of them")
    return [_axis(name, told[name], fields[name].default, f"{where}.{name}") for name in sorted(told)]


def _axis(name: str, told: object, default: Any, where: str) -> Axis:
    if not isinstance(told, dict):
        raise InputError(f"{where}: is no object; write low and high, or choices")
    for key in told:
        if key not in KEYS:
            raise InputError(f"{where}.{key}: is no key of a range; the known ones are {', '.join(KEYS)}")
    if "choices" in told:
        choices = told["choices"]
        if (
            len(told) > 1
            or not isinstance(choices, list)
            or len(choices) < 2
            or len(set(map(repr, choices))) < len(choices)
        ):
            raise InputError(f"{where}.choices: is no list of different values, alone; write two at least")
        wanted = (int, float) if isinstance(default, float) else (type(default),)
        for value in choices:
            if type(value) not in wanted:
                raise InputError(f"{where}.choices: {value!r} is no value like {default!r}, which is the default")
        return Axis(name, choices=tuple(type(default)(value) for value in choices))
    if type(default) not in (int, float):
        raise InputError(f"{where}: has no range, since its default is {default!r}; write choices")
    ends = [told.get("low"), told.get("high")]
    for key, value in zip(("low", "high"), ends, strict=True):
        whole = type(value) is int
        if not (whole or (isinstance(default, float) and type(value) is float and math.isfinite(value))):
            kind = "whole number" if isinstance(default, int) else "number"
            raise InputError(f"{where}.{key}: {value!r} is no {kind}; write one")
    low, high = (float(value) for value in ends if value is not None)
    if not low < high:
        raise InputError(f"{where}: low ({ends[0]}) is not below high ({ends[1]})")
    log = told.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}.log: {log!r} is not true or false")
    if log and low <= 0:
        raise InputError(f"{where}: low ({ends[0]}) has no logarithm; write a positive one, or log: false")
    return Axis(name, low, high, log, whole=isinstance(default, int))
