"""Whether an exported model makes the showers that the network makes with torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from functions.calorimeter.generator import CONDITIONS, FORMAT
from functions.calorimeter.learners.learner import TrainingData
from layers.learning import onnx

if TYPE_CHECKING:
    import torch

SHOWERS = 8
LARGEST = 1e-3
"""Of the median shower's energy in other cells. Rounding may carry a single cell of a shower over its threshold."""


class NotTheSame(Exception):  # noqa: N818 - it is a state of the model
    """The exported model makes other showers than the network."""


def check_parity(model: Path, network: "torch.nn.Module", data: TrainingData, *, seed: int) -> float:
    """How far the showers of both are apart with the same random numbers; raises NotTheSame where it is too far.

    The difference is the energy in other cells over all energy, the median of the first showers of `data`.
    """
    import torch

    session, about = onnx.load(model, FORMAT)
    count = min(SHOWERS, len(data))
    showers = data.showers
    rng = np.random.default_rng(seed)
    feed = {}
    for tensor in about.inputs:
        if tensor.name in CONDITIONS:
            values = {"energy_gev": showers.energy_gev, "theta": showers.theta, "particle": data.particle}[tensor.name]
            feed[tensor.name] = values[:count].astype(np.float32)
        else:
            draw = rng.standard_normal if tensor.name.startswith("normal") else rng.random
            feed[tensor.name] = draw((count, *(size or 1 for size in tensor.shape[1:])), np.float32)
    made = session.run(None, feed)[0].astype(np.float64).reshape(count, -1)
    network.eval()
    with torch.no_grad():
        tensors = [torch.from_numpy(feed[tensor.name]) for tensor in about.inputs]
        wanted = network(*tensors).double().cpu().numpy().reshape(count, -1)
    energy = np.maximum(np.maximum(wanted.sum(axis=1), made.sum(axis=1)), 1e-6)
    apart = float(np.median(np.abs(made - wanted).sum(axis=1) / energy))
    if not apart <= LARGEST:
        raise NotTheSame(
            f"{model.name}: {apart:.2g} of a shower's energy is in other cells than torch's; mend the export"
        )
    return apart
