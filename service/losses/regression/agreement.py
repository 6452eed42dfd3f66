"""How far two sequences are from rising and falling together."""

from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, SizeRange, Target, Unreduced
from service.losses.digits import bounded, sloped
from service.losses.regression.magnitudes import norm, wide_norm


@loss(
    title="Pearson correlation",
    tasks=("regression",),
    aliases=("pcc",),
    requires=(SizeRange("T", least=2),),
    work="predictions",
    range=(0, 2),
    unit="one minus a correlation",
    scales=0,
)
def pearson_correlation(
    predictions: Annotated[Tensor, Prediction("... T")],
    targets: Annotated[Tensor, Target("... T")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""One minus the correlation of two sequences, independent of their scales and offsets.

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
        sequence whose numbers are all equal has no correlation; it counts as 0, with zero gradients. However
        little others vary, that is what counts.

    Sources:
        - Pearson (1895), Note on Regression and Inheritance in the Case of Two Parents,
          https://doi.org/10.1098/rspl.1895.0041
    """
    # in float64: float32 would round away the small difference of the unit vectors of sequences that agree
    estimated, observed = _centred(predictions.detach().double()), _centred(targets.detach().double())
    size, other_size = _length(estimated, predictions), _length(observed, targets)
    constant = (size == 0) | (other_size == 0)
    share, other_share = (torch.where(constant, 0.0, 1 / length) for length in (size, other_size))
    direction, other_direction = estimated * share, observed * other_share
    # half the squared difference is one minus the product of unit vectors, without its cancellation
    distance = (direction - other_direction).square().sum(-1, keepdim=True) / 2
    return sloped(
        torch.where(constant, 1.0, bounded(distance, 0, 2))[..., 0].to(predictions.dtype),
        (direction, other_direction, distance, share, other_share),
        (predictions, lambda a, b, distance, share, other: ((a - b) - distance * a) * share),
        (targets, lambda a, b, distance, share, other: ((b - a) - distance * b) * other),
    )


@loss(
    title="Concordance correlation",
    tasks=("regression",),
    aliases=("ccc",),
    requires=(SizeRange("T", least=2),),
    work="predictions",
    range=(0, 2),
    unit="one minus a correlation",
    scales=0,
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
    errors = (predictions - targets).detach()
    estimated, observed = _centred(predictions.detach()), _centred(targets.detach())
    offset, root = errors.mean(-1, keepdim=True), errors.shape[-1] ** 0.5
    size = torch.hypot(_length(estimated, predictions), _length(observed, targets)) / root
    spread = torch.hypot(size, offset.double())
    equal_constants = spread == 0
    share = torch.where(equal_constants, 0.0, 1 / spread)
    # one minus the ratio is the mean squared error over the squared spread, where nothing cancels
    distance = (_length(errors, predictions) / root * share).square()
    return sloped(
        torch.where(equal_constants, 1.0, bounded(distance, 0, 2))[..., 0].to(predictions.dtype),
        (errors, estimated, observed, offset, distance.to(errors), share.to(errors)),
        (predictions, lambda e, x, y, offset, distance, share: _slope(e, x, offset, distance, share)),
        (targets, lambda e, x, y, offset, distance, share: -_slope(e, -y, offset, distance, share)),
    )


def _slope(errors: Tensor, centred: Tensor, offset: Tensor, distance: Tensor, share: Tensor) -> Tensor:
    """Return the slope of the mean squared error over the squared spread."""
    apart = errors.addcmul(distance, centred, value=-1) - distance * offset
    return apart * share * (2 * share / errors.shape[-1])


def _centred(sequences: Tensor) -> Tensor:
    """Return sequences without their mean; constant ones become exactly zero."""
    # the mean of a constant may be off by its last digit, the difference of equal numbers is not
    shifted = sequences - sequences[..., :1]
    return shifted - shifted.mean(-1, keepdim=True)


def _length(vectors: Tensor, sequences: Tensor) -> Tensor:
    """Return in float64 the length of vectors that were made of sequences, whose dtype decides how."""
    return norm(vectors, dim=-1) if sequences.dtype == torch.float64 else wide_norm(vectors)
