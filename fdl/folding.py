"""From decoded YAML or JSON to what the models take, and from what they refuse to one sentence."""

import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fdl.errors import FdlError, PlacedError, quoted
from fdl.names import did_you_mean


def fold(annotation: Any, value: Any, *, strict: bool, field: str = "") -> Any:
    """Bring the keys of `value` to the spelling of the models in `annotation`, at every depth.

    Lenient, as Go decodes: keys in any case, of two spellings the later wins and maps are merged, unknown keys are
    ignored, null is absent. Strict: an unknown key is an FdlError with the nearest known one.
    """
    alternatives = [member for member in _members(annotation) if member is not type(None)]
    annotation = alternatives[0]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return fold(arguments[0], value, strict=strict, field=field)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(value, Mapping):
        return _fold_keys(annotation, value, strict=strict, field=field)
    if origin is list and isinstance(value, list):
        return [fold(arguments[0], item, strict=strict, field=f"{field}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {
            _key(key): fold(
                arguments[1], "" if item is None and not strict else item, strict=strict, field=f"{field}.{key}"
            )
            for key, item in value.items()
        }
    return value


def sentence(error: Any) -> tuple[str, str]:
    """The field and the problem, mend included, of one of pydantic's errors."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, PlacedError):
        return f"{place(error['loc'])}{cause.place}".removeprefix("."), cause.problem
    return place(error["loc"]), _problem(error)


def place(location: tuple[Any, ...]) -> str:
    """`("input", 0, "path")` as `input[0].path`."""
    text = ""
    for part in location:
        if part == "[key]":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _fold_keys(model: type[BaseModel], value: Mapping[Any, Any], *, strict: bool, field: str) -> dict[str, Any]:
    known = {name.lower(): name for name in model.model_fields}
    aliases: frozenset[str] = getattr(model, "spellings", frozenset())
    result: dict[str, Any] = {}
    for key, item in value.items():
        text = _key(key)
        name = known.get(text.lower())
        where = f"{field}.{text}".removeprefix(".")
        if name is None or (strict and text != name and text not in aliases):
            if not strict:
                continue
            close = name or did_you_mean(text, model.model_fields)
            mend = f'write "{close}"' if close else "the known keys are " + ", ".join(model.model_fields)
            raise FdlError(f"is no key that OSCAR knows here; {mend}", field=where)
        if item is None:
            continue
        folded = fold(model.model_fields[name].annotation, item, strict=strict, field=where)
        if isinstance(result.get(name), dict) and isinstance(folded, dict):
            if strict:
                _refuse_conflict(result[name], folded, where)
            folded = {**result[name], **folded}
        result[name] = folded
    return result


def _refuse_conflict(first: Mapping[str, Any], second: Mapping[str, Any], field: str) -> None:
    for key in first.keys() & second.keys():
        if first[key] != second[key]:
            raise FdlError(
                "differs from its value under the other spelling; write the same in both", field=f"{field}.{key}"
            )


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _key(key: Any) -> str:
    """A key as text: YAML reads a bare `on` or `1` as something else."""
    return key if isinstance(key, str) else json.dumps(key, default=str)


_EXPECTED = {
    "string_type": "text",
    "int_type": "whole number",
    "int_from_float": "whole number",
    "bool_type": "true or false",
    "list_type": "list",
    "dict_type": "mapping",
    "model_type": "mapping",
    "model_attributes_type": "mapping",
}


def _problem(error: Any) -> str:
    kind, value = error["type"], error["input"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "missing":
        return "is missing; add it"
    if kind == "string_too_short":
        return "is empty; fill it in"
    if kind == "literal_error":
        choices = error["ctx"]["expected"].replace("'", '"').replace(" or ", ", ")
        return f"{quoted(value)} is none of {choices}; write one of them"
    wanted = _EXPECTED.get(kind)
    if wanted == "text" and isinstance(value, int | float):
        return f'{quoted(value)} is no text; write "{quoted(value)}"'
    if wanted == "text":
        return f"{quoted(value)} is no text; write text"
    if wanted == "true or false":
        return f"{quoted(value)} is neither true nor false; write one of them, without quotes"
    if wanted:
        return f"{quoted(value)} is no {wanted}; write a {wanted}"
    return f"{quoted(value)}: {error['msg']}"
