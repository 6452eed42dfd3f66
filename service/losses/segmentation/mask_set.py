"""The criterion of MaskFormer: masks and classes of a set of queries, matched one to one with the true masks."""

from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Between
from service.catalogue.rounds import rounds
from service.catalogue.spec import Diagnostic, Example, Form, Prediction, Target, Unreduced
from service.losses.objects import OBJECTS, ObjectCounts
from service.losses.sets import (
    LAYERS,
    MATCHING,
    Classifier,
    ObjectLabels,
    focal_losses,
    match_objects,
    read_scenes,
)
from service.losses.stacking import Stackable
from service.losses.surprise import softplus


class MaskSetLoss(NamedTuple):
    """The weighted total, the query of each true mask, and the terms before they are weighed."""

    loss: Annotated[Tensor, Unreduced("")]
    matching: Annotated[Tensor, Diagnostic(MATCHING, upto="counts")]
    class_: Annotated[Tensor, Diagnostic(LAYERS)]
    mask: Annotated[Tensor, Diagnostic(LAYERS)]
    dice: Annotated[Tensor, Diagnostic(LAYERS)]


@loss(
    title="MaskFormer",
    tasks=("segmentation", "instance_segmentation"),
    aliases=("maskformer", "mask_set_criterion"),
    keywords=(
        "MaskFormer",
        "Mask2Former",
        "panoptic segmentation",
        "universal segmentation",
        "Hungarian matching",
        "bipartite matching",
        "set prediction",
    ),
    on_cpu=True,
    requires=OBJECTS,
    example=Example(sizes={"L": 2, "B": 2, "Q": 3, "K": 4, "M": 3, "...": (2, 3)}),
    work=(
        *("2 mask_logits", "3 L M ...", "3 M ...", "L M Q/64 ...", "M Q/64 ..."),
        *("4 L M Q", "4 M Q", "L M M Q/48", "M M Q/48", "L B M", "B M", "2048 L B", "2048 B", "2 logits"),
    ),
    range=(0, None),
)
def mask_set(
    logits: Annotated[Tensor, Prediction((Form("B Q K"), Form("L B Q K")))],
    mask_logits: Annotated[Tensor, Prediction((Form("B Q ..."), Form("L B Q ...")))],
    labels: Annotated[Tensor, Target("M", ObjectLabels())],
    true_masks: Annotated[Tensor, Target("M ...", Between())],
    counts: Annotated[Tensor, Target("B", ObjectCounts())],
    *,
    class_cost: Annotated[float, Ge(0)] = 1.0,
    mask_cost: Annotated[float, Ge(0)] = 20.0,
    dice_cost: Annotated[float, Ge(0)] = 1.0,
    class_weight: Annotated[float, Ge(0)] = 1.0,
    mask_weight: Annotated[float, Ge(0)] = 20.0,
    dice_weight: Annotated[float, Ge(0)] = 1.0,
    no_object_weight: Annotated[float, Ge(0)] = 0.1,
    focal_alpha: Annotated[float, Ge(0), Le(1)] | None = 0.25,
    focal_gamma: Annotated[float, Ge(0)] = 2.0,
    num_masks: Annotated[float, Ge(0)] | None = None,
) -> MaskSetLoss:
    r"""Matches queries with true masks one to one, then adds up class, focal and Dice losses: mask transformers.

    Formula:
        \lambda_c \frac{\sum_i w_{y_i} (-\ln p_i(y_i))}{\sum_i w_{y_i}} + \frac{1}{n} \sum_j \Bigl(
        \frac{\lambda_m}{P} \sum_x \mathrm{focal}(z_{\sigma(j) x}, m_{jx})
        + \lambda_d \Bigl(1 - \frac{2 \sum_x s_{\sigma(j) x} m_{jx} + 1}
        {\sum_x s_{\sigma(j) x} + \sum_x m_{jx} + 1}\Bigr)\Bigr), \quad s = \mathrm{sigmoid}(z), \quad
        n = \max(\text{num masks}, 1)

    Args:
        logits: Scores of each query (Q) of each image (B): K columns, a class each and a last one for no
            object; perhaps of each layer of the decoder (L).
        mask_logits: The mask of each query, before the sigmoid: at all pixels, or at P points.
        labels: The class of each true mask, those of the first image first.
        true_masks: The true masks of all images in the same order, at the same pixels or points; where they are
            soft, costs of a match are the mean of those inside and outside.
        counts: How many true masks each image has.
        class_cost: Weight of minus the probability of the class in the cost of a match.
        mask_cost: Weight of the focal loss of the mask in the cost of a match.
        dice_cost: Weight of the Dice loss of the mask in the cost of a match.
        class_weight: Weight of the class loss in the total.
        mask_weight: Weight of the focal loss of masks in the total.
        dice_weight: Weight of the Dice loss of masks in the total.
        no_object_weight: w of no object; that of a class is 1.
        focal_alpha: Weight of pixels inside the mask, that of others is one minus it; null weighs none.
        focal_gamma: How fast easy pixels fade; 0 leaves binary cross entropy.
        num_masks: The number that sums over masks are divided by, at least 1; null takes the number of true
            masks sent. Workers whose gradients are averaged send the mean of their numbers.

    Use when:
        Segments of any kind, things or regions, are predicted as a set of masks with a class each.

    Pitfalls:
        A batch with other numbers of true masks has another divisor, so the mean of shards is not the loss of
        the batch: send `num_masks`. No object is the last column, not the first. Mask2Former has binary cross
        entropy in place of the focal loss, on points that the client draws: send `focal_alpha` null,
        `focal_gamma` 0, class weight and cost 2, and 5 for those of mask and Dice. An image may have no true
        masks; where it has more than queries, those left over have no query (-1 in `matching`) and no loss. Each
        layer is matched on its own, and the value is the sum over layers. Predictions whose costs are not finite
        are refused.

    Sources:
        - Cheng et al. (2021), Per-Pixel Classification is Not All You Need for Semantic Segmentation,
          https://arxiv.org/abs/2107.06278
        - Cheng et al. (2022), Masked-attention Mask Transformer for Universal Image Segmentation,
          https://arxiv.org/abs/2112.01527
    """
    scenes = read_scenes(logits, labels, counts)
    masks = mask_logits.reshape(*scenes.logits.shape[:2], -1)
    truths = true_masks.reshape(len(labels), masks.shape[-1])
    total = max(float(len(labels)) if num_masks is None else num_masks, 1.0)
    classifier = Classifier(False, no_object_weight, focal_alpha, focal_gamma)
    with torch.no_grad():
        focal_costs, dice_costs = _Costs.apply(masks, truths, counts, focal_alpha, focal_gamma)
        costs = {
            "logits": class_cost * classifier.costs(scenes),
            "mask_logits": mask_cost * focal_costs + dice_cost * dice_costs,
        }
        matches = match_objects(scenes, costs, len(labels))
    of_class = classifier.loss(scenes, matches, total)
    matched, true = masks.flatten(0, 1)[matches.place], scenes.each(truths)
    focal = focal_losses(matched, true, focal_alpha, focal_gamma).mean(-1)
    mask, dice = (
        scenes.summed(torch.where(matches.found, term, 0.0)) / total for term in (focal, _dice(matched, true))
    )
    value = (class_weight * of_class + mask_weight * mask + dice_weight * dice).sum()
    return MaskSetLoss(value, matches.matching, of_class, mask, dice)


def _dice(logits: Tensor, truths: Tensor) -> Tensor:
    """Return the Dice loss of each mask ``[O, P]``."""
    inside = torch.sigmoid(logits)
    # what only one of the two covers, where one minus a quotient would lose the digits of a good fit
    missed = (inside * (1 - truths) + torch.sigmoid(-logits) * truths).sum(-1)
    return missed / (inside.sum(-1) + truths.sum(-1) + 1)


class _Costs(Stackable):
    """The focal and the Dice loss of each mask of a scene for each of its queries, ``[O, Q]`` both, in float64.

    Scene by scene, because a product of all masks with all queries would be that of images that do not belong together.
    """

    @staticmethod
    def forward(
        logits: Tensor, truths: Tensor, counts: Tensor, alpha: float | None, gamma: float
    ) -> tuple[Tensor, Tensor]:
        shape = (*logits.shape[:-3], -1, logits.shape[-2])
        calls = zip(logits[None].flatten(0, -4), truths[None].flatten(0, -3), _rows(counts), strict=True)
        found = [
            _of_scene(scene, some, alpha, gamma)
            for images, masks, each in calls
            for place, scene in zip(rounds(len(images)), images, strict=True)
            for some in [masks[each[place % len(each)]]]
        ]
        focal, dice = (torch.cat(parts).reshape(shape) for parts in zip(*found, strict=True))
        return focal, dice

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output)


def _rows(counts: Tensor) -> list[list[slice]]:
    """Return the objects of each image of each call."""
    found = counts[None].flatten(0, -2).cpu().numpy()
    ends = found.cumsum(-1)
    return [list(map(slice, *both)) for both in zip(ends - found, ends, strict=True)]


def _of_scene(logits: Tensor, truths: Tensor, alpha: float | None, gamma: float) -> tuple[Tensor, Tensor]:
    """Return the costs ``[M, Q]`` of the masks of one scene."""
    if not len(truths):
        nothing = logits.new_zeros(0, len(logits), dtype=torch.float64)
        return nothing, nothing
    logits, truths = logits.double(), truths.double()
    inside, surprise = torch.sigmoid(logits), softplus(logits)
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    # the focal losses of pixels outside the mask, and what they are more inside it
    outside = negative * inside**gamma * surprise
    more = positive * (1 - inside) ** gamma * (surprise - logits) - outside
    focal = (truths @ more.T + outside.sum(-1)) / logits.shape[-1]
    sizes = truths.sum(-1)[:, None] + inside.sum(-1)
    return focal, 1 - (2 * truths @ inside.T + 1) / (sizes + 1)
