"""The page of a scan over prototypes: the front, the optimum, and what Geant4 says of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from functions.calorimeter.webpage import figure, heading, paragraph, picture, table
from functions.calorimeter.webpage import page as whole

COLOURS = {"Fe": "#edae49", "Cu": "#b3541e", "W": "#0b57d0", "Pb": "#5b6067"}
SHOWN = 30
"""Rows of the front that the page tells; the JSON has all."""


def page(document: Mapping[str, Any]) -> str:
    """The page of what `optimise` found."""
    return whole("Prototypes: resolution against depth", _parts(document))


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    request, points = document["request"], document["points"]
    yield paragraph(document["verdict"][:1].upper() + document["verdict"][1:] + ".")
    how = {
        "depth": f"the best resolution within {request['max_depth_mm'] or 0:g} mm",
        "knee": "the knee of the front: behind it, a percent of depth buys less resolution than before",
    }[document["chosen_by"]]
    yield paragraph(f"The optimum is {how}.", small=True)
    yield picture(_drawn(document), "resolution against depth of all prototypes, in mm and in radiation lengths")
    if document["confirmed"]:
        yield heading("By Geant4")
        yield table(
            ("prototype", "fast model", "Geant4", "showers", "difference", "pull", ""),
            [_confirmed(one, points) for one in document["confirmed"]],
        )
        own = document["model"]["errors"]["resolution_error"]
        yield paragraph(
            f"The pull counts both statistical errors and the fast model's own, {100 * own:.1f} % of the resolution;"
            f" {document['engine']}.",
            small=True,
        )
    yield heading("The front")
    rows = _thinned(document["front_mm"], SHOWN)
    yield table(
        ("prototype", "depth, mm", "depth, X0", "sigma/E, %", "statistical error", "seen, %", "contained, %"),
        [_row(points[place], place == document["optimum"]) for place in rows],
    )
    if len(rows) < len(document["front_mm"]):
        yield paragraph(f"{len(rows)} of {len(document['front_mm'])} points, evenly spread.", small=True)
    yield heading("What this can and cannot say")
    for text in _limits(document):
        yield paragraph(text, small=True)


def _limits(document: Mapping[str, Any]) -> Iterator[str]:
    request, errors = document["request"], document["model"]["errors"]
    ranges = document["model"]["training_range"]
    yield (
        f"{request['showers']} fast showers of {request['energy_gev']:g} GeV ({request['particle']}), perpendicular,"
        " for each absorber and thickness; all numbers of layers of one are cut from the same showers, so their errors"
        " are correlated."
    )
    yield (
        f"The fast model's own error, measured with Geant4 on {errors['stacks']} stacks that it had not seen:"
        f" {100 * errors['resolution_error']:.1f} % of the resolution and {100 * errors['mean_error']:.1f} % of the"
        f" mean energy. It knows {ranges['absorber_x0'][0]:g} to {ranges['absorber_x0'][1]:g} X0 of absorber in a"
        " layer,"
        f" {ranges['sensor_mm'][0]:g} to {ranges['sensor_mm'][1]:g} mm of silicon,"
        f" {ranges['energy_gev'][0]:g} to {ranges['energy_gev'][1]:g} GeV, and layers that are all alike."
    )
    yield (
        "The resolution is that of the plain sum over all sensors, sigma over mean: no weights for layers, no noise, no"
        " threshold, and no loss at the sides. Points of the front that lie within their errors are equally good."
    )


def _name(point: Mapping[str, Any]) -> str:
    return f"{point['layers']} x {point['absorber_mm']:g} mm {point['absorber']} ({point['absorber_x0']:.2f} X0)"


def _row(point: Mapping[str, Any], best: bool) -> Sequence[str]:
    return (
        _name(point) + (", optimum" if best else ""),
        f"{point['depth_mm']:.0f}",
        f"{point['depth_x0']:.1f}",
        f"{100 * point['resolution']:.2f}",
        f"{100 * point['error']:.2f}",
        f"{100 * point['fraction']:.2f}",
        f"{100 * point['contained']:.1f}",
    )


def _confirmed(one: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    point = points[one["place"]]
    return (
        _name(point),
        f"{100 * point['resolution']:.2f} ± {100 * point['error']:.2f} %",
        f"{100 * one['resolution']:.2f} ± {100 * one['error']:.2f} %",
        str(one["showers"]),
        f"{100 * (point['resolution'] / one['resolution'] - 1):+.1f} %",
        f"{one['pull']:+.1f}",
        "confirmed" if one["agrees"] else "not confirmed",
    )


def _thinned(places: Sequence[int], most: int) -> list[int]:
    if len(places) <= most:
        return list(places)
    return [places[round(number * (len(places) - 1) / (most - 1))] for number in range(most)]


def _drawn(document: Mapping[str, Any]) -> Any:
    drawn = figure(11, 4.4)
    points = document["points"]
    for column, (key, unit) in enumerate((("depth_mm", "mm"), ("depth_x0", "X0"))):
        axes = drawn.add_subplot(1, 2, column + 1)
        for absorber in sorted({point["absorber"] for point in points}):
            chosen = [point for point in points if point["absorber"] == absorber]
            axes.errorbar(
                [point[key] for point in chosen],
                [100 * point["resolution"] for point in chosen],
                [100 * point["error"] for point in chosen],
                fmt=".",
                ms=3,
                lw=0.6,
                color=COLOURS[absorber],
                alpha=0.6,
                label=absorber,
            )
        best = [points[place] for place in document["front_mm" if column == 0 else "front_x0"]]
        axes.step([p[key] for p in best], [100 * p["resolution"] for p in best], where="post", color="k", lw=0.9)
        optimum = points[document["optimum"]]
        axes.plot(optimum[key], 100 * optimum["resolution"], "*", color="#b3261e", ms=12, label="optimum", zorder=5)
        for number, one in enumerate(document["confirmed"]):
            axes.errorbar(
                points[one["place"]][key],
                100 * one["resolution"],
                100 * one["error"],
                fmt="s",
                ms=4,
                color="k",
                mfc="none",
                capsize=2,
                zorder=6,
                label="Geant4" if number == 0 else None,
            )
        axes.set(xlabel=f"depth, {unit}", ylabel="sigma/E, %", yscale="log")
        axes.set_yticks([], minor=True)
        low, high = axes.get_ylim()
        ticks = [tick for tick in (1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50) if low <= tick <= high]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.legend(fontsize=8, frameon=False)
    return drawn
