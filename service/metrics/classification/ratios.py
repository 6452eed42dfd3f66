"""Ratios of counts by class: precision, recall, F, specificity, Jaccard, with all their averages."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from service.catalogue.metric import Finish, Number, Params, Undefined, Value, Weights, metric
from service.catalogue.table import Array, Columns, Table
from service.metrics.classification.decisions import (
    DECIDED,
    NUMBERED,
    REDRAW_COUNTS,
    Cells,
    NumClasses,
    Predictions,
    Targets,
    Task,
    cells_of,
    decide,
)
from service.metrics.finishes import ratio

REDRAW_AVERAGES = (*REDRAW_COUNTS, "64C", "64L", "64num_classes")
LIKES = ("sklearn", "torchmetrics")


@dataclass(frozen=True, slots=True)
class Tally:
    """Weights by class or label ``[C]``: true positives, false positives, false negatives, and targets of other classes."""

    matched: Array
    extra: Array
    missed: Array
    others: Array

    def summed(self) -> "Tally":
        """Return the sums over all classes, ``[1]``."""
        return Tally(*(getattr(self, field.name).sum(keepdims=True) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Quotient:
    """A ratio of counts. A class that ``lacks`` what is divided by has none; ``needs`` says what that is."""

    of: Callable[[Tally, Params], tuple[Array, Array]]
    lacks: str
    needs: str


PRECISION = Quotient(lambda t, _: (t.matched, t.matched + t.extra), "has no predictions", "predictions")
RECALL = Quotient(lambda t, _: (t.matched, t.matched + t.missed), "has no targets", "targets")
SPECIFICITY = Quotient(lambda t, _: (t.others - t.extra, t.others), "has no targets of others", "others")
NEITHER = "has neither targets nor predictions"
JACCARD = Quotient(
    lambda t, _: (t.matched, t.matched + t.extra + t.missed), NEITHER, "targets or predictions"
)


def _f_parts(tally: Tally, params: Params) -> tuple[Array, Array]:
    """Return what F divides, in counts, so that it is defined wherever precision or recall is."""
    square = params["beta"] ** 2
    above = (1 + square) * tally.matched
    return above, above + square * tally.missed + tally.extra


F = Quotient(_f_parts, NEITHER, "targets or predictions")


def tally_of(cells: Cells) -> Tally:
    """Count pairs by class or label, adding what is there rather than subtracting: weights may be fractions."""
    if cells.labels is not None:
        counts = np.zeros((cells.size, 2, 2))
        counts[cells.labels, cells.targets, cells.predictions] = cells.weights
        return Tally(counts[:, 1, 1], counts[:, 0, 1], counts[:, 1, 0], counts[:, 0].sum(1))
    right = cells.targets == cells.predictions
    matched = np.bincount(cells.targets[right], cells.weights[right], cells.size)
    extra = np.bincount(cells.predictions[~right], cells.weights[~right], cells.size)
    missed = np.bincount(cells.targets[~right], cells.weights[~right], cells.size)
    return Tally(matched, extra, missed, others_of(matched + missed))


def others_of(weights: Array) -> Array:
    """Return for each class the sum of all others, without a difference, which would round."""
    padded = np.concatenate([[0.0], weights, [0.0]])
    return np.cumsum(padded)[:-2] + np.cumsum(padded[::-1])[-3::-1]


def averages_of(quotient: Quotient) -> Finish:
    """Return the finish of a ratio: of class 1 if the task is binary, else by class with its averages."""

    def finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
        cells = cells_of(rows, params)

        def run(weights: Weights) -> Value:
            found = cells(weights)
            tally = tally_of(found)
            if params["task"] == "binary":
                return _by_class(quotient, tally, params, "class")[1]
            return _averages(quotient, tally, params, "class" if found.labels is None else "label")

        return run

    return finish


def _by_class(quotient: Quotient, tally: Tally, params: Params, kind: str) -> list[Number]:
    """Return the ratio of each class; where it does not exist, peers have 0."""
    above, below = quotient.of(tally, params)
    values: list[Number] = np.divide(above, below, out=np.zeros(len(above)), where=below > 0).tolist()
    if params["like"] not in LIKES:
        for place in np.flatnonzero(below <= 0).tolist():
            values[place] = Undefined(f"{kind} {place} {quotient.lacks}")
    return values


def _averages(quotient: Quotient, tally: Tally, params: Params, kind: str) -> dict[str, Any]:
    """Return the ratio by class with its averages."""
    values = _by_class(quotient, tally, params, kind)
    support = tally.matched + tally.missed
    included = np.array([not isinstance(value, Undefined) for value in values], bool)
    # both peers average over the classes that occur, but over all labels
    if params["like"] in LIKES and kind == "class":
        included &= support + tally.extra > 0
    numbers = np.array([value for value, take in zip(values, included, strict=True) if take], np.float64)
    shares = support[included]
    [micro_above], [micro_below] = quotient.of(tally.summed(), params)
    none = f"no {kind} has {quotient.needs}"
    zero = bool(params["like"] in LIKES)
    micro = ratio(micro_above, micro_below, none)
    macro = ratio(float(numbers.sum()), len(numbers), none)
    weighted = ratio(
        float((shares * numbers).sum()), float(shares.sum()), f"no {kind} that is defined has targets"
    )
    averages: dict[str, Any] = {"macro": macro, "micro": micro, "weighted": weighted}
    if zero:
        averages = {name: 0.0 if isinstance(one, Undefined) else one for name, one in averages.items()}
    return {**averages, "per_class": values}


@metric(
    title="Precision",
    tasks=("classification",),
    finish=averages_of(PRECISION),
    likes=LIKES,
    requires=(*DECIDED, NUMBERED),
    redraw=REDRAW_AVERAGES,
    aliases=("positive_predictive_value", "precision_score"),
)
def precision(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The share of predictions of a class that are right.

    Formula:
        \frac{\text{TP}}{\text{TP} + \text{FP}}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one, below 4096.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        False alarms cost more than misses.

    Pitfalls:
        A class that is never predicted has no precision, and is left out of averages; scikit-learn and torchmetrics count 0. ``micro``
        of exclusive classes is the accuracy.

    Sources:
        - scikit-learn, precision_score
    """
    return decide(
        predictions,
        targets,
        task=task,
        num_classes=num_classes,
        threshold=threshold,
        from_logits=from_logits,
        ignore_index=ignore_index,
    )


@metric(
    title="Recall",
    tasks=("classification",),
    finish=averages_of(RECALL),
    likes=LIKES,
    requires=(*DECIDED, NUMBERED),
    redraw=REDRAW_AVERAGES,
    aliases=("sensitivity", "true_positive_rate", "recall_score"),
)
def recall(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The share of a class that is found.

    Formula:
        \frac{\text{TP}}{\text{TP} + \text{FN}}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one, below 4096.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        Misses cost more than false alarms.

    Pitfalls:
        Predicting a class always gives it a recall of 1: look at precision too. A class without targets has no recall, and is left
        out of averages; scikit-learn and torchmetrics count 0.

    Sources:
        - scikit-learn, recall_score
    """
    return decide(
        predictions,
        targets,
        task=task,
        num_classes=num_classes,
        threshold=threshold,
        from_logits=from_logits,
        ignore_index=ignore_index,
    )


@metric(
    title="F score",
    tasks=("classification",),
    finish=averages_of(F),
    likes=LIKES,
    requires=(*DECIDED, NUMBERED),
    redraw=REDRAW_AVERAGES,
    aliases=("f_beta", "fbeta", "f1_score", "fbeta_score"),
    signed=("beta",),
)
def f1(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
    beta: Annotated[float, Ge(0), Le(1000)] = 1.0,
) -> Columns:
    r"""The harmonic mean of precision and recall, which is high only if both are.

    Formula:
        \frac{(1 + \beta^2) \text{TP}}{(1 + \beta^2) \text{TP} + \beta^2 \text{FN} + \text{FP}}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one, below 4096.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.
        beta: How many times as much recall counts as precision.

    Use when:
        Classes are rare, and false alarms and misses both cost.

    Pitfalls:
        ``macro`` is the mean of the classes' scores, not the score of their mean precision and recall. A class with neither targets nor
        predictions is left out; with ``like`` sklearn it counts 0 if the number of classes is given. True negatives have no influence.

    Sources:
        - scikit-learn, f1_score and fbeta_score; Van Rijsbergen, Information Retrieval, 1979
    """
    return decide(
        predictions,
        targets,
        task=task,
        num_classes=num_classes,
        threshold=threshold,
        from_logits=from_logits,
        ignore_index=ignore_index,
    )


@metric(
    title="Specificity",
    tasks=("classification",),
    finish=averages_of(SPECIFICITY),
    likes=LIKES,
    requires=(*DECIDED, NUMBERED),
    redraw=REDRAW_AVERAGES,
    aliases=("true_negative_rate", "selectivity"),
)
def specificity(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The share of the others that are not taken for a class.

    Formula:
        \frac{\text{TN}}{\text{TN} + \text{FP}}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one, below 4096.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        False alarms matter by how many could have been raised, as in screening.

    Pitfalls:
        With many classes each has few of all samples, so specificity is near 1 whatever the model. Predicting a class never gives it
        a specificity of 1.

    Sources:
        - torchmetrics, Specificity
    """
    return decide(
        predictions,
        targets,
        task=task,
        num_classes=num_classes,
        threshold=threshold,
        from_logits=from_logits,
        ignore_index=ignore_index,
    )


@metric(
    title="Jaccard index",
    tasks=("classification",),
    finish=averages_of(JACCARD),
    likes=LIKES,
    requires=(*DECIDED, NUMBERED),
    redraw=REDRAW_AVERAGES,
    aliases=("jaccard_index", "jaccard_score"),
)
def jaccard(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""What targets and predictions of a class have in common, over what either has.

    Formula:
        \frac{\text{TP}}{\text{TP} + \text{FP} + \text{FN}}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one, below 4096.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        Sets of labels are compared, or a score stricter than F is wanted.

    Pitfalls:
        It orders models as F does, J = F / (2 - F), but averages over classes differ. A class with neither targets nor predictions is
        left out; peers count 0.

    Sources:
        - scikit-learn, jaccard_score
    """
    return decide(
        predictions,
        targets,
        task=task,
        num_classes=num_classes,
        threshold=threshold,
        from_logits=from_logits,
        ignore_index=ignore_index,
    )
