"""The report as one page that needs nothing else: verdicts by band, classifiers, faults, and the plots."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np

from functions.calorimeter.validation import displays, plots
from functions.calorimeter.validation.bands import BandResult, bands_of
from functions.calorimeter.validation.classifiers import CANDIDATE, GFLASH, MONTE_CARLO, SERVING
from functions.calorimeter.validation.comparison import Comparison
from functions.calorimeter.webpage import heading, paragraph, picture, table
from layers.quality import page as plain

TOLD = (
    "bands",
    "classifiers",
    "centres",
    "neighbours",
    "faults",
    "posing_as_gflash",
    "distances",
    "fpd",
    "kpd",
    "compared_with",
)
"""Facts of the document that this page tells in its own way."""
WHOSE = {CANDIDATE: "candidate", SERVING: "serving model", GFLASH: "GFLASH", MONTE_CARLO: "Monte Carlo (floor)"}
COLOURS = {"aim": "#c9ead3", "must": "#fdf0c4", "fail": "#f6c7c3"}


def page(document: Mapping[str, Any], comparison: Comparison) -> str:
    """The page of a report."""
    return plain.page(document, parts(document, comparison), TOLD)


def parts(document: Mapping[str, Any], comparison: Comparison) -> Iterator[str]:
    """What stands between the metrics and the facts."""
    yield heading("Numbers by band")
    yield paragraph(
        "Largest errors against Monte Carlo; in brackets 68 % bootstrap intervals, then the floor: what Monte Carlo"
        " against itself gives. Green: as good as aimed at; yellow: as good as it must be; red: not. A number in grey"
        " asks for more showers and judges nothing.",
        small=True,
    )
    yield from numbers(comparison.bands)
    yield heading("Classifiers")
    yield paragraph(
        "Area under the curve on showers that the classifier has not seen; 0.5 is indistinguishable. Believed only"
        " where Monte Carlo against Monte Carlo is near 0.5 and GFLASH is told. The one that sees the layers' centres"
        f" decides. Compared with {document['compared_with']}.",
        small=True,
    )
    yield from classifiers(document)
    yield from drawings(comparison)
    yield heading("Distances of single observables")
    head = ("observable", "χ²/ndf", "p", "KS", "p", "W1/σ", "separation")
    yield paragraph("In brackets 68 % bootstrap intervals, then the floor.", small=True)
    yield table(head, (_distance(row) for row in document["distances"]))
    yield heading("Centres of the layers")
    yield paragraph(
        "How far each layer's centre of energy strays from the axis, and whether the next one's goes with it: the"
        " largest errors over layers with 1 % of the energy, their 68 % bootstrap intervals, and the floor.",
        small=True,
    )
    yield table(
        ("particle, axis", "relative error of the standard deviation", "error of the correlation with the next"),
        (
            [f"{row['particle']}, {row['axis']}", _measured(row["spread"]), _measured(row["correlation"])]
            for row in document["centres"]
        ),
    )
    yield heading("Faults that have a name")
    yield table(("fault", "found", "limits", "floor", "what it is"), (_fault(row) for row in document["faults"]))


def numbers(results: list[BandResult]) -> Iterator[str]:
    """The table of all numbers, a column for each band."""
    if not results:
        return
    yield "<table><tr><th>number</th>" + "".join(
        f"<th>{escape(result.band.name)}<br><small>{result.showers} showers: {result.verdict}</small></th>"
        for result in results
    )
    yield "<th>must, aim</th></tr>\n"
    for place, first in enumerate(results[0].numbers):
        yield f"<tr><td>{escape(first.name)}</td>"
        for result in results:
            number = result.numbers[place]
            colour = COLOURS[number.verdict] if result.judged(number) else "#eceef0"
            told = (
                f"{number.value:.3g}<br><small>[{number.low:.2g}, {number.high:.2g}], floor {number.floor:.2g}</small>"
                if np.isfinite([number.value, number.floor]).all()
                else "<small>too few showers</small>"
            )
            yield f'<td style="background:{colour}">{told}</td>'
        yield f"<td>{first.must:g}, {first.aim:g}</td></tr>\n"
    yield "</table>\n"


def classifiers(document: Mapping[str, Any]) -> Iterator[str]:
    """Areas of the classifiers, and what lies among what."""
    head = ["", *WHOSE.values(), "believed"]
    rows = []
    for metric, found in document["classifiers"].items():
        areas = [f"{found[name]['auc']:.3f} ± {found[name]['error']:.3f}" for name in WHOSE]
        learned = found[CANDIDATE]["learned_from"]
        rows.append([f"{metric} ({learned} + {learned} learned from)", *areas, "yes" if found["valid"] else "no"])
    near = document["neighbours"]
    rows += [
        [name, *(f"{near[whose][name]:.3f}" if whose in near else "" for whose in WHOSE), ""]
        for name in ("coverage", "density")
    ]
    for name in ("fpd", "kpd"):
        told = (document[name].get(whose) for whose in WHOSE)
        cells = (f"{_number(one['value'], 1000)} ± {_number(one['error'], 1000)}" if one else "" for one in told)
        rows.append([f"{name.upper()} × 1000", *cells, ""])
    posing = document["posing_as_gflash"]
    rows.append(["candidate against GFLASH (trees)", f"{posing['auc']:.3f} ± {posing['error']:.3f}", "", "", "", ""])
    yield table(head, rows)


def drawings(comparison: Comparison) -> Iterator[str]:
    """All plots, particle by particle."""
    generator = comparison.candidate.generator
    yield heading("Plots")
    yield paragraph(
        "Points: Monte Carlo with statistical errors; blue: generated; orange: GFLASH. Below, the ratio to Monte Carlo;"
        " its grey band is by how much two samples of Monte Carlo of this size differ (one sigma).",
        small=True,
    )
    for kind, particle in enumerate(generator.particles):
        rows = np.flatnonzero(comparison.kind == kind)
        whole = next(
            band for band in bands_of(generator.particles, generator.energy_gev) if band.whole and band.kind == kind
        )
        if len(rows) < 2:
            continue
        samples = {
            plots.REAL: comparison.truth.seen.rows(rows),
            plots.MADE: comparison.made.seen.rows(rows),
            plots.POOR: comparison.gflash.seen.rows(rows),
        }
        data = plots.Compared(samples, particle, whole.edges_gev)
        yield picture(plots.longitudinal(data, False), "longitudinal profiles by band")
        yield picture(plots.longitudinal(data, True), "longitudinal profiles by band, logarithmic")
        yield picture(plots.lateral(data), "lateral profiles in x, y and r")
        yield picture(plots.visible(data), "spectra of S/E by band")
        yield picture(plots.response(data), "linearity, and resolution with its fit")
        yield picture(plots.cells(data), "spectrum of cells, cells hit, hottest cell")
        yield picture(plots.angles(data), "measured angle, its bias and resolution")
        yield picture(plots.correlations(data), "correlations of the layers' energies, and their difference")
        yield picture(plots.straying(data), "spread of the layers' centres, and their correlation with the next")
        yield picture(plots.energy_and_hits(data), "cells hit against visible energy")
        number = displays.chosen(comparison.truth.showers, rows)
        pair = (comparison.truth.showers, comparison.made.showers)
        yield picture(
            displays.display(comparison.geometry, pair, number, particle), "a simulated and a generated shower"
        )
    yield picture(curves(comparison), "receiver operating characteristics of the classifiers")


def curves(comparison: Comparison) -> Any:
    """What part of the generated showers a classifier finds, for each part of real ones that it takes for generated."""
    tested = comparison.classifiers
    made = plots.figure(4.5 * len(tested), 3.9)
    colours = dict(zip(WHOSE, ("#0072b2", "#009e73", "#d55e00", "#1c1e21"), strict=True))
    for number, found in enumerate(tested):
        axis = made.add_subplot(1, len(tested), number + 1)
        for name, rows in found.rows.items():
            cuts = np.quantile(rows, np.linspace(1, 0, 200))
            real, generated = ((rows[:, column] >= cuts[:, None]).mean(axis=1) for column in (0, 1))
            label = f"{WHOSE[name]}: {found.areas[name].value:.3f}"
            axis.plot(real, generated, color=colours[name], lw=1.3, label=label)
        axis.plot([0, 1], [0, 1], color="#b9bec6", lw=0.8, ls=":")
        axis.set_title(found.metric, fontsize=10)
        axis.set_xlabel("real showers taken for generated")
        axis.set_ylabel("generated showers found")
        axis.legend(fontsize=8, frameon=False)
    return made


def _distance(row: Mapping[str, Any]) -> list[str]:
    return [
        row["observable"],
        _measured(row["chi2_ndf"]),
        _number(row["chi2_p"]),
        _measured(row["ks"]),
        _number(row["ks_p"]),
        _measured(row["w1"]),
        _measured(row["separation"]),
    ]


def _measured(found: Mapping[str, float | None]) -> str:
    value, low, high, floor = (_number(found[name]) for name in ("value", "low", "high", "floor"))
    return f"{value} [{low}, {high}], floor {floor}"


def _fault(row: Mapping[str, Any]) -> list[str]:
    low, high = _number(row["low"]), _number(row["high"])
    limits = f"{low} to {high}" if low and high else f"at most {high}" if high else f"at least {low}"
    name = f"{row['name']} ({row['particle']})" if row["particle"] else row["name"]
    mark = "" if row["passed"] else ": FAILED"
    return [name, f"{_number(row['value'])}{mark}", limits, _number(row["floor"]), row["meaning"]]


def _number(value: float | None, by: float = 1.0) -> str:
    return "" if value is None else f"{value * by:.3g}"
