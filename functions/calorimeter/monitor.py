"""Watch showers for drift: new ones in, `<name>.drift.json` out, and a request to train where they have drifted.

New showers, Monte Carlo or a test beam's, in ROOT or HDF5, are compared with what the serving model says for the same
energies and angles (`drift.py`). On an alarm `<name>.train.json` goes out too: the request that has `calorimeter-train`
learn from the file, beginning with the model that serves; and the file itself, in HDF5, as
`drifted/<start of its SHA-256>.h5`, so that the request names what stays. Whether what was trained serves is decided by
`calorimeter-validate`. Files that cannot be judged (too few showers in the model's range) raise no alarm; the report
says why.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functions.calorimeter import drift
from functions.calorimeter.checks import refuse_generated
from functions.calorimeter.generator import MODEL, Generator
from functions.calorimeter.geometry import Geometry
from functions.calorimeter.hdf5 import ShowersHdf5, Writer
from functions.calorimeter.observables import THRESHOLD_MEV
from functions.calorimeter.plain import plain
from functions.calorimeter.rootfile import ShowersFile
from functions.calorimeter.showers import Showers, join
from functions.calorimeter.validation.samples import LEAST_SHOWERS as JUDGED
from layers.runtime import InputError, Job

MODELS = (MODEL,)
REPLY = "*.drift.json"
FORMAT = "dioscar-calorimeter-drift-1"
DRIFTED = "drifted"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Settings:
    """How `monitor` works; environment variables of the same names in upper case."""

    false_alarms: float = 0.001
    """The chance that a file which has not drifted raises an alarm, over all that is tested."""
    least_showers: int = 120
    """Showers in the model's range, below which a file is not judged."""
    most_showers: int = 1000
    """Showers that are judged, taken evenly from the file; what more of them would show is too small to matter."""
    per_shower: int = 4
    """Showers that are generated for each of them."""
    dioscar_registry: str = "models"
    """Bucket of the registry of models, where FORWARD keeps `drifted/*.h5` for the training to read."""
    train: str = "{}"
    """What the request to train says beside its inputs, a JSON object: `parameters`, `held_out`, ..."""
    threads: int = 1
    """Threads of onnxruntime."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1:
            raise ValueError(f"FALSE_ALARMS: {self.false_alarms} is not between 0 and 1")
        if not 2 <= self.least_showers <= self.most_showers:
            raise ValueError(
                f"LEAST_SHOWERS: {self.least_showers} is not from 2 to MOST_SHOWERS, which is {self.most_showers}"
            )
        for name, most in (("per_shower", 64), ("threads", 256)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name.upper()}: {getattr(self, name)} is not from 1 to {most}")
        try:
            given = json.loads(self.train)
        except ValueError:
            given = None
        if not isinstance(given, dict) or "inputs" in given:
            raise ValueError(f"TRAIN: {self.train} is no JSON object without inputs; write e.g. {{}}")


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the report and, on an alarm, the request; raises InputError for showers that no such model is about."""
    with opened(source) as file:
        generator = Generator(job.model(MODEL), settings.threads)
        particle = str(file.about.get("particle", ""))
        refuse_generated(
            file.about, source.name, "which shows no drift of a detector, and from which nothing is to be learned"
        )
        _check(source.name, file.geometry, particle, generator)
        threshold = max(THRESHOLD_MEV, generator.threshold_mev, float(getattr(file, "threshold_mev", 0.0)))
        comparison = Comparison(generator, particle, threshold, settings.per_shower, job.seed)
        step = max(1, math.ceil(len(file) / settings.most_showers))
        for done, part in every(file.read(), step):
            comparison.add(part)
            job.progress(done, len(file))
        facts = {
            "format": FORMAT,
            "file": {
                "name": source.name,
                "showers": len(file),
                "engine": file.about.get("engine"),
                "particle": particle,
            },
            "model": {"sha256": generator.sha256, "family": generator.family},
            "geometry": file.geometry.name,
            "threshold_mev": threshold,
            "settings": {name: value for name, value in asdict(settings).items() if name not in ("threads", "train")},
            "seed": job.seed,
        }
        report = {**facts, **comparison.result(settings.least_showers, settings.false_alarms)}
        if report["alarm"]:
            _ask(source, file, destination, settings, generator.family, job.seed)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (destination / f"{source.name}.drift.json").write_text(text + "\n", encoding="utf-8")
    print(_told(report), flush=True)  # noqa: T201 - the job's log


class Comparison:
    """Showers beside those that the model generates for them, piece by piece."""

    def __init__(self, generator: Generator, particle: str, threshold_mev: float, per_shower: int, seed: int) -> None:
        self.generator, self.particle, self.threshold_mev = generator, particle, threshold_mev
        self.per_shower, self.seed = per_shower, seed
        self.stream: list[drift.Rows] = []
        self.generated: list[drift.Rows] = []
        self.count = self.outside = 0

    def add(self, part: Showers) -> None:
        """Compare showers; those outside the model's range are counted and left out."""
        inside = _inside(part, self.generator)
        self.outside += len(part) - int(inside.sum())
        if not inside.any():
            return
        rows = drift.rows(part, self.generator.geometry, self.threshold_mev).chosen(inside)
        energy, theta = (np.repeat(values[inside], self.per_shower) for values in (part.energy_gev, part.theta))
        made = self.generator.generate(
            energy, theta, self.particle, self.seed, first=self.count * self.per_shower, checked=False
        )
        self.generated += [drift.rows(some, self.generator.geometry, self.threshold_mev) for some in made]
        self.stream.append(rows)
        self.count += len(rows)

    def result(self, least: int, false_alarms: float) -> dict[str, Any]:
        """What the report says of the comparison."""
        found: dict[str, Any] = {"showers": self.count, "outside_range": self.outside, "alarm": False, "causes": []}
        if self.count < least:
            (low, high), (first, last) = self.generator.energy_gev, self.generator.theta_deg
            why = (
                f"{self.count} showers lie in the model's range ({low:g} to {high:g} GeV, {first:g} to {last:g}"
                f" degrees), and {least} are wanted"
            )
            return {**found, "judged": False, "not_judged": why, "deviations": []}
        stream, generated = drift.joined(self.stream), drift.joined(self.generated)
        deviations = drift.deviations(stream, generated, self.per_shower, false_alarms)
        causes = drift.causes(stream, generated.means(self.per_shower), deviations)
        told = [plain(vars(one)) for one in deviations]
        alarm = any(one.drifted for one in deviations)
        return {**found, "judged": True, "alarm": alarm, "causes": causes, "deviations": told}


def opened(source: Path) -> "ShowersHdf5 | ShowersFile":
    """The showers of a file, as its first bytes say. Raises InputError where it is neither HDF5 nor ROOT."""
    with source.open("rb") as stream:
        start = stream.read(len(HDF5_SIGNATURE))
    if start == HDF5_SIGNATURE:
        return ShowersHdf5(source)
    if start.startswith(b"root"):
        return ShowersFile(source)
    raise InputError(
        f"{source.name}: is neither HDF5 nor ROOT; send showers as calorimeter-simulate or -preprocess write them"
    )


def every(parts: Iterator[Showers], step: int) -> Iterator[tuple[int, Showers]]:
    """Each `step`-th shower of a file, and how many have been passed."""
    passed = 0
    for part in parts:
        first = -passed % step
        passed += len(part)
        if step == 1:
            yield passed, part
        elif first < len(part):
            yield passed, join([part.part(place, place + 1) for place in range(first, len(part), step)])


def _inside(part: Showers, generator: Generator) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    (low, high), (first, last) = generator.energy_gev, (np.radians(angle) for angle in generator.theta_deg)
    slack = 1e-9
    energy = (part.energy_gev >= low * (1 - slack)) & (part.energy_gev <= high * (1 + slack))
    return np.asarray(energy & (part.theta >= first - slack) & (part.theta <= last + slack))


def _check(name: str, geometry: Geometry, particle: str, generator: Generator) -> None:
    """Raises InputError where the model is of another detector or knows no such particle."""
    if _read_out(geometry) != _read_out(generator.geometry):
        other = generator.geometry.name
        other = "another one of that name" if other == geometry.name else other
        raise InputError(
            f"{name}: its showers are of the geometry {geometry.name}, and the serving model of {other}; train a model"
            " of it, in a registry of its own (DIOSCAR_REGISTRY)"
        )
    if particle not in generator.particles:
        known = ", ".join(generator.particles)
        raise InputError(
            f'{name}: its particle is "{particle}", and the serving model knows {known}; train it with both'
        )


def _read_out(geometry: Geometry) -> tuple[object, ...]:
    """All of a geometry but its names."""
    return geometry.cells, geometry.cell_mm, geometry.layers


def _ask(
    source: Path,
    file: "ShowersHdf5 | ShowersFile",
    destination: Path,
    settings: Settings,
    family: str,
    seed: int,
) -> None:
    """Write the file, in HDF5, and the request to learn from it."""
    folder = destination / DRIFTED
    folder.mkdir()
    written = folder / "showers.h5"
    if isinstance(file, ShowersHdf5):
        shutil.copyfile(source, written)
    else:
        with Writer(written, file.geometry, file.about) as writer:
            for part in file.read():
                writer.add(part)
    with written.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    name = f"{sha256[:16]}.h5"
    written.rename(folder / name)
    place = {"bucket": settings.dioscar_registry, "key": f"{MODEL}/{DRIFTED}/{name}", "sha256": sha256}
    request = {
        "family": family,
        "start": "serving",
        "held_out": held_out(len(file)),
        "seed": seed % 2**31,
        **json.loads(settings.train),
    }
    text = json.dumps({**request, "inputs": [place]}, indent=1)
    (destination / f"{source.name}.train.json").write_text(text + "\n", encoding="utf-8")


def held_out(showers: int) -> float:
    """The part of a file that a training is to leave to the validation, which wants `JUDGED` showers at least.

    >>> held_out(10_000), held_out(200), held_out(120)
    (0.2, 0.3, 0.5)
    """
    return max(0.2, min(0.5, math.ceil(100 * JUDGED / showers) / 100))


def _told(report: dict[str, Any]) -> str:
    """The report in a line."""
    if not report["judged"]:
        return f"not judged: {report['not_judged']}"
    counted = f"{report['showers']} showers, {len(report['deviations'])} quantities"
    if not report["alarm"]:
        return f"no drift: {counted}"
    return f"drift: {'; '.join(report['causes'])} ({counted}); a training was asked for"
