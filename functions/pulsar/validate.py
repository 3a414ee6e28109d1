"""Decide whether a version of the classifier may serve: `<request>.report.json` and `.html` out, and a promotion.

The request names the version (its `model.onnx` and `manifest.json` in the registry) and, if wanted, files of labelled
frames. Candidate and serving model are compared on the same frames by the gate that `gate.py` declares. A candidate
that fails is no error: the report says why, and no promotion is written.
"""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from functions.pulsar import classifier, seen
from functions.pulsar.candidate import Candidate, read_candidate
from functions.pulsar.gate import GATE, MODEL
from functions.pulsar.tested import STREAM, Block, Scoring, drawn, labelled
from layers.learning import registry
from layers.quality import Reason, Verdict, judge, leak
from layers.quality.report import report, write_report
from layers.runtime import Input, InputError, Job, read_request

MODELS = (MODEL,)


@dataclass(frozen=True)
class Request:
    """What to validate on; the candidate and any labelled frames (`.h5`) stand in `inputs`."""

    frames: int = 4_500
    """Frames that are drawn from the twin; 0 for labelled files alone."""
    seed: int | None = None
    """Of the drawn frames; without one it derives from the request's bytes, so every request has frames of its own."""

    def __post_init__(self) -> None:
        if not 0 <= self.frames <= 1_000_000:
            raise ValueError(f"frames: {self.frames} is not between 0 and 1000000")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")


@dataclass(frozen=True)
class Settings:
    """How `validate` works."""

    threads: int = 1
    """Threads of onnxruntime."""


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the report and, where the candidate passes, its promotion; raises InputError for what is no candidate."""
    request = read_request(Request, source)
    if importlib.util.find_spec("scipy") is None:
        raise InputError(f"{source.name}: validation needs scipy, which is not here; run ./dioscar install train")
    seed = job.seed if request.seed is None else request.seed
    files = _files(source.name, request, job.inputs)
    candidate = read_candidate(source.name, job.inputs, settings.threads)
    serving = classifier.load(job.model(MODEL), settings.threads)
    verdict = _judged(request, seed, candidate, serving, files, job)
    document = report(verdict, _facts(request, seed, candidate, serving, files, job))
    target = destination / f"{source.name}.report"
    data = write_report(document, target.with_name(f"{target.name}.json"), target.with_name(f"{target.name}.html"))
    registry.write(destination, registry.report_files(candidate.manifest.version, data))
    promotion: Mapping[str, bytes] = {}
    if verdict.passed:
        promotion = registry.promotion_files(candidate.manifest, job.model(MODEL), data)
        registry.write(destination, promotion)
    print(_told(candidate.manifest.version, verdict, promotion), flush=True)  # noqa: T201 - the job's log


def _told(version: str, verdict: Verdict, promotion: Iterable[str]) -> str:
    """The verdict in a line: what is refused is no failure of the job, and would go unseen in its log."""
    for path in promotion:
        number = int(Path(path).name.partition("-")[0])
        return f"version {version} promoted as number {number}: {len(verdict.reasons)} checks passed"
    return f"version {version} refused: {'; '.join(verdict.refusals)}"


def _files(name: str, request: Request, inputs: Sequence[Input]) -> list[Input]:
    """The labelled frames among the inputs. Raises InputError where there is nothing to test on, or what is neither."""
    files = [item for item in inputs if item.key.endswith(".h5")]
    for item in inputs:
        if not item.key.endswith((".h5", ".onnx", "manifest.json")):
            raise InputError(f"{name}: inputs: {item.key} is neither a version's file nor frames (.h5); take it out")
    if not request.frames and not files:
        raise InputError(f"{name}: frames: is 0, and no labelled frames are named; there is nothing to test on")
    return files


def _judged(
    request: Request,
    seed: int,
    candidate: Candidate,
    serving: classifier.Classifier,
    files: Sequence[Input],
    job: Job,
) -> Verdict:
    scoring = Scoring({"candidate": (candidate.model, candidate), "serving": (serving, serving)})
    for block in _blocks(request, seed, files):
        scoring.add(block)
        job.progress(len(scoring), max(request.frames, len(scoring)))
    tested = [item.sha256 for item in files] + [digest for item in files for digest in seen.digests(item.path)]
    others = [leak(seen.hashes(candidate.manifest.data), tested)]
    if candidate.model.sha256 == serving.sha256:
        others.append(
            Reason("", "other", False, f"the candidate is the version that serves, {candidate.manifest.version}")
        )
    return judge(GATE, scoring.scores("candidate"), scoring.scores("serving"), seed=seed, others=others)


def _blocks(request: Request, seed: int, files: Sequence[Input]) -> Iterator[Block]:
    yield from drawn(request.frames, seed)
    for item in files:
        yield from labelled(item.path)


def _facts(
    request: Request,
    seed: int,
    candidate: Candidate,
    serving: classifier.Classifier,
    files: Sequence[Input],
    job: Job,
) -> dict[str, Any]:
    promotion = registry.serving_at(MODEL, job.model(MODEL))
    manifest = candidate.manifest
    return {
        "candidate": {
            "version": manifest.version,
            "sha256": manifest.sha256,
            "code": manifest.code,
            "parent": manifest.parent,
            "request": dict(manifest.request),
            "data_files": len(manifest.data),
        },
        "serving": {
            "version": serving.sha256[:16],
            "sha256": serving.sha256,
            "promotion": promotion.number if promotion else None,
        },
        "data": {
            "drawn": {"frames": request.frames, "stream": [seed, STREAM]},
            "files": [{"bucket": item.bucket, "key": item.key, "sha256": item.sha256} for item in files],
        },
        "request": asdict(request),
    }
