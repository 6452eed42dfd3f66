"""Losses between two sets of feature vectors, each taken as samples of a distribution: one value a call."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import MinLen
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above
from service.catalogue.spec import Condition, Prediction, Scales, SizeRange, Target, Unreduced, Values
from service.losses.digits import bounded
from service.losses.stacking import Stackable


@loss(
    title="Maximum mean discrepancy",
    tasks=("distribution",),
    keywords=(
        "domain adaptation",
        "two-sample test",
        "kernel",
    ),
    requires=(
        Condition(
            "/params/unbiased",
            "false where either side has only one sample",
            lambda facts: f"true with N = {facts.size('N')} and M = {facts.size('M')}",
            lambda facts: not facts.params["unbiased"] or min(facts.size("N"), facts.size("M")) > 1,
        ),
    ),
    work=(
        "N N D/64",
        "M M D/64",
        "N M D/64",
        "N N S",
        "M M S",
        "N M S",
        "2 targets",
        "M M",
        "N N",
        "2 predictions",
    ),
    range=lambda params: (-2 if params["unbiased"] else 0, 2),
    scales=Scales(0, along=("bandwidths",)),
)
def mmd(
    predictions: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("M D")],
    *,
    bandwidths: Annotated[tuple[float, ...], Values("S", Above(0)), MinLen(1)] = (1.0,),
    unbiased: bool = False,
) -> Annotated[Tensor, Unreduced("")]:
    r"""Squared distance between the kernel means of two sets of samples, for domain adaptation.

    Formula:
        \overline{k(\hat y, \hat y')} + \overline{k(y, y')} - 2\, \overline{k(\hat y, y)},
        \quad k(a, b) = \frac{1}{S} \sum_{s} e^{-\lVert a - b \rVert^2 / (2 \sigma_s^2)}

    Args:
        predictions: Samples of one distribution, one in each row.
        targets: Samples of the other distribution, of the same features.
        bandwidths: Widths of the Gaussian kernels, which are averaged.
        unbiased: Leave the pairs of a sample with itself out of the first two means.

    Use when:
        Two distributions of features should become alike in all their moments, without a discriminator.

    Pitfalls:
        The kernels are averaged; codes that sum them give a multiple. A bandwidth far from the typical
        distance between samples gives no gradient: use several. The unbiased estimate can be negative.
        The cost grows with the square of the number of samples.

    Sources:
        - Gretton et al. (2012), A Kernel Two-Sample Test, https://jmlr.org/papers/v13/gretton12a.html
    """
    among_predictions = _mean_of_pairs(_shortfalls(predictions, predictions, bandwidths), unbiased)
    among_targets = _mean_of_pairs(_shortfalls(targets, targets, bandwidths), unbiased)
    distance = among_predictions + among_targets - 2 * _shortfalls(predictions, targets, bandwidths).mean()
    return (distance if unbiased else bounded(distance, 0, 2)).to(predictions.dtype)


def _shortfalls(first: Tensor, second: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Return the mean of the Gaussian kernels less 1, in which all means agree, for every pair of rows."""
    distances = _distances(first, second)
    kernels = [torch.expm1((distances / bandwidth).square() / -2) for bandwidth in bandwidths]
    return sum(kernels[1:], kernels[0]) / len(kernels)


def _mean_of_pairs(pairs: Tensor, unbiased: bool) -> Tensor:
    """Return the mean over the pairs of a set, those of a sample with itself left out if ``unbiased``."""
    if not unbiased:
        return pairs.mean()
    n = pairs.shape[0]
    return pairs.triu(1).sum() / (n * (n - 1) / 2)


@loss(
    title="Energy distance",
    tasks=("distribution",),
    work=("N N D/64", "M M D/64", "N M D/64", "2 targets", "N N", "M M", "2 predictions"),
    range=(0, None),
    scales=1,
)
def energy_distance(
    predictions: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("M D")],
) -> Annotated[Tensor, Unreduced("")]:
    r"""Distance between two sets of samples from Euclidean distances alone, with nothing to tune.

    Formula:
        2\, \overline{\lVert \hat y - y \rVert} - \overline{\lVert \hat y - \hat y' \rVert}
        - \overline{\lVert y - y' \rVert}

    Args:
        predictions: Samples of one distribution, one in each row.
        targets: Samples of the other distribution, of the same features.

    Use when:
        Samples should follow a distribution and there is no scale by which to choose a kernel.

    Pitfalls:
        The means run over all pairs, those of a sample with itself too, so it is never negative; rounding
        that would make it so is taken out. This is the squared form: scipy returns its root. Features in different units dominate one another: scale them.

    Sources:
        - Szekely & Rizzo (2013), Energy Statistics: A Class of Statistics Based on Distances,
          https://doi.org/10.1016/j.jspi.2013.03.018
    """
    between = _distances(predictions, targets).mean()
    within = _distances(predictions, predictions).mean() + _distances(targets, targets).mean()
    return bounded(2 * between - within, 0).to(predictions.dtype)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the Euclidean distance of every pair of rows; its gradient is 0 where it is 0.

    In float64: of sets that are alike, the means over pairs of samples agree in more digits than float32 has.
    """
    # only differences count, which are most exact near 0
    middle = second.detach().double().mean(0)
    return _Distances.apply(first.double() - middle, second.double() - middle)


class _Distances(Stackable):
    """Distances by differences, whose slopes are matrix products: a tenth of the time that torch's own take.

    The expanded square would lose the digits, and with them the zeros, of close rows.
    """

    @staticmethod
    def forward(first: Tensor, second: Tensor) -> Tensor:
        return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        first, second, distances = ctx.saved_tensors
        pull = upstream[0] / torch.where(distances > 0, distances, torch.inf)
        of_first = pull.sum(-1)[..., None] * first - pull @ second
        of_second = pull.sum(-2)[..., None] * second - pull.mT @ first
        return of_first, of_second


@loss(
    title="CORAL",
    tasks=("distribution",),
    aliases=("deep_coral",),
    keywords=(
        "domain adaptation",
        "domain shift",
    ),
    requires=(SizeRange("N", least=2), SizeRange("M", least=2)),
    work=("D D N/512", "D D M/512"),
    range=(0, None),
    scales=4,
)
def coral(
    predictions: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("M D")],
) -> Annotated[Tensor, Unreduced("")]:
    r"""Squared distance between the feature covariances of a source and a target domain.

    Formula:
        \frac{1}{4 D^2} \left\lVert \hat C - C \right\rVert_F^2,
        \quad C = \frac{1}{M - 1} \sum_j (y_j - \bar y)(y_j - \bar y)^\top

    Args:
        predictions: Features of samples of one domain, one in each row.
        targets: Features of samples of the other domain.

    Use when:
        A network trained in one domain should see alike correlated features in another, at a low cost.

    Pitfalls:
        Blind to a shift of the means, and to everything beyond second moments. It goes with the fourth power
        of the features' scale, so its weight must follow. Covariances divide by the number of samples less 1.

    Sources:
        - Sun & Saenko (2016), Deep CORAL: Correlation Alignment for Deep Domain Adaptation,
          https://arxiv.org/abs/1607.01719
    """
    gap = _covariance_gap(predictions, targets)
    return gap.square().sum() / (4 * gap.shape[0] ** 2)


def _covariance_gap(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the difference between the covariances of the columns."""
    centred, other = _centred(predictions), _centred(targets)
    if predictions.shape != targets.shape:
        return centred.T @ centred / (len(centred) - 1) - other.T @ other / (len(other) - 1)
    # of paired samples it is made of their differences, whose digits the covariances would lose
    half = _centred(predictions - targets).T @ (centred + other) / 2
    return (half + half.T) / (len(centred) - 1)


def _centred(samples: Tensor) -> Tensor:
    """Return samples less their mean."""
    return samples - samples.mean(0)
