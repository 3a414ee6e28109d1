"""A report as one HTML page that needs nothing else: no script, no style sheet, no picture of another host."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1e21; margin: 2em auto; max-width: 62em; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3em .7em .3em 0;
  border-bottom: 1px solid #dcdfe3; vertical-align: top; overflow-wrap: anywhere }
td.n { white-space: nowrap; font-variant-numeric: tabular-nums }
.yes { color: #12702f } .no { color: #b3261e } small { color: #5b6067 }
svg { display: block; width: 15em; height: 2.6em }
"""
_ABSENT = {"promotion": "none: the file that comes with the twin", "seed": "none given"}
"""What it means that a fact is not there."""
_WHOSE = (("candidate", "#0b57d0", 12), ("serving", "#5b6067", 28))


def page(document: Mapping[str, Any], parts: Iterable[str] = (), told: Collection[str] = ()) -> str:
    """The page of a report document (`layers.quality.report`).

    `parts` are a twin's own, HTML that stands before the facts; `told` are the facts that they tell, not told again.
    """
    passed = bool(document["passed"])
    title = f"{document['model']}: {'passes' if passed else 'is refused'}"
    known = {"version", "model", "passed", "level", "reasons", "metrics", *told}
    rest = {name: value for name, value in document.items() if name not in known}
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n",
            f'<h1 class="{"yes" if passed else "no"}">{escape(title)}</h1>\n',
            *_reasons(document["reasons"]),
            *_metrics(document["metrics"], float(document["level"])),
            *parts,
            *(part for name, value in rest.items() for part in _facts(name, value)),
            "</body></html>\n",
        ]
    )


def _reasons(reasons: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>Checks</h2>\n<table><tr><th>check</th><th></th><th>what was found</th></tr>\n"
    for reason in sorted(reasons, key=lambda reason: bool(reason["passed"])):
        mark = '<td class="yes">passed</td>' if reason["passed"] else '<td class="no">failed</td>'
        yield f"<tr><td>{escape(reason['check'])}</td>{mark}<td>{escape(reason['sentence'])}</td></tr>\n"
    yield "</table>\n"


def _metrics(metrics: list[Mapping[str, Any]], level: float) -> Iterator[str]:
    yield f"<h2>Metrics</h2>\n<p><small>In brackets: {100 * level:g} % intervals, by bootstrap over the samples. "
    yield "Blue: candidate; grey: serving model; red: floor or bound.</small></p>\n<table><tr><th>metric</th>"
    yield "<th>candidate</th><th>serving</th><th>difference</th><th>limits</th><th></th></tr>\n"
    for metric in metrics:
        limits = [f"{name} {metric[name]:g}" for name in ("floor", "bound") if name in metric]
        limits += [f"perfect {metric['perfect']:.4g}"] if metric.get("perfect") is not None else []
        limits.append("decides" if metric["deciding"] else f"margin {metric['margin']:g}")
        yield f"<tr><td>{escape(metric['metric'])}<br><small>{escape(metric['meaning'])}; "
        yield f"{metric['better']} is better; {metric['samples']} samples</small></td>"
        for name, sign in (("candidate", ""), ("serving", ""), ("difference", "+")):
            yield f'<td class="n">{_interval(metric[name], sign)}</td>'
        yield f"<td>{'<br>'.join(map(escape, limits))}</td><td>{_drawing(metric)}</td></tr>\n"
    yield "</table>\n"


def _interval(found: Mapping[str, float | None], sign: str) -> str:
    value, low, high = (
        "–" if found[name] is None else format(found[name], f"{sign}.4g") for name in ("value", "low", "high")
    )
    return f"{value}<br><small>[{low}, {high}]</small>"


def _drawing(metric: Mapping[str, Any]) -> str:
    """Both intervals and the limits on one axis."""
    limits = [float(metric[name]) for name in ("floor", "bound") if name in metric]
    ends = [metric[name][end] for name, *_ in _WHOSE for end in ("low", "high")]
    numbers = [end for end in ends if end is not None] + limits
    if None in ends or not numbers:
        return ""
    low = float(min(numbers))
    width = float(max(numbers)) - low or 1.0

    def x(value: float) -> float:
        return round(8 + 224 * (value - low) / width, 1)

    parts = ['<svg viewBox="0 0 240 40" role="img">']
    parts += [f'<path d="M{x(limit)} 2V38" stroke="#b3261e" stroke-dasharray="3 2"/>' for limit in limits]
    for name, colour, y in _WHOSE:
        found = metric[name]
        parts.append(f'<path d="M{x(found["low"])} {y}H{x(found["high"])}" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<circle cx="{x(found["value"])}" cy="{y}" r="4" fill="{colour}"/>')
    return "".join([*parts, "</svg>"])


def _facts(name: str, value: Any) -> Iterator[str]:
    yield f"<h2>{escape(name.capitalize())}</h2>\n"
    rows = value.items() if isinstance(value, Mapping) else [("", value)]
    yield "<table>\n"
    for key, item in rows:
        yield f"<tr><td>{escape(_words(key))}</td><td>{'<br>'.join(map(escape, _lines(str(key), item)))}</td></tr>\n"
    yield "</table>\n"


def _lines(key: str, value: Any) -> Iterator[str]:
    """A fact as a person would write it, a line for each of several."""
    if value is None or value in ([], {}, ""):
        yield _ABSENT.get(key, "none")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield f"{_words(name)}: {', '.join(_lines(str(name), item))}"
    elif isinstance(value, list):
        if any(isinstance(item, Mapping | list) for item in value):
            yield from (", ".join(_lines(key, item)) for item in value)
        else:
            yield ", ".join(line for item in value for line in _lines(key, item))
    else:
        yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _words(name: object) -> str:
    return str(name).replace("_", " ")
