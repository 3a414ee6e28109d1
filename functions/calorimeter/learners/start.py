"""A model that a training starts from: what it says of itself, and its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.generator import FORMAT
from layers.runtime import InputError

Arrays = dict[str, NDArray[Any]]


def read_start(model: Path, family: str) -> tuple[Mapping[str, str], Arrays]:
    """The metadata of a model's ONNX file, and its weights by the names that they had in torch.

    A weight that the exporter has folded into another one has no name any more. Raises InputError for what is no
    generator of `family`.
    """
    import onnx

    try:
        found = onnx.load(str(model))
    except Exception as error:  # protobuf and onnx raise families of their own
        raise InputError(f"{model.name}: is no ONNX model ({type(error).__name__}); train one to start from") from None
    metadata = {entry.key: entry.value for entry in found.metadata_props}
    if metadata.get("format") != FORMAT or metadata.get("family") != family:
        told = metadata.get("family") or metadata.get("format") or "of no family"
        raise InputError(
            f'{model.name}: is "{told}", and a training of "{family}" starts from "{family}" only; start from scratch'
        )
    arrays = {weight.name: np.array(onnx.numpy_helper.to_array(weight)) for weight in found.graph.initializer}
    for node in found.graph.node:
        if node.op_type == "Identity" and node.input[0] in arrays:  # weights that are equal are there once
            arrays[node.output[0]] = arrays[node.input[0]]
    return metadata, arrays
