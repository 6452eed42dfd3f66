"""Shares of right decisions: accuracy, Hamming, exact match."""

from collections.abc import Callable, Iterator, Mapping
from math import sqrt
from operator import eq
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from scipy.special import ndtri
from torch import Tensor

from service.catalogue.domains import Facts
from service.catalogue.metric import Finish, Flaw, Params, Value, Weights, metric
from service.catalogue.spec import Condition, Prediction, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.classification.decisions import (
    DECIDED,
    PREDICTED,
    TRUE,
    NumClasses,
    Predictions,
    Targets,
    Task,
    counting,
    largest,
    positive,
)
from service.metrics.finishes import column, ratio

Shares = Callable[[Table, Params], tuple[Array, Array]]
"""What counts of each row, and out of how much: ``[N]``, ``[N]``."""
TOP_K = Condition(
    "/params/top_k",
    "1, or scores of classes [N, C]",
    lambda facts: facts.params["top_k"],
    lambda facts: facts.params["top_k"] == 1 or _has_classes(facts),
)


def labels_right(rows: Table, params: Params) -> tuple[Array, Array]:
    """Return how many labels of each row are right, and how many count."""
    right, counts = _marks(rows)
    return (right & counts).sum(1, dtype=np.float64), counts.sum(1, dtype=np.float64)


def rows_right(rows: Table, params: Params) -> tuple[Array, Array]:
    """Return whether all labels of each row that count are right, and whether any count."""
    right, counts = _marks(rows)
    whole = np.where((right | ~counts).all(axis=1), 1.0, 0.0)
    some = np.where(counts.any(axis=1), 1.0, 0.0)
    return whole * some, some


def labels_wrong(rows: Table, params: Params) -> tuple[Array, Array]:
    """Return how many labels of each row are wrong, and how many count."""
    right, counts = labels_right(rows, params)
    return counts - right, counts


def as_peers(rows: Table, params: Params) -> tuple[Array, Array]:
    """Return whole rows as scikit-learn does, or labels."""
    return (rows_right if params["like"] == "sklearn" else labels_right)(rows, params)


def share_of(shares: Shares) -> Finish:
    """Return the finish of the weighted sum of what counts over that of how much."""

    def finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
        part, whole = shares(rows, params)
        every = bool((whole == 1).all())

        def run(weights: Weights) -> Value:
            total = weights.sum() if every else (weights * whole).sum()
            return ratio(float((weights * part).sum()), float(total), "no sample counts")

        return run

    return finish


def share_of_each(shares: Shares) -> Callable[[Table, Params], Array]:
    """Return the share of each row alone."""

    def each(rows: Table, params: Params) -> Array:
        part, whole = shares(rows, params)
        return np.divide(part, whole, out=np.full(len(rows), np.nan), where=whole > 0)

    return each


def share_interval(
    shares: Shares,
) -> Callable[[Table, Params, Weights, float], tuple[float, float] | None]:
    """Return Wilson's score interval of a share; None if rows have several labels.

    Rows of unequal weight count as the effective sample size of Kish (1965): as many rows of equal weight.
    """

    def interval(rows: Table, params: Params, weights: Weights, level: float) -> tuple[float, float] | None:
        part, whole = shares(rows, params)
        total = float((weights * whole).sum())
        if not total or (whole > 1).any():
            return None
        share, z = float((weights * part).sum()) / total, float(ndtri((1 + level) / 2))
        count = total**2 / float((weights**2 * whole).sum())
        centre = share + z * z / (2 * count)
        spread = z * sqrt(share * (1 - share) / count + z * z / (4 * count**2))
        scale = 1 + z * z / count
        # rounding must not leave the share itself out
        return max(0.0, min(share, (centre - spread) / scale)), min(
            1.0, max(share, (centre + spread) / scale)
        )

    return interval


def flaws_of_kinds(inputs: Mapping[str, Any], params: Params) -> Iterator[Flaw]:
    """Yield predictions that are texts if targets are not, or the reverse."""
    predicted, expected = (isinstance(inputs[name], list) for name in ("predictions", "targets"))
    if predicted != expected:
        words = ("numbers", "texts")
        yield Flaw(("predictions",), f"{words[expected]}, as targets are", words[predicted])


def rightness(
    predictions: Tensor,
    targets: Tensor,
    task: Task | None,
    threshold: float,
    from_logits: bool,
    ignore_index: int | None,
    top_k: int = 1,
) -> Columns:
    """Return the columns ``right`` and ``counts``, ``[N]`` or ``[N, L]``."""
    counts = None if ignore_index is None else targets != ignore_index
    if task == "binary" or targets.dim() == 2:
        right = positive(predictions, threshold, from_logits) == (targets == 1)
    elif predictions.dim() == 1:
        right = predictions == targets
    elif top_k == 1:
        right = largest(predictions) == targets
    else:
        right = _rank(predictions, targets if counts is None else torch.where(counts, targets, 0)) < top_k
    return {"right": column(right), **counting(counts)}


@metric(
    title="Accuracy",
    tasks=("classification",),
    finish=share_of(as_peers),
    each=share_of_each(as_peers),
    interval=share_interval(as_peers),
    likes=("sklearn",),
    requires=(*DECIDED, TOP_K),
    aliases=("accuracy_score", "top_k_accuracy"),
)
def accuracy(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
    top_k: Annotated[int, Ge(1)] = 1,
) -> Columns:
    r"""The share of decisions that are right: of samples, or of labels if a sample has several.

    Formula:
        \frac{1}{N} \sum_n [\hat y_n = y_n]

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.
        top_k: A sample is right if its class is among this many with the highest scores; of equal ones the first is higher.

    Use when:
        Classes are about equally frequent and all errors cost the same.

    Pitfalls:
        If one class is frequent, always predicting it looks good: see balanced_accuracy. A score equal to `threshold` is
        negative. Of several labels, most are usually absent, and predicting none is accurate: see exact_match and f1; with
        ``like`` sklearn a sample is right if all its labels are.

    Sources:
        - scikit-learn, accuracy_score and top_k_accuracy_score
    """
    return rightness(predictions, targets, task, threshold, from_logits, ignore_index, top_k)


@metric(
    title="Hamming distance",
    tasks=("classification",),
    finish=share_of(labels_wrong),
    each=share_of_each(labels_wrong),
    interval=share_interval(labels_wrong),
    requires=DECIDED,
    higher_is_better=False,
    aliases=("hamming_distance",),
    keywords=("error rate",),
)
def hamming(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The share of decisions that are wrong: of samples, or of labels if a sample has several.

    Formula:
        \frac{1}{NL} \sum_{n,l} [\hat y_{nl} \ne y_{nl}]

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        Samples have several labels, and each wrong one costs the same.

    Pitfalls:
        Lower is better. With few labels a sample, predicting none has a small distance.

    Sources:
        - scikit-learn, hamming_loss
    """
    return rightness(predictions, targets, task, threshold, from_logits, ignore_index)


@metric(
    title="Exact match",
    tasks=("classification", "nlp"),
    finish=share_of(rows_right),
    each=share_of_each(rows_right),
    interval=share_interval(rows_right),
    requires=DECIDED,
    check=flaws_of_kinds,
    aliases=("subset_accuracy",),
)
def exact_match(
    predictions: Annotated[Tensor | list[str], Prediction(PREDICTED, texts=True)],
    targets: Annotated[Tensor | list[str], Target(TRUE, texts=True)],
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The share of samples of which all labels are right.

    Formula:
        \frac{1}{N} \sum_n \prod_l [\hat y_{nl} = y_{nl}]

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``; or texts.
        targets: Classes ``[N]``, or 0 and 1; or texts.
        task: What predictions of one dimension are; needed for those only, not for texts.
        num_classes: The number of classes, if predictions are classes.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count; nor does a sample without other labels.

    Use when:
        A sample is of use only if all its labels are right.

    Pitfalls:
        One wrong label of a hundred costs as much as a hundred: see hamming. Without several labels it is the accuracy. Texts are
        compared character by character: see squad for answers without articles and punctuation.

    Sources:
        - scikit-learn, accuracy_score of multilabel targets
    """
    if isinstance(predictions, list) or isinstance(targets, list):
        return {"right": np.array([*map(eq, predictions, targets)], bool)}
    return rightness(predictions, targets, task, threshold, from_logits, ignore_index)


def _marks(rows: Table) -> tuple[Array, Array]:
    """Return which labels are right, and which count: ``[N, L]``, with L = 1 if a row has one."""
    right = rows["right"]
    counts = rows["counts"] if "counts" in rows.columns else np.ones(right.shape, bool)
    return (right[:, None], counts[:, None]) if right.ndim == 1 else (right, counts)


def _rank(scores: Tensor, targets: Tensor) -> Tensor:
    """Return how many classes come before the target's: those with a higher score, and the first of equal ones."""
    own = scores.gather(1, targets[:, None])
    before = torch.arange(scores.shape[1], device=scores.device) < targets[:, None]
    return ((scores > own) | (scores == own) & before).sum(1)


def _has_classes(facts: Facts) -> bool:
    """Return whether predictions are scores of classes."""
    return facts.inputs["predictions"].dim() == 2 and facts.inputs["targets"].dim() == 1
