"""The networks that serve as weights in HDF5 and architecture in JSON, and the way back.

    networks = read_networks(Path("r.json.weights.h5"), Path("r.json.architecture.json"))

The HDF5 file has a group for each network, and in it a dataset for each of its tensors, with the names that torch has.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from functions.calorimeter.learners import family
from layers.runtime import InputError

if TYPE_CHECKING:
    import torch

WEIGHTS = "dioscar-calorimeter-weights-1"
ARCHITECTURE = "dioscar-calorimeter-architecture-1"


def write_networks(
    weights: Path,
    architecture: Path,
    name: str,
    told: Mapping[str, Any],
    networks: "Mapping[str, torch.nn.Module]",
) -> None:
    """Write both files; `name` is the family's and `told` the networks' `architecture()`."""
    with h5py.File(weights, "w", track_order=True) as file:
        file.attrs["format"], file.attrs["family"] = WEIGHTS, name
        for network, module in networks.items():
            group = file.create_group(network, track_order=True)
            for tensor, value in module.state_dict().items():
                group.create_dataset(tensor, data=value.detach().cpu().numpy(), track_times=False)
    document = {"format": ARCHITECTURE, "family": name, "architecture": told}
    architecture.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_networks(weights: Path, architecture: Path) -> "dict[str, torch.nn.Module]":
    """The networks of a training, in evaluation mode. Raises InputError where the files are not of one training."""
    import torch

    try:
        document = json.loads(architecture.read_text(encoding="utf-8"))
        name, told = document["family"], document["architecture"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{architecture.name}: is no architecture of networks; train it again") from None
    networks = dict(family(name, architecture.name).build(told))
    try:
        with h5py.File(weights) as file:
            found = {
                network: {tensor: torch.from_numpy(values[()]) for tensor, values in group.items()}
                for network, group in file.items()
            }
    except OSError:
        raise InputError(f"{weights.name}: is no HDF5 file of weights; train it again") from None
    try:
        for network, module in networks.items():
            module.load_state_dict(found[network])
            module.eval()
    except (KeyError, RuntimeError):
        raise InputError(
            f"{weights.name}: has not the weights that {architecture.name} tells of; take both of one training"
        ) from None
    return networks
