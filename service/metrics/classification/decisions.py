"""Inputs of classification: what predictions and targets may be, and the decisions that predictions amount to."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.domains import MOST_CLASSES, Classes, ClassIndex, Facts
from service.catalogue.metric import Params, Weights
from service.catalogue.spec import Condition, Form, Prediction, Target, given
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column

Task = Literal["binary", "multiclass", "multilabel"]
BINARY = given(task="binary")
SCORED = given(task=(None, "binary"))
"""When predictions of one dimension are scores, where they cannot be classes."""
MULTICLASS, MULTILABEL = given(task=(None, "multiclass")), given(task=(None, "multilabel"))
CLASSES = Classes(ignore="ignore_index")
MARKS = Classes(2, ignore="ignore_index")
PREDICTED = (
    Form("N C", when=MULTICLASS),
    Form("N L", when=MULTILABEL),
    Form("N", when=BINARY),
    Form("N", CLASSES, given(task="multiclass")),
    Form("N", when=given(task=None)),
)
TRUE = (
    Form("N", ClassIndex("C", ignore="ignore_index"), MULTICLASS),
    Form("N L", MARKS, MULTILABEL),
    Form("N", MARKS, BINARY),
    Form("N", CLASSES, given(task="multiclass")),
    Form("N", when=given(task=None)),
)
Predictions = Annotated[Tensor, Prediction(PREDICTED)]
Targets = Annotated[Tensor, Target(TRUE)]
NumClasses = Annotated[int, Ge(1), Le(1 << 16)]
MOST_UNNUMBERED = 1 << 12
"""Most classes of a result by class whose number a request does not give."""
MOST_CELLS = 1 << 22
"""Most cells of a confusion matrix."""


def chosen(words: str) -> Condition:
    """Require ``task`` for predictions of one dimension: the numbers of a batch must not decide what they are."""
    return Condition(
        "/params/task",
        f"{words} where predictions have one dimension",
        lambda facts: "null",
        lambda facts: facts.params["task"] is not None or _dims(facts) != 1,
    )


COUNTED = Condition(
    "/params/num_classes",
    "null, or the size of the second dimension of predictions",
    lambda facts: facts.params["num_classes"],
    lambda facts: (
        facts.params["num_classes"] is None
        or _dims(facts) != 2
        or facts.params["num_classes"] == facts.inputs["predictions"].shape[1]
    ),
)
IGNORED_TOGETHER = Condition(
    "/inputs/predictions",
    "classes where targets are not ignored",
    lambda facts: f"{facts.params['ignore_index']}, which is ignore_index",
    lambda facts: not _ignored_alone(facts),
)
NUMBERED = Condition(
    "/params/num_classes",
    f"the number of classes, if one is {MOST_UNNUMBERED} or more",
    lambda facts: "null",
    lambda facts: facts.params["num_classes"] is not None or largest_class(facts) < MOST_UNNUMBERED,
)
"""What metrics of every class require, as their results are as long as the largest class."""
REDRAW_COUNTS = ("N/4", "N L/16", "2C", "2num_classes")
"""The work of counting pairs once more."""
DECIDED = (chosen('"binary" or "multiclass"'), COUNTED, IGNORED_TOGETHER)
"""What the metrics of decisions require."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The weights of the different pairs of target and prediction.

    ``targets [K]``, ``predictions [K]``; multilabel pairs are 0 or 1, and ``labels [K]`` their labels. ``size`` is the number of
    classes, or of labels.
    """

    targets: Array
    predictions: Array
    labels: Array | None
    size: int
    weights: Array


def decide(
    predictions: Tensor,
    targets: Tensor,
    *,
    task: Task | None,
    num_classes: int | None,
    threshold: float,
    from_logits: bool,
    ignore_index: int | None,
) -> Columns:
    """Return the columns ``target``, ``prediction``, ``classes`` (their number if it is known, else 0), and ``counts``."""
    counts = None if ignore_index is None else targets != ignore_index
    if task == "binary" or targets.dim() == 2:
        decided, dtype, classes = positive(predictions, threshold, from_logits), torch.uint8, 0
    else:
        scores = predictions.dim() == 2
        decided, dtype = largest(predictions) if scores else predictions, torch.int32
        classes = predictions.shape[1] if scores else num_classes or 0
    columns = {"target": targets, "prediction": decided}
    if counts is not None:
        columns = {name: torch.where(counts, values, 0) for name, values in columns.items()}
    return {
        **{name: column(values.to(dtype)) for name, values in columns.items()},
        "classes": np.full(len(targets), classes, np.int32),
        **counting(counts),
    }


def counting(counts: Tensor | None) -> Columns:
    """Return the column ``counts``, if some targets are ignored."""
    return {} if counts is None else {"counts": column(counts)}


def positive(scores: Tensor, threshold: float, from_logits: bool) -> Tensor:
    """Return which scores, or sigmoids of logits, exceed a threshold."""
    if from_logits:
        # a logit is compared as it is, since the sigmoid rounds differently on each device
        if not 0 <= threshold < 1:
            return torch.full(scores.shape, threshold < 0, device=scores.device)
        threshold = log(threshold) - log(1 - threshold) if threshold else -inf
    return (scores if scores.is_floating_point() else scores.double()) > threshold


def largest(scores: Tensor) -> Tensor:
    """Return the class with the highest score along the axis after the samples, the first of several."""
    return (scores.to(torch.uint8) if scores.dtype == torch.bool else scores).argmax(1)


def cells_of(rows: Table, params: Params) -> Callable[[Weights], Cells]:
    """Return a function from weights to the weights of pairs."""
    target, prediction = rows["target"].astype(np.int64), rows["prediction"].astype(np.int64)
    counts = rows["counts"] if "counts" in rows.columns else np.ones(target.shape, bool)
    place: Any = np.nonzero(counts)
    target, prediction = target[place], prediction[place]
    if counts.ndim == 2:
        kinds, size = 2, len(counts[0]) if len(counts) else 0
        codes = (place[1] * 2 + target) * 2 + prediction
    else:
        size = kinds = class_count(rows, params)
        codes = target * kinds + prediction
    found, codes = _different(codes, 4 * size if counts.ndim == 2 else kinds * kinds)
    pairs, labels = (found % 4, found // 4) if counts.ndim == 2 else (found, None)
    every = len(place[0]) == len(rows)

    def run(weights: Weights) -> Cells:
        drawn = weights if every else weights[place[0]]
        sums = np.bincount(codes, drawn, len(found))
        return Cells(pairs // max(kinds, 1), pairs % max(kinds, 1), labels, size, sums)

    return run


def largest_class(facts: Facts) -> int:
    """Return the largest class among predicted classes and targets that count; -1 if there are none."""
    if _dims(facts) != 1 or facts.params["task"] != "multiclass":
        return -1
    targets = facts.inputs["targets"]
    counts = targets != facts.params["ignore_index"] if facts.params["ignore_index"] is not None else None
    both = facts.inputs["predictions"], targets
    chosen = both if counts is None else [one[counts] for one in both]
    return max((int(one.max()) for one in chosen if one.numel()), default=-1)


def _different(codes: Array, bound: int) -> tuple[Array, Array]:
    """Return the different codes below a bound, and the place of each code among them."""
    if bound > min(MOST_CELLS, 16 * len(codes) + MOST_UNNUMBERED):
        return np.unique(codes, return_inverse=True)
    there = np.bincount(codes, minlength=bound) > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[codes]


def class_count(rows: Table, params: Params) -> int:
    """Return the number of classes: as it is known, or up to the largest one that occurs."""
    if params["task"] == "binary":
        return 2
    names = ("classes", *[name for name in ("target", "prediction") if name in rows.columns])
    known, *most = (int(rows[name].max(initial=-1)) for name in names)
    return max(known, *(one + 1 for one in most), params["num_classes"] or 0)


def _dims(facts: Facts) -> int:
    """Return the number of dimensions of the predictions; 0 if they are texts."""
    predictions = facts.inputs["predictions"]
    return predictions.dim() if isinstance(predictions, Tensor) else 0  # pyright: ignore[reportUnnecessaryIsInstance]


def _ignored_alone(facts: Facts) -> bool:
    """Return whether a predicted class is the ignored number, and no class, where the target counts."""
    ignored = facts.params["ignore_index"]
    if facts.params["task"] != "multiclass" or _dims(facts) != 1 or ignored is None:
        return False
    if 0 <= ignored < (facts.params["num_classes"] or MOST_CLASSES):
        return False
    return bool(((facts.inputs["predictions"] == ignored) & (facts.inputs["targets"] != ignored)).any())
