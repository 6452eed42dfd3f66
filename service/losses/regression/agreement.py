"""How far two sequences are from rising and falling together."""

from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, SizeRange, Target, Unreduced
from service.losses.regression.magnitudes import norm


@loss(
    title="Pearson correlation",
    tasks=("regression",),
    aliases=("pcc",),
    requires=(SizeRange("T", least=2),),
)
def pearson_correlation(
    predictions: Annotated[Tensor, Prediction("... T")],
    targets: Annotated[Tensor, Target("... T")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""One minus the correlation of two sequences, whatever their scales and offsets.

    Formula:
        1 - \frac{\sum_t \hat x_t x_t}{\sqrt{\sum_t \hat x_t^2 \sum_t x_t^2}},
        \quad \hat x_t = \hat y_t - \bar{\hat y}, \quad x_t = y_t - \bar y

    Args:
        predictions: Estimated sequences along the last axis.
        targets: Observed sequences.

    Use when:
        Only the shape of a sequence matters, as for a signal whose gain is unknown.

    Pitfalls:
        A model is free to be off by any factor and offset: `concordance_correlation` is not so lenient. A
        constant sequence has no correlation; it counts as 0, with zero gradients.

    Sources:
        - Pearson (1895), Note on Regression and Inheritance in the Case of Two Parents,
          https://doi.org/10.1098/rspl.1895.0041
    """
    estimated, observed = _centred(predictions), _centred(targets)
    size, other_size = norm(estimated, dim=-1), norm(observed, dim=-1)
    constant = size * other_size <= 1e-8
    direction = estimated / torch.where(constant, 1.0, size)
    other_direction = observed / torch.where(constant, 1.0, other_size)
    return 1 - torch.where(constant, 0.0, direction * other_direction).sum(-1)


@loss(
    title="Concordance correlation",
    tasks=("regression",),
    aliases=("ccc",),
    requires=(SizeRange("T", least=2),),
)
def concordance_correlation(
    predictions: Annotated[Tensor, Prediction("... T")],
    targets: Annotated[Tensor, Target("... T")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""One minus Lin's concordance: correlation that also asks for the right scale and offset.

    Formula:
        1 - \frac{2 \sigma_{\hat y y}}{\sigma_{\hat y}^2 + \sigma_y^2 + (\bar{\hat y} - \bar y)^2}

    Args:
        predictions: Estimated sequences along the last axis.
        targets: Observed sequences.

    Use when:
        Sequences are to agree in shape and in value, as ratings of affect by several judges.

    Pitfalls:
        Moments divide by T, as Lin's do; with T - 1 short sequences give another value. Two equal constant
        sequences count as no agreement, 1, with zero gradients.

    Sources:
        - Lin (1989), A Concordance Correlation Coefficient to Evaluate Reproducibility,
          https://doi.org/10.2307/2532051
    """
    estimated, observed = _centred(predictions), _centred(targets)
    covariance = (estimated * observed).mean(-1)
    offset = (predictions - targets).mean(-1)
    spread = estimated.square().mean(-1) + observed.square().mean(-1) + offset.square()
    equal_constants = spread <= 1e-16
    return 1 - torch.where(equal_constants, 0.0, 2 * covariance / torch.where(equal_constants, 1.0, spread))


def _centred(sequences: Tensor) -> Tensor:
    """Return sequences without their mean; constant ones become exactly zero."""
    # the mean of a constant may be off by its last digit, the difference of equal numbers is not
    shifted = sequences - sequences[..., :1].detach()
    return shifted - shifted.mean(-1, keepdim=True)
