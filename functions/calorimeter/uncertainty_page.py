"""The page of an ensemble's bands: what they cover, how wide they are, and how they look."""

from collections.abc import Iterator, Mapping
from typing import Any

from functions.calorimeter.webpage import figure, heading, paragraph, picture, table
from functions.calorimeter.webpage import page as whole

BLUE, RED, GREY = "#0b57d0", "#b3261e", "#5b6067"
ROLES = {
    "calibrated": "slices that the factor was calibrated on",
    "tested": "the other slices within the training range",
    "outside": "slices outside the training range",
}
DRAWN = ("longitudinal", "lateral_y", "spectrum")


def page(document: Mapping[str, Any]) -> str:
    """The page of what `uncertainty` found."""
    return whole("How far the generator can be trusted", _parts(document))


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    ranges = document["training_range"]
    energies, angles = (" to ".join(f"{edge:g}" for edge in ranges[name]) for name in ("energy_gev", "theta_deg"))
    yield paragraph(
        f"{len(document['members'])} members of geometry {document['geometry']}, trained on {energies} GeV and"
        f" {angles} degrees. A band of 68 % is the spread of the members, times Student's t"
        f" ({document['student_t']:.2f}) and a calibrated factor; the statistical errors of the generated showers and"
        " of the Monte Carlo are added in squares where the two are compared."
    )
    if document["unchecked"]:
        yield paragraph(
            f"Whether {', '.join(document['unchecked'])} have learned from the held-out showers was not checked: their"
            " manifests are not among the inputs.",
            small=True,
        )
    yield heading("What the bands cover")
    yield table(
        ("slices", "bins covered", "95 % interval", "bins", "median half-width (members)"),
        [(text, *_row(document["all"][role])) for role, text in ROLES.items()],
    )
    yield paragraph("The same, observable by observable:", small=True)
    yield table(
        (
            "observable",
            "factor",
            "covered, calibrated on",
            "covered, tested",
            "covered, outside",
            "width",
            "width outside",
        ),
        [
            (
                found["title"],
                f"{found['factor']:.2f}",
                *(_percent(found[role]["coverage"]["value"]) for role in ROLES),
                _percent(found["tested"]["width"], 1),
                _percent(found["outside"]["width"], 1),
            )
            for found in document["observables"].values()
        ],
    )
    yield heading("Width against energy")
    yield picture(_widths(document), "median half-width of the bands against energy")
    for role in ("tested", "outside"):
        slices = [one for one in document["slices"] if one["role"] == role and _any(one)]
        for one in slices[len(slices) // 2 :][:1]:
            low, high = one["energy_gev"]
            first, last = one["theta_deg"]
            yield heading(f"{low:g} to {high:g} GeV, {first:g} to {last:g} degrees")
            yield paragraph(f"{one['showers']} showers of the Monte Carlo; {ROLES[role]}.", small=True)
            yield picture(_slice(one, document), "bands of the ensemble, and the Monte Carlo")


def _row(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    told = found["coverage"]
    interval = "–" if told["low"] is None else f"{_percent(told['low'])} to {_percent(told['high'])}"
    return _percent(told["value"]), interval, f"{told['bins']} in {told['slices']} slices", _percent(found["width"], 1)


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _any(one: Mapping[str, Any]) -> bool:
    return any(any(found["used"]) for found in one["observables"].values())


def _drawn(document: Mapping[str, Any]) -> list[str]:
    """What is drawn of what there is."""
    return [name for name in DRAWN if name in document["observables"]] or list(document["observables"])[:1]


def _widths(document: Mapping[str, Any]) -> Any:
    drawn = figure(8.5, 3.4)
    axes = drawn.add_subplot()
    for colour, name in zip((BLUE, RED, GREY), _drawn(document), strict=False):
        points: dict[float, list[float]] = {}
        for one in document["slices"]:
            found = one["observables"][name]
            parts = [
                spread / mean
                for spread, mean, used in zip(found["members"], found["mean"], found["used"], strict=True)
                if used and mean
            ]
            points.setdefault(sum(one["energy_gev"]) / 2, []).extend(parts)
        where = sorted(energy for energy, parts in points.items() if parts)
        middle = [100 * sorted(points[energy])[len(points[energy]) // 2] for energy in where]
        axes.plot(where, middle, "o-", color=colour, label=document["observables"][name]["title"], lw=1.2, ms=4)
    low, high = document["training_range"]["energy_gev"]
    axes.axvspan(low, high, color="#000000", alpha=0.06, label="training range", lw=0)
    axes.set(xlabel="energy, GeV", ylabel="median half-width, %", ylim=(0, None))
    axes.legend(fontsize=8, frameon=False)
    return drawn


def _slice(one: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    drawn = figure(11, 3.9)
    names = _drawn(document)
    grid = drawn.add_gridspec(2, len(names), height_ratios=(2.2, 1))
    for column, name in enumerate(names):
        found = one["observables"][name]
        keep = [i for i, used in enumerate(found["used"]) if used]
        top, ratio = drawn.add_subplot(grid[0, column]), drawn.add_subplot(grid[1, column])
        top.set_title(document["observables"][name]["title"], fontsize=9, loc="left")
        if name == "spectrum":
            top.set_xscale("log")
            ratio.set_xscale("log")
        top.set_yscale("log")
        if not keep:
            continue
        at, mean, low, high, truth, error = (
            [found[key][i] for i in keep] for key in ("at", "mean", "low", "high", "monte_carlo", "monte_carlo_error")
        )
        top.fill_between(at, [max(v, 1e-9) for v in low], high, step="mid", color=BLUE, alpha=0.3, lw=0)
        top.step(at, mean, where="mid", color=BLUE, lw=1)
        top.errorbar(at, truth, error, fmt="k.", ms=3, lw=0.8)
        ratio.fill_between(
            at,
            [v / m for v, m in zip(low, mean, strict=True)],
            [v / m for v, m in zip(high, mean, strict=True)],
            step="mid",
            color=BLUE,
            alpha=0.3,
            lw=0,
        )
        parts = [t / m for t, m in zip(truth, mean, strict=True)]
        ratio.errorbar(at, parts, [e / m for e, m in zip(error, mean, strict=True)], fmt="k.", ms=3, lw=0.8)
        ratio.axhline(1, color=GREY, lw=0.6)
        ratio.set_ylabel("ratio", fontsize=8)
        for axes in (top, ratio):
            axes.tick_params(labelsize=7)
            axes.minorticks_off()
        top.tick_params(labelbottom=False)
        ratio.set_xlabel(found["axis"], fontsize=8)
        top.set_ylabel(found["unit"], fontsize=8)
    return drawn
