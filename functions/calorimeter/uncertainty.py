"""How far an ensemble of generators can be trusted: `<request>.uncertainty.json` and `.html` out.

The request names the members (several versions' `model.onnx`) and held-out Monte Carlo (`.h5`). Every member generates
a few showers for each of the Monte Carlo's primaries; mean profiles and spectra in slices of energy and angle get bands
of 68 %, whose factor is calibrated on half of the slices within the training range. Told are the coverage on the other
half, and coverage and width of the bands where the members never learned.
"""

import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import uncertainty_page
from functions.calorimeter.checks import refuse_generated
from functions.calorimeter.ensemble import (
    LEAST_MEMBERS,
    OBSERVABLES,
    Bands,
    Flags,
    Slices,
    Sums,
    bands,
    calibrated,
    coverage,
    places,
    student_t,
    width,
)
from functions.calorimeter.generator import Generator
from functions.calorimeter.geometry import Geometry
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.observables import observe
from functions.calorimeter.showers import Floats, Showers, join
from layers.learning.manifest import Manifest
from layers.runtime import Checkpointed, Input, InputError, Job, read_request
from layers.runtime.models import RegistryError

FORMAT = "dioscar-calorimeter-uncertainty-1"
MANIFEST = "manifest.json"
CHUNK = 256
"""Showers that are held at once."""
MOST_SLICES = 400
MOST_REPEATS = 100


@dataclass(frozen=True)
class Request:
    """In which slices to look; members (`.onnx`) and held-out Monte Carlo (`.h5`) stand in `inputs`."""

    energy_gev: tuple[float, ...] = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)
    """Edges of the slices of energy."""
    theta_deg: tuple[float, ...] = (60.0, 80.0, 100.0, 120.0)
    """Edges of the slices of the polar angle."""
    repeats: int = 4
    """Showers that each member generates for each of the Monte Carlo's."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name, edges in (("energy_gev", self.energy_gev), ("theta_deg", self.theta_deg)):
            if len(edges) < 2 or any(b <= a for a, b in pairwise(edges)) or edges[0] <= 0:
                raise ValueError(f"{name}: {list(edges)} are no ascending edges; write e.g. [20, 40, 60]")
        if (len(self.energy_gev) - 1) * (len(self.theta_deg) - 1) > MOST_SLICES:
            raise ValueError(f"energy_gev: makes more than {MOST_SLICES} slices with theta_deg; write fewer edges")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise ValueError(f"repeats: {self.repeats} is not from 1 to {MOST_REPEATS}")
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")


@dataclass(frozen=True)
class Settings:
    """How `uncertainty` works."""

    threads: int = 1
    """Threads of onnxruntime."""


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the bands; raises InputError for what is no ensemble, Checkpointed when the job is stopping."""
    request = read_request(Request, source)
    name = source.name
    for package in ("matplotlib", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{name}: needs {package}, which is not here; run ./dioscar install calorimeter")
    models, files, manifests = _sorted(name, job.inputs)
    unchecked = _unchecked(name, models, files, manifests)
    slices = Slices(request.energy_gev, request.theta_deg)
    members = [Generator(item.path, settings.threads) for item in models]
    geometry, particle = _agreed(name, members, models, files)
    primaries: list[tuple[Floats, Floats]] = []
    truth = _summed(slices, geometry, _truth(files, primaries))
    sums = []
    for number, member in enumerate(members):
        seeds = [int(seed) for seed in np.random.SeedSequence((request.seed, number)).generate_state(request.repeats)]
        kept = job.checkpoint / f"member-{number}.npz"
        if not kept.exists():
            if job.stopping:
                raise Checkpointed(f"stopped after {number} of {len(members)} members")
            _keep(kept, _summed(slices, geometry, _generated(primaries, member, particle, seeds)))
            job.keep()
        sums.append(_kept(kept, slices))
        job.progress(number + 1, len(members))
    document = {**_document(name, request, slices, members, models, files, truth, sums), "unchecked": unchecked}
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    (destination / f"{name}.uncertainty.json").write_text(text, "utf-8")
    (destination / f"{name}.uncertainty.html").write_text(uncertainty_page.page(document), "utf-8")


def _sorted(name: str, inputs: Sequence[Input]) -> tuple[list[Input], list[Input], list[Input]]:
    """Members, files of Monte Carlo, and the members' manifests. Raises InputError for others, and for too few."""
    models, files, manifests = (
        [item for item in inputs if item.key.endswith(end)] for end in (".onnx", ".h5", MANIFEST)
    )
    for item in inputs:
        if item not in (*models, *files, *manifests):
            raise InputError(
                f"{name}: inputs: {item.key} is neither a model (.onnx), nor its {MANIFEST}, nor showers (.h5); take"
                " it out"
            )
    if len({item.sha256 for item in models}) < len(models):
        raise InputError(f"{name}: inputs: name the same model twice; every member must have learned by itself")
    if len(models) < LEAST_MEMBERS:
        raise InputError(
            f"{name}: inputs: an ensemble needs {LEAST_MEMBERS} models (.onnx), and these are {len(models)}; train more"
            " seeds"
        )
    if not files:
        raise InputError(f"{name}: inputs: name no held-out showers (.h5); there is nothing to calibrate on")
    return models, files, manifests


def _unchecked(name: str, models: Sequence[Input], files: Sequence[Input], manifests: Sequence[Input]) -> list[str]:
    """The members of which nobody can tell what they have learned from, since their manifests are not there.

    Raises InputError where a file is one that a member has learned from.
    """
    try:
        known = {one.sha256: one for item in manifests for one in [Manifest.read(item.path.read_bytes(), item.key)]}
    except RegistryError as error:
        raise InputError(f"{name}: inputs: {error}") from None
    for file in files:
        for manifest in known.values():
            if file.sha256 in manifest.data_hashes:
                raise InputError(
                    f"{name}: inputs: the version {manifest.version} has learned from {file.key}; name showers that no"
                    " member has seen"
                )
    return [item.key for item in models if item.sha256 not in known]


def _agreed(
    name: str, members: Sequence[Generator], models: Sequence[Input], files: Sequence[Input]
) -> tuple[Geometry, str]:
    """The geometry and the particle of all. Raises InputError, naming who differs."""
    first = members[0]
    for member, item in zip(members, models, strict=True):
        if member.geometry != first.geometry:
            raise InputError(
                f"{name}: inputs: {item.key} is of another geometry than {models[0].key}; take one of them"
            )
        if (member.energy_gev, member.theta_deg) != (first.energy_gev, first.theta_deg):
            raise InputError(
                f"{name}: inputs: {item.key} learned another range of energies or angles than {models[0].key};"
                " members must have learned the same"
            )
    particle = ""
    for item in files:
        with ShowersHdf5(item.path) as file:
            if file.geometry.layers != first.geometry.layers or file.geometry.shape != first.geometry.shape:
                raise InputError(
                    f"{name}: inputs: {item.key} is of the geometry {file.geometry.name}, and the models of"
                    f" {first.geometry.name}; take one of them"
                )
            if particle and file.particle != particle:
                raise InputError(
                    f"{name}: inputs: {item.key} has {file.particle}, and another file {particle}; split them"
                )
            particle = file.particle
            refuse_generated(file.about, item.key, "and are no Monte Carlo to hold bands against")
        if particle not in first.particles:
            raise InputError(
                f"{name}: inputs: {item.key} has {particle}, and the models know {', '.join(first.particles)}"
            )
    return first.geometry, particle


def _truth(files: Sequence[Input], primaries: list[tuple[Floats, Floats]]) -> Iterator[Showers]:
    """The Monte Carlo; its energies and angles are appended to `primaries`, for the members."""
    for item in files:
        with ShowersHdf5(item.path) as file:
            for part in file.read(CHUNK):
                primaries.append((part.energy_gev, part.theta))
                yield part


def _generated(
    primaries: Sequence[tuple[Floats, Floats]], member: Generator, particle: str, seeds: Sequence[int]
) -> Iterator[Showers]:
    """A shower of each seed for each of the Monte Carlo's primaries, also beyond what this member learned."""
    for seed in seeds:
        done = 0
        for energy_gev, theta in primaries:
            yield join(list(member.generate(energy_gev, theta, particle, seed, first=done, checked=False)))
            done += len(energy_gev)


def _summed(slices: Slices, geometry: Geometry, parts: Iterator[Showers]) -> Sums:
    sums = Sums(slices)
    for part in parts:
        sums.add(observe(part, geometry))
    return sums


def _keep(path: Path, sums: Sums) -> None:
    fresh = path.with_suffix(".part")
    named: dict[str, Any] = {"count": sums.count}
    for which in ("first", "second", "filled"):
        named |= {f"{which}.{name}": array for name, array in getattr(sums, which).items()}
    with fresh.open("wb") as stream:
        np.savez(stream, **named)
    fresh.rename(path)


def _kept(path: Path, slices: Slices) -> Sums:
    sums = Sums(slices)
    with np.load(path) as arrays:
        sums.count = arrays["count"]
        for which in ("first", "second", "filled"):
            setattr(sums, which, {name: arrays[f"{which}.{name}"] for name in OBSERVABLES})
    return sums


def _document(
    name: str,
    request: Request,
    slices: Slices,
    members: Sequence[Generator],
    models: Sequence[Input],
    files: Sequence[Input],
    truth: Sums,
    sums: Sequence[Sums],
) -> dict[str, Any]:
    """All that was found."""
    energies, angles = members[0].energy_gev, members[0].theta_deg
    within = np.array([slices.within(number, energies, angles) for number in range(len(slices))])
    even = np.array([slices.even(number) for number in range(len(slices))])
    roles = {"calibrated": within & even, "tested": within & ~even, "outside": ~within}
    found = {name_: bands_ for name_, bands_ in bands(truth, sums).items() if bands_.used[roles["calibrated"]].any()}
    if not found:
        raise InputError(
            f"{name}: inputs: the held-out showers fill no slice within the models' training range to calibrate on;"
            " hold out more, or write wider slices"
        )
    try:
        factors = {name_: calibrated(bands_, roles["calibrated"]) for name_, bands_ in found.items()}
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    results = {
        name_: {
            "title": OBSERVABLES[name_].title,
            "factor": factors[name_],
            **{role: _told(found[name_], factors[name_], rows, request.seed) for role, rows in roles.items()},
        }
        for name_ in found
    }
    return {
        "format": FORMAT,
        "request": asdict(request),
        "geometry": members[0].geometry.name,
        "training_range": {"energy_gev": list(energies), "theta_deg": list(angles)},
        "members": [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in models],
        "held_out": [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in files],
        "student_t": student_t(len(members)),
        "all": {role: _together(found, factors, rows, request.seed) for role, rows in roles.items()},
        "observables": results,
        "slices": [
            _slice(number, slices, truth, found, factors, roles) for number in range(len(slices)) if truth.count[number]
        ],
    }


def _told(found: Bands, factor: float, rows: Flags, seed: int) -> dict[str, Any]:
    return {"coverage": coverage(found, factor, rows, seed), "width": width(found, factor, rows)}


def _together(found: dict[str, Bands], factors: dict[str, float], rows: Flags, seed: int) -> dict[str, Any]:
    """Coverage and width over the bins of all observables, each with its own factor."""

    def joined(name: str) -> np.ndarray[Any, Any]:
        return np.concatenate([getattr(bands_, name) for bands_ in found.values()], axis=1)

    spread = np.concatenate([factors[name] * bands_.spread for name, bands_ in found.items()], axis=1)
    whole = Bands(joined("mean"), spread, joined("generated"), joined("truth"), joined("truth_error"), joined("used"))
    return _told(whole, 1.0, rows, seed)


def _slice(
    number: int,
    slices: Slices,
    truth: Sums,
    found: dict[str, Bands],
    factors: dict[str, float],
    roles: dict[str, Flags],
) -> dict[str, Any]:
    energies, angles = slices.edges(number)
    role = next(name for name, rows in roles.items() if rows[number])
    return {
        "energy_gev": list(energies),
        "theta_deg": list(angles),
        "showers": int(truth.count[number]),
        "role": role,
        "observables": {name: _band(found[name], factors[name], number, name) for name in found},
    }


def _band(found: Bands, factor: float, number: int, name: str) -> dict[str, Any]:
    sigma = found.sigma(factor, with_truth=False)[number]
    mean = found.mean[number]
    return {
        "axis": OBSERVABLES[name].axis,
        "unit": OBSERVABLES[name].unit,
        "at": _list(places(name, len(mean))),
        "mean": _list(mean),
        "low": _list(np.maximum(mean - sigma, 0.0)),
        "high": _list(mean + sigma),
        "members": _list(factor * found.spread[number]),
        "generated": _list(found.generated[number]),
        "monte_carlo": _list(found.truth[number]),
        "monte_carlo_error": _list(found.truth_error[number]),
        "used": [bool(value) for value in found.used[number]],
    }


def _list(values: Any) -> list[float | None]:
    """Numbers to six digits; what is none is null."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
