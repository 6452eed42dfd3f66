"""The criterion of one-stage detectors without anchor boxes: points learn the objects that they already predict best."""

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Above, ClassIndex, Facts, Integers, Real
from service.catalogue.spec import (
    Diagnostic,
    Divisor,
    Example,
    Form,
    Prediction,
    Scales,
    SizeRange,
    Target,
    Unreduced,
)
from service.losses.detection.boxes import (
    Boxes,
    BoxFormat,
    Pair,
    angle_mismatch,
    aspect_penalty,
    centre_distance,
    columns,
    overlap,
)
from service.losses.detection.matching import aligned_points, box_shares, corners
from service.losses.objects import OBJECTS, ObjectCounts, image_of
from service.losses.surprise import binary_surprise, soft_surprise


class AnchorPoints(Real):
    """The centres of a grid's cells."""

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return 2 + 6 * torch.rand(shape, generator=rng, dtype=torch.float64)


class TaskAlignedLoss(NamedTuple):
    """The weighted sum, the sum of the target scores, the three sums, and what became of each point."""

    loss: Annotated[Tensor, Unreduced("")]
    score_sum: Annotated[Tensor, Divisor("")]
    class_loss: Annotated[Tensor, Diagnostic("")]
    box_loss: Annotated[Tensor, Diagnostic("")]
    dfl_loss: Annotated[Tensor, Diagnostic("")]
    assignment: Annotated[Tensor, Diagnostic([Form("B A", Integers())])]
    target_scores: Annotated[Tensor, Diagnostic("B A")]


@loss(
    title="Task-aligned one-stage loss (TOOD)",
    tasks=("detection",),
    aliases=("tood", "tal", "task_aligned_detection"),
    keywords=(
        "object detection",
        "one-stage detector",
        "anchor-free detector",
        "task alignment learning",
        "task-aligned assigner",
        "YOLO",
    ),
    exact_gradient=False,
    requires=(SizeRange("K", least=2), *OBJECTS),
    example=Example(sizes={"B": 2, "A": 8, "K": 5}),
    work=("2 logits", "distributions", "10 M A", "8 M top_k", "6 M top_k K", "M B"),
    range=(0, None),
    scales=Scales(0, ("anchor_points", "strides", "true_boxes")),
)
def task_aligned(
    logits: Annotated[Tensor, Prediction("B A C")],
    distributions: Annotated[Tensor, Prediction("B A 4 K")],
    anchor_points: Annotated[Tensor, Target("A 2", AnchorPoints())],
    strides: Annotated[Tensor, Target("A", Above(0))],
    labels: Annotated[Tensor, Target("M", ClassIndex("C"))],
    true_boxes: Annotated[Tensor, Target("M 4", Boxes())],
    counts: Annotated[Tensor, Target("B", ObjectCounts())],
    *,
    top_k: Annotated[int, Ge(1)] = 10,
    alpha: Annotated[float, Ge(0)] = 0.5,
    beta: Annotated[float, Ge(0)] = 6.0,
    fit: Literal["iou", "ciou"] = "iou",
    class_weight: Annotated[float, Ge(0)] = 0.5,
    box_weight: Annotated[float, Ge(0)] = 7.5,
    dfl_weight: Annotated[float, Ge(0)] = 1.5,
    box_format: BoxFormat = "xyxy",
) -> TaskAlignedLoss:
    r"""The whole criterion of current one-stage detectors: assigns points by score and IoU, adds class, box and DFL.

    Formula:
        \lambda_c \sum_{i, c} \mathrm{BCE}(z_{ic}, \hat t_i [c = c_m])
        + \sum_{m,\, i \in P_m} \hat t_i \left(\lambda_b \, \mathrm{CIoU}(b_i, b^*_m)
        + \tfrac{\lambda_d}{4} \sum_{k = 1}^4 \mathrm{DFL}(q_{ik}, \tfrac{l^*_{ik}}{s_i})\right), \quad
        t_{mi} = \sigma(z_{i c_m})^\alpha u_{mi}^\beta, \quad
        \hat t_i = \frac{t_{mi}}{\max_{j \in P_m} t_{mj}} \max_{j \in P_m} u_{mj}, \quad
        d = \max\left(\sum_i \hat t_i, 1\right)

    Args:
        logits: z, score of each class at each point, before the sigmoid.
        distributions: q, scores of the distances 0, 1, … strides from the point to the left, upper, right and
            lower side of its box, whose mean under the softmax is the distance.
        anchor_points: Centre (x, y) of each cell of all feature maps, in the unit of the true boxes.
        strides: s, the side of each point's cell.
        labels: Class of each true box, image after image.
        true_boxes: The true boxes, image after image, in `box_format`.
        counts: How many true boxes each image has; 0 is fine.
        top_k: Points for each true box, those of the highest t among the points inside it.
        alpha: Power of the score in t.
        beta: Power of the IoU in t.
        fit: u, how well a point's box fits: its IoU, or its complete IoU where that is above 0.
        class_weight: Weight of the class loss.
        box_weight: Weight of the box loss, a CIoU loss.
        dfl_weight: Weight of the distribution focal loss.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.

    Use when:
        You train a detector with a class and a distance head on a grid, and the server should assign targets.

    Pitfalls:
        Points and boxes have one unit, pixels as a rule: multiply points in cells by the stride first. The mean
        divides by the sum of the target scores of all images, or by 1 if it is less, so that a batch without true
        boxes has a class loss all the same; over shards of a batch add up `target_scores`, as each divisor is at
        least 1. Some trainers multiply the mean by the number of images. Targets are constants to the gradient,
        so it is not the derivative of the value. A point that several boxes take goes to the one that it fits
        best. Distances beyond K - 1 strides are cut off. The class loss of the paper is a focal one. Libraries
        add an epsilon to the divisor of t, which makes the targets of bad first predictions smaller. The
        diagnostic `assignment` counts the true boxes of all images together from 0 on, and is -1 for the
        background; the three terms are sums, before the weights and the division.

    Sources:
        - Feng et al. (2021), TOOD: Task-aligned One-stage Object Detection, https://arxiv.org/abs/2108.07755
        - Li et al. (2020), Generalized Focal Loss, https://arxiv.org/abs/2006.04388
        - Zheng et al. (2020), Distance-IoU Loss, https://arxiv.org/abs/1911.08287
    """
    image, places = image_of(counts, len(labels)), logits.shape[1]
    points, truths = anchor_points.T, corners(true_boxes, box_format)
    # detached rather than without a gradient: a second derivative includes how targets change
    each = _decoded(
        distributions.detach().double(), points.detach().double()[:, None], strides.detach().double()
    )
    true = truths.detach().double()[:, :, None]
    shares = _fits(each[:, image], true, fit)
    metric = _metric(logits.detach()[image, :, labels].double(), shares, alpha, beta)
    learners = aligned_points(
        shares, _inside(metric, points.detach()[:, None], true), image, len(counts), top_k
    )
    place, own, scores = learners.place, learners.own, learners.alignment.to(logits)
    row = image[:, None] * places + place
    targets = _at(row * logits.shape[2] + labels[:, None], scores, logits)
    class_loss = binary_surprise(logits, targets, 1 - targets).sum()
    sides = torch.where(own[..., None, None], distributions[image[:, None], place], 0.0)
    point, stride, true = points[:, place], strides[place], truths[:, :, None]
    pair = Pair(_decoded(sides, point, stride), true.expand(-1, -1, own.shape[1]), "xyxy")
    box_loss = (scores * torch.where(own, _complete(pair), 0.0)).sum()
    distances = torch.cat([point - true[:2], true[2:] - point]) / stride
    dfl_loss = (scores * _distribution_focal(sides, distances.movedim(0, -1)).mean(-1)).sum()
    return TaskAlignedLoss(
        class_weight * class_loss + box_weight * box_loss + dfl_weight * dfl_loss,
        # what is no number is seen in the sums above
        scores.nan_to_num().sum().clamp(min=1),
        class_loss,
        box_loss,
        dfl_loss,
        learners.assignment,
        _at(row, scores, logits[..., 0]),
    )


def _decoded(distributions: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Return the corners ``[4, ...]`` of the boxes around points ``[2, ...]`` with these distributions of their sides."""
    bins = torch.arange(distributions.shape[-1], device=distributions.device).to(distributions)
    before, beyond = columns(distributions.softmax(-1) @ bins).chunk(2)
    return torch.cat([points - strides * before, points + strides * beyond])


def _fits(boxes: Tensor, true: Tensor, fit: Literal["iou", "ciou"]) -> Tensor:
    """Return how well boxes ``[4, M, A]`` fit their true ones: 1 is perfect, 0 is the worst."""
    if fit == "iou":
        return box_shares(boxes, true)
    return (1 - _complete(Pair(boxes, true.expand_as(boxes), "xyxy"))).clamp(min=0)


def _metric(logits: Tensor, shares: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the logarithm of the alignment, which may be infinite; a power of 0 is 1."""
    return (
        (alpha * F.logsigmoid(logits) if alpha else 0.0) + (beta * shares.log() if beta else 0.0) + 0 * shares
    )


def _inside(metric: Tensor, points: Tensor, true: Tensor) -> Tensor:
    """Return a metric ``[M, A]`` that is minus infinity for points ``[2, 1, A]`` outside the true box."""
    within = torch.minimum(points - true[:2], true[2:] - points).amin(0) > 0
    # what is no number has to be chosen, and seen
    return torch.where(
        within, metric.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf), -torch.inf
    )


def _at(places: Tensor, values: Tensor, like: Tensor) -> Tensor:
    """Return zeros with values added at places among the elements of a tensor."""
    zeros = torch.zeros(like.numel(), dtype=values.dtype, device=values.device)
    return zeros.scatter_add(0, places.reshape(-1), values.reshape(-1)).view(like.shape)


def _complete(pair: Pair) -> Tensor:
    """Return the loss of the complete IoU."""
    missed = overlap(pair, 0.0).loss
    return missed + centre_distance(pair, 0.0) + aspect_penalty(missed, angle_mismatch(pair, 0.0), 0.0)


def _distribution_focal(logits: Tensor, distances: Tensor) -> Tensor:
    """Return the cross entropy with the two bins around each distance; beyond the last there is no other."""
    last = logits.shape[-1] - 1
    bins = torch.arange(last + 1, device=logits.device)
    return soft_surprise(logits, torch.relu(1 - (distances.clamp(0, last)[..., None] - bins).abs()))
