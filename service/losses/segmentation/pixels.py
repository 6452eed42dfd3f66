"""Cross entropy of pixels, plain or focal: what hybrid losses add to an overlap."""

import torch
import torch.nn.functional as F
from torch import Tensor

from service.losses.segmentation.masks import Mode, counted, ratio


def pixel_loss(
    logits: Tensor, targets: Tensor, mode: Mode, *, ignore_index: int | None, gamma: float = 0.0
) -> Tensor:
    r"""Return the mean focal cross entropy of each image's valid pixels, ``[N]``; plain where gamma is 0.

    The mean runs over classes too where they do not exclude each other. It is 0 where no pixel is valid.
    """
    logits, targets, valid = counted(logits, targets, mode, ignore_index)
    if mode == "multiclass":
        surprise = -logits.log_softmax(1).gather(1, targets.unsqueeze(1))
        wrong = -torch.expm1(-surprise)
    else:
        surprise = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        wrong = targets * (-logits).sigmoid() + (1 - targets) * logits.sigmoid()
    terms = surprise if gamma == 0 else focal(surprise, wrong, gamma)
    if valid is None:
        return terms.flatten(1).mean(1)
    return ratio(torch.where(valid, terms, 0).flatten(1).sum(1), valid.flatten(1).sum(1), empty=0)


def focal(surprise: Tensor, wrong: Tensor, gamma: float) -> Tensor:
    """Weigh a cross entropy by the probability of being wrong, to a power."""
    doubtful = wrong > 0
    # below 1 the power is infinitely steep at 0, where the product nevertheless is flat
    return torch.where(doubtful, torch.where(doubtful, wrong, 1) ** gamma * surprise, 0)
