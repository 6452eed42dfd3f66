"""Convex robust errors: a parabola near zero that becomes a line far from it."""

from math import log
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Scales, Target, Unreduced


@loss(title="Huber", tasks=("regression",), range=(0, None), scales=Scales(2, along=("delta",)))
def huber(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    delta: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared error near zero, absolute error beyond `delta`: robust to outliers, smooth at zero.

    Formula:
        \begin{cases} r^2 / 2 & |r| \le \delta \\ \delta (|r| - \delta / 2) & |r| > \delta \end{cases},
        \quad r = \hat y - y

    Args:
        predictions: Estimated values.
        targets: Observed values.
        delta: Residual at which the parabola turns into a line, in the unit of the targets.

    Use when:
        A few targets are far off, and the squared error would follow them.

    Pitfalls:
        `delta` has the unit of the targets: standardise them, or the loss is all parabola or all line. It is
        `delta` times `smooth_l1` with `beta = delta`: the two agree at 1 only.

    Sources:
        - Huber (1964), Robust Estimation of a Location Parameter, https://doi.org/10.1214/aoms/1177703732
    """
    return F.huber_loss(predictions, targets, delta=delta, reduction="none")


@loss(title="Smooth L1", tasks=("regression",), range=(0, None), scales=Scales(1, along=("beta",)))
def smooth_l1(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    beta: Annotated[float, Ge(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Absolute error with a rounded tip: slope 1 far away, as in box regression.

    Formula:
        \begin{cases} r^2 / (2 \beta) & |r| < \beta \\ |r| - \beta / 2 & |r| \ge \beta \end{cases},
        \quad r = \hat y - y

    Args:
        predictions: Estimated values.
        targets: Observed values.
        beta: Residual at which the parabola turns into a line; 0 is the absolute error.

    Use when:
        The absolute error is right and its jumping gradient near zero is not, as for the offsets of boxes.

    Pitfalls:
        Its slope far away is 1 for any `beta`, that of `huber` is `delta`: the two agree at 1 only.

    Sources:
        - Girshick (2015), Fast R-CNN, https://arxiv.org/abs/1504.08083
    """
    return F.smooth_l1_loss(predictions, targets, beta=beta, reduction="none")


@loss(title="Log-cosh", tasks=("regression",), aliases=("logcosh",), work="predictions", range=(0, None))
def log_cosh(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Logarithm of the hyperbolic cosine: a smooth absolute error without a parameter.

    Formula:
        \ln \cosh(\hat y - y)

    Args:
        predictions: Estimated values.
        targets: Observed values.

    Use when:
        You want a twice differentiable error that is squared near zero and absolute far away.

    Pitfalls:
        The bend sits at a residual of about 1 in the unit of the targets: standardise them. Written literally
        it overflows at a residual of 89 in float32; here it does not.

    Sources:
        - Saleh & Saleh (2022), Statistical Properties of the log-cosh Loss Function Used in Machine Learning,
          https://arxiv.org/abs/2208.04564
    """
    residuals = predictions - targets
    sizes = residuals.abs()
    near = sizes < 1
    # cosh x = 1 + 2 sinh(x / 2)^2 keeps the digits that ln 2 would cancel; far away cosh itself overflows
    excess = torch.where(near, torch.sinh(torch.where(near, residuals, 0.0) / 2), 0.0)
    return torch.where(near, torch.log1p(2 * excess.square()), sizes - F.logsigmoid(2 * sizes) - log(2))


@loss(
    title="Pseudo-Huber",
    tasks=("regression",),
    work="predictions",
    range=(0, None),
    scales=Scales(2, along=("delta",)),
)
def pseudo_huber(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    delta: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Huber's error without a seam: a hyperbola with slope `delta` far away.

    Formula:
        \delta^2 \left( \sqrt{1 + (r / \delta)^2} - 1 \right), \quad r = \hat y - y

    Args:
        predictions: Estimated values.
        targets: Observed values.
        delta: Residual at which the parabola bends into a line, and the slope of that line.

    Use when:
        You want the robustness of `huber` with derivatives of every order.

    Pitfalls:
        `delta` scales both the bend and the slope: divide by it to compare losses across `delta`. It lies
        below `huber` everywhere but at zero.

    Sources:
        - Charbonnier et al. (1997), Deterministic Edge-Preserving Regularization in Computed Imaging,
          https://doi.org/10.1109/83.551699
        - Hartley & Zisserman (2003), Multiple View Geometry in Computer Vision
    """
    residuals = predictions - targets
    knee = torch.full_like(residuals, delta)
    # the root minus 1, times the root plus 1, is the square: nothing cancels, and no square overflows
    return delta * residuals * (residuals / (knee + torch.hypot(residuals, knee)))
