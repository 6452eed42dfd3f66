"""Losses between all boxes of a scene, where the others above are between a box and its own target."""

from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Diagnostic, Prediction, Target, Unreduced
from service.losses.detection.boxes import (
    UNITLESS,
    Area,
    Boxes,
    BoxFormat,
    Pair,
    area,
    columns,
    quotient,
)


class RepulsionLoss(NamedTuple):
    """The loss of a scene and its two terms, before they are weighed."""

    loss: Annotated[Tensor, Unreduced("")]
    rep_gt: Annotated[Tensor, Diagnostic("")]
    rep_box: Annotated[Tensor, Diagnostic("")]


@loss(
    title="Repulsion loss",
    tasks=("detection",),
    aliases=("rep_gt_rep_box",),
    range=(0, None),
    scales=UNITLESS,
    work=("2N M", "4N N", "targets"),
)
def repulsion(
    boxes: Annotated[Tensor, Prediction("N 4", Boxes())],
    targets: Annotated[Tensor, Target("M 4", Boxes())],
    assignments: Annotated[Tensor, Target("N", ClassIndex("M"))],
    *,
    gt_weight: Annotated[float, Ge(0)] = 0.5,
    box_weight: Annotated[float, Ge(0)] = 0.5,
    sigma_gt: Annotated[float, Ge(0), Lt(1)] = 0.9,
    sigma_box: Annotated[float, Ge(0), Lt(1)] = 0.0,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> RepulsionLoss:
    r"""Keeps boxes off the neighbours of their targets and off each other: crowded scenes.

    Formula:
        \frac{\lambda_g}{N} \sum_i
        \ell_{\sigma_g}\left(\frac{|B_i \cap G_{r(i)}|}{|G_{r(i)}| + \epsilon}\right)
        + \lambda_b \operatorname*{mean}_{i < j,\ a_i \ne a_j,\ \mathrm{IoU} > 0}
        \ell_{\sigma_b}\left(\mathrm{IoU}(B_i, B_j)\right), \quad
        r(i) = \operatorname*{argmax}_{j \ne a_i} \mathrm{IoU}(B_i, G_j), \quad
        \ell_\sigma(x) = \begin{cases} -\ln(1 - x) & x \le \sigma \\
        \frac{x - \sigma}{1 - \sigma} - \ln(1 - \sigma) & x > \sigma \end{cases}

    Args:
        boxes: Predicted boxes of one image, in `box_format`.
        targets: All true boxes of the image.
        assignments: a, the index of each predicted box's own target.
        gt_weight: Weight of the repulsion from other targets.
        box_weight: Weight of the repulsion from boxes of other targets.
        sigma_gt: Where the curve for targets turns into a line: the smaller, the less outliers count.
        sigma_box: Where the curve for boxes turns into a line.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the areas that divide, in the squared unit of the boxes. Boxes without area need
            none: they overlap with nothing.

    Use when:
        Objects stand close together, and suppression of overlapping boxes merges neighbours.

    Pitfalls:
        There is no attraction in it: add an `iou` or smooth L1 loss between each box and its own target. With
        `sigma_gt` near 1 the cost grows without bound where a box covers a neighbour. All pairs of boxes are
        formed, so memory grows with the square of N.

    Sources:
        - Wang et al. (2018), Repulsion Loss: Detecting Pedestrians in a Crowd, https://arxiv.org/abs/1711.07752
    """
    box, target = columns(boxes), columns(targets)
    rep_gt = _from_targets(box, target, assignments, box_format, sigma_gt, eps)
    rep_box = _from_boxes(box, assignments, box_format, sigma_box, eps)
    return RepulsionLoss(gt_weight * rep_gt + box_weight * rep_box, rep_gt, rep_box)


def _from_targets(
    box: Tensor, target: Tensor, assignments: Tensor, box_format: BoxFormat, sigma: float, eps: float
) -> Tensor:
    """Return the mean cost of covering the most overlapped target of another box."""
    numbers = torch.arange(target.shape[1], device=assignments.device)
    foreign = assignments[:, None] != numbers
    shares = _all_shares(box, target, box_format, eps)
    neighbour = torch.where(foreign, shares, -1.0).argmax(1)
    nearest = Pair(box, target[:, neighbour], box_format)
    covered = quotient(area(nearest.edges.shared), area(nearest.target_sides), eps)
    # with a single target there is no neighbour
    return _log_then_line(torch.where(foreign.any(1), covered, 0.0), sigma).mean()


def _from_boxes(box: Tensor, assignments: Tensor, box_format: BoxFormat, sigma: float, eps: float) -> Tensor:
    """Return the mean cost of the overlap of boxes with different targets, over the pairs that overlap."""
    shares = _all_shares(box, box, box_format, eps)
    pairs = (assignments[:, None] != assignments).triu(1) & (shares > 0)
    total = torch.where(pairs, _log_then_line(shares, sigma), 0.0).sum()
    return total / pairs.sum().clamp(min=1)


def _all_shares(boxes: Tensor, others: Tensor, box_format: BoxFormat, eps: float) -> Tensor:
    """Return the intersection over union of every box ``[4, N]`` with every other ``[4, M]``."""
    each = Pair(boxes[:, :, None], others[:, None, :], box_format)
    shared = area(each.edges.shared)
    return quotient(shared, area(each.sides) + area(each.target_sides) - shared, eps)


def _log_then_line(overlap: Tensor, sigma: float) -> Tensor:
    """Return -ln(1 - x) up to sigma, and its tangent there beyond."""
    return torch.relu(overlap - sigma) / (1 - sigma) - torch.log1p(-overlap.clamp(max=sigma))
