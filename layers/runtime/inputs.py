"""Requests: a small JSON file that names the many inputs of a training, a comparison or any other fan-in."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layers.runtime.contract import Input, InputError

_LARGEST_REQUEST = 16 * 2**20
MISSING = "there is no such object; upload it or correct it"
"""What is said of an input that is not there, after its name."""


@dataclass(frozen=True)
class Reference:
    """One object of a request; `sha256` is checked where it is given."""

    bucket: str
    key: str
    sha256: str = ""


@dataclass(frozen=True)
class Select:
    """Objects by prefix and suffix, in the order of their keys, at most `max` of them."""

    bucket: str
    prefix: str = ""
    suffix: str = ""
    max: int = 10_000


def read_references(source: Path) -> list[Reference | Select] | None:
    """What the request in `source` names under `inputs`; None where `source` is no request.

    Raises InputError, naming the entry that is wrong.
    """
    with source.open("rb") as stream:
        if not _may_be_json(stream.read(64)) or source.stat().st_size > _LARGEST_REQUEST:
            return None
    return references_in(source.read_bytes(), source.name)


def references_in(data: bytes, name: str) -> list[Reference | Select] | None:
    """`read_references` of a file's bytes; `name` is for the error."""
    if not _may_be_json(data[:64]):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None  # not ours to judge: the function says what is wrong with its own file
    if "inputs" not in document:
        return None
    entries = document["inputs"]
    if not isinstance(entries, list):
        raise InputError(f'{name}: "inputs" is no list; write [{{"bucket": ..., "key": ...}}, ...]')
    return [_reference(entry, f"{name}: inputs[{index}]") for index, entry in enumerate(entries)]


def _may_be_json(start: bytes) -> bool:
    return start.lstrip().startswith(b"{")


def resolve(
    references: Iterable[Reference | Select], list_keys: Callable[[str, str], Iterable[str]]
) -> list[Reference]:
    """Replace each `Select` by the objects it stands for, as `list_keys(bucket, prefix)` shows them now."""
    resolved: list[Reference] = []
    for reference in references:
        if isinstance(reference, Reference):
            resolved.append(reference)
            continue
        keys = sorted(key for key in list_keys(reference.bucket, reference.prefix) if key.endswith(reference.suffix))
        keys = [key for key in keys if not key.endswith("/")][: reference.max]
        if not keys:
            what = f"{reference.bucket}/{reference.prefix}*{reference.suffix}"
            raise InputError(f"select: no object matches {what}; upload some or correct the prefix")
        resolved += [Reference(reference.bucket, key) for key in keys]
    return resolved


def check(reference: Reference, sha256: str) -> None:
    """Raises InputError where the object's content is not what the request (or the first attempt) pinned."""
    if reference.sha256 and reference.sha256 != sha256:
        name = f"{reference.bucket}/{reference.key}"
        raise InputError(f"{name}: has changed since the request named it (SHA-256 {sha256}); write a new request")


def write_manifest(inputs: Sequence[Input], path: Path) -> None:
    """Tell a runtime in another process what was staged for it."""
    entries = [{"bucket": i.bucket, "key": i.key, "sha256": i.sha256, "path": str(i.path)} for i in inputs]
    path.write_text(json.dumps(entries), encoding="utf-8")


def read_manifest(path: Path) -> list[Input]:
    """What `write_manifest` wrote."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [Input(entry["bucket"], entry["key"], entry["sha256"], Path(entry["path"])) for entry in entries]


def _reference(entry: Any, where: str) -> Reference | Select:
    if not isinstance(entry, dict):
        raise InputError(f'{where}: is no object; write {{"bucket": ..., "key": ...}}')
    if "select" in entry:
        select = entry["select"]
        _only(entry, {"select"}, where)
        if not isinstance(select, dict):
            raise InputError(f'{where}.select: is no object; write {{"bucket": ..., "prefix": ...}}')
        _only(select, {"bucket", "prefix", "suffix", "max"}, f"{where}.select")
        most = select.get("max", 10_000)
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise InputError(f"{where}.select.max: {json.dumps(most)} is no positive whole number")
        return Select(
            _text(select, "bucket", f"{where}.select"),
            _text(select, "prefix", f"{where}.select", ""),
            _text(select, "suffix", f"{where}.select", ""),
            most,
        )
    _only(entry, {"bucket", "key", "sha256"}, where)
    return Reference(_text(entry, "bucket", where), _text(entry, "key", where), _text(entry, "sha256", where, ""))


def _only(entry: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(entry) - known)
    if unknown:
        raise InputError(f'{where}: "{unknown[0]}" is no key here; known keys are {", ".join(sorted(known))}')


def _text(entry: dict[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = entry.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{where}.{name}: is missing or no text; add it")
    return value
