"""The weighted losses of the 3DGAN: adversarial, primary energy, angle, and sum of the cells.

Khattak et al., Eur. Phys. J. C 82 (2022) 386: a discriminator that also regresses the primary energy and sees the
measured angle and the sum of the cells, each in a loss of its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FLIPPED = 0.05
"""Part of the discriminator's labels that are turned round, so that it is never sure of itself."""
LEAST = 1e-7
"""What a percentage of nothing is a percentage of."""


@dataclass(frozen=True)
class Weights:
    """What each loss counts; those of the publication. Percentages are in percent, angles in rad."""

    adversarial: float = 3.0
    energy: float = 0.1
    angle: float = 25.0
    visible: float = 0.1


WEIGHTS = Weights()


def percentage_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean of |prediction - truth| / |truth|, percent.

    >>> float(percentage_error(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 2.0])))
    75.0
    """
    return 100 * torch.mean(torch.abs(prediction - truth) / truth.abs().clamp(min=LEAST))


def absolute_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean of |prediction - truth|."""
    return torch.mean(torch.abs(prediction - truth))


def labels(count: int, real: bool, flipped: float = FLIPPED) -> Tensor:
    """1 for real and 0 for generated showers, some of them turned round by torch's random numbers; shape (count,)."""
    turned = torch.rand(count) < flipped
    return torch.where(turned, float(not real), float(real))


def adversarial(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy of logits: the sigmoid is in here, once."""
    return functional.binary_cross_entropy_with_logits(logits, truth)


def in_order(values: Tensor) -> Tensor:
    """Sorted, so that two samples are compared quantile by quantile.

    Shower by shower, the 3DGAN's losses ask the generator for each shower's own sum, which no one can tell from energy
    and angle: the best answer is the mean, and the resolution is lost. Quantiles ask for the distribution.
    """
    return torch.sort(values, dim=0).values
