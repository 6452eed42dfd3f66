"""Losses of a detector's dense outputs: class scores that also state quality, box sides as bins."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Between, Domain, Facts
from service.catalogue.spec import Prediction, SizeRange, Target, Unreduced
from service.losses.surprise import binary_surprise, soft_surprise


@dataclass(frozen=True, slots=True)
class BinPosition(Domain):
    """Positions on a line whose bins 0, 1, … are counted by the dimension called ``dim``."""

    dim: str = "K"

    @property
    def exact(self) -> bool:
        return True

    def describe(self) -> str:
        return f"numbers from 0 to {self.dim} - 1"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= 0) & (values <= facts.size(self.dim) - 1)

    def range(self, facts: Facts) -> tuple[float, float]:
        return 0, facts.size(self.dim) - 1

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return (facts.size(self.dim) - 1) * torch.rand(shape, generator=rng, dtype=torch.float64)


@loss(
    title="Distribution focal loss (DFL)",
    tasks=("detection",),
    aliases=("dfl",),
    requires=(SizeRange("K", least=2),),
    work="logits",
    range=(0, None),
)
def distribution_focal(
    logits: Annotated[Tensor, Prediction("... K")],
    targets: Annotated[Tensor, Target("...", BinPosition("K"))],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Cross entropy with the two bins around a real number: a box side as a distribution.

    Formula:
        -(l + 1 - y) \ln p_l - (y - l) \ln p_{l + 1},
        \quad p = \mathrm{softmax}(z), \quad l = \min(\lfloor y \rfloor, K - 2)

    Args:
        logits: A score for each of the bins 0, …, K - 1, along the last axis.
        targets: The true position, in bins: from 0 to K - 1.

    Use when:
        Box sides are uncertain, and a detector predicts a distribution over lengths in place of one.

    Pitfalls:
        Targets are in units of bins: divide distances by the stride first. The last bin, K - 1, is a valid
        target. The least loss is the entropy of the two weights, not 0.

    Sources:
        - Li et al. (2020), Generalized Focal Loss, https://arxiv.org/abs/2006.04388
    """
    bins = torch.arange(logits.shape[-1], device=targets.device)
    return soft_surprise(logits, torch.relu(1 - (targets[..., None] - bins).abs()))


@loss(
    title="Quality focal loss (QFL)",
    tasks=("detection",),
    aliases=("qfl",),
    work="logits",
    range=(0, None),
)
def quality_focal(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", Between(0, 1))],
    *,
    beta: Annotated[float, Ge(0)] = 2.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Focal loss for soft targets: one score that is class probability and box quality together.

    Formula:
        |y - \sigma(z)|^\beta \, \mathrm{BCE}(z, y)

    Args:
        logits: Score of each class at each place, before the sigmoid.
        targets: IoU of the predicted box with its object in the column of the object's class, else 0.
        beta: How much well estimated scores are played down; 0 is binary cross entropy.

    Use when:
        A dense detector ranks its boxes by a single score for class and localisation.

    Pitfalls:
        One number for each element: to normalise as the paper does, reduce by `sum` and divide by the number
        of positives. The factor before the cross entropy is differentiated too.

    Sources:
        - Li et al. (2020), Generalized Focal Loss, https://arxiv.org/abs/2006.04388
    """
    gap = (targets - logits.sigmoid()).abs()
    exact = gap == 0
    # a power below 1 is infinitely steep at 0, where scores saturate
    factor = torch.where(exact, float(beta == 0), torch.where(exact, 1.0, gap).pow(beta))
    return factor * binary_surprise(logits, targets, 1 - targets)


@loss(
    title="Varifocal loss (VFL)",
    tasks=("detection",),
    aliases=("vfl",),
    work="logits",
    range=(0, None),
)
def varifocal(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", Between(0, 1, marks=True))],
    *,
    alpha: Annotated[float, Ge(0)] = 0.75,
    gamma: Annotated[float, Ge(0)] = 2.0,
    iou_weighted: bool = True,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Cross entropy with the IoU as target that plays down easy negatives but no positive.

    Formula:
        \begin{cases} y \, \mathrm{BCE}(z, y) & y > 0 \\
        \alpha \, \sigma(z)^\gamma \, \mathrm{BCE}(z, 0) & y = 0 \end{cases}

    Args:
        logits: Score of each class at each place, before the sigmoid.
        targets: IoU of the predicted box with its object in the column of the object's class, else 0.
        alpha: Weight of the negatives.
        gamma: How much easy negatives are played down.
        iou_weighted: Whether a positive weighs as much as its target; otherwise it weighs 1.

    Use when:
        A dense detector has few positives, and boxes should be ranked by how well they fit.

    Pitfalls:
        One number for each element: to normalise as the paper does, reduce by `sum` and divide by the number
        of positives. The factor of the negatives is differentiated too.

    Sources:
        - Zhang et al. (2021), VarifocalNet, https://arxiv.org/abs/2008.13367
    """
    # a power of 0 is 1 at minus infinity, too
    negative = alpha * torch.exp(gamma * F.logsigmoid(logits).clamp(min=torch.finfo(logits.dtype).min))
    positive = targets if iou_weighted else torch.ones_like(targets)
    weight = torch.where(targets > 0, positive, negative)
    return weight * binary_surprise(logits, targets, 1 - targets)
