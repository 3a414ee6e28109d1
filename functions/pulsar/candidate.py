"""A candidate: a version of the classifier with its manifest, checked before it is compared with anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from functions.pulsar import classifier
from functions.pulsar.arrays import Floats
from functions.pulsar.features import SHAPES, Features
from functions.pulsar.gate import MODEL
from functions.pulsar.labels import COMPONENTS
from layers.learning.candidate import read_version
from layers.learning.registry import Manifest
from layers.runtime import Input, InputError

_MEND = "name a version that pulsar-train made"


@dataclass(frozen=True)
class Candidate:
    """A model that may be loaded and run, and where it comes from."""

    model: classifier.Classifier
    manifest: Manifest

    def __call__(self, features: Features) -> Floats:
        """Probabilities, shape (n, 4). Raises InputError where the model cannot be run or gives anything else."""
        count, name = len(features.image), f"{self.manifest.version}/model.onnx"
        try:
            found = self.model(features)
        except Exception as error:  # onnxruntime raises a family of its own for each reason
            raise InputError(f"{name}: cannot be run ({type(error).__name__}); {_MEND}") from None
        if found.shape != (count, len(COMPONENTS)) or not ((found >= 0) & (found <= 1)).all():
            raise InputError(f"{name}: gives {found.shape} numbers that are no probabilities; {_MEND}")
        return found


def read_candidate(request: str, inputs: Sequence[Input], threads: int) -> Candidate:
    """The one model among `inputs`, with its manifest.

    Raises InputError where either is missing or not the other's, and where the model is no pulsar classifier.
    """
    model, found = read_version(request, inputs, MODEL, beside="any labelled frames", mend=_MEND)
    return Candidate(_load(model, threads), found)


def _load(item: Input, threads: int) -> classifier.Classifier:
    name = f"{item.bucket}/{item.key}"
    try:
        model = classifier.load(item.path, threads)
    except InputError as error:
        raise InputError(f"{item.bucket}/{item.key.removesuffix(item.path.name)}{error}") from None
    except (LookupError, TypeError, ValueError):
        raise InputError(f"{name}: metadata thresholds or trigger: missing or no numbers; {_MEND}") from None
    for known in model.session.get_inputs():
        shape = tuple(known.shape[1:])
        if shape != SHAPES[known.name] or known.type != "tensor(float)":
            raise InputError(
                f"{name}: input {known.name}: {known.type} {shape} is not float {SHAPES[known.name]}; {_MEND}"
            )
    outputs = {output.name: tuple(output.shape[1:]) for output in model.session.get_outputs()}
    if outputs.get("probabilities") != (len(COMPONENTS),):
        raise InputError(f"{name}: has no output probabilities of {len(COMPONENTS)} numbers a frame; {_MEND}")
    if model.metadata.get("outputs") != ",".join(COMPONENTS):
        raise InputError(f"{name}: metadata outputs: is not {','.join(COMPONENTS)}; {_MEND}")
    limits = np.append(model.thresholds.astype(np.float64), model.trigger)
    if not ((limits >= 0) & (limits <= 1)).all():
        raise InputError(f"{name}: metadata thresholds or trigger: not between 0 and 1; {_MEND}")
    return model
