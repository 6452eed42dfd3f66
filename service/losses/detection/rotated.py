"""Losses of rotated boxes, compared as Gaussians: smooth in the angle where polygon overlap is not."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.detection.boxes import Epsilon

LEAST_SIDE = 1e-7
"""Shorter sides count as this long: the Gaussian of a box without area has no density."""

LEAST_DISTANCE = 1e-7
"""Smaller distances count as this large under a square root, whose slope at 0 is infinite."""


@dataclass(frozen=True, slots=True)
class RotatedBoxes(Domain):
    """Rotated boxes along the last axis: centre x and y, width, height, angle in radians."""

    def describe(self) -> str:
        return "boxes of centre x, y, width, height and angle, with width and height above 0"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        centre, sides, angle = values.tensor_split([2, 4], -1)
        return torch.cat([torch.ones_like(centre).bool(), sides > 0, torch.ones_like(angle).bool()], -1)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        centre, sides, angle = torch.rand(shape, generator=rng, dtype=torch.float64).tensor_split([2, 4], -1)
        return torch.cat([4 * centre, 2 + 6 * sides, 3 * angle - 1.5], -1)


PredictedBoxes = Annotated[Tensor, Prediction("... 5", RotatedBoxes())]
TargetBoxes = Annotated[Tensor, Target("... 5", RotatedBoxes())]

Map = Literal["log1p", "sqrt", "none"]


@loss(
    title="Kullback-Leibler divergence of rotated boxes (KLD)",
    tasks=("oriented_detection",),
    aliases=("kld_rotated",),
)
def rotated_kld(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    direction: Literal[
        "prediction_to_target", "target_to_prediction", "jeffreys", "max", "min"
    ] = "prediction_to_target",
    fun: Map = "log1p",
    tau: Annotated[float, Ge(1)] = 1.0,
    alpha: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Kullback-Leibler divergence of rotated boxes as Gaussians: scale-free, strict on thin boxes.

    Formula:
        1 - \frac{1}{\tau + f(D)}, \quad f(D) = \ln(1 + D) \text{ or } \sqrt{D},
        \quad D = \frac{d^\top \Sigma_*^{-1} d}{2 \alpha^2}
        + \frac{1}{2} \mathrm{tr}(\Sigma_*^{-1} \Sigma) + \frac{1}{2} \ln \frac{|\Sigma_*|}{|\Sigma|} - 1,
        \quad \Sigma = R \, \mathrm{diag}\left(\tfrac{w^2}{4}, \tfrac{h^2}{4}\right) R^\top

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.
        direction: Divergence of the prediction from the target, the other way, their mean (`jeffreys`), or
            the larger or smaller of them.
        fun: f: `log1p`, `sqrt`, or `none` for D itself, without the map to [0, 1).
        tau: Flattens the map; 1 lets a perfect fit cost nothing.
        alpha: Divides the distance of the centres: above 1 centres matter less.

    Use when:
        Rotated objects of all sizes and aspect ratios are to be found, as in aerial images.

    Pitfalls:
        A square has no angle: its angle gradient is zero. Angles that differ by pi, or by half of it with the
        sides swapped, are the same box. With `sqrt` a perfect fit still costs about 3e-4.

    Sources:
        - Yang et al. (2021), Learning High-Precision Bounding Box for Rotated Object Detection via
          Kullback-Leibler Divergence, https://arxiv.org/abs/2106.01883
    """
    box, target = _read(boxes), _read(targets)
    match direction:
        case "prediction_to_target":
            distance = _divergence(box, target, alpha)
        case "target_to_prediction":
            distance = _divergence(target, box, alpha)
        case "jeffreys":
            distance = (_divergence(box, target, alpha) + _divergence(target, box, alpha)) / 2
        case "max":
            distance = torch.maximum(_divergence(box, target, alpha), _divergence(target, box, alpha))
        case "min":
            distance = torch.minimum(_divergence(box, target, alpha), _divergence(target, box, alpha))
    return _mapped(distance, fun, tau)


@loss(
    title="Gaussian Wasserstein distance of rotated boxes (GWD)",
    tasks=("oriented_detection",),
    aliases=("gwd", "gaussian_wasserstein"),
)
def rotated_gwd(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    normalize: bool = False,
    fun: Map = "log1p",
    tau: Annotated[float, Ge(1)] = 1.0,
    alpha: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Wasserstein distance of rotated boxes as Gaussians: no jump at the border of the angles.

    Formula:
        1 - \frac{1}{\tau + f(D)}, \quad f(D) = \ln(1 + D) \text{ or } \sqrt{D},
        \quad D = \lVert d \rVert^2 + \alpha^2 \left(\mathrm{tr}\,\Sigma + \mathrm{tr}\,\Sigma_*
        - 2 \sqrt{\mathrm{tr}(\Sigma \Sigma_*) + 2 \sqrt{|\Sigma \Sigma_*|}}\right),
        \quad \Sigma = R \, \mathrm{diag}\left(\tfrac{w^2}{4}, \tfrac{h^2}{4}\right) R^\top

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.
        normalize: Whether to take the root of D over the geometric mean of the sides in place of D.
        fun: f: `log1p`, `sqrt`, or `none` for D itself, without the map to [0, 1).
        tau: Flattens the map; 1 lets a perfect fit cost nothing.
        alpha: Weight of the shapes against the centres.

    Use when:
        Angles near the border of their range, or boxes that are almost square, disturb the regression.

    Pitfalls:
        Not scale-free unless `normalize` is set: a pixel off costs a large box as much as a small one.

    Sources:
        - Yang et al. (2021), Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss,
          https://arxiv.org/abs/2101.11952
    """
    box, target = _read(boxes), _read(targets)
    offset = (box.x - target.x).square() + (box.y - target.y).square()
    distance = offset + alpha**2 * _shape_distance(box, target)
    if normalize:
        side = (box.width * box.height * target.width * target.height / 16) ** 0.25
        distance = distance.clamp(min=LEAST_DISTANCE).sqrt() / (2 * side)
    return _mapped(distance, fun, tau)


@loss(
    title="Probabilistic IoU (ProbIoU)",
    tasks=("oriented_detection",),
)
def probiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    mode: Literal["l1", "l2"] = "l1",
    eps: Epsilon = 1e-7,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Hellinger distance of rotated boxes as Gaussians: a bounded stand-in for one minus rotated IoU.

    Formula:
        \sqrt{1 - e^{-B} + \epsilon} \quad \text{or} \quad B = \frac{1}{4} d^\top (\Sigma + \Sigma_*)^{-1} d
        + \frac{1}{2} \ln \frac{|\Sigma + \Sigma_*|}{4 \sqrt{|\Sigma| |\Sigma_*|}},
        \quad \Sigma = R \, \mathrm{diag}\left(\tfrac{w^2}{12}, \tfrac{h^2}{12}\right) R^\top

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.
        mode: `l1` for the Hellinger distance, between 0 and 1; `l2` for the Bhattacharyya distance B.
        eps: Added to what divides and under the logarithm; B is kept between `eps` and 100.

    Use when:
        Rotated boxes are refined by a loss that behaves like an IoU; `l2` first where boxes lie far apart.

    Pitfalls:
        A perfect fit costs the root of 2 `eps`, 4.5e-4, under `l1`. The gradient of distant boxes fades under
        `l1`, and beyond B = 100 it is zero. A square has no angle gradient.

    Sources:
        - Llerena et al. (2021), Gaussian Bounding Boxes and Probabilistic Intersection-over-Union,
          https://arxiv.org/abs/2106.06072
    """
    box, target = _read(boxes), _read(targets)
    dx, dy = box.x - target.x, box.y - target.y
    spread = (_adjugate_form(box, dx, dy) + _adjugate_form(target, dx, dy)) / 12
    joint = _joint_determinant(box, target) / 144
    each = box.width * box.height * target.width * target.height / 144
    distance = spread / (joint + eps) / 4 + torch.log(joint / (4 * each + eps) + eps) / 2
    distance = distance.clamp(eps, 100)
    return distance if mode == "l2" else torch.sqrt(eps - torch.expm1(-distance))


@loss(
    title="Kalman filter IoU (KFIoU)",
    tasks=("oriented_detection",),
)
def kfiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    fun: Literal["none", "ln", "exp"] = "none",
    eps: Epsilon = 1e-6,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Overlap of the shapes of rotated boxes as Gaussians laid on one another: centres do not count.

    Formula:
        1 - K, \quad -\ln(K + \epsilon) \quad \text{or} \quad e^{1 - K} - 1,
        \quad K = \frac{V(S)}{V(\Sigma) + V(\Sigma_*) - V(S) + \epsilon},
        \quad S = \Sigma (\Sigma + \Sigma_*)^{-1} \Sigma_*, \quad V(\cdot) = 4 \sqrt{|\cdot|}

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.
        fun: What is made of K: `none`, `ln` or `exp`.
        eps: Added to the union and under the logarithm.

    Use when:
        Width, height and angle of rotated boxes are to be fitted beside a separate loss of the centres.

    Pitfalls:
        It ignores the centres by design: always add a term for them. K is at most 1/3, so a perfect fit costs
        2/3, not 0.

    Sources:
        - Yang et al. (2023), The KFIoU Loss for Rotated Object Detection, https://arxiv.org/abs/2201.12558
    """
    box, target = _read(boxes), _read(targets)
    first, second = box.width * box.height, target.width * target.height
    shared = first * second / _joint_determinant(box, target).sqrt()
    share = shared / (first + second - shared + eps)
    match fun:
        case "none":
            return 1 - share
        case "ln":
            return -torch.log(share + eps)
        case "exp":
            return torch.expm1(1 - share)


class _Box(NamedTuple):
    """The five numbers of rotated boxes."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    angle: Tensor


def _read(boxes: Tensor) -> _Box:
    """Return rotated boxes ``[..., 5]`` number by number."""
    x, y, width, height, angle = boxes.unbind(-1)
    return _Box(x, y, width.clamp(min=LEAST_SIDE), height.clamp(min=LEAST_SIDE), angle)


# Below, covariances are seen from the axes of one of the boxes and without their common factor 1/k: one is
# diag(w², h²) there, and of the angles only their difference remains. Sums of positive terms keep the digits
# that determinants and inverses of matrices lose for thin boxes.


def _turned(box: _Box, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return an offset along the width and along the height of a box."""
    cos, sin = box.angle.cos(), box.angle.sin()
    return dx * cos + dy * sin, dy * cos - dx * sin


def _adjugate_form(box: _Box, dx: Tensor, dy: Tensor) -> Tensor:
    """Return the quadratic form of an offset in the adjugate of a covariance: determinant times inverse."""
    along, across = _turned(box, dx, dy)
    return (along * box.height).square() + (across * box.width).square()


def _variances(box: _Box, other: _Box) -> tuple[Tensor, Tensor]:
    """Return the variances of ``box`` along the width and along the height of ``other``."""
    angle = box.angle - other.angle
    cos2, sin2 = angle.cos().square(), angle.sin().square()
    width2, height2 = box.width.square(), box.height.square()
    return width2 * cos2 + height2 * sin2, width2 * sin2 + height2 * cos2


def _divergence(box: _Box, other: _Box, alpha: float) -> Tensor:
    """Return the Kullback-Leibler divergence of ``box`` from ``other``."""
    along, across = _turned(other, box.x - other.x, box.y - other.y)
    offset = (along / other.width).square() + (across / other.height).square()
    variance_along, variance_across = _variances(box, other)
    trace = variance_along / other.width.square() + variance_across / other.height.square()
    determinants = torch.log(other.width / box.width) + torch.log(other.height / box.height)
    return 2 * offset / alpha**2 + trace / 2 + determinants - 1


def _shape_distance(box: _Box, other: _Box) -> Tensor:
    """Return the squared Wasserstein distance of two Gaussians around one centre.

    That is the sum of the traces less twice a root, which is nearly the same for nearly equal boxes. The
    difference of their squares factors into differences of sides and angles, and leaves a quotient.
    """
    width, height = other.width.square(), other.height.square()
    along, across = _variances(box, other)
    traces = box.width.square() + box.height.square() + width + height
    roots = 2 * torch.sqrt(
        along * width + across * height + 2 * box.width * box.height * other.width * other.height
    )
    apart = (box.width - other.width).square() + (box.height - other.height).square()
    joined = (box.width + other.width).square() + (box.height + other.height).square()
    turned = (box.width.square() - box.height.square()) * (width - height)
    turn = (box.angle - other.angle).sin().square()
    return (apart * joined + 4 * turned * turn) / (traces + roots) / 4


def _joint_determinant(box: _Box, other: _Box) -> Tensor:
    """Return the determinant of the sum of two covariances."""
    along, across = _variances(box, other)
    own = (box.width * box.height).square() + (other.width * other.height).square()
    return own + along * other.height.square() + across * other.width.square()


def _mapped(distance: Tensor, fun: Map, tau: float) -> Tensor:
    """Map a distance to [0, 1), except for ``none``."""
    match fun:
        case "log1p":
            return 1 - 1 / (tau + torch.log1p(torch.relu(distance)))
        case "sqrt":
            return 1 - 1 / (tau + distance.clamp(min=LEAST_DISTANCE).sqrt())
        case "none":
            return distance
