"""The Lovász extension of the Jaccard loss: it sorts errors, and is convex in them."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Form, Prediction, SizeRange, Target, Unreduced, given
from service.losses.segmentation.domains import HardMask
from service.losses.segmentation.masks import counted, one_hot, ratio, softmax

PER_IMAGE = [Form("N", when=given(per_image=True)), Form("", when=given(per_image=False))]
"""A number for each image, or one for the whole batch."""


@loss(
    title="Lovász hinge",
    tasks=("segmentation",),
    keywords=(
        "IoU",
        "binary segmentation",
    ),
    work="2 logits",
    range=(0, None),
)
def lovasz_hinge(
    logits: Annotated[Tensor, Prediction("N ...")],
    targets: Annotated[Tensor, Target("N ...", HardMask(ignore="ignore_index"))],
    *,
    per_image: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_IMAGE)]:
    r"""Convex surrogate of the intersection over union of a binary mask, on its logits.

    Formula:
        \sum_i \max(e_{(i)}, 0)\, g_i, \quad e = 1 - z (2 y - 1) \text{ sorted downwards},\;
        g_i = J_i - J_{i-1},\; J_i = 1 - \frac{\sum y - \sum_{j \le i} y_{(j)}}
        {\sum y + \sum_{j \le i} (1 - y_{(j)})}

    Args:
        logits: Score of each pixel; above 0 is the object.
        targets: 1 where the object is, 0 elsewhere.
        per_image: Whether errors are sorted image by image, or once over the whole batch.
        ignore_index: Target value of pixels that do not count.

    Use when:
        A binary segmentation is fine-tuned for its intersection over union.

    Pitfalls:
        Starts from logits with margins, not from probabilities. Without a true pixel only the worst false
        positive counts: an empty image is never skipped. Over the whole batch the numbers differ.

    Sources:
        - Berman et al. (2018), The Lovász-Softmax loss, https://arxiv.org/abs/1705.08790
    """
    counts = torch.ones_like(targets, dtype=torch.bool) if ignore_index is None else targets != ignore_index
    truths = counts & (targets == 1)
    margins = torch.where(counts, logits, 0) * torch.where(truths, 1, -1)
    # a pixel that does not count comes last, and its hinge is 0
    errors = torch.where(counts, 1 - margins, -torch.inf)
    if per_image:
        errors, truths = errors.unsqueeze(-1).flatten(1), truths.unsqueeze(-1).flatten(1)
    else:
        errors, truths = errors.flatten(), truths.flatten()
    return (F.relu(errors) * _jaccard_steps(errors.detach(), truths)).sum(-1)


@loss(
    title="Lovász softmax",
    tasks=("segmentation",),
    keywords=(
        "mean IoU",
        "semantic segmentation",
    ),
    requires=(SizeRange("C", least=2),),
    work="2 logits",
    range=(0, 1),
)
def lovasz_softmax(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex(ignore="ignore_index"))],
    *,
    per_image: bool = False,
    classes: Literal["present", "all"] = "present",
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_IMAGE)]:
    r"""Surrogate of the mean intersection over union, on softmax probabilities: to fine-tune for mIoU.

    Formula:
        \frac{1}{|C|} \sum_{c \in C} \sum_i e_{c(i)}\, g_{ci},
        \quad e_{ci} = \left| [y_i = c] - p_{ci} \right| \text{ sorted downwards},
        \; g \text{ as in the Lovász hinge}

    Args:
        logits: Scores of each pixel, with a class axis.
        targets: Class index of each pixel.
        per_image: Whether errors are sorted image by image, or once over the whole batch.
        classes: Whether the mean runs over the classes that have a true pixel, or over all.
        ignore_index: Target value of pixels that do not count.

    Use when:
        The metric is mean IoU, and a network already trained with cross entropy is to gain the last points.

    Pitfalls:
        Over the whole batch by default, so the value depends on which images stand together. A small batch
        lacks classes; `all` then punishes every probability that those have.

    Sources:
        - Berman et al. (2018), The Lovász-Softmax loss, https://arxiv.org/abs/1705.08790
    """
    logits, targets, valid = counted(logits, targets, "multiclass", ignore_index)
    probabilities, truths = softmax(logits), one_hot(targets, logits)
    errors = torch.where(truths, 1 - probabilities, probabilities)
    if valid is not None:
        errors, truths = torch.where(valid, errors, 0), valid & truths
    errors, truths = errors.unsqueeze(-1).flatten(2), truths.unsqueeze(-1).flatten(2)
    if not per_image:
        errors, truths = errors.transpose(0, 1).flatten(1), truths.transpose(0, 1).flatten(1)
    # the steps add up to 1, but for rounding
    of_class = (errors * _jaccard_steps(errors.detach(), truths)).sum(-1).clamp(max=1)
    if classes == "all":
        return of_class.mean(-1)
    present = truths.any(-1)
    return ratio(torch.where(present, of_class, 0).sum(-1), present.sum(-1), empty=0)


def _jaccard_steps(errors: Tensor, truths: Tensor) -> Tensor:
    """Return by how much the Jaccard loss grows with each error, taken in falling order, along the last axis.

    With a true pixel the intersection I falls by one; with a false one the union U grows by one, and the loss
    by I / (U - 1) - I / U. Closed forms: as differences of losses near each other few digits would be left.
    """
    order = errors.argsort(dim=-1, descending=True, stable=True)
    hits = truths.gather(-1, order)
    passed = hits.cumsum(-1, dtype=torch.int32)
    size = passed[..., -1:]
    rank = torch.arange(1, errors.shape[-1] + 1, dtype=torch.int32, device=errors.device)
    intersection = (size - passed).to(errors.dtype)
    union = (size + rank - passed).to(errors.dtype)
    # the first false pixel of an empty mask takes the loss from 0 to 1
    missed = torch.where(union > 1, intersection / union / (union - 1).clamp(min=1), 1)
    steps = torch.where(hits, 1 / union, missed)
    return torch.zeros_like(steps).scatter(-1, order, steps)
