"""Starting from another model: of the same geometry or of another one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from functions.calorimeter.geometry import geometry_from_json
from functions.calorimeter.learners.start import read_start
from functions.calorimeter.learners.two_stage.network import TwoStage
from functions.calorimeter.learners.two_stage.quantities import WHOLE, layer_depths
from functions.calorimeter.showers import Floats
from layers.runtime import InputError

OTHER_RELEASE = "as another release made it; start from a model of this release, or from scratch"


def take_over(network: TwoStage, architecture: Mapping[str, Any], model: Path, family: str) -> None:
    """Give `network` the weights of `model`. Raises InputError where that is none of `family`, or of another size."""
    told, found = read_start(model, family)
    if "architecture" not in told:
        raise InputError(f"{model.name}: its metadata has no architecture; start from scratch")
    old = json.loads(told["architecture"])
    before = geometry_from_json(old["geometry"], f"{model.name}: architecture.geometry")
    depth, cells = before.shape[2], before.shape[0]
    shares = _shares(
        layer_depths(before)[0], layer_depths(geometry_from_json(dict(architecture["geometry"]), "geometry"))[0]
    )
    if (has := len(found["flow.values.weight"]) - 2 * depth) != len(WHOLE):
        raise InputError(
            f"{model.name}: tells {has} quantities of a shower as a whole and not {len(WHOLE)}, {OTHER_RELEASE}"
        )
    particles = [_of(old["particles"], name) for name in architecture["particles"]]
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name not in found:
                raise InputError(f"{model.name}: has no weights {name}, {OTHER_RELEASE}")
            values = _fitted(name, found[name], shares, tensor.numpy(), particles, len(old["particles"]))
            if name in ("hits.maps", "hits.sides"):
                values = _columns(values, cells, network.cells)
            if values.shape != tuple(tensor.shape):
                raise InputError(
                    f"{model.name}: its {name} is {values.shape} and not {tuple(tensor.shape)}; give the same widths "
                    "and blocks as parameters, or start from scratch"
                )
            tensor.copy_(torch.from_numpy(values))


def _shares(old: Floats, new: Floats) -> Floats:
    """What new quantities have of old ones, shape (new, old): those of a layer from the layer nearest in depth.

    Where several layers have the same nearest one, their normalised sum is what that one was: were they all the same,
    the flow could not tell their noise apart, and would lose how energy and hits of a layer belong together.
    """
    one = np.zeros((len(new), len(old)))
    one[np.arange(len(new)), [int(np.argmin(np.abs(old - depth))) for depth in new]] = 1
    one /= np.sqrt(np.maximum(one.sum(axis=0), 1))
    found = np.zeros((2 * len(new) + len(WHOLE), 2 * len(old) + len(WHOLE)))
    found[: len(new), : len(old)] = one
    found[len(new) : 2 * len(new), len(old) : 2 * len(old)] = one
    found[2 * len(new) :, 2 * len(old) :] = np.eye(len(WHOLE))
    return found


def _columns(maps: Floats, old: int, new: int) -> Floats:
    """Maps or curves over the columns of `new` cells, of those of `old`; beyond these, the outermost one goes on."""
    maps = maps.reshape(len(maps), old // 2 + 1, -1)
    before, after = (np.arange(cells // 2 + 1) + (0.5 if cells % 2 == 0 else 0.0) for cells in (old, new))
    low = np.clip(np.searchsorted(before, after, side="right") - 1, 0, max(0, len(before) - 2))
    high = np.minimum(low + 1, len(before) - 1)
    part = np.clip(after - before[low], 0, 1)[:, None].astype(maps.dtype)
    return np.asarray((1 - part) * maps[:, low] + part * maps[:, high]).reshape(len(maps), -1)


def _of(particles: list[str], name: str) -> int:
    return particles.index(name) if name in particles else 0


def _fitted(name: str, values: Floats, shares: Floats, fresh: Floats, particles: list[int], count: int) -> Floats:
    """Weights in the order of the new quantities and particles; `count` is the number of old particles.

    What of the new quantities is of no old one keeps its `fresh` weights. Other widths stay, for the caller to refuse.
    """
    across = 0 if name == "flow.velocity.weight" else -1
    if name in ("flow.values.weight", "flow.velocity.weight") and values.shape[across] != fresh.shape[across]:
        return values
    if name in ("flow.values.weight", "flow.velocity.bias"):
        return np.asarray(fresh + shares @ (values - shares.T @ fresh), np.float32)
    if name == "flow.velocity.weight":
        return np.asarray(fresh + (values - fresh @ shares) @ shares.T, np.float32)
    if name == "flow.conditions.weight":
        return _kinds(values, 2, particles, count)
    if name in ("centres.first.weight", "hits.first.weight", "energies.first.weight"):
        return _kinds(values, len(values) - len(WHOLE) - count, particles, count)
    return values


def _kinds(values: Floats, first: int, particles: list[int], count: int) -> Floats:
    chosen = [*range(first), *(first + one for one in particles), *range(first + count, len(values))]
    return values[chosen]
