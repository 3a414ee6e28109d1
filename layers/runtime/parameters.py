"""Frozen dataclasses read from environment variables (settings) and from JSON (requests), with errors that help."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from layers.runtime.contract import InputError

T = TypeVar("T")

_HINTS: dict[type[Any], dict[str, Any]] = {}
_KINDS = {list: "list", str: "text", int: "number", float: "number", bool: "true or false", type(None): "null"}
_NAMES = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    dict: "object",
}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}
_MENDS = {
    int: "write digits, without quotes, point or exponent",
    float: "write it without quotes",
    bool: "write true or false, without quotes",
    str: "write it in quotes",
    Path: "write it in quotes",
    dict: "write {...}",
}
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def read_settings(cls: type[T], environ: Mapping[str, str]) -> T:
    """Build the dataclass `cls` from environment variables: field `dm_max` is read from `DM_MAX`.

    Supported field types: str, int, float, bool, Path, `X | None` and tuples of these (comma-separated).
    Raises InputError, naming variable, value and expected type.
    """
    values = {}
    hints = _hints(cls)
    for field in dataclasses.fields(_dataclass(cls)):
        variable = field.name.upper()
        text = environ.get(variable)
        if text is None or text == "":
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise InputError(
                    f"environment variable {variable} is not set; set it in the FDL's environment.variables"
                )
            continue
        try:
            values[field.name] = _from_text(text, hints[field.name])
        except ValueError:
            wanted = _describe(hints[field.name])
            raise InputError(f'environment variable {variable}: "{text}" is no {wanted}; write {wanted}') from None
    return _build(cls, values, "settings")


def read_request(cls: type[T], source: Path) -> T:
    """Build the dataclass `cls` from the JSON object in `source`; the key `inputs` is the runtime's and is skipped.

    Raises InputError, naming file, key and mend: no JSON object, a key that is unknown, missing or there twice, a wrong
    type.
    """
    name = source.name
    try:
        document = json.loads(source.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except KeyError as error:
        raise InputError(f'{name}: the key "{cut(error.args[0])}" is there twice; leave one of them') from None
    except RecursionError:
        raise InputError(f"{name}: is no JSON (its lists are nested too deeply); send a JSON object") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: is no JSON ({error}); send a JSON object") from None
    except ValueError:
        raise InputError(f"{name}: is no JSON (a number has too many digits); send a JSON object") from None
    if not isinstance(document, dict):
        raise InputError(f"{name}: holds a JSON {_KINDS[type(document)]}; send a JSON object")
    own = {key: value for key, value in document.items() if key != "inputs" or "inputs" in _hints(cls)}
    return read_object(cls, own, name, "this request")


def read_object(cls: type[T], document: Mapping[str, Any], where: str, what: str) -> T:
    """Build the dataclass `cls` from a JSON object at `where`, which is `what`; raises InputError as `read_request`."""
    hints = _hints(cls)
    values = {}
    for key, value in document.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            mend = f'write "{close[0]}"' if close else "known keys are " + ", ".join(sorted(hints))
            raise InputError(f'{where}: "{key}" is no key of {what}; {mend}')
        try:
            values[key] = _from_json(value, hints[key])
        except (TypeError, ValueError, OverflowError):
            given = cut(json.dumps(value))
            raise InputError(f"{where}: {key}: {given} is no {_describe(hints[key])}; {_mend(hints[key])}") from None
    missing = [
        field.name
        for field in dataclasses.fields(_dataclass(cls))
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f'{where}: the key "{missing[0]}" is missing; add it ({_describe(hints[missing[0]])})')
    return _build(cls, values, where)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; KeyError for a key that is there twice, of which nobody knows what was meant."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def cut(text: str, most: int = 200) -> str:
    """A text, or its beginning where it is longer: a sentence can be read.

    >>> cut("a" * 9, most=4)
    'aaaa... (9 characters)'
    """
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def as_json(instance: object) -> dict[str, Any]:
    """The dataclass as plain JSON values, for the run key and the provenance record."""
    values = dataclasses.asdict(_instance(instance))
    return {key: _plain(value) for key, value in values.items()}


def _hints(cls: type[Any]) -> dict[str, Any]:
    found = _HINTS.get(cls)
    if found is None:
        found = _HINTS[cls] = typing.get_type_hints(cls)
    return found


def _build(cls: type[T], values: dict[str, Any], where: str) -> T:
    try:
        return cls(**values)
    except ValueError as error:  # a dataclass checks its ranges in __post_init__
        raise InputError(f"{where}: {error}") from None


def _dataclass(cls: type[Any]) -> Any:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__qualname__} must be a frozen dataclass")
    return cls


def _instance(instance: object) -> Any:
    return instance


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union without None; a plain type is its own only member."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(member for member in typing.get_args(hint) if member is not type(None))
    return (hint,)


def _from_text(text: str, hint: Any) -> Any:
    hint = _alternatives(hint)[0]
    if typing.get_origin(hint) is tuple:
        return tuple(_from_text(part.strip(), typing.get_args(hint)[0]) for part in text.split(",") if part.strip())
    if hint is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(text)
    if typing.get_origin(hint) is typing.Literal:
        if text in typing.get_args(hint):
            return text
        raise ValueError(text)
    return hint(text)


def _from_json(value: Any, hint: Any) -> Any:
    if value is None:
        if type(None) in typing.get_args(hint):
            return None
        raise ValueError(value)
    hint = _alternatives(hint)[0]
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(value)
        return tuple(_from_json(item, typing.get_args(hint)[0]) for item in value)
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise ValueError(value)
        return value
    if origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise ValueError(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(value)
    return value


def _describe(hint: Any) -> str:
    hint = _alternatives(hint)[0]
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return f"list of {_PLURALS.get(inner) or _describe(inner).replace('list of', 'lists of', 1)}"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is dict:
        hint = dict
    return _NAMES[hint] if hint in _NAMES else getattr(hint, "__name__", str(hint))


def _mend(hint: Any) -> str:
    hint = _alternatives(hint)[0]
    if typing.get_origin(hint) is tuple:
        return "write it in brackets, [...]"
    if typing.get_origin(hint) is dict:
        hint = dict
    return _MENDS.get(hint, f"write {_describe(hint)}")
