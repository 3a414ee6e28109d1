"""GANs as files: exported to ONNX with the discriminator's weights beside, and read again to start from.

A training that starts from another one's model goes on with both networks, as the publication's second stage does. The
generator's weights are those of the graph; the discriminator's stand in the metadata `discriminator`, as a base64 text
of numpy's `npz`, for nobody but a training needs them.
"""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from functions.calorimeter.learners.learner import FORMAT, TrainingData
from functions.calorimeter.learners.start import read_start
from layers.learning.onnx import About, Tensor, export
from layers.runtime import InputError

CRITIC = "discriminator"
GENERATOR = "generator."
"""Where a module that serves has its generator: the names of the graph's weights begin with it."""
CONDITIONS = (
    Tensor("energy_gev", (None,), "GeV", "energy of the primary particle"),
    Tensor("theta", (None,), "rad", "its polar angle; pi/2 is perpendicular"),
    Tensor("particle", (None,), "", "its number among the metadata's particles"),
)
Weights = Mapping[str, torch.Tensor]


def exported(
    serving: nn.Module,
    noise: tuple[Tensor, ...],
    critic: nn.Module,
    family: str,
    data: TrainingData,
    threshold_mev: float,
    request: Mapping[str, Any],
    producer: str,
) -> bytes:
    """The ONNX model of `serving`, which takes energy, angle, particle and `noise`, and gives cells in MeV."""
    about = About(
        format=FORMAT,
        inputs=(*CONDITIONS, *noise),
        outputs=(Tensor("ecal", (None, *data.geometry.shape), "MeV", "energy in the sensor of each cell"),),
        training_range=data.training_range,
        request=request,
        producer=producer,
        more={
            "family": family,
            "geometry": json.dumps(data.geometry.as_json()),
            "particles": json.dumps(list(data.particles)),
            "threshold_mev": repr(float(threshold_mev)),
            CRITIC: _packed(critic.state_dict()),
        },
    )
    return export(serving, about)


def weights_of(model: Path, family: str) -> tuple[Weights, Weights]:
    """The weights of a model's generator and of its discriminator. Raises InputError where it is none of `family`."""
    metadata, arrays = read_start(model, family)
    generator = {
        name.removeprefix(GENERATOR): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(GENERATOR)
    }
    try:
        return generator, _unpacked(metadata[CRITIC])
    except (KeyError, ValueError, OSError):
        raise InputError(f"{model.name}: its metadata has no discriminator; train it again to start from it") from None


def take_over(network: nn.Module, weights: Weights) -> int:
    """Give the network those of the weights that have its names and shapes; returns how many."""
    own = network.state_dict()
    fitting = {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}
    network.load_state_dict({**own, **fitting})
    return len(fitting)


def _packed(weights: Weights) -> str:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: weight.detach().cpu().numpy() for name, weight in weights.items()})
    return base64.b64encode(stream.getvalue()).decode()


def _unpacked(text: str) -> Weights:
    with np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name].copy()) for name in arrays.files}
