"""Plain errors: squared, absolute, and those that forgive a tube around the target."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.regression.magnitudes import norm


@loss(
    title="Mean squared error",
    tasks=("regression",),
    aliases=("mean_squared_error", "squared_error"),
    keywords=(
        "L2",
        "least squares",
        "quadratic error",
        "regression",
        "reconstruction error",
        "autoencoder",
        "anomaly detection",
        "price prediction",
        "demand forecast",
    ),
    range=(0, None),
    scales=2,
)
def mse(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared difference: the default for symmetric errors without outliers.

    Formula:
        (\hat y - y)^2

    Args:
        predictions: Estimated values.
        targets: Observed values, of the same shape: nothing is broadcast.

    Use when:
        Errors are symmetric and light-tailed, and the mean of the targets is what you want to predict.

    Pitfalls:
        One outlier outweighs many ordinary errors. Behind a sigmoid or softmax the gradient fades exactly
        where the prediction is most wrong: classify with cross entropy. The gradient is twice the residual;
        `half_mse` has the residual itself.

    Sources:
        - Gauss (1809), Theoria motus corporum coelestium
    """
    return F.mse_loss(predictions, targets, reduction="none")


@loss(title="Half squared error", tasks=("regression",), aliases=("l2",), range=(0, None), scales=2)
def half_mse(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Half the squared difference, whose gradient is the residual itself.

    Formula:
        \tfrac{1}{2} (\hat y - y)^2

    Args:
        predictions: Estimated values.
        targets: Observed values.

    Use when:
        The squared error is right and the gradient should be the residual, as in derivations and in boosting.

    Pitfalls:
        Half of `mse`: a learning rate tuned for one is off by a factor of two for the other. Libraries
        disagree on which of the two is called L2.

    Sources:
        - Gauss (1809), Theoria motus corporum coelestium
        - DeepMind (2020), Optax: l2_loss, https://optax.readthedocs.io/en/latest/api/losses.html
    """
    return F.mse_loss(predictions, targets, reduction="none") / 2


@loss(
    title="Root mean squared error",
    tasks=("regression",),
    aliases=("root_mean_squared_error",),
    keywords=(
        "root mean squared error",
        "time series",
        "forecast",
    ),
    range=(0, None),
    scales=1,
)
def rmse(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
) -> Annotated[Tensor, Unreduced("")]:
    r"""Root of the mean squared difference of all elements: one number, in the unit of the targets.

    Formula:
        \sqrt{\frac{1}{n} \sum_i (\hat y_i - y_i)^2}

    Args:
        predictions: Estimated values.
        targets: Observed values.

    Use when:
        An error is to be reported in the unit of the targets.

    Pitfalls:
        It is not a mean of roots: the values of two batches cannot be averaged. The derivative does not exist at
        a perfect fit, where the gradient is defined as 0. For a weighted one, take `mse` with weights, then
        the root.

    Sources:
        - Chai & Draxler (2014), Root mean square error or mean absolute error?,
          https://doi.org/10.5194/gmd-7-1247-2014
    """
    return norm(predictions - targets) / predictions.numel() ** 0.5


@loss(
    title="Absolute error",
    tasks=("regression",),
    aliases=("mae", "mean_absolute_error", "absolute_error"),
    keywords=(
        "MAE",
        "mean absolute error",
        "least absolute deviations",
        "robust regression",
        "outliers",
        "time series",
        "image restoration",
        "super-resolution",
        "denoising",
        "optical flow",
    ),
    range=(0, None),
    scales=1,
)
def l1(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Absolute difference: robust to outliers, predicts the median.

    Formula:
        |\hat y - y|

    Args:
        predictions: Estimated values.
        targets: Observed values.

    Use when:
        Targets have outliers, or the median is what you want to predict.

    Pitfalls:
        The gradient has the same size however small the error, so training does not settle without a falling
        learning rate. It is 0 where the error is exactly 0.

    Sources:
        - Willmott & Matsuura (2005), Advantages of the mean absolute error over the root mean square error,
          https://doi.org/10.3354/cr030079
    """
    return F.l1_loss(predictions, targets, reduction="none")


@loss(
    title="Epsilon-insensitive error",
    tasks=("regression",),
    aliases=("svr",),
    range=(0, None),
    scales=Scales(1, along=("epsilon",)),
)
def epsilon_insensitive(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    epsilon: Annotated[float, Ge(0)] = 0.1,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Absolute error beyond a tube around the target: support vector regression.

    Formula:
        \max(|\hat y - y| - \varepsilon,\ 0)

    Args:
        predictions: Estimated values.
        targets: Observed values.
        epsilon: Half the width of the tube in which an error costs nothing, in the unit of the targets.

    Use when:
        Errors below a known tolerance do not matter.

    Pitfalls:
        Inside the tube and on its edge the gradient is 0: with a wide tube a model stops learning early.
        `epsilon` has the unit of the targets.

    Sources:
        - Vapnik (1995), The Nature of Statistical Learning Theory, https://doi.org/10.1007/978-1-4757-2440-0
    """
    return torch.relu((predictions - targets).abs() - epsilon)


@loss(
    title="Squared epsilon-insensitive error",
    tasks=("regression",),
    range=(0, None),
    scales=Scales(2, along=("epsilon",)),
)
def squared_epsilon_insensitive(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    epsilon: Annotated[float, Ge(0)] = 0.1,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared error beyond a tube around the target: smooth support vector regression.

    Formula:
        \max(|\hat y - y| - \varepsilon,\ 0)^2

    Args:
        predictions: Estimated values.
        targets: Observed values.
        epsilon: Half the width of the tube in which an error costs nothing, in the unit of the targets.

    Use when:
        Errors below a known tolerance do not matter, and the gradient should be continuous at the tube's
        edge.

    Pitfalls:
        Far errors cost their square, so it is as sensitive to outliers as `mse`. The gradient is 0 in the
        tube.

    Sources:
        - Vapnik (1995), The Nature of Statistical Learning Theory, https://doi.org/10.1007/978-1-4757-2440-0
    """
    return torch.relu((predictions - targets).abs() - epsilon).square()
