"""A linear layer whose weight can be read again from the exported model."""

import torch
from torch import Tensor, nn


class Affine(nn.Module):  # type: ignore[misc]
    """`x @ weight + bias`: unlike torch's Linear, its weight keeps its name and shape in ONNX."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter((2 * torch.rand(inputs, outputs) - 1) * inputs**-0.5)
        self.bias = nn.Parameter((2 * torch.rand(outputs) - 1) * inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x @ self.weight + self.bias
        flat = x.reshape(-1, x.shape[-1]) @ self.weight + self.bias  # onnxruntime has one kernel for two dimensions
        return flat.reshape(*x.shape[:-1], self.weight.shape[1])
