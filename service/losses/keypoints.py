"""Losses of poses and landmarks: coordinates, heatmaps and the similarity that benchmarks score by."""

import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.domains import Above, AtLeast, Between
from service.catalogue.spec import (
    Condition,
    Diagnostic,
    Example,
    Prediction,
    Scales,
    SizeRange,
    Target,
    Unreduced,
    Values,
)
from service.losses.surprise import softplus

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
    0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""How far annotators differ on each of COCO's joints, in units of the object's size: nose to right ankle."""


@loss(title="Wing loss", tasks=("keypoints",), range=(0, None), scales=Scales(1, along=("omega", "epsilon")))
def wing(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    omega: Annotated[float, Gt(0)] = 10.0,
    epsilon: Annotated[float, Gt(0)] = 2.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Logarithm of small errors, line for large ones: facial landmarks that are nearly right.

    Formula:
        \begin{cases} \omega \ln(1 + x / \epsilon) & x < \omega \\
        x - \omega + \omega \ln(1 + \omega / \epsilon) & x \ge \omega \end{cases}, \quad x = |\hat y - y|

    Args:
        predictions: Estimated coordinates.
        targets: True coordinates.
        omega: The error at which the logarithm turns into a line, in the unit of the coordinates.
        epsilon: How sharply the logarithm bends: the smaller, the more the smallest errors weigh.

    Use when:
        Landmarks are roughly found, and small and medium errors should get more attention than L1 gives.

    Pitfalls:
        The gradient does not fade near zero, so training jitters around perfect landmarks; see `soft_wing`.
        The defaults are for errors in pixels: libraries differ in them.

    Sources:
        - Feng et al. (2018), Wing Loss for Robust Facial Landmark Localisation,
          https://arxiv.org/abs/1711.06753
    """
    error = (predictions - targets).abs()
    curve = omega * torch.log1p(error / epsilon)
    return torch.where(error < omega, curve, error - omega + omega * math.log1p(omega / epsilon))


@loss(
    title="Soft wing loss",
    tasks=("keypoints",),
    range=(0, None),
    scales=Scales(1, along=("omega1", "omega2", "epsilon")),
)
def soft_wing(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    omega1: Annotated[float, Gt(0)] = 2.0,
    omega2: Annotated[float, Gt(0)] = 20.0,
    epsilon: Annotated[float, Gt(0)] = 0.5,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Line for small errors, logarithm for large ones: landmarks with medium errors, robust to outliers.

    Formula:
        \begin{cases} x & x < \omega_1 \\
        \omega_1 + \omega_2 \ln\frac{1 + x / \epsilon}{1 + \omega_1 / \epsilon} & x \ge \omega_1 \end{cases},
        \quad x = |\hat y - y|

    Args:
        predictions: Estimated coordinates.
        targets: True coordinates.
        omega1: The error at which the line turns into a logarithm, in the unit of the coordinates.
        omega2: Scale of the logarithm.
        epsilon: How sharply the logarithm bends.

    Use when:
        `wing` overrates the smallest errors, which are noise in the labels.

    Pitfalls:
        The other way round than `wing`: linear first. At `omega1` the gradient jumps.

    Sources:
        - Lin et al. (2021), Structure-Coherent Deep Feature Learning for Robust Face Alignment,
          https://doi.org/10.1109/TIP.2021.3082319
    """
    error = (predictions - targets).abs()
    curve = omega1 + omega2 * (torch.log1p(error / epsilon) - math.log1p(omega1 / epsilon))
    return torch.where(error < omega1, error, curve)


@loss(
    title="Adaptive wing loss",
    tasks=("keypoints",),
    aliases=("awing",),
    work="2 predictions",
    range=(0, None),
)
def adaptive_wing(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", Between(0, 1))],
    *,
    alpha: Annotated[float, Gt(2)] = 2.1,
    omega: Annotated[float, Gt(0)] = 14.0,
    epsilon: Annotated[float, Gt(0)] = 1.0,
    theta: Annotated[float, Gt(0)] = 0.5,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Wing loss for heatmaps: sharp on the foreground, smooth on the background.

    Formula:
        \begin{cases} \omega \ln(1 + (x / \epsilon)^e) & x < \theta \\
        A (x - \theta) + \omega \ln(1 + r^e) & x \ge \theta \end{cases}, \quad x = |\hat y - y|, \quad
        e = \alpha - y, \quad r = \theta / \epsilon, \quad
        A = \frac{\omega e r^{e - 1}}{\epsilon (1 + r^e)}

    Args:
        predictions: Estimated heatmap values.
        targets: True heatmap values, from 0 to 1.
        alpha: Exponent on the background; on the foreground it is one less.
        omega: Height of the curve.
        epsilon: How sharply the curve bends.
        theta: The error at which the curve turns into a line.

    Use when:
        Landmarks are read off heatmaps, and few of the pixels are foreground.

    Pitfalls:
        The exponent depends on the target, so targets must lie in [0, 1]. The paper also weighs the
        foreground ten times more: send that map as `sample_weight`.

    Sources:
        - Wang et al. (2019), Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression,
          https://arxiv.org/abs/1904.07399
    """
    error = (predictions - targets).abs()
    exponent = alpha - targets
    ratio = theta / epsilon
    slope = omega * exponent / theta * torch.sigmoid(exponent * math.log(ratio))
    curve = omega * torch.log1p((error.clamp(max=theta) / epsilon).pow(exponent))
    # the line continues the curve: at theta both have that slope
    return curve + slope * torch.relu(error - theta)


class KeypointSimilarity(NamedTuple):
    """A loss for each object, and the similarity itself."""

    loss: Annotated[Tensor, Unreduced("N")]
    oks: Annotated[Tensor, Diagnostic("N")]


@loss(
    title="Object keypoint similarity (OKS)",
    tasks=("keypoints",),
    aliases=("object_keypoint_similarity", "keypoint_iou"),
    range=(0, 1),
)
def oks(
    keypoints: Annotated[Tensor, Prediction("N K 2")],
    targets: Annotated[Tensor, Target("N K 2")],
    areas: Annotated[Tensor, Target("N", AtLeast(0))],
    visibility: Annotated[Tensor, Target("N K")] | None = None,
    *,
    sigmas: Annotated[tuple[float, ...], Values("K", Above(0))] | None = None,
    eps: Annotated[float, Ge(0)] = 0.0,
) -> KeypointSimilarity:
    r"""One minus object keypoint similarity: trains poses on the score that COCO ranks by.

    Formula:
        \frac{\sum_k v_k \left(1 - e^{-e_k}\right)}{\max\left(1, \sum_k v_k\right)}, \quad
        e_k = \frac{d_k^2}{2 (2 \sigma_k)^2 (A + \epsilon)}

    Args:
        keypoints: Predicted joints, x and y.
        targets: True joints, x and y.
        areas: A, the area of each object in the squared unit of the coordinates.
        visibility: Above 0 where a joint is labelled; only such joints count. All of them if it is not sent.
        sigmas: Tolerance of each joint in units of the object's size, the root of its area; by default COCO's
            for 17 joints, else 1 / K for each, which is lax: COCO's are 0.026 to 0.107.
        eps: An area added to the areas, in the squared unit of the coordinates. An object without area needs
            none: all of it that is off counts fully.

    Use when:
        A pose estimator is judged by COCO's metric, and objects of all sizes should count alike.

    Pitfalls:
        Far off joints have no gradient: start with a loss of distances. Send `sigmas` unless there are COCO's
        17 joints: of 4, one that is 20 pixels off on an object of 100 x 200 costs 0.0098 by default. `areas` are areas of objects, not
        diagonals or sides. An object without a labelled joint costs 0 and still counts in the mean.

    Sources:
        - Maji et al. (2022), YOLO-Pose, https://arxiv.org/abs/2204.06806
        - Lin et al. (2014), COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval
    """
    joints = keypoints.shape[1]
    visible = torch.ones_like(keypoints[..., 0], dtype=torch.bool) if visibility is None else visibility > 0
    tolerance = sigmas or (COCO_SIGMAS if joints == len(COCO_SIGMAS) else (1 / joints,) * joints)
    squared = torch.where(visible[..., None], keypoints - targets, 0.0).square().sum(-1)
    scale = 8 * constant(tolerance, keypoints).square() * (areas + eps)[:, None]
    pointlike = scale == 0
    missed = -torch.expm1(-squared / torch.where(pointlike, 1, scale))
    missed = torch.where(pointlike, (squared != 0).to(missed), missed)
    loss = missed.sum(-1) / visible.sum(-1).clamp(min=1)
    return KeypointSimilarity(loss, 1 - loss)


@loss(
    title="Mean per joint position error (MPJPE)",
    tasks=("keypoints",),
    aliases=("joint_position_error",),
    range=(0, None),
    scales=1,
    requires=(SizeRange("D", least=2, most=3),),
    example=Example(sizes={"D": 3}),
)
def mpjpe(
    keypoints: Annotated[Tensor, Prediction("... K D")],
    targets: Annotated[Tensor, Target("... K D")],
) -> Annotated[Tensor, Unreduced("... K")]:
    r"""Distance of each joint from its true place: 3D pose in millimetres.

    Formula:
        \lVert \hat y_k - y_k \rVert_2

    Args:
        keypoints: Predicted joints, two or three coordinates each.
        targets: True joints.

    Use when:
        Poses are lifted to three dimensions, and the loss should be the number that papers report.

    Pitfalls:
        The gradient has length 1 however small the error, and 0 at a perfect fit. Align root, scale or
        rotation beforehand if the metric you compare with does.

    Sources:
        - Ionescu et al. (2014), Human3.6M, https://doi.org/10.1109/TPAMI.2013.248
    """
    # its gradient is 0 at a perfect fit, where that of a plain square root is NaN
    return F.pairwise_distance(keypoints, targets, eps=0)


@loss(
    title="Heatmap mean squared error",
    tasks=("keypoints",),
    aliases=("joints_mse", "keypoint_mse"),
    range=(0, None),
    scales=2,
)
def heatmap_mse(
    predictions: Annotated[Tensor, Prediction("N K H W")],
    targets: Annotated[Tensor, Target("N K H W")],
) -> Annotated[Tensor, Unreduced("N K")]:
    r"""Mean squared error of each joint's heatmap: the standard loss of heatmap pose estimators.

    Formula:
        \frac{1}{H W} \sum_{u, v} (\hat y_{uv} - y_{uv})^2

    Args:
        predictions: Estimated heatmaps, one for each joint.
        targets: True heatmaps, usually a Gaussian around each joint.

    Use when:
        Poses are read off heatmaps, as in HRNet.

    Pitfalls:
        Nearly all pixels are background, so predicting zero everywhere costs little. Send 0 as
        `sample_weight` for joints that are not labelled. Some code bases halve the loss.

    Sources:
        - Tompson et al. (2014), Joint Training of a Convolutional Network and a Graphical Model,
          https://arxiv.org/abs/1406.2984
    """
    return F.mse_loss(predictions, targets, reduction="none").mean((-2, -1))


@loss(
    title="Online hard keypoint mining (OHKM)",
    tasks=("keypoints",),
    aliases=("ohkm_mse",),
    range=(0, None),
    scales=2,
    requires=(
        Condition(
            "/params/top_k",
            "top_k of at most K, the number of joints",
            lambda facts: f"top_k = {facts.params['top_k']} and K = {facts.size('K')}",
            lambda facts: facts.params["top_k"] <= facts.size("K"),
        ),
    ),
    example=Example(sizes={"K": 5}, params={"top_k": 3}),
)
def heatmap_ohkm(
    predictions: Annotated[Tensor, Prediction("N K H W")],
    targets: Annotated[Tensor, Target("N K H W")],
    *,
    top_k: Annotated[int, Ge(1)] = 8,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Mean squared error of each image's hardest joints: occluded and rare ones get the gradient.

    Formula:
        \frac{1}{k} \sum_{j \in \mathrm{top}_k} m_j, \quad
        m_j = \frac{1}{H W} \sum_{u, v} (\hat y_{juv} - y_{juv})^2

    Args:
        predictions: Estimated heatmaps, one for each joint.
        targets: True heatmaps, usually a Gaussian around each joint.
        top_k: k, how many joints of each image count; at most K.

    Use when:
        Easy joints are learnt, and the remaining error sits in a few occluded ones.

    Pitfalls:
        The other joints of an image have no gradient at all in that step. Joints with wrong labels are hard,
        too.

    Sources:
        - Chen et al. (2018), Cascaded Pyramid Network for Multi-Person Pose Estimation,
          https://arxiv.org/abs/1711.07319
    """
    return heatmap_mse(predictions, targets).topk(top_k, -1).values.mean(-1)


@loss(
    title="Gaussian focal loss",
    tasks=("keypoints",),
    aliases=("penalty_reduced_focal", "cornernet_focal", "centernet_focal"),
    work="2 logits",
    range=(0, None),
)
def gaussian_focal(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", Between(0, 1, marks=True))],
    *,
    alpha: Annotated[float, Ge(0)] = 2.0,
    beta: Annotated[float, Ge(0)] = 4.0,
    normalize_by_positives: bool = False,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Focal loss on heatmaps that forgives scores near a centre: detectors that find points.

    Formula:
        \begin{cases} -(1 - p)^\alpha \ln p & y = 1 \\
        -(1 - y)^\beta p^\alpha \ln(1 - p) & y < 1 \end{cases}, \quad p = \sigma(z)

    Args:
        logits: Score of each pixel, before the sigmoid.
        targets: From 0 to 1; exactly 1 at centres, falling off around them.
        alpha: How much pixels that are right already are played down.
        beta: How much pixels near a centre are forgiven.
        normalize_by_positives: Whether to divide every element by the number of centres, at least 1.

    Use when:
        Objects are found as peaks of a heatmap, as in CornerNet and CenterNet.

    Pitfalls:
        Takes logits, where many code bases take probabilities. A centre is a target of exactly 1: a Gaussian
        sampled off its peak has none, and then nothing is ever positive. For the papers' number set
        `normalize_by_positives` and reduce by `sum`.

    Sources:
        - Law and Deng (2018), CornerNet: Detecting Objects as Paired Keypoints,
          https://arxiv.org/abs/1808.01244
    """
    centre = targets == 1
    # the logit of the right answer there
    right = torch.where(centre, logits, -logits)
    # a power of 0 is 1 at minus infinity, too
    log_wrong = F.logsigmoid(-right).clamp(min=torch.finfo(logits.dtype).min)
    # at a centre, a power below 1 of this distance would be infinitely steep
    distance = 1 - torch.where(centre, 0.0, targets)
    each = distance.pow(beta) * torch.exp(alpha * log_wrong) * softplus(-right)
    return each / centre.sum().clamp(min=1) if normalize_by_positives else each
