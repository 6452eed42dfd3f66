"""Shared parts of losses over exclusive classes: classes lie along axis 1, a target selects one of them."""

from math import nan
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from service.catalogue.spec import Divisor, Unreduced


class CountedLoss(NamedTuple):
    """A loss per element, and its divisor; without any, the mean is NaN, as in torch."""

    loss: Annotated[Tensor, Unreduced("N ...")]
    divisor: Annotated[Tensor, Divisor("N ...", empty=nan)]


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """Return along a new axis 1 whether each class is the target."""
    numbers = torch.arange(classes, device=targets.device)
    return targets.unsqueeze(1) == numbers.reshape(-1, *[1] * (targets.dim() - 1))


def at_target(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the score of each target's class."""
    return scores.gather(1, targets.unsqueeze(1)).squeeze(1)
