"""Soft masks from logits and targets in every mode, with which all losses of this family start."""

from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from service.catalogue.domains import Between, ClassIndex, Facts
from service.catalogue.spec import Condition, Form, Input, Prediction, Target, given
from service.losses.classification.class_axis import one_hot
from service.losses.stacking import Stackable

Mode = Literal["multiclass", "multilabel", "binary"]

_MULTICLASS = given(mode="multiclass")
_MULTILABEL = given(mode="multilabel")
_BINARY = given(mode="binary")

SOFT = Between(ignore="ignore_index", rounded=True)
"""Shares of pixels, or the value of pixels that do not count."""


def _logits(*spaces: str) -> Input:
    """Describe logits in the three modes over each of these spaces. Only binary masks have no class axis."""
    modes = (("N C", _MULTICLASS), ("N C", _MULTILABEL), ("N", _BINARY))
    return Prediction([Form(f"{dims} {space}", when=mode) for space in spaces for dims, mode in modes])


def _targets(*spaces: str, soft: Between = SOFT) -> Input:
    """Describe the truth: class indices, or a number from 0 to 1 for each element of the logits.

    ``ignore_index`` may stand for pixels that do not count.
    """
    modes = (
        ("N", ClassIndex(ignore="ignore_index"), _MULTICLASS),
        ("N C", soft, _MULTILABEL),
        ("N", soft, _BINARY),
    )
    return Target([Form(f"{dims} {space}", domain, mode) for space in spaces for dims, domain, mode in modes])


MaskLogits = Annotated[Tensor, _logits("...")]
MaskTargets = Annotated[Tensor, _targets("...")]
IgnorableTargets = Annotated[Tensor, _targets("...", soft=Between(ignore="ignore_index"))]
"""As `MaskTargets`, but soft masks keep their digits in half types."""
FlatMaskLogits = Annotated[Tensor, _logits("H W")]
FlatMaskTargets = Annotated[Tensor, _targets("H W")]
FlatOrVolumeLogits = Annotated[Tensor, _logits("H W", "D H W")]
FlatOrVolumeTargets = Annotated[Tensor, _targets("H W", "D H W")]

PER_CLASS = [
    Form("N C", when=given(include_background=True)),
    Form("N C-1", when=given(include_background=False)),
    Form("N"),
]
"""A number for each image and class; binary masks have one class, and no axis for it."""


def _classes(facts: Facts) -> int:
    """Return the number of classes of the logits, 1 if they have no axis for them."""
    return facts.size("C") if "C" in facts.sizes else 1


TWO_CLASSES = Condition(
    "/inputs/logits",
    "at least 2 classes in mode multiclass",
    _classes,
    lambda facts: facts.params["mode"] != "multiclass" or _classes(facts) >= 2,
)
HAS_FOREGROUND = Condition(
    "/params/include_background",
    "true where there is only one class",
    lambda facts: "false",
    lambda facts: facts.params["include_background"] or _classes(facts) >= 2,
)
CLASSES = (TWO_CLASSES, HAS_FOREGROUND)
"""Conditions on the classes of every loss with a ``mode`` and ``include_background``."""


class Masks(NamedTuple):
    """Probabilities p and truths y from 0 to 1, ``[N, C, ...]``: all are 0 where a pixel does not count.

    ``hits`` is p y, ``false`` p (1 - y), and ``missed`` (1 - p) y with all digits where p is nearly 1. ``valid``
    says which pixels count; it broadcasts to the masks, and is None where all do.
    """

    probabilities: Tensor
    truths: Tensor
    hits: Tensor
    false: Tensor
    missed: Tensor
    valid: Tensor | None


def soft_masks(
    logits: Tensor,
    targets: Tensor,
    mode: Mode,
    *,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Masks:
    """Return the masks of every class; a binary mask has one."""
    logits, targets, valid = counted(logits, targets, mode, ignore_index)
    if mode == "multiclass":
        truths = one_hot(targets, logits.shape[1])
        truths = (truths if valid is None else truths & valid).to(logits.dtype)
        probabilities = kept(softmax(logits), valid)
        hits = probabilities * truths
        false = probabilities - hits
        # what a class lacks is what the others have; one minus its own probability is rounded to u
        missed = truths * false.sum(1, keepdim=True)
    else:
        probabilities, truths = kept(logits.sigmoid(), valid), targets
        hits = probabilities * truths
        false, missed = probabilities * (1 - truths), truths * (-logits).sigmoid()
    masks = Masks(probabilities, truths, hits, false, missed, valid)
    return masks if include_background else _foreground(masks, mode)


def _foreground(masks: Masks, mode: Mode) -> Masks:
    """Leave class 0 out."""
    probabilities, truths, hits, false, missed, valid = masks
    valid = valid if valid is None or mode == "multiclass" else valid[:, 1:]
    return Masks(probabilities[:, 1:], truths[:, 1:], hits[:, 1:], false[:, 1:], missed[:, 1:], valid)


def counted(
    logits: Tensor, targets: Tensor, mode: Mode, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return logits and targets that are 0 where a pixel does not count, and which pixels do.

    All have a class axis, except the targets of mode multiclass; there the valid pixels have one of size 1.
    """
    if mode == "binary":
        logits, targets = logits.unsqueeze(1), targets.unsqueeze(1)
    if ignore_index is None:
        return logits, targets, None
    valid = targets != ignore_index
    if mode != "multiclass":
        # a half type may have rounded the ignored value; nothing else can be outside of [0, 1]
        valid = valid & (targets >= 0) & (targets <= 1)
    targets = torch.where(valid, targets, 0)
    if mode == "multiclass":
        valid = valid.unsqueeze(1)
    # the logits themselves are replaced: a NaN that does not count must not reach a softmax's gradient
    return torch.where(valid, logits, 0), targets, valid


def kept(maps: Tensor, valid: Tensor | None, other: float = 0.0) -> Tensor:
    """Return maps with a number where pixels do not count."""
    return maps if valid is None else torch.where(valid, maps, other)


def softmax(logits: Tensor) -> Tensor:
    """Return the probabilities of classes ``[N, C, ...]``; a single infinite logit has all of it."""
    return _Softmax.apply(logits, 1 - logits.dim())


class _Softmax(Stackable):
    """Torch's own, of finite logits; it needs no derivative of the bound, as its slope is 0 there."""

    @staticmethod
    def forward(logits: Tensor, axis: int) -> Tensor:
        return logits.clamp(max=torch.finfo(logits.dtype).max).softmax(axis)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.axis = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (shares,) = ctx.saved_tensors
        dtype = shares.dtype
        return torch.ops.aten._softmax_backward_data(upstream[0], shares, ctx.axis, dtype), None


def total(maps: Tensor) -> Tensor:
    """Sum ``[N, C, ...]`` over space, which may have no axis: ``[N, C]``."""
    return maps.unsqueeze(-1).flatten(2).sum(-1)


def average(maps: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average ``[N, C, ...]`` over space, which may have no axis: ``[N, C]``.

    Where some pixels do not count, maps are 0 there; a map without any valid pixel has a mean of 0.
    """
    if valid is None:
        return maps.unsqueeze(-1).flatten(2).mean(-1)
    return ratio(total(maps), total(valid), empty=0)


def ratio(numerator: Tensor, denominator: Tensor, empty: float) -> Tensor:
    """Divide; where the denominator is 0 return ``empty``, with a gradient of 0."""
    nothing = denominator == 0
    return torch.where(nothing, empty, numerator / torch.where(nothing, 1, denominator))


def without_class_axis(loss: Tensor, mode: Mode) -> Tensor:
    """Drop the last axis, over classes, where binary masks have but one."""
    return loss.squeeze(-1) if mode == "binary" else loss
