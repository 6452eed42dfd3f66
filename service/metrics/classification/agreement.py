"""Agreement of decisions with targets beyond chance: the confusion matrix and what follows from it."""

from collections.abc import Callable
from dataclasses import replace
from math import frexp, sqrt
from typing import Annotated, Any, Literal, NamedTuple, cast

import numpy as np
from annotated_types import Ge, Le

from service.catalogue.domains import Facts
from service.catalogue.metric import Number, Params, Undefined, Value, Weights, metric
from service.catalogue.spec import Condition
from service.catalogue.table import Array, Columns, Table
from service.metrics.classification.decisions import (
    DECIDED,
    REDRAW_COUNTS,
    Cells,
    NumClasses,
    Predictions,
    Targets,
    Task,
    cells_of,
    decide,
    largest_class,
)
from service.metrics.classification.ratios import LIKES, others_of
from service.metrics.finishes import mean_defined

MOST_CLASSES_OF_MATRIX = 1 << 11
FEW = Condition(
    "/inputs/predictions",
    f"at most {MOST_CLASSES_OF_MATRIX} classes in a matrix",
    lambda facts: _classes(facts),
    lambda facts: _classes(facts) <= MOST_CLASSES_OF_MATRIX,
)


class Margins(NamedTuple):
    """The weights of targets and predictions by class ``[C]``, of right decisions, and of all."""

    targets: Array
    predictions: Array
    right: float
    total: float


def margins_of(cells: Cells) -> Margins:
    """Sum pairs by class; labels are taken together, as 0 and 1."""
    size = cells.size if cells.labels is None else 2
    targets = np.bincount(cells.targets, cells.weights, size)
    predictions = np.bincount(cells.predictions, cells.weights, size)
    right = float(cells.weights[cells.targets == cells.predictions].sum())
    return Margins(targets, predictions, right, float(cells.weights.sum()))


def matrix(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish a confusion matrix."""
    cells = cells_of(rows, params)

    def run(weights: Weights) -> Value:
        found = cells(weights)
        size, labels = found.size, found.labels
        shape = (size, size) if labels is None else (size, 2, 2)
        codes = found.targets * shape[-1] + found.predictions
        codes = codes if labels is None else labels * 4 + codes
        return _normalized(np.bincount(codes, found.weights, int(np.prod(shape))).reshape(shape), params)

    return run


def mean_recall(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish the mean of the recalls of classes that have targets."""
    cells = cells_of(rows, params)

    def run(weights: Weights) -> Value:
        found = cells(weights)
        size = found.size if found.labels is None else 2
        right = found.targets == found.predictions
        matched = np.bincount(found.targets[right], found.weights[right], size)
        support = np.bincount(found.targets, found.weights, size)
        there = support > 0
        recalls: list[Number] = (matched[there] / support[there]).tolist()
        return mean_defined(recalls, "no class has targets")

    return run


def matthews(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish the correlation coefficient of targets and predictions."""
    cells = cells_of(rows, params)

    def run(weights: Weights) -> Value:
        found = _scaled(cells(weights))
        targets, predictions, right, total = margins_of(found)
        binary = len(targets) == 2
        if params["like"] == "torchmetrics" and binary and total and right in (0, total):
            return 1.0 if right else -1.0
        spread = _spread(targets), _spread(predictions)
        if spread[0] and spread[1]:
            return (right * total - float(targets @ predictions)) / sqrt(spread[0] * spread[1])
        if params["like"] == "torchmetrics" and binary and total:
            return _nearly(cells(weights))
        if params["like"] in LIKES:
            return 0.0
        side = "predictions" if spread[0] else "targets"
        return Undefined(f"all {side} are of one class" if total else "no sample counts")

    return run


def kappa(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish Cohen's kappa: one minus the observed disagreement over that of independent targets and predictions."""
    cells = cells_of(rows, params)
    by = _DISAGREEMENT[params["weights"]]

    def run(weights: Weights) -> Value:
        found = _scaled(cells(weights))
        if params["like"] == "sklearn" and found.labels is None:
            found = _renumbered(found)
        targets, predictions, _, total = margins_of(found)
        if (targets + predictions > 0).sum() <= 1:
            return Undefined("targets and predictions are all of one class" if total else "no sample counts")
        apart = np.abs(found.targets - found.predictions).astype(np.float64)
        observed = float((found.weights * by.of(apart)).sum())
        return 1 - observed * total / by.expected(targets, predictions)

    return run


class Disagreement(NamedTuple):
    """How much two classes at a distance disagree, and the sum over all pairs of a target and a prediction."""

    of: Callable[[Array], Array]
    expected: Callable[[Array, Array], float]


def _unequal(targets: Array, predictions: Array) -> float:
    """Return the product of all pairs of unequal classes."""
    return float(targets @ others_of(predictions))


def _linear(targets: Array, predictions: Array) -> float:
    """Sum the distances of all pairs: each step between neighbours counts the pairs that it separates."""
    below, above = np.cumsum(targets)[:-1], np.cumsum(targets[::-1])[-2::-1]
    under, over = np.cumsum(predictions)[:-1], np.cumsum(predictions[::-1])[-2::-1]
    return float((below * over + under * above).sum())


def _quadratic(targets: Array, predictions: Array) -> float:
    """Sum the squared distances of all pairs, around the mean class, so that large class numbers cost no digits."""
    places, total = np.arange(len(targets)), targets.sum()
    places = places - np.rint(targets @ places / total)
    squares = float((targets + predictions) @ places**2) * total
    return squares - 2 * float(targets @ places) * float(predictions @ places)


_DISAGREEMENT = {
    None: Disagreement(np.sign, _unequal),
    "linear": Disagreement(np.abs, _linear),
    "quadratic": Disagreement(np.square, _quadratic),
}


def _spread(weights: Array) -> float:
    """Return the product of all pairs of unequal classes: 0 if there is only one."""
    return float(weights @ others_of(weights))


def _scaled(cells: Cells) -> Cells:
    """Divide weights by a power of two, so that products neither overflow nor vanish, and stay exact."""
    _, exponent = frexp(float(cells.weights.max(initial=0.0)))
    return replace(cells, weights=np.ldexp(cells.weights, -exponent))


def _renumbered(cells: Cells) -> Cells:
    """Number the classes that occur, as scikit-learn does before it takes their distances."""
    there = cells.weights > 0
    kinds = np.unique(np.concatenate([cells.targets[there], cells.predictions[there]]))
    return Cells(
        np.searchsorted(kinds, cells.targets[there]),
        np.searchsorted(kinds, cells.predictions[there]),
        None,
        len(kinds),
        cells.weights[there],
    )


def _nearly(cells: Cells) -> float:
    """Return what torchmetrics returns for two classes if the coefficient is 0 / 0: a number near 0."""
    counts = np.zeros(4)
    np.add.at(counts, cells.targets * 2 + cells.predictions, cells.weights)
    tn, fp, fn, tp = counts.tolist()
    eps = 2.0**-23
    if fn == 0 and tn == 0:
        above = sqrt(eps) * (tp - fp)
    elif fp == 0 and tn == 0:
        above = sqrt(eps) * (tp - fn)
    elif tp == 0 and fn == 0:
        above = sqrt(eps) * (tn - fp)
    else:
        above = sqrt(eps) * (tn - fn)
    return above / sqrt((tp + fp + eps) * (tp + fn + eps) * (tn + fp + eps) * (tn + fn + eps))


def _normalized(counts: Array, params: Params) -> Any:
    """Divide counts by those of their target, of their prediction or of all; 0 / 0 is undefined, peers have 0."""
    if params["normalize"] is None:
        return counts
    axes, reason = {
        "true": ((-1,), "the class has no targets"),
        "pred": ((-2,), "the class has no predictions"),
        "all": ((-2, -1), "no sample counts"),
    }[params["normalize"]]
    below = np.broadcast_to(counts.sum(axes, keepdims=True), counts.shape)
    shares = np.divide(counts, below, out=np.zeros(counts.shape), where=below > 0)
    if params["like"] in LIKES or (below > 0).all():
        return shares
    return _marked(shares.tolist(), (below > 0).tolist(), Undefined(reason))


def _marked(values: Any, defined: Any, reason: Undefined) -> Any:
    """Replace what is not defined in nested lists."""
    if isinstance(values, list):
        pairs = zip(cast(list[Any], values), defined, strict=True)
        return [_marked(value, mark, reason) for value, mark in pairs]
    return values if defined else reason


def _classes(facts: Facts) -> int:
    """Return the number of classes in a matrix."""
    predictions, targets = facts.inputs["predictions"], facts.inputs["targets"]
    if facts.params["task"] == "binary" or targets.dim() != 1:
        return 2
    if predictions.dim() == 2:
        return predictions.shape[1]
    return facts.params["num_classes"] or largest_class(facts) + 1


@metric(
    title="Confusion matrix",
    tasks=("classification",),
    finish=matrix,
    requires=(*DECIDED, FEW),
    redraw=(*REDRAW_COUNTS, "C C/32", "num_classes num_classes/32"),
    likes=LIKES,
    higher_is_better=None,
)
def confusion_matrix(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: Annotated[int, Ge(1), Le(MOST_CLASSES_OF_MATRIX)] | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
    normalize: Literal["true", "pred", "all"] | None = None,
) -> Columns:
    r"""How many samples of each class are predicted as each class: targets are rows, predictions columns.

    Formula:
        M_{ij} = \sum_n [y_n = i] [\hat y_n = j]

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.
        normalize: Divide by the samples of the target, of the prediction, or by all; null to count.

    Use when:
        You want to see which classes are taken for which.

    Pitfalls:
        Several labels have a matrix each, ``[L, 2, 2]``. Divided by ``true``, the diagonal is the recall, by ``pred`` the precision; a row
        or column without samples is undefined then, where peers have 0.

    Sources:
        - scikit-learn, confusion_matrix and multilabel_confusion_matrix
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
    title="Balanced accuracy",
    tasks=("classification",),
    finish=mean_recall,
    requires=DECIDED,
    redraw=REDRAW_COUNTS,
    aliases=("balanced_accuracy_score",),
)
def balanced_accuracy(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The mean of the recalls of all classes, so that rare ones count as much as frequent ones.

    Formula:
        \frac{1}{C} \sum_c \frac{\text{TP}_c}{\text{TP}_c + \text{FN}_c}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        Classes are unequally frequent, and each matters as much as another.

    Pitfalls:
        The recall of a class with few targets is uncertain, and so is the mean. Classes without targets are left out. Several labels
        are taken together: it is the mean of the recalls of present and of absent ones.

    Sources:
        - scikit-learn, balanced_accuracy_score; Brodersen et al., The balanced accuracy and its posterior distribution, 2010
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
    title="Matthews correlation coefficient",
    tasks=("classification",),
    finish=matthews,
    requires=DECIDED,
    redraw=REDRAW_COUNTS,
    likes=LIKES,
    aliases=("mcc", "phi_coefficient"),
)
def matthews_corrcoef(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The correlation of predicted and true classes, from -1 to 1; 0 is chance.

    Formula:
        \frac{R N - \sum_c t_c p_c}{\sqrt{(N^2 - \sum_c p_c^2)(N^2 - \sum_c t_c^2)}}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        One number is wanted that is high only if all four cells of the matrix are good.

    Pitfalls:
        R counts right decisions, t and p targets and predictions of a class. It is undefined if all targets, or all predictions, are of
        one class; scikit-learn has 0. Several labels are taken together.

    Sources:
        - Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004; scikit-learn, matthews_corrcoef
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
    title="Cohen's kappa",
    tasks=("classification",),
    finish=kappa,
    requires=DECIDED,
    redraw=REDRAW_COUNTS,
    likes=("sklearn",),
    aliases=("kappa", "cohen_kappa_score"),
    keywords=("quadratic weighted kappa", "inter-rater agreement"),
)
def cohen_kappa(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
    weights: Literal["linear", "quadratic"] | None = None,
) -> Columns:
    r"""The agreement of predictions with targets beyond what chance would give.

    Formula:
        1 - \frac{\sum_{ij} w_{ij} M_{ij}}{\sum_{ij} w_{ij} t_i p_j / N}

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are; needed for those only.
        num_classes: The number of classes, if predictions are classes; by default up to the largest one.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits: then their sigmoid is compared with `threshold`.
        ignore_index: Samples, or labels, with this target do not count.
        weights: How an error grows with the distance of the classes; null if all errors are equal.

    Use when:
        Two raters are compared, or classes are ordered grades, with weights.

    Pitfalls:
        The same agreement gives a lower kappa where one class is frequent. With `weights`, the numbers of classes must be grades in
        order; scikit-learn counts only those that occur. It is undefined if only one class occurs.

    Sources:
        - Cohen, A coefficient of agreement for nominal scales, 1960; scikit-learn, cohen_kappa_score
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
