"""Decide whether a version of the generator may serve: `<request>.report.json` and `.html` out, and a promotion.

The request names the version (its `model.onnx` and `manifest.json` in the registry), showers that it has not seen, and
those that it was trained on. Candidate and serving model make showers at the conditions of the unseen Monte Carlo, and
are compared with it: the numbers of `compare` in bands of energy, classifiers, coverage, faults by name. A candidate
that fails is no error: the report says why, and no promotion is written.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from functions.calorimeter import gate
from functions.calorimeter.candidate import Candidate, read_candidate
from functions.calorimeter.generator import MODEL, Generator
from functions.calorimeter.geometry import load_geometry
from functions.calorimeter.validation.comparison import Comparison, Progress
from functions.calorimeter.validation.samples import Samples, read_samples
from layers.learning import registry
from layers.quality import Reason, Verdict, judge, leak
from layers.quality.report import report, write_report
from layers.runtime import Input, InputError, Job, read_request

MODELS = (MODEL,)
PACKAGES = {"scipy": "train", "torch": "train", "sklearn": "calorimeter", "matplotlib": "calorimeter"}
"""What it needs, and the extra that has it."""

NEARLY = 0.02
"""Part of a range by which one may miss another's edges, as random numbers do."""
TOLD = 8
"""Reasons that the job's log has; the faults that have a name are the first."""


@dataclass(frozen=True)
class Request:
    """What to validate; the candidate, unseen showers and those of its training (`.h5`) stand in `inputs`."""

    showers: int = gate.LEAST_SHOWERS
    """Unseen showers to compare with, at most, and as many generated ones."""
    seed: int | None = None
    """Of generated showers and classifiers; without one it derives from the request's bytes."""

    def __post_init__(self) -> None:
        if not 60 <= self.showers <= 200_000:
            raise ValueError(f"showers: {self.showers} is not between 60 and 200000")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")


@dataclass(frozen=True)
class Settings:
    """How `validate` works; environment variables of the same names in upper case."""

    threads: int = 1
    """Threads of onnxruntime."""
    geometry: str = "siw25"
    """The detector whose model this service promotes."""


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the report and, where the candidate passes, its promotion; raises InputError for what is no candidate."""
    request = read_request(Request, source)
    for package, extra in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{source.name}: validation needs {package}, which is not here; run ./dioscar install {extra}"
            )
    seed = job.seed if request.seed is None else request.seed
    _check_inputs(source.name, job.inputs)
    candidate = read_candidate(source.name, job.inputs, settings.threads)
    samples = read_samples(source.name, job.inputs, candidate, request.showers, seed)
    serving = Generator(job.model(MODEL), settings.threads)
    comparison = Comparison(candidate, serving, samples, seed, Progress(job.progress))
    verdict = _judged(comparison, settings, seed)
    document = report(verdict, {**comparison.facts(), **_facts(request, seed, candidate, serving, samples, job)})
    target = destination / f"{source.name}.report"
    json_path, html_path = target.with_name(f"{target.name}.json"), target.with_name(f"{target.name}.html")
    data = write_report(document, json_path, html_path)
    registry.write(destination, registry.report_files(candidate.manifest.version, data))
    promotion: Mapping[str, bytes] = {}
    if verdict.passed:
        promotion = registry.promotion_files(candidate.manifest, job.model(MODEL), data)
        registry.write(destination, promotion)
    from functions.calorimeter.validation.page import page

    html_path.write_text(page(document, comparison), encoding="utf-8")
    print(_told(candidate.manifest.version, verdict, promotion), flush=True)  # noqa: T201 - the job's log


def _told(version: str, verdict: Verdict, promotion: Mapping[str, bytes]) -> str:
    """The verdict in a line: what is refused is no failure of the job, and would go unseen in its log."""
    for path in promotion:
        number = int(Path(path).name.partition("-")[0])
        return f"version {version} promoted as number {number}: {len(verdict.reasons)} checks passed"
    told = "; ".join(verdict.refusals[:TOLD])
    more = len(verdict.refusals) - TOLD
    return f"version {version} refused: {told}{f'; and {more} more, which the report tells' if more > 0 else ''}"


def _check_inputs(name: str, inputs: Sequence[Input]) -> None:
    for item in inputs:
        if not item.key.endswith((".h5", ".onnx", "manifest.json")):
            raise InputError(f"{name}: inputs: {item.key} is neither a version's file nor showers (.h5); take it out")


def _judged(comparison: Comparison, settings: Settings, seed: int) -> Verdict:
    others = [*_before(comparison, settings), *comparison.reasons()]
    scores = comparison.scores()
    return judge(gate.gate(), scores["candidate"], scores["serving"], seed=seed, others=others)


def _before(comparison: Comparison, settings: Settings) -> Iterator[Reason]:
    """Checks of where candidate and Monte Carlo come from."""
    candidate, samples = comparison.candidate, comparison.samples
    manifest = candidate.manifest
    yield leak(manifest.data_hashes, [file["sha256"] for file in samples.facts["files"] if file["use"] == "to test on"])
    sentence = f"{samples.leaked} of the showers to test on are among those that it was trained on, and left out"
    yield Reason("", "leak", samples.leaked == 0, sentence)
    if not len(samples.learned) or samples.unseen_files:
        missing = f"{samples.unseen_files} of the {len(manifest.data_hashes)} files" if manifest.data else "no file"
        end = "are not among the inputs" if manifest.data else "is named"
        sentence = f"of what it was trained on {missing} {end}, so nobody can tell whether it replays it; name them"
        yield Reason("replay", "samples", False, sentence)
    if "gflash" in samples.engines or not all(samples.engines):
        told = ", ".join(engine or "nobody knows whom" for engine in samples.engines)
        sentence = f"the showers to test on were made by {told}; only Geant4's, or a detector's, promote a model"
        yield Reason("", "other", False, sentence)
    found = candidate.generator.geometry
    if not _is(settings.geometry, candidate):
        sentence = (
            f"the candidate is of the geometry {found.name}, and this service promotes for {settings.geometry}; deploy"
            f" one with GEOMETRY={found.name} and a registry of its own (DIOSCAR_REGISTRY)"
        )
        yield Reason("", "other", False, sentence)
    for lost in not_made(candidate.generator, comparison.serving):
        sentence = f"the candidate makes no {lost}, which the version that serves does; train it on such showers, too"
        yield Reason("", "other", False, sentence)
    if candidate.generator.sha256 == comparison.serving.sha256:
        yield Reason("", "other", False, f"the candidate is the version that serves, {manifest.version}")


def not_made(candidate: Generator, serving: Generator) -> Iterator[str]:
    """What one model makes and another of the same geometry does not: a promotion would take it from its users."""
    if candidate.geometry.as_json()["layers"] != serving.geometry.as_json()["layers"]:
        return
    for particle in serving.particles:
        if particle not in candidate.particles:
            yield f"showers of {particle}"
    for name, unit, mine, theirs in (
        ("energies", "GeV", candidate.energy_gev, serving.energy_gev),
        ("angles", "degrees", candidate.theta_deg, serving.theta_deg),
    ):
        near = NEARLY * (theirs[1] - theirs[0])
        if mine[0] > theirs[0] + near or mine[1] < theirs[1] - near:
            yield f"{name} from {theirs[0]:g} to {theirs[1]:g} {unit}, but from {mine[0]:g} to {mine[1]:g}"


def _is(name: str, candidate: Candidate) -> bool:
    """Whether the candidate is of the geometry of that name; one that does not come with the twin goes by its name."""
    found = candidate.generator.geometry
    if found.name != name:
        return False
    try:
        known = load_geometry(name)
    except InputError:
        return True
    return found.as_json()["layers"] == known.as_json()["layers"] and found.shape == known.shape


def _facts(
    request: Request, seed: int, candidate: Candidate, serving: Generator, samples: Samples, job: Job
) -> dict[str, Any]:
    promotion = registry.serving_at(MODEL, job.model(MODEL))
    manifest, generator = candidate.manifest, candidate.generator
    return {
        "candidate": {
            "version": manifest.version,
            "sha256": manifest.sha256,
            "code": manifest.code,
            "parent": manifest.parent,
            "family": generator.family,
            "geometry": generator.geometry.name,
            "particles": list(generator.particles),
            "energy_gev": list(generator.energy_gev),
            "theta_deg": list(generator.theta_deg),
            "request": dict(manifest.request),
            "data_files": len(manifest.data),
        },
        "serving": {
            "version": serving.sha256[:16],
            "sha256": serving.sha256,
            "family": serving.family,
            "geometry": serving.geometry.name,
            "promotion": promotion.number if promotion else None,
        },
        "data": samples.facts,
        "request": {**asdict(request), "seed": seed},
    }
