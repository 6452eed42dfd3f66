"""Cross entropy of the hardest pixels only, chosen anew in every call."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Prediction, SizeRange, Target, Unreduced
from service.losses.segmentation.masks import counted, ratio
from service.losses.surprise import surprise


@loss(
    title="Cross entropy with online hard example mining",
    tasks=("segmentation",),
    aliases=("ohem",),
    keywords=(
        "hard example mining",
        "hard negative mining",
        "OHEM",
    ),
    range=(0, None),
    requires=(SizeRange("C", least=2),),
)
def ohem_cross_entropy(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex(ignore="ignore_index"))],
    *,
    threshold: Annotated[float, Gt(0), Le(1)] | None = 0.7,
    min_kept: Annotated[int, Ge(1)] = 100_000,
    ignore_index: int = -100,
) -> Annotated[Tensor, Unreduced("")]:
    r"""Mean cross entropy of the pixels that the network is unsure of: easy street, few pedestrians.

    Formula:
        \frac{1}{k} \sum_{i=1}^{k} \ell_{(i)}, \quad \ell_i = -\ln p_{i y_i} \text{ sorted downwards},\;
        k = \min(n, \max(m, \#\{i : p_{i y_i} < t\}))

    Args:
        logits: Scores of each pixel, with a class axis.
        targets: Class index of each pixel.
        threshold: Probability of the true class below which a pixel is hard; null to keep `min_kept` only.
        min_kept: Least number of pixels that count, of the whole batch; all if there are fewer.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Most pixels are soon easy, and their number drowns the few that still are wrong.

    Pitfalls:
        The pixels are chosen over the whole batch, not in each image. In a call of fewer pixels than
        `min_kept` it is plain cross entropy.

    Sources:
        - Shrivastava et al. (2016), Training Region-based Object Detectors with Online Hard Example Mining,
          https://arxiv.org/abs/1604.03540
    """
    surprises, valid = _surprises(logits, targets, ignore_index)
    # compared as logarithms: of two equal ones neither exponential could be the smaller by rounding
    hard = valid & (surprises > (math.inf if threshold is None else -math.log(threshold)))
    kept = torch.minimum(valid.sum(), hard.sum().clamp(min=min_kept))
    return _mean_of_largest(surprises, kept)


@loss(
    title="Bootstrapped cross entropy",
    tasks=("segmentation",),
    aliases=("topk_cross_entropy",),
    range=(0, None),
    requires=(SizeRange("C", least=2),),
)
def bootstrapped_cross_entropy(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex(ignore="ignore_index"))],
    *,
    fraction: Annotated[float, Gt(0), Le(1)] = 0.1,
    ignore_index: int = -100,
) -> Annotated[Tensor, Unreduced("")]:
    r"""Mean cross entropy of a fixed share of pixels, the hardest ones: easy or dominant background.

    Formula:
        \frac{1}{k} \sum_{i=1}^{k} \ell_{(i)}, \quad \ell_i = -\ln p_{i y_i} \text{ sorted downwards},\;
        k = \max(1, \lfloor f n \rfloor)

    Args:
        logits: Scores of each pixel, with a class axis.
        targets: Class index of each pixel.
        fraction: Share of the pixels of the whole batch that count.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Masks are dominated by pixels that are easy from the start.

    Pitfalls:
        The hardest pixels are also the wrongly labelled ones: a small share learns their noise. They are
        chosen over the whole batch, not in each image.

    Sources:
        - Wu et al. (2016), Bridging Category-level and Instance-level Semantic Image Segmentation,
          https://arxiv.org/abs/1605.06885
    """
    surprises, valid = _surprises(logits, targets, ignore_index)
    pixels = valid.sum()
    # in float64 whatever the logits are: float32 would round the product up to the next integer
    share = (fraction * pixels.double()).floor().clamp(min=1).to(pixels.dtype)
    return _mean_of_largest(surprises, torch.minimum(pixels, share))


def _surprises(logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the cross entropy of each pixel of the batch, -1 where it does not count, and where it does."""
    logits, targets, valid = counted(logits, targets, "multiclass", ignore_index)
    assert valid is not None
    surprises = surprise(logits, targets).unsqueeze(1)
    return torch.where(valid, surprises, -1).flatten(), valid.flatten()


def _mean_of_largest(values: Tensor, number: Tensor) -> Tensor:
    """Average the largest of some values; of none it is 0."""
    ranked = values.sort(descending=True).values
    among = torch.arange(values.shape[0], device=values.device) < number
    return ratio(torch.where(among, ranked, 0).sum(), number, empty=0)
