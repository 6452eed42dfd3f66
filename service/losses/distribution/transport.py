"""Losses that say how far mass on a line has to travel, from bins or from samples."""

from dataclasses import dataclass
from math import lcm
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Facts, Simplex
from service.catalogue.spec import Prediction, Target, Unreduced

ROUNDING = 5e-7
"""By how much the sums of probabilities that float32 made may differ; their unit is 1."""


@dataclass(frozen=True)
class Histogram(Simplex):
    """Distributions over ordered bins, drawn as the shares of 16 votes: these sum to 1 in every dtype."""

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        votes = torch.randint(shape[-1], (*shape[:-1], 16, 1), generator=rng)
        return (votes == torch.arange(shape[-1])).double().mean(-2)


@loss(
    title="Wasserstein distance of histograms",
    tasks=("distribution",),
    aliases=("emd_1d", "earth_mover"),
    keywords=(
        "earth mover",
        "optimal transport",
        "ordinal classification",
        "ordered classes",
        "age",
        "ratings",
    ),
    work="probabilities",
    range=(0, None),
)
def cdf_wasserstein(
    probabilities: Annotated[Tensor, Prediction("... C", Histogram())],
    targets: Annotated[Tensor, Target("... C", Histogram())],
    *,
    p: Literal[1, 2] = 1,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Earth mover's distance over ordered bins, such as ages, ratings or severity grades.

    Formula:
        \sum_k \left|\hat F_k - F_k\right|^p,
        \quad \hat F_k = \sum_{c \le k} \hat y_c,\ F_k = \sum_{c \le k} y_c

    Args:
        probabilities: Predicted probabilities of the bins in their order, along the last axis.
        targets: Known probabilities of the same bins.
        p: Power of each difference: 1 for the earth mover's distance, 2 for its smooth relative.

    Use when:
        Classes are ordered, and a near miss should cost less than a far one.

    Pitfalls:
        The bins must be in order and equally wide; the width counts as 1. Sums of both sides that differ by
        up to 5e-7 count as equal. There is no root and no division by the number of bins: the form of NIMA,
        with both, is another number.

    Sources:
        - Hou et al. (2016), Squared Earth Mover's Distance-based Loss for Training Deep Neural Networks,
          https://arxiv.org/abs/1611.05916
        - Talebi & Milanfar (2018), NIMA: Neural Image Assessment, https://arxiv.org/abs/1709.05424
    """
    # in float64, where float32's differences are exact: the sign of a gap, however small, is its slope
    gaps = (probabilities.double() - targets).cumsum(-1)
    costs = gaps.abs() if p == 1 else gaps.square()
    # both CDFs end at 1: a last gap that is not quite 0 is rounding, whose sign must not become a gradient
    last = torch.where(gaps[..., -1].abs() <= ROUNDING, 0.0, costs[..., -1])
    return (costs[..., :-1].sum(-1) + last).to(probabilities.dtype)


@loss(
    title="Wasserstein distance of samples",
    tasks=("distribution",),
    aliases=("wasserstein_distance",),
    keywords=(
        "optimal transport",
        "earth mover",
    ),
    work=("2 predictions", "2 targets"),
    range=(0, None),
)
def wasserstein_1d(
    predictions: Annotated[Tensor, Prediction("... N")],
    targets: Annotated[Tensor, Target("... M")],
    *,
    p: Literal[1, 2] = 1,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Optimal transport between two sets of numbers, which need not be of equal size.

    Formula:
        \int_0^1 \left|\hat F^{-1}(u) - F^{-1}(u)\right|^p du

    Args:
        predictions: Samples of the predicted distribution, along the last axis, in any order.
        targets: Samples of the known distribution, along the last axis, in any order.
        p: Power of the distance that each part of the mass travels; no root is taken.

    Use when:
        Only samples are at hand and their order means nothing: generated values, sliced projections.

    Pitfalls:
        Samples are matched by rank, so a prediction is pulled to the target of its rank, not of its index.
        With `p` 2 this is the squared distance. Samples in several dimensions need projections.

    Sources:
        - Vallender (1974), Calculation of the Wasserstein Distance Between Probability Distributions on the
          Line, https://doi.org/10.1137/1118101
    """
    n, m = predictions.shape[-1], targets.shape[-1]
    # in units of 1 / lcm both quantile functions step at integers, which merge without rounding
    units = lcm(n, m)
    steps = _merged(units, units // n, units // m, predictions.device)
    shares = steps.diff().to(predictions.dtype) / units
    predicted = predictions.sort(dim=-1).values[..., steps[:-1] // (units // n)]
    known = targets.sort(dim=-1).values[..., steps[:-1] // (units // m)]
    return ((predicted - known).abs().pow(p) * shares).sum(-1)


def _merged(end: int, first: int, second: int, device: torch.device) -> Tensor:
    """Return the multiples from 0 to ``end`` of two step widths without a common divisor, each once.

    >>> _merged(6, 2, 3, torch.device("cpu"))
    tensor([0, 2, 3, 4, 6])
    """
    # of ``first`` steps of the second width, the first one is a step of the first width too
    others = torch.arange(0, end, second, device=device).reshape(-1, first)[:, 1:]
    return torch.cat([torch.arange(0, end + 1, first, device=device), others.flatten()]).sort().values
