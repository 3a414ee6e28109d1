"""Mixtures of normal distributions."""

import torch
from torch import Tensor


def chosen(log_weights: Tensor, uniform: Tensor) -> Tensor:
    """Which part of a mixture each uniform number falls into, as one-hot: (..., parts), of (..., parts) and (...)."""
    below = torch.cumsum(torch.exp(log_weights), dim=-1)[..., :-1]
    number = (uniform[..., None] > below).to(log_weights).sum(dim=-1, keepdim=True)
    return (torch.abs(number - torch.arange(log_weights.shape[-1]).to(log_weights)) < 0.5).to(log_weights)
