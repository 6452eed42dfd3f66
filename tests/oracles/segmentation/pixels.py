"""Masks as lists of pixels, one image and class at a time: how the references of this family see them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, softmax

Array = NDArray[Any]


def class_maps(logits: Array, targets: Array, mode: str, background: bool = True) -> Array:
    """Return probabilities and truths of each image and class: ``[2, N, C, ...]``."""
    if mode == "multiclass":
        p = softmax(logits, axis=1)
        t = np.stack([targets == c for c in range(logits.shape[1])], axis=1).astype(float)
    else:
        p, t = expit(logits), targets.astype(float)
    if mode == "binary":
        p, t = p[:, None], t[:, None]
    return np.stack([p, t])[:, :, 0 if background else 1 :]


def valid_maps(
    logits: Array, targets: Array, mode: str, ignore_index: int | None, background: bool = True
) -> Array:
    """Return which pixels of each image and class count: ``[N, C, ...]``."""
    valid = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
    if mode != "multilabel":
        valid = np.repeat(valid[:, None], logits.shape[1] if mode == "multiclass" else 1, axis=1)
    return valid[:, 0 if background else 1 :]


def pixel_lists(
    logits: Array,
    targets: Array,
    mode: str,
    *,
    ignore_index: int | None = None,
    include_background: bool = True,
    reduce_batch: bool = False,
) -> list[list[tuple[Array, Array]]]:
    """Return the valid pixels' probabilities and truths, by image (or the batch as one) and class."""
    p, t = class_maps(logits, targets, mode, include_background)
    valid = valid_maps(logits, targets, mode, ignore_index, include_background)
    if reduce_batch:
        p, t, valid = (np.swapaxes(maps, 0, 1)[None] for maps in (p, t, valid))
    return [
        [(p[n, c][valid[n, c]], t[n, c][valid[n, c]]) for c in range(p.shape[1])] for n in range(p.shape[0])
    ]


def per_region(
    of_class: Callable[[Array, Array], float],
    logits: Array,
    targets: Array,
    *,
    mode: str,
    reduce_batch: bool = False,
    **masking: Any,
) -> Array:
    """Apply a reference of one mask to each, in the shape of the unreduced loss."""
    lists = pixel_lists(logits, targets, mode, reduce_batch=reduce_batch, **masking)
    values = np.array([[of_class(p, t) for p, t in image] for image in lists])
    return unbatched(values, mode, reduce_batch)


def unbatched(values: Array, mode: str, reduce_batch: bool = False) -> Array:
    """Drop the axes that a binary mask and a reduced batch do not have."""
    values = values[..., 0] if mode == "binary" else values
    return values[0] if reduce_batch else values


def score(numerator: Any, denominator: Any) -> float:
    """Divide, where nothing over nothing is a perfect score."""
    return float(numerator / denominator) if denominator else 1.0


def lost(score: float, log_loss: bool) -> float:
    """Return the loss of a score."""
    return float(-np.log(max(score, 1e-7))) if log_loss else 1 - score


def surprises(
    logits: Array, targets: Array, mode: str, ignore_index: int | None
) -> Iterator[tuple[Array, Array]]:
    """Yield each image's valid cross entropies and probabilities of being wrong."""
    for z, t in zip(logits, targets, strict=True):
        keep = np.ones(t.shape, bool) if ignore_index is None else t != ignore_index
        if mode == "multiclass":
            z, y = np.moveaxis(z, 0, -1)[keep], t[keep]
            rest = z - z[np.arange(len(y)), y][:, None]
            # log of a sum of ratios, with the true class's own ratio of 1 in it
            with np.errstate(over="ignore"):
                yield np.logaddexp.reduce(rest, axis=1), -np.expm1(-np.logaddexp.reduce(rest, axis=1))
        else:
            z, y = z[keep], t[keep]
            yield -y * log_expit(z) - (1 - y) * log_expit(-z), 1 - (expit(z) * y + expit(-z) * (1 - y))
