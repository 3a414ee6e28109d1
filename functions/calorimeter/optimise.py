"""Look for the best calorimeter of equal layers: `<request>.pareto.json` and `.html` out.

A fast model (`prototyping/fast.py`), which knows of absorbers, thicknesses and depths that nobody has simulated, scans
them. What comes out is the front of those that none beats in both depth and resolution, and the optimum: the best one
within a depth that the request allows, or the knee of the front. Geant4 simulates it, and more of the front where the
request asks for it, in the same job; the page says whether the two agree.
"""

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import geant4, optimise_page
from functions.calorimeter.geometry import MOST_LAYERS
from functions.calorimeter.prototyping.fast import MODEL, Prototype, resolution
from functions.calorimeter.prototyping.production import PARTICLES
from functions.calorimeter.prototyping.scan import Point, front, knee, scanned
from functions.calorimeter.prototyping.stack import ABSORBERS, Stack, thickness_mm
from functions.calorimeter.showers import Floats
from layers.runtime import Checkpointed, InputError, Job, read_request

MODELS = (MODEL,)
REPLY = "*.pareto.json"
FORMAT = "dioscar-calorimeter-pareto-1"
MOST_STACKS = 400
"""Absorbers times thicknesses."""
MOST_CONFIRMED = 20
PULL = 2.0
"""Fast model and Geant4 agree if they differ by no more than so many standard deviations, the model's own included."""
_CONFIRMING = 41
"""A stream of random numbers."""


@dataclass(frozen=True)
class Request:
    """What may be built, and what it is for."""

    absorbers: tuple[str, ...] = ("W", "Pb")
    layers: tuple[int, ...] = (10, 60, 2)
    """The least, the most, and the step."""
    absorber_x0: tuple[float, ...] = ()
    """Thicknesses of one layer's absorber in radiation lengths; 0.5, 0.75, 1 and 1.5 where neither is said."""
    absorber_mm: tuple[float, ...] = ()
    """The same in mm, instead."""
    sensor_mm: float = 0.5
    gap_mm: float = 2.0
    energy_gev: float = 10.0
    particle: str = "e-"
    max_depth_mm: float | None = None
    """The optimum is the best one that is no deeper; without it, the knee of the front."""
    showers: int = 4000
    """Of the fast model, for each absorber and thickness."""
    confirm: int = 1
    """Points of the front that Geant4 simulates, the optimum first."""
    confirm_showers: int = 400
    seed: int = 1

    def __post_init__(self) -> None:
        for name in self.absorbers:
            if name not in ABSORBERS:
                raise ValueError(f'absorbers: "{name}" is none of {", ".join(ABSORBERS)}')
        if not self.absorbers:
            raise ValueError(f"absorbers: there is none; write some of {', '.join(ABSORBERS)}")
        if not self.counts:
            raise ValueError(f"layers: {list(self.layers)} is no [least, most, step] from 1 to {MOST_LAYERS}")
        if self.absorber_x0 and self.absorber_mm:
            raise ValueError("absorber_mm: says in mm what absorber_x0 says in radiation lengths; take one of them out")
        if len(self.absorbers) * len(self.absorber_x0 or self.absorber_mm) > MOST_STACKS:
            raise ValueError(f"absorbers: with their thicknesses are more than {MOST_STACKS}; write several requests")
        for name, low, high in (
            ("showers", 100, 100_000),
            ("confirm_showers", 50, 100_000),
            ("confirm", 0, MOST_CONFIRMED),
            ("gap_mm", 0, 100),
            ("seed", 0, 2**63 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: {getattr(self, name):g} is not from {low:g} to {high:g}")
        if self.particle not in PARTICLES:
            raise ValueError(f'particle: "{self.particle}" is none of {", ".join(PARTICLES)}')

    @property
    def counts(self) -> list[int]:
        """The numbers of layers; none where `layers` cannot be meant."""
        if not 1 <= len(self.layers) <= 3:
            return []
        first, last = self.layers[0], self.layers[1] if len(self.layers) > 1 else self.layers[0]
        step = self.layers[2] if len(self.layers) == 3 else 1
        return list(range(first, last + 1, step)) if 1 <= first <= last <= MOST_LAYERS and step >= 1 else []

    @property
    def stacks(self) -> list[Stack]:
        """One stack for each absorber and thickness, of one layer."""
        return [
            Stack(absorber, mm, 1, self.sensor_mm, self.gap_mm)
            for absorber in dict.fromkeys(self.absorbers)
            for mm in self.absorber_mm
            or [thickness_mm(absorber, x0) for x0 in self.absorber_x0 or (0.5, 0.75, 1.0, 1.5)]
        ]


@dataclass(frozen=True)
class Settings:
    """How `optimise` works."""

    threads: int = 1
    """Threads of onnxruntime."""


@dataclass(frozen=True)
class Confirmed:
    """What Geant4 says of a point."""

    place: int
    resolution: float
    error: float
    fraction: float
    showers: int
    pull: float
    """Difference of the two resolutions over all errors: both statistical ones and the fast model's own."""

    @property
    def agrees(self) -> bool:
        """Whether the two are the same within the errors."""
        return abs(self.pull) <= PULL


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the front; raises InputError for what the model does not know, Checkpointed when the job is stopping."""
    request = read_request(Request, source)
    needed = ("matplotlib", *(("geant4_pybind", "xraylib") if request.confirm else ()))
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{source.name}: needs {package}, which is not here; run ./dioscar install calorimeter")
    model = Prototype(job.model(MODEL), settings.threads)
    try:
        for stack in request.stacks:
            model.check(stack, request.energy_gev)
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from None
    shallowest = min(request.counts) * min(stack.depth_mm for stack in request.stacks)
    if request.max_depth_mm is not None and not request.max_depth_mm >= shallowest:
        raise InputError(
            f"{source.name}: max_depth_mm: {request.max_depth_mm:g} is less than the {shallowest:.0f} mm of the"
            " shallowest that is scanned; write fewer layers or a larger depth"
        )
    energies = np.full(request.showers, request.energy_gev)
    points: list[Point] = []
    for number, some in enumerate(
        scanned(model, request.stacks, request.counts, request.particle, energies, request.seed)
    ):
        points += some
        job.progress(number + 1, len(request.stacks) * (2 if request.confirm else 1))
    depths = [point.stack.depth_mm for point in points]
    places = front(points, depths)
    best = optimum(request, points, places)
    confirmed = [
        _confirmed(request, points[place], place, model, number, job)
        for number, place in enumerate(spread(best, places, request.confirm))
    ]
    document = _document(request, model, points, places, best, confirmed)
    target = destination / f"{source.name}.pareto"
    target.with_name(f"{target.name}.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")
    target.with_name(f"{target.name}.html").write_text(optimise_page.page(document), "utf-8")
    print(document["verdict"], flush=True)  # noqa: T201 - the job's log


def optimum(request: Request, points: Sequence[Point], places: Sequence[int]) -> int:
    """The place of the point to build; the front begins with the shallowest point of all."""
    depths = [point.stack.depth_mm for point in points]
    if request.max_depth_mm is None:
        return knee(points, depths, places)
    return [place for place in places if depths[place] <= request.max_depth_mm][-1]


def spread(best: int, places: Sequence[int], count: int) -> list[int]:
    """So many points of a front: the optimum, and others evenly between its ends."""
    if count == 0:
        return []
    others = [place for place in places if place != best]
    steps = np.linspace(0, len(others) - 1, min(count - 1, len(others))).round().astype(int)
    return [best, *(others[step] for step in steps)]


def _confirmed(request: Request, point: Point, place: int, model: Prototype, number: int, job: Job) -> Confirmed:
    sums = _simulated(request, point.stack, number, job)
    width, error = resolution(sums)
    own = model.errors[request.particle]["resolution_error"] * point.resolution
    pull = (point.resolution - width) / math.sqrt(error**2 + point.error**2 + own**2)
    return Confirmed(place, width, error, float(sums.mean() / request.energy_gev / 1e3), len(sums), pull)


def _simulated(request: Request, stack: Stack, number: int, job: Job) -> Floats:
    """Geant4's visible energies, MeV, shape (n,); those of an attempt before are taken."""
    count = request.confirm_showers
    kept = job.checkpoint / f"geant4-{number}.npy"
    done: Floats = np.load(kept) if kept.exists() else np.zeros(0)
    if len(done) == count:
        return done
    seeds = np.random.default_rng((request.seed, _CONFIRMING, number)).integers(1, 2**31 - 1, count)[len(done) :]
    rest = count - len(done)
    given = geant4.Primaries(request.particle, np.full(rest, request.energy_gev), np.full(rest, math.pi / 2), seeds)
    for part in geant4.simulate(stack.geometry(), given, chunk=32):
        done = np.concatenate([done, part.visible_mev])
        fresh = kept.with_suffix(".part")
        with fresh.open("wb") as stream:
            np.save(stream, done)
        fresh.rename(kept)
        job.keep()
        job.progress(1 + (number + len(done) / count) / request.confirm, 2)
        if job.stopping and len(done) < count:
            raise Checkpointed(f"stopped after {len(done)} of {count} showers of confirmation {number + 1}")
    return done


def _document(
    request: Request,
    model: Prototype,
    points: Sequence[Point],
    places: Sequence[int],
    best: int,
    confirmed: Sequence[Confirmed],
) -> dict[str, Any]:
    depths_x0 = [point.stack.depth_x0 for point in points]
    return {
        "format": FORMAT,
        "verdict": _verdict(points[best], confirmed, request),
        "request": asdict(request),
        "model": {"errors": model.errors[request.particle], "training_range": dict(model.ranges)},
        "optimum": best,
        "chosen_by": "depth" if request.max_depth_mm is not None else "knee",
        "front_mm": list(places),
        "front_x0": front(points, depths_x0),
        "confirmed": [{**asdict(one), "agrees": one.agrees} for one in confirmed],
        "engine": geant4.version() if confirmed else "",
        "points": [
            {
                **asdict(point.stack),
                "absorber_x0": round(point.stack.absorber_x0, 4),
                "depth_mm": round(point.stack.depth_mm, 3),
                "depth_x0": round(point.stack.depth_x0, 3),
                "resolution": point.resolution,
                "error": point.error,
                "fraction": point.fraction,
                "contained": point.contained,
            }
            for point in points
        ],
    }


def _verdict(point: Point, confirmed: Sequence[Confirmed], request: Request) -> str:
    """The result in a sentence."""
    stack = point.stack
    told = (
        f"{stack.layers} layers of {stack.absorber_mm:g} mm {stack.absorber}, {stack.depth_mm:.0f} mm or"
        f" {stack.depth_x0:.1f} X0 deep: sigma/E {100 * point.resolution:.2f} % at {request.energy_gev:g} GeV by the"
        f" fast model (statistical error {100 * point.error:.2f})"
    )
    if not confirmed:
        return f"{told}; Geant4 was not asked"
    first = confirmed[0]
    word = "confirmed" if first.agrees else "not confirmed"
    return (
        f"{told}; {word} by Geant4, {100 * first.resolution:.2f} % (statistical error {100 * first.error:.2f}),"
        f" which is {abs(first.pull):.1f} standard deviations away"
    )
