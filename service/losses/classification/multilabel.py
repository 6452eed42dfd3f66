"""Losses of samples with several labels, one number for each sample."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import AtLeast, Between, Domain, Facts, Kind
from service.catalogue.spec import Prediction, Target, Unreduced, Values
from service.losses.surprise import binary_surprise


@dataclass(frozen=True, slots=True)
class PositiveClasses(Domain):
    """Along the last axis the indices of the classes that apply, ended by a negative number."""

    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return "integers from 0 to C - 1, ended by a negative one"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return ~_listed(values) | (values < facts.size("C"))

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        # an order of all classes, cut by -1: the classes after it are there to be ignored
        classes = torch.rand(shape, generator=rng).argsort(-1)
        end = torch.randint(1, shape[-1] + 1, (*shape[:-1], 1), generator=rng)
        return torch.where(torch.arange(shape[-1]) == end, -1, classes)


@loss(
    title="Multilabel margin",
    tasks=("classification",),
    keywords=("multi-label classification",),
    work="5 logits",
    range=(0, None),
)
def multilabel_margin(
    logits: Annotated[Tensor, Prediction("... C")],
    targets: Annotated[Tensor, Target("... C", PositiveClasses())],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Hinge between every label that applies and every one that does not: ranking of labels.

    Formula:
        \frac{1}{C} \sum_{j \in Y} \sum_{k \notin Y} \max(0,\ 1 - z_j + z_k)

    Args:
        logits: One score for each class, along the last axis.
        targets: Indices of the classes that apply, ended by a negative number unless all are listed.

    Use when:
        The labels that apply should be ahead of all others, and their number varies.

    Pitfalls:
        Targets are lists of classes, not a mask of zeros and ones. Everything after the first negative
        number is ignored, even valid classes; a class that is listed twice counts twice.

    Sources:
        - Crammer and Singer (2003), A Family of Additive Online Algorithms for Category Ranking,
          https://www.jmlr.org/papers/v3/crammer03b.html
    """
    listed = _listed(targets)
    places = torch.where(listed, targets, 0)
    rival = torch.zeros_like(targets).scatter_add(-1, places, listed.to(targets)) == 0
    # sorted, each label meets the rivals ahead of its score - 1 as a running sum: C log C, not all C^2 pairs.
    # At a tie the label comes first, so that a hinge at its kink has no slope
    # in float64, as the running sum and a multiple of a score may both be large and their difference small
    wide = logits.double()
    floor = wide.gather(-1, places) - 1
    scores, order = torch.cat((floor, wide), -1).sort(dim=-1, descending=True, stable=True)
    is_rival = torch.cat((torch.zeros_like(rival), rival), -1).gather(-1, order)
    is_label = torch.cat((listed, torch.zeros_like(listed)), -1).gather(-1, order)
    ahead, count = torch.where(is_rival, scores, 0.0).cumsum(-1), is_rival.cumsum(-1)
    hinges = torch.where(is_label & (count > 0), ahead - count * scores, 0.0)
    # NaN is sorted to where it counts as no rival
    known = torch.where(logits.isnan().any(-1), torch.nan, hinges.sum(-1))
    return (known / logits.shape[-1]).to(logits)


@loss(
    title="Multilabel soft margin",
    tasks=("classification",),
    keywords=(
        "multi-label classification",
        "tagging",
    ),
    range=(0, None),
)
def multilabel_soft_margin(
    logits: Annotated[Tensor, Prediction("... C")],
    targets: Annotated[Tensor, Target("... C", Between())],
    *,
    weight: Annotated[tuple[float, ...], Values("C", AtLeast(0))] | None = None,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Binary cross entropy averaged over a sample's labels: one number for each sample.

    Formula:
        \frac{1}{C} \sum_c w_c \left((1 - t_c) \log(1 + e^{z_c}) + t_c \log(1 + e^{-z_c})\right)

    Args:
        logits: Log-odds of each label, along the last axis.
        targets: 1 where the label applies, 0 where it does not, or a probability between.
        weight: One weight for each class, by which its term is multiplied.

    Use when:
        Several labels may apply at once, and samples are to be compared or weighed.

    Pitfalls:
        Averages over the classes, so a rare label has little say among many; `weight` does not change what
        the average divides by. `binary_cross_entropy_with_logits` keeps one number for each label.

    Sources:
        - Cox (1958), The Regression Analysis of Binary Sequences,
          https://doi.org/10.1111/j.2517-6161.1958.tb00292.x
    """
    yes, no = targets, 1 - targets
    if weight is not None:
        weights = constant(weight, logits)
        yes, no = yes * weights, no * weights
    return binary_surprise(logits, yes, no).mean(-1)


def _listed(targets: Tensor) -> Tensor:
    """Return which entries stand before the first negative one of their row."""
    return (targets < 0).cumsum(-1) == 0
