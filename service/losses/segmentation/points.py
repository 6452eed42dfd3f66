"""Losses of instance masks at a few sampled points instead of all pixels."""

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Between
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.segmentation.counts import overlap_loss
from service.losses.surprise import binary_surprise


@loss(title="Point mask cross entropy", tasks=("instance_segmentation",), work="points", range=(0, None))
def point_mask_bce(
    logits: Annotated[Tensor, Prediction("N H W")],
    targets: Annotated[Tensor, Target("N H W", Between())],
    points: Annotated[Tensor, Target("N P 2", Between())],
) -> Annotated[Tensor, Unreduced("N P")]:
    r"""Binary cross entropy of instance masks at sampled points: fine borders at little cost.

    Formula:
        -y \ln \sigma(z) - (1 - y) \ln (1 - \sigma(z)), \quad z, y \text{ interpolated at the point}

    Args:
        logits: Score of each pixel, one mask for each instance.
        targets: The true masks, hard or soft.
        points: Places (x, y) in each mask, as shares of its width and height.

    Use when:
        An instance head is trained at points, as in PointRend and Mask2Former.

    Pitfalls:
        Coordinates are (x, y), not (row, column). Pixel centres lie at (i + 0.5) / size: within half a pixel
        of the border the maps mix with 0, which is an undecided logit.

    Sources:
        - Kirillov et al. (2020), PointRend, https://arxiv.org/abs/1912.08193
    """
    truths = _sample(targets, points)
    return binary_surprise(_sample(logits, points), truths, 1 - truths)


@loss(title="Point mask Dice", tasks=("instance_segmentation",), work="points", range=(0, 1))
def point_mask_dice(
    logits: Annotated[Tensor, Prediction("N H W")],
    targets: Annotated[Tensor, Target("N H W", Between())],
    points: Annotated[Tensor, Target("N P 2", Between())],
    *,
    smooth: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Dice loss of instance masks at sampled points: small and large instances weigh alike.

    Formula:
        1 - \frac{2 \sum p y + s}{\sum p + \sum y + s},
        \quad p = \sigma(z),\; z, y \text{ interpolated at the points}

    Args:
        logits: Score of each pixel, one mask for each instance.
        targets: The true masks, hard or soft.
        points: Places (x, y) in each mask, as shares of its width and height.
        smooth: Points added above and below, so that an empty mask predicted as empty costs nothing.

    Use when:
        An instance head is trained at points, with the cross entropy at the same points.

    Pitfalls:
        Coordinates are (x, y), not (row, column). With few points the default `smooth` is a large part of the
        sums: the loss stays well below 1.

    Sources:
        - Cheng et al. (2022), Mask2Former, https://arxiv.org/abs/2112.01527
    """
    sampled, truths = _sample(logits, points), _sample(targets, points)
    right, wrong = sampled.sigmoid(), (-sampled).sigmoid()
    misses = right * (1 - truths) + wrong * truths
    return overlap_loss(2 * (right * truths).sum(1), misses.sum(1), smooth)


def _sample(maps: Tensor, points: Tensor) -> Tensor:
    """Interpolate ``[N, H, W]`` bilinearly at ``[N, P, 2]``: ``[N, P]``. Outside there is 0."""
    grid = (2 * points - 1).unsqueeze(2)
    return F.grid_sample(maps.unsqueeze(1), grid, align_corners=False).squeeze(3).squeeze(1)
