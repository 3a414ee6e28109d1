"""A version in; a report, and its promotion if it passes, out."""

from dataclasses import dataclass
from pathlib import Path

from functions.line import fit
from layers.learning.manifest import Manifest, promotion_files, report_files, write
from layers.quality import judge, leak
from layers.quality.report import report, write_report
from layers.runtime import Job, read_request

MODELS = (fit.MODEL,)


@dataclass(frozen=True)
class Request:
    points: int = 400


@dataclass(frozen=True)
class Settings:
    pass


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    request = read_request(Request, source)
    model, manifest_file = job.inputs[:2]
    manifest = Manifest.read(manifest_file.path.read_bytes(), manifest_file.key)
    test = fit.points(request.points, (job.seed, 1, 1))
    serving = job.model(fit.MODEL)
    verdict = judge(
        fit.GATE,
        {"error": fit.errors(model.path, test)},
        {"error": fit.errors(serving, test)},
        seed=job.seed,
        others=[leak(manifest.data_hashes, [item.sha256 for item in job.inputs[2:]])],
    )
    document = report(verdict, {"candidate": {"version": manifest.version}})
    paths = [destination / f"{source.name}.report.{suffix}" for suffix in ("json", "html")]
    data = write_report(document, *paths)
    write(destination, report_files(manifest.version, data))
    if verdict.passed:
        write(destination, promotion_files(manifest, serving, data))
