"""How well scores order positives before negatives: areas under curves, the curves, and their operating points.

Everything is exact: samples of equal score form one step, and nothing is binned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import frexp
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.domains import ClassIndex
from service.catalogue.metric import Number, Params, Undefined, Value, Weights, metric
from service.catalogue.spec import Condition, Form, Prediction, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.classification.decisions import (
    COUNTED,
    MARKS,
    MULTICLASS,
    MULTILABEL,
    SCORED,
    NumClasses,
    Task,
    counting,
)
from service.metrics.classification.probabilities import softmax
from service.metrics.classification.ratios import LIKES
from service.metrics.finishes import column, mean_defined, ratio

Scores = Annotated[
    Tensor,
    Prediction(
        (
            Form("N C", when=MULTICLASS),
            Form("N L", when=MULTILABEL),
            Form("N", when=SCORED),
        )
    ),
]
Positives = Annotated[
    Tensor,
    Target(
        (
            Form("N", ClassIndex("C", ignore="ignore_index"), MULTICLASS),
            Form("N L", MARKS, MULTILABEL),
            Form("N", MARKS, SCORED),
        )
    ),
]
RANKED = (COUNTED,)
FINITE = Condition(
    "/inputs/predictions",
    "finite scores, which the curve's thresholds are",
    lambda facts: "infinity",
    lambda facts: bool(facts.inputs["predictions"].isfinite().all()),
)


@dataclass(frozen=True, slots=True)
class Steps:
    """The weights of positives and negatives at each different score ``[G]``, the highest score first."""

    positives: Array
    negatives: Array

    @property
    def weight(self) -> float:
        """The weight of all positives."""
        return float(self.positives.sum())


class Ranks:
    """Samples ranked by score, once for any weights."""

    __slots__ = ("_codes", "_places", "thresholds")

    def __init__(self, scores: Array, positive: Array, places: Array | None = None) -> None:
        """``scores [M]`` and ``positive [M]`` belong to the rows at ``places [M]``, or to all."""
        found, codes = np.unique(scores, return_inverse=True)
        self.thresholds = found[::-1]
        codes = len(found) - 1 - codes
        # int32 is half as large; there is a ranking for each class
        self._codes = np.where(positive, codes, codes + len(found)).astype(np.int32)
        self._places = places

    def steps(self, weights: Weights) -> Steps:
        """Return the steps for the weights of rows."""
        drawn, count = weights if self._places is None else weights[self._places], len(self.thresholds)
        sums = np.bincount(self._codes, drawn, 2 * count)
        return Steps(sums[:count], sums[count:])


Kind = Literal["binary", "class", "label"]
Score = Callable[[Steps, Params], Number]
"""A number of a ranking."""


def area(steps: Steps, params: Params) -> Number:
    """Return the share of pairs of a positive and a negative that are in order, equal ones counting half."""
    steps = _in_range(steps)
    total, others = steps.weight, float(steps.negatives.sum())
    if not total or not others:
        return Undefined(f"there are no {'negatives' if total else 'positives'}")
    most: float | None = params["max_fpr"]
    if most is None or most == 1:
        higher = np.cumsum(steps.positives) - steps.positives
        return float((steps.negatives * (higher + steps.positives / 2)).sum()) / (total * others)
    fpr, tpr = (np.append(0.0, np.cumsum(one)) for one in (steps.negatives, steps.positives))
    fpr, tpr = fpr / fpr[-1], tpr / tpr[-1]
    stop = int(np.searchsorted(fpr, most, "right"))
    low, high = fpr[stop - 1], fpr[stop]
    end = tpr[stop - 1] + (most - low) / (high - low) * (tpr[stop] - tpr[stop - 1])
    x, y = np.append(fpr[:stop], most), np.append(tpr[:stop], end)
    partial = float((np.diff(x) * (y[1:] + y[:-1])).sum()) / 2
    least = most * most / 2
    return 0.5 * (1 + (partial - least) / (most - least))


def _in_range(steps: Steps) -> Steps:
    """Return steps whose products are in the range of numbers, scaled by a power of two if need be."""
    _, exponent = frexp(max(steps.positives.max(initial=0.0), steps.negatives.max(initial=0.0)))
    if abs(exponent) < 400:
        return steps
    return Steps(np.ldexp(steps.positives, -exponent), np.ldexp(steps.negatives, -exponent))


def step_area(steps: Steps, params: Params) -> Number:
    """Return the mean precision at the score of each positive."""
    total = steps.weight
    if not total:
        return Undefined("there are no positives")
    hits = np.cumsum(steps.positives)
    accepted = hits + np.cumsum(steps.negatives)
    precision = np.divide(hits, accepted, out=np.zeros(len(hits)), where=accepted > 0)
    return float((steps.positives * precision).sum()) / total


def averages_of_ranks(
    score: Score, zeros: Mapping[str, tuple[Kind, ...]]
) -> Callable[[Table, Params], Callable[[Weights], Value]]:
    """Return the finish of a score of rankings: of one, or by class or label with averages.

    ``zeros``: the peers that have 0 where a score is undefined, and in which kinds of ranking.
    """

    def finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
        rankings, zero = _rankings(rows), zeros.get(params["like"] or "", ())

        def scored(steps: Steps, kind: Kind, place: int | None = None) -> Number:
            value = score(steps, params)
            if not isinstance(value, Undefined):
                return value
            where = "" if place is None else f" of {kind} {place}"
            return 0.0 if kind in zero else Undefined(f"{value.reason}{where}")

        if rows["score"].ndim == 1:
            [one] = rankings
            return lambda weights: scored(one.steps(weights), "binary")
        kind: Kind = "label" if rows["target"].ndim == 2 else "class"
        whole = _whole(rows) if kind == "label" else None

        def run(weights: Weights) -> Value:
            steps = [ranking.steps(weights) for ranking in rankings]
            values = [scored(one, kind, place) for place, one in enumerate(steps)]
            averages = {
                "macro": mean_defined(values, f"no {kind} is defined"),
                "weighted": _weighted(values, steps, kind),
            }
            if whole is not None:
                averages["micro"] = scored(whole.steps(weights), kind)
            return {**averages, "per_class": values}

        return run

    return finish


def _rankings(rows: Table) -> list[Ranks]:
    """Rank rows by the score of each class."""
    scores, target = rows["score"], rows["target"]
    counts = rows["counts"] if "counts" in rows.columns else None
    if target.ndim == 2:
        return [
            _ranking(scores[:, k], target[:, k] == 1, None if counts is None else counts[:, k])
            for k in range(target.shape[1])
        ]
    if scores.ndim == 1:
        return [_ranking(scores, target == 1, counts)]
    return [_ranking(scores[:, k], target == k, counts) for k in range(scores.shape[1])]


def _ranking(scores: Array, positive: Array, counts: Array | None) -> Ranks:
    """Rank the rows that count."""
    if counts is None:
        return Ranks(scores, positive)
    places = np.flatnonzero(counts)
    return Ranks(scores[places], positive[places], places)


def _whole(rows: Table) -> Ranks:
    """Rank all labels of all rows together."""
    target = rows["target"]
    counts = rows["counts"] if "counts" in rows.columns else np.ones(target.shape, bool)
    places = np.nonzero(counts)
    return Ranks(rows["score"][places], target[places] == 1, places[0])


def _weighted(values: list[Number], steps: list[Steps], kind: Kind) -> Number:
    """Return the mean of the defined numbers by the weight of positives."""
    pairs = [
        (value, one.weight)
        for value, one in zip(values, steps, strict=True)
        if not isinstance(value, Undefined)
    ]
    above = float(np.sum([value * weight for value, weight in pairs]))
    return ratio(
        above, float(np.sum([weight for _, weight in pairs])), f"no {kind} that is defined has positives"
    )


def ranked(predictions: Tensor, targets: Tensor, ignore_index: int | None) -> Columns:
    """Return the columns ``score`` (in a dtype that holds what was sent), ``target`` and ``counts``."""
    half = predictions.dtype in (torch.float16, torch.bfloat16)
    counts = None if ignore_index is None else targets != ignore_index
    known = targets if counts is None else torch.where(counts, targets, 0)
    return {
        "score": column(predictions.float() if half else predictions),
        "target": column(known.to(torch.int32 if predictions.dim() > targets.dim() else torch.uint8)),
        **counting(counts),
    }


def roc(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish the curve of true positives over false positives."""
    [ranking] = _rankings(rows)

    def run(weights: Weights) -> Value:
        steps, thresholds = _weighed(ranking, weights)
        hits, alarms = (np.append(0.0, np.cumsum(one)) for one in (steps.positives, steps.negatives))
        # a number just above the highest score, where nothing is positive
        first = np.nextafter(thresholds[:1], np.inf) if len(thresholds) else np.zeros(1)
        alike = params["like"] == "torchmetrics" and len(thresholds) > 0
        thresholds = np.append(np.ones(1) if alike else first, thresholds)
        fpr = _rates(alarms, alike, "there are no negatives")
        tpr = _rates(hits, alike, "there are no positives")
        curve: dict[str, Any] = {"fpr": fpr, "tpr": tpr, "thresholds": thresholds}
        if params["drop_intermediate"] and not alike:
            kept = _corners(hits, alarms)
            curve = {name: one if isinstance(one, Undefined) else one[kept] for name, one in curve.items()}
        return {**curve, "equal_error_rate": _equal_errors(fpr, tpr, thresholds, params)}

    return run


def _rates(counts: Array, zeros: bool, reason: str) -> Array | Undefined:
    """Return cumulative counts by their sum; where that is 0, zeros or undefined."""
    if not counts[-1]:
        return counts if zeros else Undefined(reason)
    return counts / counts[-1]


def precision_recall(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish the curve of precision over recall."""
    [ranking] = _rankings(rows)

    def run(weights: Weights) -> Value:
        steps, thresholds = _weighed(ranking, weights)
        hits, alarms = np.cumsum(steps.positives), np.cumsum(steps.negatives)
        total = float(hits[-1]) if len(hits) else 0.0
        if params["drop_intermediate"] and len(hits) > 2:
            kept = _ends(hits)
            hits, alarms, thresholds = hits[kept], alarms[kept], thresholds[kept]
        precision = hits / (hits + alarms)
        recall = hits / total if total else None
        points = _points(hits, alarms, total, thresholds, params)
        return {
            "precision": np.append(precision[::-1], 1.0),
            "recall": Undefined("there are no positives") if recall is None else np.append(recall[::-1], 0.0),
            "thresholds": thresholds[::-1],
            **points,
        }

    return run


def _weighed(ranking: Ranks, weights: Weights) -> tuple[Steps, Array]:
    """Return the steps that have weight, and their scores in float64, the highest first."""
    steps = ranking.steps(weights)
    there = steps.positives + steps.negatives > 0
    thresholds = ranking.thresholds[there].astype(np.float64)
    return Steps(steps.positives[there], steps.negatives[there]), thresholds


def _corners(hits: Array, alarms: Array) -> Array:
    """Return the points that are not in the middle of two equal steps, as scikit-learn chooses them."""
    if len(hits) < 4:
        return np.arange(len(hits))
    # the origin stands apart: it is there whether or not the first step goes on as the second
    turns = (np.diff(hits[1:], 2) != 0) | (np.diff(alarms[1:], 2) != 0)
    return np.flatnonzero(np.concatenate([[True, True], turns, [True]]))


def _ends(hits: Array) -> Array:
    """Return the points but those in the middle of a run of equal recall, as scikit-learn chooses them."""
    moved = np.diff(hits) != 0
    return np.flatnonzero(np.concatenate([[True], moved[:-1] | moved[1:], [True]]))


def _equal_errors(fpr: Any, tpr: Any, thresholds: Array, params: Params) -> dict[str, Number]:
    """Return where as large a share of negatives as of positives is wrong, between two points if need be."""
    if isinstance(fpr, Undefined) or isinstance(tpr, Undefined):
        reason = fpr if isinstance(fpr, Undefined) else tpr
        return {"rate": reason, "threshold": reason}
    gaps = fpr + tpr - 1
    nearest = int(np.abs(gaps).argmin())
    if params["like"] == "torchmetrics":
        rate = float(fpr[nearest] + 1 - tpr[nearest]) / 2
    else:
        # the gap grows from -1 to 1, so there is a first point that is not below 0
        after = int((gaps >= 0).argmax())
        share = gaps[after] / (gaps[after] - gaps[after - 1])
        rate = float(fpr[after] - share * (fpr[after] - fpr[after - 1]))
    return {"rate": rate, "threshold": float(thresholds[nearest])}


def _points(hits: Array, alarms: Array, total: float, thresholds: Array, params: Params) -> dict[str, Any]:
    """Return the operating points of a curve."""
    found: dict[str, Any] = {}
    least_precision, least_recall = params["min_precision"], params["min_recall"]
    if not total:
        reason = Undefined("there are no positives")
        found["best_f"] = dict.fromkeys(("f", "precision", "recall", "threshold"), reason)
        for name, asked in (("recall_at_precision", least_precision), ("precision_at_recall", least_recall)):
            if asked is not None:
                found[name] = dict.fromkeys(("precision", "recall", "threshold"), reason)
        return found
    precision, recall = hits / (hits + alarms), hits / total
    square = params["beta"] ** 2
    scores = (1 + square) * hits / (square * total + hits + alarms)
    best = int(scores.argmax())

    def point(place: int) -> dict[str, Number]:
        return {
            "precision": float(precision[place]),
            "recall": float(recall[place]),
            "threshold": float(thresholds[place]),
        }

    found["best_f"] = {"f": float(scores[best]), **point(best)}
    for name, asked, least, most in (
        ("recall_at_precision", least_precision, precision, recall),
        ("precision_at_recall", least_recall, recall, precision),
    ):
        if asked is None:
            continue
        places = np.flatnonzero(least >= asked)
        if len(places):
            # of equal ones, that with more of what was asked for
            found[name] = point(int(places[np.lexsort((least[places], most[places]))[-1]]))
        else:
            word = name.rpartition("_")[2]
            reason = Undefined(f"no threshold has a {word} of {asked:g}")
            found[name] = dict.fromkeys(("precision", "recall", "threshold"), reason)
    return found


@metric(
    title="Area under the ROC curve",
    tasks=("classification",),
    finish=averages_of_ranks(area, {"torchmetrics": ("binary", "class", "label")}),
    likes=("torchmetrics",),
    requires=RANKED,
    aliases=("auc", "roc_auc", "roc_auc_score"),
    work="predictions",
    redraw=("N/2", "N C/2", "N L", "128C", "384L"),
)
def auroc(
    predictions: Scores,
    targets: Positives,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    from_logits: bool = False,
    ignore_index: int | None = None,
    max_fpr: Annotated[float, Gt(0), Le(1)] | None = None,
) -> Columns:
    r"""The share of pairs of a positive and a negative that scores put in order.

    Formula:
        \frac{1}{PN} \sum_{i \in P} \sum_{j \in N} [s_i > s_j] + \tfrac{1}{2} [s_i = s_j]

    Args:
        predictions: Scores ``[N, C]``, of class 1 ``[N]``, or of labels ``[N, L]``: any numbers, higher for positives.
        targets: Classes ``[N]``, or 0 and 1.
        task: Must be binary if predictions have one dimension.
        num_classes: The number of classes, which predictions show.
        from_logits: Whether to take the softmax over classes first; otherwise scores are ranked as they are.
        ignore_index: Samples, or labels, with this target do not count.
        max_fpr: Only the curve up to this rate of false positives counts, scaled so that chance is 0.5 and the best 1.

    Use when:
        Scores are used at thresholds that are not known yet, and classes are not extremely unequal.

    Pitfalls:
        With very few positives it looks good while most alarms are false: see average_precision. Classes are compared with all others by
        their own score, so scores should be comparable between samples: for logits set `from_logits`. It is undefined without
        positives or without negatives; torchmetrics has 0. ``weighted`` weighs classes by their positives.

    Sources:
        - Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982; McClish, Analyzing a portion of the ROC curve, 1989
        - scikit-learn, roc_auc_score
    """
    if from_logits and predictions.dim() > targets.dim():
        predictions = softmax(predictions.cpu())
    return ranked(predictions, targets, ignore_index)


@metric(
    title="Average precision",
    tasks=("classification",),
    finish=averages_of_ranks(
        step_area, {"sklearn": ("binary", "class", "label"), "torchmetrics": ("binary", "label")}
    ),
    likes=LIKES,
    requires=RANKED,
    aliases=("ap", "pr_auc", "average_precision_score"),
    work="predictions",
    redraw=("N/2", "N C/2", "N L", "128C", "384L"),
)
def average_precision(
    predictions: Scores,
    targets: Positives,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The mean of the precision at the scores of all positives: the area under the steps of precision over recall.

    Formula:
        \sum_k (R_k - R_{k-1}) P_k

    Args:
        predictions: Scores ``[N, C]``, of class 1 ``[N]``, or of labels ``[N, L]``: any numbers, higher for positives.
        targets: Classes ``[N]``, or 0 and 1.
        task: Must be binary if predictions have one dimension.
        num_classes: The number of classes, which predictions show.
        from_logits: Whether to take the softmax over classes first; otherwise scores are ranked as they are.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        Positives are rare, and those with the highest scores matter most.

    Pitfalls:
        Chance is the share of positives, not 0.5. Samples of equal score are one step, whatever their order. It is undefined without
        positives; peers have 0. ``weighted`` weighs classes by their positives.

    Sources:
        - scikit-learn, average_precision_score
    """
    if from_logits and predictions.dim() > targets.dim():
        predictions = softmax(predictions.cpu())
    return ranked(predictions, targets, ignore_index)


@metric(
    title="ROC curve",
    tasks=("classification",),
    finish=roc,
    requires=(FINITE,),
    redraw="N",
    higher_is_better=None,
    likes=("torchmetrics",),
    aliases=("roc", "eer"),
)
def roc_curve(
    predictions: Annotated[Tensor, Prediction("N")],
    targets: Annotated[Tensor, Target("N", MARKS)],
    *,
    ignore_index: int | None = None,
    drop_intermediate: bool = True,
) -> Columns:
    r"""The rates of true and false positives at every threshold, and where both kinds of error are equally frequent.

    Formula:
        \left( \frac{\text{FP}(t)}{N}, \frac{\text{TP}(t)}{P} \right), \quad \hat y = [s \ge t]

    Args:
        predictions: Scores of class 1 ``[N]``: any finite numbers, higher for positives.
        targets: 0 and 1.
        ignore_index: Samples with this target do not count.
        drop_intermediate: Leave out points in the middle of a straight line.

    Use when:
        A threshold is to be chosen by how many false alarms are bearable.

    Pitfalls:
        A score equal to a threshold is positive here, as the curve is made of the scores that occur. The first threshold is just above
        the highest score; with `like` torchmetrics it is 1, no point is left out, and rates without samples are 0, but thresholds
        are scores as sent, without its sigmoid. ``equal_error_rate`` lies between two points of the curve where none has equal errors; its threshold is
        that of the nearest point.

    Sources:
        - Fawcett, An introduction to ROC analysis, 2006
        - scikit-learn, roc_curve
    """
    return ranked(predictions, targets, ignore_index)


@metric(
    title="Precision-recall curve",
    tasks=("classification",),
    finish=precision_recall,
    requires=(FINITE,),
    redraw="N",
    higher_is_better=None,
    aliases=("precision_recall_curve",),
)
def pr_curve(
    predictions: Annotated[Tensor, Prediction("N")],
    targets: Annotated[Tensor, Target("N", MARKS)],
    *,
    ignore_index: int | None = None,
    beta: Annotated[float, Ge(0), Le(1000)] = 1.0,
    min_precision: Annotated[float, Ge(0), Le(1)] | None = None,
    min_recall: Annotated[float, Ge(0), Le(1)] | None = None,
    drop_intermediate: bool = False,
) -> Columns:
    r"""Precision and recall at every threshold, and the operating points that are chosen from them.

    Formula:
        \left( \frac{\text{TP}(t)}{P}, \frac{\text{TP}(t)}{\text{TP}(t) + \text{FP}(t)} \right), \quad \hat y = [s \ge t]

    Args:
        predictions: Scores of class 1 ``[N]``: any finite numbers, higher for positives.
        targets: 0 and 1.
        ignore_index: Samples with this target do not count.
        beta: How many times as much recall counts as precision in ``best_f``.
        min_precision: Asks for ``recall_at_precision``, the highest recall with at least this precision.
        min_recall: Asks for ``precision_at_recall``, the highest precision with at least this recall.
        drop_intermediate: Leave out points between others of equal recall.

    Use when:
        A threshold is to be chosen for rare positives.

    Pitfalls:
        A score equal to a threshold is positive here, as the curve is made of the scores that occur. The last point, recall 0 and
        precision 1, has no threshold. ``best_f`` has the highest F, ``recall_at_precision`` the highest recall with at least
        `min_precision`, ``precision_at_recall`` the highest precision with at least `min_recall`. A threshold chosen on the
        samples that it is judged by looks better than it is.

    Sources:
        - Davis and Goadrich, The relationship between precision-recall and ROC curves, 2006
        - scikit-learn, precision_recall_curve
    """
    return ranked(predictions, targets, ignore_index)
