"""Losses of rotated boxes, compared as Gaussians: smooth in the angle where polygon overlap is not."""

from dataclasses import dataclass
from math import expm1, log, sqrt
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts
from service.catalogue.spec import Params, Prediction, Scales, Target, Unreduced
from service.losses.detection.tangents import with_slope

Epsilon = Annotated[float, Gt(0)]

FARTHEST = 100.0
"""A greater Bhattacharyya distance counts as this: the overlap is e^-100."""


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


def _mapped_range(params: Params) -> tuple[float, float | None]:
    """Return the bounds of a mapped distance."""
    return (0, None) if params["fun"] == "none" else (1 - 1 / params["tau"], 1)


def _kalman_range(params: Params) -> tuple[float | None, float | None]:
    """Return the bounds of what is made of a share between 0 and 1/3, which rounding may exceed by a little."""
    third = (1 + 1e-6) / 3
    match params["fun"]:
        case "none":
            return 1 - third, 1
        case "ln":
            return -log(third + params["eps"]), None
        case _:
            return expm1(1 - third), expm1(1)


def _hellinger_range(params: Params) -> tuple[float, float]:
    """Return the bounds of the distances that `probiou` knows."""
    eps = params["eps"]
    return (eps, FARTHEST) if params["mode"] == "l2" else (sqrt(eps - expm1(-eps)), sqrt(1 + eps))


@loss(
    title="Kullback-Leibler divergence of rotated boxes (KLD)",
    tasks=("oriented_detection",),
    aliases=("kld_rotated",),
    work="3 boxes",
    range=_mapped_range,
    scales=Scales(0, entries=4),
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
        You detect rotated objects of all sizes and aspect ratios, as in aerial images.

    Pitfalls:
        A square has no angle: its angle gradient is zero. Angles that differ by pi, or by half of it with the
        sides swapped, are the same box.

    Sources:
        - Yang et al. (2021), Learning High-Precision Bounding Box for Rotated Object Detection via
          Kullback-Leibler Divergence, https://arxiv.org/abs/2106.01883
    """
    box, target = _read(boxes, targets)
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
    range=_mapped_range,
    scales=Scales(0, entries=4, params={"normalize": True}),
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
        Not scale-free unless `normalize` is set: D is in the squared unit of the boxes, and the map sees it
        beside 1. A pixel off costs a large box as much as a small one, and boxes in [0, 1] cost next to
        nothing.

    Sources:
        - Yang et al. (2021), Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss,
          https://arxiv.org/abs/2101.11952
    """
    box, target = _read(boxes, targets)
    offset = (box.x - target.x).square() + (box.y - target.y).square()
    distance = offset + alpha**2 * _shape_distance(box, target)
    if normalize:
        # a root of each, as the product of four sides leaves the range of float32 sooner
        side = (box.width * box.height).sqrt() * (target.width * target.height).sqrt()
        distance = _root(distance / side)
    return _mapped(distance, fun, tau)


@loss(
    title="Probabilistic IoU (ProbIoU)",
    tasks=("oriented_detection",),
    work="boxes",
    range=_hellinger_range,
    scales=Scales(0, entries=4),
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
        + \frac{1}{2} \ln \left(\frac{|\Sigma + \Sigma_*|}{4 \sqrt{|\Sigma| |\Sigma_*|}} + \epsilon\right),
        \quad \Sigma = R \, \mathrm{diag}\left(\tfrac{w^2}{12}, \tfrac{h^2}{12}\right) R^\top

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.
        mode: `l1` for the Hellinger distance, between 0 and 1; `l2` for the Bhattacharyya distance B.
        eps: The least B, and what is added under the logarithm and under the root of `l1`: a number without
            unit. The greatest B is 100.

    Use when:
        Rotated boxes are refined by a loss that behaves like an IoU; `l2` first where boxes lie far apart.

    Pitfalls:
        A perfect fit costs the root of 2 `eps`, 4.5e-4, under `l1`, and below B = `eps` there is no gradient:
        boxes differ by less than about 1e-3 of their sides there. The gradient of distant boxes fades under
        `l1`, and beyond B = 100 it is zero. A square has no angle gradient.

    Sources:
        - Llerena et al. (2021), Gaussian Bounding Boxes and Probabilistic Intersection-over-Union,
          https://arxiv.org/abs/2106.06072
    """
    box, target = _read(boxes, targets)
    dx, dy = box.x - target.x, box.y - target.y
    spread = _adjugate_form(box, dx, dy) + _adjugate_form(target, dx, dy)
    each = box.width * box.height * target.width * target.height
    difference = _determinant_difference(box, target)
    distance = 3 * spread / (4 * each + difference) + torch.log1p(difference / (4 * each) + eps) / 2
    distance = distance.clamp(eps, FARTHEST)
    return distance if mode == "l2" else torch.sqrt(eps - torch.expm1(-distance))


@loss(
    title="Kalman filter IoU (KFIoU)",
    tasks=("oriented_detection",),
    range=_kalman_range,
    scales=Scales(0, entries=4, params={"eps": 0.0}),
)
def kfiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    fun: Literal["none", "ln", "exp"] = "none",
    eps: Annotated[float, Ge(0)] = 0.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Overlap of the shapes of rotated boxes as Gaussians laid on one another: centres do not count.

    Formula:
        1 - K, \quad -\ln(K + \epsilon) \quad \text{or} \quad e^{1 - K} - 1,
        \quad K = \frac{V(S)}{V(\Sigma) + V(\Sigma_*) - V(S) + \epsilon},
        \quad S = \Sigma (\Sigma + \Sigma_*)^{-1} \Sigma_*, \quad V(\cdot) = 4 \sqrt{|\cdot|}

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.
        fun: The function of K: `none`, `ln` or `exp`.
        eps: An area added to the union, in the squared unit of the boxes, and a number under the logarithm.

    Use when:
        You fit width, height and angle of rotated boxes, next to a separate loss of the centres.

    Pitfalls:
        It ignores the centres by design: always add a term for them. K is at most 1/3, so a perfect fit costs
        2/3, not 0.

    Sources:
        - Yang et al. (2023), The KFIoU Loss for Rotated Object Detection, https://arxiv.org/abs/2201.12558
    """
    box, target = _read(boxes, targets)
    first, second = box.width * box.height, target.width * target.height
    joint = 4 * first * second + _determinant_difference(box, target)
    shared = first * second / joint.sqrt()
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


def _read(boxes: Tensor, targets: Tensor) -> tuple[_Box, _Box]:
    """Return pairs of rotated boxes ``[..., 5]`` number by number."""
    return _numbers(boxes), _numbers(targets)


def _numbers(boxes: Tensor) -> _Box:
    """Return the numbers of boxes; sides that rounding made 0 are the least whose square is a number."""
    x, y, width, height, angle = boxes.unbind(-1)
    least = sqrt(torch.finfo(boxes.dtype).tiny)
    return _Box(x, y, width.clamp(min=least), height.clamp(min=least), angle)


# Below, covariances are seen from the axes of one of the boxes and without their common factor 1/k: one is
# diag(w², h²) there, and of the angles only their difference remains. Sums of positive terms keep the digits
# that determinants and inverses of matrices lose for thin boxes, and differences of nearly equal ones for good
# fits.


class _Shapes(NamedTuple):
    """Sides of boxes as their targets have them, the longer along the longer, and the angle left between."""

    width: Tensor
    height: Tensor
    sin2: Tensor


def _shapes(box: _Box, other: _Box) -> _Shapes:
    """Name the sides of ``box`` after those of ``other``: swapped, a box is itself at a right angle."""
    swapped = (box.width > box.height) != (other.width > other.height)
    width, height = torch.where(swapped, box.height, box.width), torch.where(swapped, box.width, box.height)
    angle = box.angle - other.angle
    return _Shapes(width, height, torch.where(swapped, angle.cos(), angle.sin()).square())


def _adjugate_form(box: _Box, dx: Tensor, dy: Tensor) -> Tensor:
    """Return the quadratic form of an offset in the adjugate of a covariance: determinant times inverse."""
    along, across = _turned(box, dx, dy)
    return (along * box.height).square() + (across * box.width).square()


def _turned(box: _Box, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return an offset along the width and along the height of a box."""
    cos, sin = box.angle.cos(), box.angle.sin()
    return dx * cos + dy * sin, dy * cos - dx * sin


def _divergence(box: _Box, other: _Box, alpha: float) -> Tensor:
    """Return the Kullback-Leibler divergence of ``box`` from ``other``.

    At one angle it is the sum of those of two sides; a turn adds to the trace.
    """
    along, across = _turned(other, box.x - other.x, box.y - other.y)
    offset = (along / other.width).square() + (across / other.height).square()
    width, height, sin2 = _shapes(box, other)
    sides = _side_divergence(width, other.width) + _side_divergence(height, other.height)
    longer = (width - height) / other.width * ((width + height) / other.height)
    other_longer = (other.width - other.height) / other.width * ((other.width + other.height) / other.height)
    return 2 * offset / alpha**2 + sides + sin2 * longer * other_longer / 2


def _side_divergence(side: Tensor, other: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of two centred Gaussians in one dimension."""
    growth, ratio = (side - other) / other, side / other
    # in float64: near 0, x - log1p(x) is the square of what its two terms contain themselves
    wide = growth.detach().double()
    logarithm = torch.where(wide > -0.5, torch.log1p(wide.clamp(min=-0.5)), ratio.detach().double().log())
    return with_slope(wide.square() / 2 + (wide - logarithm), growth, growth * (1 + ratio) / ratio)


def _shape_distance(box: _Box, other: _Box) -> Tensor:
    """Return the squared Wasserstein distance of two Gaussians around one centre.

    That is the sum of the traces less twice a root, which is nearly the same for nearly equal boxes. The
    difference of their squares factors into differences of sides and angles, and leaves a quotient.
    """
    width, height, sin2 = _shapes(box, other)
    turn = sin2 * _longer(width, height) * _longer(other.width, other.height)
    apart = (width - other.width).square() + (height - other.height).square()
    joined = (width + other.width).square() + (height + other.height).square()
    traces = width.square() + height.square() + other.width.square() + other.height.square()
    # along the same axes less a turn: the larger root is of a sum of squares
    roots = 2 * torch.sqrt((width * other.width + height * other.height).square() - turn)
    return (apart * joined + 4 * turn) / (traces + roots) / 4


def _determinant_difference(box: _Box, other: _Box) -> Tensor:
    """Return by how much the determinant of a sum of covariances exceeds that of equal ones of these areas."""
    width, height, sin2 = _shapes(box, other)
    areas = (width - other.width) * height + other.width * (height - other.height)
    ratios = (width - other.width) * other.height - other.width * (height - other.height)
    return (
        areas.square() + ratios.square() + sin2 * _longer(width, height) * _longer(other.width, other.height)
    )


def _longer(width: Tensor, height: Tensor) -> Tensor:
    """Return the difference of the squares of two sides."""
    return (width - height) * (width + height)


def _mapped(distance: Tensor, fun: Map, tau: float) -> Tensor:
    """Map a distance to [0, 1), except for ``none``."""
    match fun:
        case "log1p":
            far = torch.log1p(distance)
        case "sqrt":
            far = _root(distance)
        case "none":
            return distance
    # one minus the quotient would lose the digits of a good fit
    return (tau - 1 + far) / (tau + far)


def _root(squared: Tensor) -> Tensor:
    """Return a square root with a gradient of 0 at 0, where that of a distance has no direction."""
    fits = squared == 0
    return torch.where(fits, 0, torch.where(fits, 1, squared).sqrt())
