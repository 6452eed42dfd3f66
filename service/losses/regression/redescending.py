"""Errors for data with many outliers: the pull of a far point does not grow, for most it fades away."""

from math import sqrt
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Bounds, Params, Prediction, Scales, Target, Unreduced
from service.losses.digits import saturating, sloped
from service.losses.regression.magnitudes import largest_shape, log1p_square


@loss(
    title="Cauchy",
    tasks=("regression",),
    aliases=("lorentzian",),
    work="predictions",
    range=(0, None),
    scales=Scales(0, along=("c",)),
)
def cauchy(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    c: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Logarithm of one plus the squared error: far points keep a faint pull.

    Formula:
        \ln\left( 1 + \tfrac{1}{2} (r / c)^2 \right), \quad r = \hat y - y

    Args:
        predictions: Estimated values.
        targets: Observed values.
        c: Scale of an ordinary residual, in the unit of the targets.

    Use when:
        Residuals have heavy tails, and outliers should count a little still.

    Pitfalls:
        Not convex: the gradient falls like one over the residual, so a bad start is hardly corrected. Begin
        with `huber`. `c` has the unit of the targets.

    Sources:
        - Black & Anandan (1996), The Robust Estimation of Multiple Motions,
          https://doi.org/10.1006/cviu.1996.0006
    """
    return log1p_square((predictions - targets) / (c * sqrt(2)))


@loss(
    title="Geman-McClure",
    tasks=("regression",),
    work="predictions",
    range=(0, 2),
    scales=Scales(0, along=("c",)),
)
def geman_mcclure(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    c: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared error that saturates at 2: outliers are all but ignored.

    Formula:
        \frac{2 z}{z + 4}, \quad z = \left( \frac{\hat y - y}{c} \right)^2

    Args:
        predictions: Estimated values.
        targets: Observed values.
        c: Scale of an ordinary residual, in the unit of the targets.

    Use when:
        Many points are outliers, as in registration and bundle adjustment.

    Pitfalls:
        The gradient falls like the third power of the residual: from a bad start nothing is learnt. Begin
        with `huber`. Other libraries write z / (z + 1), with another height and another meaning of `c`.

    Sources:
        - Geman & McClure (1985), Bayesian Image Analysis: An Application to Single Photon Emission Tomography
        - Barron (2019), A General and Adaptive Robust Loss Function, https://arxiv.org/abs/1701.03077
    """
    scaled = (predictions - targets) / c
    far = scaled.abs() > 2
    square, inverse = torch.where(far, 0.0, scaled).square(), (2 / torch.where(far, scaled, 2.0)).square()
    return 2 * torch.where(far, 1 / (1 + inverse), square / (square + 4))


@loss(
    title="Welsch", tasks=("regression",), aliases=("leclerc",), range=(0, 1), scales=Scales(0, along=("c",))
)
def welsch(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    c: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""One minus a Gaussian of the error: outliers beyond a few `c` have no pull at all.

    Formula:
        1 - \exp\left( -\tfrac{1}{2} (r / c)^2 \right), \quad r = \hat y - y

    Args:
        predictions: Estimated values.
        targets: Observed values.
        c: Scale of an ordinary residual, in the unit of the targets.

    Use when:
        A large share of the points are outliers and the start is good.

    Pitfalls:
        The gradient vanishes exponentially: points beyond about five `c` are never recovered. Begin with
        `huber`, or with a large `c` that shrinks.

    Sources:
        - Dennis & Welsch (1978), Techniques for nonlinear least squares and robust regression,
          https://doi.org/10.1080/03610917808812083
    """
    scaled = ((predictions - targets) / c).detach()
    # far beyond the range with a gradient, but small enough for finite squares and products
    scaled = scaled.clamp(-1e3, 1e3)
    decay = torch.exp(-scaled.square() / 2)
    return sloped(
        -torch.expm1(-scaled.square() / 2),
        (scaled, decay),
        (predictions, lambda scaled, decay: scaled * decay / c),
        (targets, lambda scaled, decay: -scaled * decay / c),
    )


@loss(
    title="Tukey's biweight",
    tasks=("regression",),
    aliases=("bisquare",),
    range=lambda params: (0, params["c"] ** 2 / 6),
    scales=Scales(2, along=("c",)),
)
def tukey_biweight(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    c: Annotated[float, Gt(0)] = 4.685,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared error that flattens to a constant at `c`: points beyond it have exactly no pull.

    Formula:
        \frac{c^2}{6} \left( 1 - \left( 1 - \min(|r| / c,\ 1)^2 \right)^3 \right), \quad r = \hat y - y

    Args:
        predictions: Estimated values.
        targets: Observed values.
        c: Residual from which on a point is an outlier; 4.685 standard deviations keep 95 % efficiency.

    Use when:
        Outliers are to be rejected outright, and residuals are scaled by a robust estimate of their spread.

    Pitfalls:
        The gradient is exactly 0 beyond `c`: if all points start there, nothing is learnt. The default `c`
        assumes residuals of unit spread.

    Sources:
        - Beaton & Tukey (1974), The Fitting of Power Series, Meaning Polynomials, Illustrated on
          Band-Spectroscopic Data, https://doi.org/10.1080/00401706.1974.10489171
    """
    share = ((predictions - targets) / c).clamp(-1, 1).square()
    # 1 - (1 - u)^3 multiplied out: small residuals keep their digits
    return c**2 / 6 * share * (3 + share * (share - 3))


def _height(params: Params) -> Bounds:
    """Return the bounds of the loss, which below alpha 0 has a greatest value."""
    alpha: float = params["alpha"]
    return 0, (alpha - 2) / alpha if alpha < 0 else None


@loss(
    title="Barron's general robust error",
    tasks=("regression",),
    aliases=("barron",),
    work="predictions",
    range=_height,
    scales=Scales(0, along=("c",)),
)
def general_robust(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    alpha: float = 1.0,
    c: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""One family from squared error to Welsch: `alpha` says how far outliers are ignored.

    Formula:
        \frac{b}{\alpha} \left( \left( \frac{z}{b} + 1 \right)^{\alpha / 2} - 1 \right),
        \quad z = \left( \frac{\hat y - y}{c} \right)^2, \quad b = |\alpha - 2|,
        \quad \text{with limits } \tfrac{z}{2} \text{ at } \alpha = 2,
        \ \ln(1 + \tfrac{z}{2}) \text{ at } \alpha = 0

    Args:
        predictions: Estimated values.
        targets: Observed values.
        alpha: Shape: 2 is half the squared error, 1 pseudo-Huber, 0 Cauchy, -2 Geman-McClure, and Welsch is
            the limit at minus infinity.
        c: Scale of an ordinary residual, in the unit of the targets.

    Use when:
        You do not know how robust a loss should be: `alpha` can be searched, or lowered during training.

    Pitfalls:
        Below 1 it is not convex, and the pull of far points vanishes: begin with `alpha` 1 or more. Above 2
        outliers count more than in the squared error.

    Sources:
        - Barron (2019), A General and Adaptive Robust Loss Function, https://arxiv.org/abs/1701.03077
    """
    scaled = (predictions - targets) / c
    if alpha == 2:
        return scaled.square() / 2
    alpha = max(alpha, -largest_shape(scaled))
    bend = abs(alpha - 2)
    growth = log1p_square(scaled / sqrt(bend))
    if abs(alpha) < 1e-20:
        return bend / 2 * growth
    exponent = alpha / 2 * growth
    if alpha < 0:
        return bend / -alpha * saturating(-exponent)
    # e^x - 1 as a product: near alpha 2 it may overflow where its small factor would bring it back
    return bend / alpha * (2 * torch.sinh(exponent / 2)) * torch.exp(exponent / 2)
