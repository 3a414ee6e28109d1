"""The families of generator models: what each of them learns by; `family` imports one when it is asked for.

Every family is a module with `Parameters`, `make` and `build`, as `learner.Family` says.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from layers.runtime import InputError
from layers.runtime.parameters import read_object

if TYPE_CHECKING:
    from functions.calorimeter.learners.learner import Family

FAMILIES = {
    "two-stage": "functions.calorimeter.learners.two_stage",
    "3dgan": "functions.calorimeter.learners.gan3d",
    "conv2d": "functions.calorimeter.learners.conv2d",
    "transformer": "functions.calorimeter.learners.transformer",
}
"""The module of each family."""


def family(name: str, where: str = "family") -> "Family":
    """The family of that name, which needs torch. Raises InputError, naming those that there are."""
    if name not in FAMILIES:
        raise InputError(f'{where}: there is no family "{name}"; write one of {", ".join(FAMILIES)}')
    return cast("Family", importlib.import_module(FAMILIES[name]))


def parameters_of(name: str, document: Mapping[str, Any], where: str) -> Any:
    """A family's `Parameters` from what a request says of them. Raises InputError, naming field and mend."""
    return read_object(family(name, where).Parameters, document, where, f"the family {name}")
