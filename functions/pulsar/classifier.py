"""The served classifier: an ONNX model with its thresholds, run by onnxruntime on the CPU."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functions.pulsar.arrays import Floats
from functions.pulsar.features import SHAPES, Features
from functions.pulsar.labels import COMPONENTS
from layers.runtime import InputError

FORMAT = "dioscar-pulsar-classifier 1"


@dataclass(frozen=True)
class Classifier:
    """Probabilities of COMPONENTS from features."""

    session: Any
    thresholds: Floats
    """Shape (4,): a component is there from this probability on."""
    trigger: float
    """Probability of a pulse from which on a frame is searched for one."""
    sha256: str
    metadata: dict[str, str]

    def __call__(self, features: Features) -> Floats:
        """Shape (n, 4)."""
        (probabilities,) = self.session.run(["probabilities"], features.as_inputs())
        return np.asarray(probabilities, dtype=np.float32)


def load(path: Path, threads: int = 1) -> Classifier:
    """Load the model at `path`; InputError if it is no pulsar classifier."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    content = path.read_bytes()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family of its own for each reason
        raise InputError(
            f"{path.name}: is no ONNX model ({type(error).__name__}); train it with pulsar-train"
        ) from None
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    if metadata.get("format") != FORMAT or {i.name for i in session.get_inputs()} != set(SHAPES):
        raise InputError(f"{path.name}: is no pulsar classifier (metadata format); train it with pulsar-train")
    thresholds = json.loads(metadata["thresholds"])
    return Classifier(
        session=session,
        thresholds=np.array([thresholds[name] for name in COMPONENTS]),
        trigger=float(metadata["trigger"]),
        sha256=hashlib.sha256(content).hexdigest(),
        metadata=metadata,
    )
