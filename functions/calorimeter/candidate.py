"""A candidate: a version of the generator with its manifest, checked before it is compared with anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from functions.calorimeter.generator import MODEL, Generator
from functions.calorimeter.showers import Counts, Floats, Showers, join
from layers.learning.candidate import read_version
from layers.learning.registry import Manifest
from layers.runtime import Input, InputError

_MEND = "name a version that calorimeter-train made"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Candidate:
    """A generator that may be loaded and run, and where it comes from."""

    generator: Generator
    manifest: Manifest

    @cached_property
    def held_out(self) -> float:
        """The part of its files that its training held out, 0 where the manifest does not say so."""
        parameters = self.manifest.request.get("parameters")
        part = parameters.get("held_out") if isinstance(parameters, dict) else None
        known = isinstance(part, int | float) and not isinstance(part, bool) and 0 < part < 1
        return float(part) if known and part is not None else 0.0

    def __call__(self, energy_gev: Floats, theta: Floats, kind: Counts, seed: int, progress: Progress) -> Showers:
        """Showers of these primaries; raises InputError where it cannot be run, or makes what no shower is."""
        name = f"{self.manifest.version}/model.onnx"
        try:
            made = generated(self.generator, energy_gev, theta, kind, seed, progress)
        except InputError:
            raise
        except Exception as error:  # onnxruntime raises a family of its own for each reason
            raise InputError(f"{name}: cannot be run ({type(error).__name__}); {_MEND}") from None
        if not (np.isfinite(made.edep_mev) & (made.edep_mev >= 0)).all():
            raise InputError(f"{name}: makes cells with a negative energy or none; {_MEND}")
        return made


def generated(
    generator: Generator, energy_gev: Floats, theta: Floats, kind: Counts, seed: int, progress: Progress
) -> Showers:
    """A model's showers of these primaries, whose particles are numbers in its own list; also out of its range."""
    parts, places = [], []
    for number, particle in enumerate(generator.particles):
        rows = np.flatnonzero(kind == number)
        first = 0
        for part in generator.generate(energy_gev[rows], theta[rows], particle, seed + number, checked=False):
            parts.append(part)
            first += len(part)
            progress(len(part))
        if first != len(rows):
            raise InputError(f"the model makes {first} showers of {particle} for {len(rows)} primaries; {_MEND}")
        places.append(rows)
    return join(parts).rows(np.argsort(np.concatenate(places), kind="stable"))


def read_candidate(request: str, inputs: Sequence[Input], threads: int) -> Candidate:
    """The one model among `inputs`, with its manifest.

    Raises InputError where either is missing or not the other's, and where the model is no generator of showers.
    """
    model, found = read_version(request, inputs, MODEL, beside="the showers to test on", mend=_MEND)
    try:
        generator = Generator(model.path, threads)
    except InputError as error:
        folder = model.key.removesuffix(model.path.name)
        raise InputError(f"{model.bucket}/{folder}{error}") from None
    return Candidate(generator, found)
