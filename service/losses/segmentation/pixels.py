"""Cross entropy of pixels, plain or focal, which hybrid losses add to an overlap."""

import torch
from torch import Tensor

from service.losses.segmentation.masks import Mode, counted, ratio
from service.losses.surprise import binary_surprise, surprise


def pixel_loss(
    logits: Tensor, targets: Tensor, mode: Mode, *, ignore_index: int | None, gamma: float = 0.0
) -> Tensor:
    r"""Return the mean focal cross entropy of each image's valid pixels, ``[N]``; plain where gamma is 0.

    The mean runs over classes too where they do not exclude each other. It is 0 where no pixel is valid.
    """
    logits, targets, valid = counted(logits, targets, mode, ignore_index)
    if mode == "multiclass":
        costs = surprise(logits, targets).unsqueeze(1)
        wrong = -torch.expm1(-costs)
    else:
        costs = binary_surprise(logits, targets, 1 - targets)
        wrong = targets * (-logits).sigmoid() + (1 - targets) * logits.sigmoid()
    terms = costs if gamma == 0 else focal(costs, wrong, gamma)
    if valid is None:
        return terms.flatten(1).mean(1)
    return ratio(torch.where(valid, terms, 0).flatten(1).sum(1), valid.flatten(1).sum(1), empty=0)


def focal(costs: Tensor, wrong: Tensor, gamma: float) -> Tensor:
    """Weigh a cross entropy by the probability of being wrong, to a power."""
    doubtful = wrong > 0
    # below 1 the power is infinitely steep at 0, where the product nevertheless is flat
    return torch.where(doubtful, torch.where(doubtful, wrong, 1) ** gamma * costs, 0)
