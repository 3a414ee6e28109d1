"""The classifier network: four small convolutional branches, one per aspect of a frame, and four sigmoid outputs.

Imports torch: only `train` uses this module. Serving runs the exported ONNX graph.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from functions.pulsar.features import SHAPES
from functions.pulsar.labels import COMPONENTS

OPSET = 17


class Branch(nn.Module):  # type: ignore[misc]
    """Convolutions with batch normalisation and ReLU, then maximum and mean over all positions."""

    def __init__(self, layers: list[tuple[int, int, int, int, bool]], one_dimensional: bool) -> None:
        """`layers` are (inputs, outputs, kernel, stride, halve the grid by a maximum afterwards)."""
        super().__init__()
        convolution: type[nn.Module] = nn.Conv1d if one_dimensional else nn.Conv2d
        norm: type[nn.Module] = nn.BatchNorm1d if one_dimensional else nn.BatchNorm2d
        self.pool = nn.MaxPool1d(2) if one_dimensional else nn.MaxPool2d(2)
        self.dimensions = (2,) if one_dimensional else (2, 3)
        self.layers = layers
        self.convolutions = nn.ModuleList(
            convolution(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
            for inputs, outputs, kernel, stride, _ in layers
        )
        self.norms = nn.ModuleList(norm(outputs) for _, outputs, _, _, _ in layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution, norm, layer in zip(self.convolutions, self.norms, self.layers, strict=True):
            x = torch.relu(norm(convolution(x)))
            if layer[4]:
                x = self.pool(x)
        return torch.cat([x.amax(self.dimensions), x.mean(self.dimensions)], dim=1)


class Network(nn.Module):  # type: ignore[misc]
    """Frames' features in (see `features.SHAPES`), four logits out in the order of COMPONENTS."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {
                "image": Branch([(1, 16, 5, 2, True), (16, 24, 3, 1, True), (24, 32, 3, 1, False)], False),
                "tracks": Branch(
                    [(4, 20, 5, 2, True), (20, 32, 3, 1, True), (32, 32, 3, 1, False), (32, 32, 3, 1, False)], False
                ),
                "rows": Branch([(2, 12, 7, 2, False), (12, 16, 5, 2, False)], True),
                "columns": Branch([(2, 12, 7, 2, False), (12, 16, 5, 2, False)], True),
            }
        )
        width = sum(2 * branch.layers[-1][1] for branch in self._each())
        self.hidden = nn.Linear(width, 64)
        self.output = nn.Linear(64, len(COMPONENTS))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        joined = torch.cat([self.branches[name](inputs[name]) for name in SHAPES], dim=1)
        return self.output(torch.relu(self.hidden(joined)))

    def _each(self) -> list[Branch]:
        return [self.branches[name] for name in SHAPES]


def to_onnx(network: Network, metadata: dict[str, str]) -> bytes:
    """The network as an ONNX model, float32, batch size free; output `probabilities`, shape (n, 4).

    Batch normalisation is folded into the convolutions; the bytes depend on weights and `metadata` only.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    joined = []
    for name in SHAPES:
        branch = network.branches[name]
        value = name
        flat = len(SHAPES[name]) == 2
        for number, (convolution, norm, layer) in enumerate(
            zip(branch.convolutions, branch.norms, branch.layers, strict=True)
        ):
            stem = f"{name}_{number}"
            scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
            kernel = convolution.weight.detach() * scale.reshape(-1, *[1] * (convolution.weight.dim() - 1))
            bias = (norm.bias - norm.running_mean * scale).detach()
            size = 1 if flat else 2
            nodes.append(
                helper.make_node(
                    "Conv",
                    [value, constant(f"{stem}_kernel", kernel.numpy()), constant(f"{stem}_bias", bias.numpy())],
                    [f"{stem}_sum"],
                    kernel_shape=[layer[2]] * size,
                    strides=[layer[3]] * size,
                    pads=[layer[2] // 2] * size * 2,
                )
            )
            nodes.append(helper.make_node("Relu", [f"{stem}_sum"], [f"{stem}_relu"]))
            value = f"{stem}_relu"
            if layer[4]:
                nodes.append(
                    helper.make_node("MaxPool", [value], [f"{stem}_pool"], kernel_shape=[2] * size, strides=[2] * size)
                )
                value = f"{stem}_pool"
        for operator, suffix in (("GlobalMaxPool", "max"), ("GlobalAveragePool", "mean")):
            nodes.append(helper.make_node(operator, [value], [f"{name}_{suffix}"]))
            nodes.append(helper.make_node("Flatten", [f"{name}_{suffix}"], [f"{name}_{suffix}_flat"]))
            joined.append(f"{name}_{suffix}_flat")
    nodes.append(helper.make_node("Concat", joined, ["joined"], axis=1))
    value = "joined"
    for name, linear in (("hidden", network.hidden), ("output", network.output)):
        parameters = [
            constant(f"{name}_weight", linear.weight.detach().numpy()),
            constant(f"{name}_bias", linear.bias.detach().numpy()),
        ]
        nodes.append(helper.make_node("Gemm", [value, *parameters], [f"{name}_sum"], transB=1))
        value = f"{name}_sum"
        if name == "hidden":
            nodes.append(helper.make_node("Relu", [value], ["hidden_relu"]))
            value = "hidden_relu"
    nodes.append(helper.make_node("Sigmoid", [value], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "pulsar-classifier",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in SHAPES.items()],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(COMPONENTS)])],
        weights,
    )
    model = helper.make_model(
        graph, producer_name="dioscar", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
