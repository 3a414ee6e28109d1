"""What is known of a model's version, for people."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli import shipped
from infra.cli.output import ago, human_size, printable

if TYPE_CHECKING:
    from layers.learning.registry import Manifest, Verdict

SHORT = 12
LONGEST = 8
"""Values of a list that are shown one by one; of a longer one, how many there are."""

Lines = list[tuple[str, str]]


def print_manifest(
    manifest: "Manifest", verdicts: Iterable["Verdict"], parents: list["Manifest"], serves_as: str
) -> None:
    """A version's facts: where it comes from, how good it is, what gates have said of it."""
    click.echo(f"{manifest.model} {manifest.version}" + (f"  ({serves_as})" if serves_as else ""))
    lines: Lines = [
        ("sha256", manifest.sha256),
        ("size", human_size(manifest.size)),
        ("code", manifest.code),
        ("parent", manifest.parent),
        ("data", f"{len(manifest.data)} objects" if manifest.data else ""),
        *_titled("units", manifest.units),
        *_titled("metrics", manifest.metrics),
        *_titled("trained on", manifest.training_range),
        *_titled("request", manifest.request),
    ]
    for verdict in verdicts:
        lines += _verdict(verdict)
    lineage = [manifest.version, *(parent.version for parent in parents)]
    if parents and parents[-1].parent:
        lineage.append(parents[-1].parent)
    _print([*lines, ("lineage", " <- ".join(lineage))])


def print_shipped(model: str, path: Path) -> None:
    """What a shipped file says of itself."""
    from layers.runtime.models import version_of

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    click.echo(f"{model} {version_of(sha256)}  (the shipped file; nothing was promoted)")
    facts = [("file", shipped.place(path)), ("sha256", sha256), ("size", human_size(path.stat().st_size))]
    _print([*facts, *_titled("says", shipped.metadata(path))])


def described(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A value as lines of names and texts, what is nested under dotted names.

    >>> list(described({"recall": {"12-20": 0.0}, "range": [5, 500], "f1": 0.49999999999999994, "ok": True}))
    [('recall.12-20', '0'), ('range', '5, 500'), ('f1', '0.5'), ('ok', 'yes')]
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from described(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and value:
        if len(value) > LONGEST or any(isinstance(one, Mapping | list | tuple) for one in value):
            yield name, f"{len(value)} values"
        else:
            yield name, ", ".join(_text(one) for one in value)
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None or value in ({}, [], ()) else str(value)


def _titled(title: str, values: Mapping[str, Any]) -> Lines:
    """Lines of which the first one bears the title."""
    lines = [f"{name} = {text}" for name, text in described(values)] if values else []
    return [(title if at == 0 else "", line) for at, line in enumerate(lines)]


def _verdict(verdict: "Verdict") -> Lines:
    against = verdict.report.get("serving") if isinstance(verdict.report, Mapping) else None
    version = against.get("version") if isinstance(against, Mapping) else None
    said = [
        "passed" if verdict.passed else "failed",
        f"{ago(verdict.time.timestamp())} ago",
        *([f"against {version}"] if version else []),
        f"(report {verdict.sha256[:SHORT]})",
    ]
    reasons = verdict.report.get("reasons") or []
    why = [reason for reason in reasons if isinstance(reason, Mapping) and not reason.get("passed")]
    return [("gate", " ".join(said)), *(("", str(reason.get("sentence", ""))) for reason in why)]


def _print(lines: Lines) -> None:
    width = max(len(title) for title, _ in lines) + 2
    for title, text in lines:
        if text:
            click.echo(f"{title:<{width}}{printable(text)}")
