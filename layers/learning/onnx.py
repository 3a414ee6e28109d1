"""ONNX models that say what they are: inputs and outputs with shapes and units, training range, producer, request.

That stands in the model's `metadata_props`, one JSON text for each key, so that whoever has the file has it too. The
bytes of a model depend on its weights and on this alone: they carry no clock, no path, and no version of the exporter.

Serving needs onnxruntime only; torch and onnx are imported where a model is made.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnxruntime
    import torch

__all__ = ["About", "ModelError", "Tensor", "described", "export", "load", "read_about"]

OPSET = 17
IR_VERSION = 9
PRODUCER = "dioscar"
FREE = "n"
"""The name of a dimension that may have any length."""


class ModelError(Exception):
    """A file is no model, or not the one that was expected; one sentence that names the file and the field."""


@dataclass(frozen=True)
class Tensor:
    """An input or an output: its name, its shape (None: any length), its unit (empty: none) and what it is."""

    name: str
    shape: tuple[int | None, ...]
    unit: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class About:
    """What a model says of itself. `format` names what it is, with a number that grows when that changes."""

    format: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    training_range: Mapping[str, Any] = field(default_factory=dict)
    """The range of each quantity that the model was trained on, as [lowest, highest]; outside it extrapolates."""
    request: Mapping[str, Any] = field(default_factory=dict)
    producer: str = ""
    """The function that made it, with its version."""
    more: Mapping[str, str] = field(default_factory=dict)
    """What only the twin understands, such as thresholds."""

    def as_metadata(self) -> dict[str, str]:
        """The keys and texts of `metadata_props`."""
        own = {
            "format": self.format,
            "inputs": _text({tensor.name: _told(tensor) for tensor in self.inputs}),
            "outputs": _text({tensor.name: _told(tensor) for tensor in self.outputs}),
            "training_range": _text(self.training_range),
            "request": _text(self.request),
            "producer": self.producer,
        }
        if clash := own.keys() & self.more.keys():
            raise ModelError(f"metadata: {', '.join(sorted(clash))} says what is known already; choose another name")
        return {**own, **self.more}


def read_about(metadata: Mapping[str, str], where: str) -> About:
    """What a model's metadata says. Raises ModelError, naming the key that is missing or malformed."""
    known = ("format", "inputs", "outputs", "training_range", "request", "producer")
    for key in known:
        if key not in metadata:
            raise ModelError(f"{where}: its metadata has no {key}; export it with layers.learning.onnx")
    parsed: dict[str, dict[str, Any]] = {}
    for key in known[1:5]:
        try:
            parsed[key] = dict(json.loads(metadata[key]))
        except (ValueError, TypeError, RecursionError):
            raise ModelError(f"{where}: its metadata's {key} is no JSON object; export it again") from None
    return About(
        metadata["format"],
        _tensors(parsed["inputs"], where),
        _tensors(parsed["outputs"], where),
        parsed["training_range"],
        parsed["request"],
        metadata["producer"],
        {name: text for name, text in metadata.items() if name not in known},
    )


def export(network: "torch.nn.Module", about: About) -> bytes:
    """The network, in evaluation mode, as ONNX; it takes `about.inputs` in their order, and gives `about.outputs`.

    Raises ModelError where the network's shapes are others.
    """
    import torch

    network.eval()
    free = {tensor.name: _free(tensor) for tensor in (*about.inputs, *about.outputs)}
    example = tuple(torch.ones([length or 2 for length in tensor.shape]) for tensor in about.inputs)
    buffer = BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # the exporter that is to come needs a package more, and writes paths into files
        torch.onnx.export(
            network,
            example,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in about.inputs],
            output_names=[tensor.name for tensor in about.outputs],
            dynamic_axes={name: axes for name, axes in free.items() if axes},
        )
    return described(buffer.getvalue(), about)


def described(model: bytes, about: About) -> bytes:
    """An ONNX model with this metadata, and nothing of whoever made it.

    Raises ModelError where it is no ONNX model, or its inputs and outputs are not those of `about`.
    """
    import onnx

    try:
        found = onnx.load_from_string(model)
        onnx.checker.check_model(found)
    except Exception as error:  # protobuf and onnx raise families of their own
        raise ModelError(f"the model is no ONNX model ({' '.join(str(error).split())[:200]})") from None
    for which, values, wanted in (
        ("inputs", _inputs(found), about.inputs),
        ("outputs", found.graph.output, about.outputs),
    ):
        shapes = {value.name: _shape(value) for value in values}
        _compare(which, shapes, wanted, "the model")
    found.producer_name, found.producer_version, found.domain, found.doc_string = PRODUCER, "", "", ""
    found.ir_version = min(found.ir_version, IR_VERSION)
    found.graph.name = about.format.partition(" ")[0]
    found.graph.doc_string = ""
    for node in found.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del found.metadata_props[:]
    onnx.helper.set_model_props(found, about.as_metadata())
    return bytes(found.SerializeToString(deterministic=True))


def load(path: Path, form: str = "", threads: int = 1) -> tuple["onnxruntime.InferenceSession", About]:
    """A session of the model at `path`, on `threads` cores, and what it says of itself.

    Raises ModelError where it is no ONNX model, says another format than `form`, or other inputs than it has.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except OSError:
        raise
    except Exception as error:  # onnxruntime raises a family of its own for each reason
        raise ModelError(f"{path.name}: is no ONNX model ({type(error).__name__}); train it again") from None
    about = read_about(dict(session.get_modelmeta().custom_metadata_map), path.name)
    if form and about.format != form:
        raise ModelError(f'{path.name}: its format is "{about.format}" and not "{form}"; train it again')
    for which, values, wanted in (
        ("inputs", session.get_inputs(), about.inputs),
        ("outputs", session.get_outputs(), about.outputs),
    ):
        shapes = {value.name: tuple(n if isinstance(n, int) else None for n in value.shape) for value in values}
        _compare(which, shapes, wanted, path.name)
    return session, about


def _compare(which: str, shapes: Mapping[str, tuple[int | None, ...]], wanted: Sequence[Tensor], where: str) -> None:
    told = {tensor.name: tensor.shape for tensor in wanted}
    if shapes != told:
        raise ModelError(f"{where}: its {which} are {_shapes(shapes)}, and it is said to have {_shapes(told)}")


def _shapes(shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    return ", ".join(f"{name}[{', '.join(FREE if n is None else str(n) for n in s)}]" for name, s in shapes.items())


def _inputs(model: Any) -> list[Any]:
    """What a model is given: its weights may be listed as inputs too."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _shape(value: Any) -> tuple[int | None, ...]:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in dimensions)


def _free(tensor: Tensor) -> dict[int, str]:
    return {axis: FREE if axis == 0 else f"{FREE}{axis}" for axis, n in enumerate(tensor.shape) if n is None}


def _told(tensor: Tensor) -> dict[str, Any]:
    return {name: value for name, value in asdict(tensor).items() if name != "name"}


def _tensors(told: Mapping[str, Any], where: str) -> tuple[Tensor, ...]:
    try:
        return tuple(
            Tensor(name, tuple(facts["shape"]), str(facts.get("unit", "")), str(facts.get("meaning", "")))
            for name, facts in told.items()
        )
    except (TypeError, LookupError, AttributeError):
        raise ModelError(f"{where}: its metadata's inputs or outputs have no shapes; export it again") from None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=False, ensure_ascii=False, default=dict)
