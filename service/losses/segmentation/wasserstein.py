"""Overlap of classes that are more or less alike, by a matrix of how far apart they are."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Generator, Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import ClassIndex, Domain, Facts
from service.catalogue.spec import Prediction, SizeRange, Target, Unreduced, Values
from service.losses.classification.class_axis import one_hot
from service.losses.segmentation.counts import overlap_loss
from service.losses.segmentation.masks import counted, kept, softmax, total


@dataclass(frozen=True, slots=True)
class Distances(Domain):
    """A square matrix of how far apart classes are: nothing from themselves."""

    def describe(self) -> str:
        return "numbers of at least 0, and 0 on the diagonal"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        diagonal = torch.eye(values.shape[-1], dtype=torch.bool)
        return torch.where(diagonal, values == 0, values >= 0)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        # classes on a line, as grades of a disease are
        places = torch.arange(shape[-1], dtype=torch.float64)
        return (places[:, None] - places).abs()


@loss(
    title="Generalised Wasserstein Dice",
    tasks=("segmentation",),
    aliases=("gwdl",),
    range=(0, 1),
    requires=(SizeRange("C", least=2),),
    work="N C C/64 ...",
)
def generalized_wasserstein_dice(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex(ignore="ignore_index"))],
    *,
    distance_matrix: Annotated[tuple[tuple[float, ...], ...], Values("C C", Distances())],
    weighting: Literal["default", "generalized"] = "default",
    smooth: Annotated[float, Ge(0)] = 1e-5,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Dice overlap in which confusing similar classes costs less: ordered or nested labels.

    Formula:
        1 - \frac{2 \sum_i a_i (1 - d_i) + s}{2 \sum_i a_i (1 - d_i) + \sum_i d_i + s},
        \quad d_i = \sum_c M_{y_i c}\, p_{ic},\; a_i = [y_i \ne 0]

    Args:
        logits: Scores of each pixel, with a class axis; a softmax makes them probabilities.
        targets: Class index of each pixel.
        distance_matrix: How bad it is to take one class (row, the true one) for another; scaled so that the
            worst is 1.
        weighting: Whether every pixel but the background weighs 1 in the overlap, or each pixel one over the
            size of its class plus one, the errors too.
        smooth: Added above and below, so that a perfect image of background costs nothing: pixels, or classes
            where each pixel weighs one over the size of its class.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Some mistakes are worse than others, as between grades of a disease or parts of an organ.

    Pitfalls:
        With the default weighting class 0 is the background: right there, a pixel adds nothing to the
        overlap. Only ratios within the matrix matter. An image without a valid pixel costs 0 and still counts in
        the mean over images.

    Sources:
        - Fidon et al. (2017), Generalised Wasserstein Dice Score, https://arxiv.org/abs/1707.00478
    """
    worst = max(map(max, distance_matrix)) or 1.0
    distances = constant(distance_matrix, logits) / worst
    logits, targets, valid = counted(logits, targets, "multiclass", ignore_index)
    costs = torch.einsum("kc,nc...->nk...", distances, softmax(logits))
    errors = kept(costs.gather(1, targets.unsqueeze(1)), valid)
    if weighting == "default":
        # pixels that do not count have class 0
        weights = (targets != 0).to(errors).unsqueeze(1)
        misses = total(errors)
    else:
        truths = one_hot(targets, logits.shape[1])
        sizes = total(truths if valid is None else truths & valid).to(errors.dtype)
        weights = kept(_at(1 / (sizes + 1), targets), valid)
        misses = total(weights * errors)
    return overlap_loss(2 * total(weights * (1 - errors)), misses, smooth).squeeze(-1)


def _at(values: Tensor, targets: Tensor) -> Tensor:
    """Return each class's value, ``[N, C]``, at the pixels of that class, ``[N, 1, ...]``."""
    flat = targets.unsqueeze(-1).flatten(1)
    return values.gather(1, flat).reshape(targets.shape).unsqueeze(1)
