"""How good probabilities are, not only the decisions that they lead to: log loss, Brier score, calibration."""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.domains import Between, ClassIndex, Simplex
from service.catalogue.metric import Params, Undefined, Value, Weights, metric
from service.catalogue.spec import Form, Prediction, Target, given
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
    largest,
)
from service.metrics.finishes import column, ratio

Probabilities = Annotated[
    Tensor,
    Prediction(
        (
            Form("N C", Simplex(), given(task=(None, "multiclass"), from_logits=False)),
            Form("N C", when=given(task=(None, "multiclass"), from_logits=True)),
            Form("N L", Between(), given(task=(None, "multilabel"), from_logits=False)),
            Form("N L", when=given(task=(None, "multilabel"), from_logits=True)),
            Form("N", Between(), given(task=(None, "binary"), from_logits=False)),
            Form("N", when=given(task=(None, "binary"), from_logits=True)),
        )
    ),
]
Outcomes = Annotated[
    Tensor,
    Target(
        (
            Form("N", ClassIndex("C", ignore="ignore_index"), MULTICLASS),
            Form("N", ClassIndex("C", ignore="ignore_index"), MULTICLASS),
            Form("N L", MARKS, MULTILABEL),
            Form("N L", MARKS, MULTILABEL),
            Form("N", MARKS, SCORED),
            Form("N", MARKS, SCORED),
        )
    ),
]
GIVEN = (COUNTED,)
MOST_AT_ONCE = 1 << 22
"""Most numbers that are converted to float64 at once."""


def log_likelihood(predictions: Tensor, targets: Tensor, from_logits: bool) -> Tensor:
    """Return the logarithm of the probability of each target; of each label, if there are several."""
    if predictions.dim() == 2 and targets.dim() == 1:
        if not from_logits:
            return predictions.gather(1, targets[:, None])[:, 0].double().log()
        return in_parts(_of_logits, predictions, targets)
    numbers, positive = predictions.double(), targets == 1
    if from_logits:
        margins = torch.where(positive, numbers, -numbers)
        return margins.clamp(max=0.0) - torch.log1p(torch.exp(-margins.abs()))
    return torch.where(positive, numbers.log(), torch.log1p(-numbers))


def _of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the logarithm of the softmax at targets, with all digits also where it is near 0."""
    below = below_largest(logits)
    rest = below.exp().scatter(1, largest(logits)[:, None], 0.0).sum(1)
    return below.gather(1, targets[:, None])[:, 0] - torch.log1p(rest)


def below_largest(logits: Tensor) -> Tensor:
    """Return logits in float64 minus the largest of their row; infinite ones that are equal are as likely as each other."""
    most = logits.amax(1, keepdim=True)
    return torch.where(logits == most, 0.0, logits.double() - most)


def softmax(logits: Tensor) -> Tensor:
    """Return probabilities of classes ``[N, C]`` in float64."""
    return in_parts(_softmax, logits)


def _softmax(logits: Tensor) -> Tensor:
    """Return probabilities of classes of some rows."""
    return below_largest(logits).softmax(1)


def sigmoid(logits: Tensor) -> Tensor:
    """Return probabilities in float64. Those of `torch.sigmoid` differ in their last bit between places in a tensor."""
    numbers = logits.double()
    small = torch.exp(-numbers.abs())
    return torch.where(numbers < 0, small, 1.0) / (1 + small)


def in_parts(compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Compute rows a part at a time: float64 would take much more memory than what was sent."""
    rows = max(1, MOST_AT_ONCE // max(1, tensors[0][:1].numel()))
    starts = range(0, max(1, len(tensors[0])), rows)
    return torch.cat([compute(*(tensor[start : start + rows] for tensor in tensors)) for start in starts])


def mean_score(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish the weighted mean of the scores that count; infinite ones are undefined."""
    scores, counts = _scores(rows, params)
    finite = np.isfinite(scores)
    sums, infinite = np.where(finite, scores, 0.0), np.flatnonzero(~finite)

    def run(weights: Weights) -> Value:
        impossible = int((weights[infinite] > 0).sum())
        if impossible:
            return Undefined(f"it is infinite: {impossible} samples have a target of probability 0")
        return ratio(float((weights * sums).sum()), float((weights * counts).sum()), "no sample counts")

    return run


def score_of_each(rows: Table, params: Params) -> Array:
    """Return the mean score of each row's labels; infinite if one has probability 0."""
    scores, counts = _scores(rows, params)
    return np.divide(scores, counts, out=np.full(len(rows), np.nan), where=counts > 0)


def _scores(rows: Table, params: Params) -> tuple[Array, Array]:
    """Return the sum of each row's scores, and the number of them."""
    scores = rows["score"]
    counts = rows["counts"] if "counts" in rows.columns else np.ones(scores.shape, bool)
    if params["like"] == "sklearn":
        # it clips probabilities
        least = np.finfo(np.float64).eps
        scores = scores.clip(-np.log1p(-least), -np.log(least))
    scores = np.where(counts, scores, 0.0)
    if scores.ndim == 2:
        return scores.sum(1), counts.sum(1, dtype=np.float64)
    return scores, counts.astype(np.float64)


def _counted(targets: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """Return targets with 0 for those that are ignored, and which count."""
    if ignore_index is None:
        return targets, None
    counts = targets != ignore_index
    return torch.where(counts, targets, 0), counts


@metric(
    title="Log loss",
    tasks=("classification",),
    finish=mean_score,
    each=score_of_each,
    likes=("sklearn",),
    requires=GIVEN,
    higher_is_better=False,
    keywords=("cross entropy", "negative log likelihood"),
    work="predictions",
)
def log_loss(
    predictions: Probabilities,
    targets: Outcomes,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The mean of minus the logarithm of the probability that the model gave to what happened.

    Formula:
        -\frac{1}{N} \sum_n \log p_{n, y_n}

    Args:
        predictions: Probabilities ``[N, C]``, of class 1 ``[N]``, or of labels ``[N, L]``; or logits.
        targets: Classes ``[N]``, or 0 and 1.
        task: Must be binary if predictions have one dimension.
        num_classes: The number of classes, which predictions show.
        from_logits: Whether predictions are logits.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        Probabilities themselves are used, and confident errors are worse than others.

    Pitfalls:
        A single target of probability 0 makes it infinite, which is no number: null. Probabilities are not clipped, except with
        ``like`` sklearn, at 2.2e-16; logits lose no digits. Of several labels it is the mean.

    Sources:
        - Good, Rational Decisions, 1952
        - scikit-learn, log_loss
    """
    classes, counts = _counted(targets.cpu(), ignore_index)
    # on the CPU, whose logarithms have the same bits wherever the rows are computed
    scores = 0.0 - log_likelihood(predictions.cpu(), classes, from_logits)
    return {"score": column(scores), **counting(counts)}


@metric(
    title="Brier score",
    tasks=("classification",),
    finish=mean_score,
    each=score_of_each,
    requires=GIVEN,
    higher_is_better=False,
    aliases=("brier_score", "brier_score_loss"),
    work="predictions",
)
def brier(
    predictions: Probabilities,
    targets: Outcomes,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The mean squared difference of probabilities and what happened, summed over classes.

    Formula:
        \frac{1}{N} \sum_n \sum_c (p_{nc} - [y_n = c])^2

    Args:
        predictions: Probabilities ``[N, C]``, of class 1 ``[N]``, or of labels ``[N, L]``; or logits.
        targets: Classes ``[N]``, or 0 and 1.
        task: Must be binary if predictions have one dimension.
        num_classes: The number of classes, which predictions show.
        from_logits: Whether predictions are logits.
        ignore_index: Samples, or labels, with this target do not count.

    Use when:
        Probabilities themselves are used, and no single sample may dominate.

    Pitfalls:
        It is from 0 to 2 over classes, but from 0 to 1 for one probability, ``[N]`` or ``[N, L]``, of which the other class
        is left out. For rare events it is small whatever the model.

    Sources:
        - Brier, Verification of forecasts expressed in terms of probability, 1950
        - scikit-learn, brier_score_loss
    """
    classes, counts = _counted(targets.cpu(), ignore_index)
    predictions = predictions.cpu()
    if predictions.dim() == 2 and targets.dim() == 1:
        scores = in_parts(_squares_of_logits if from_logits else _squares, predictions, classes)
    else:
        numbers = predictions.double()
        scores = ((sigmoid(predictions) if from_logits else numbers) - classes.double()).square()
    return {"score": column(scores), **counting(counts)}


def _squares_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over classes of each row ``[N]``."""
    return _squares(_softmax(logits), targets)


def _squares(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over classes of each row ``[N]``."""
    numbers = probabilities.double()
    happened = torch.zeros_like(numbers).scatter(1, targets[:, None], 1.0)
    return (numbers - happened).square().sum(1)


def calibration(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish the calibration error: the differences of confidence and accuracy in bins of equal width."""
    confidence, right = rows["confidence"], rows["right"]
    counts = rows["counts"] if "counts" in rows.columns else np.ones(right.shape, bool)
    place = np.nonzero(counts)
    confidence, right = confidence[place], right[place]
    every = len(right) == len(rows)
    bins: int = params["n_bins"]
    edges, last = np.arange(bins + 1) / bins, bins - 1
    if params["like"] == "torchmetrics":
        # its edges round otherwise, and the confidence 1 has a bin for itself
        edges, last = torch.linspace(0, 1, bins + 1, dtype=torch.float64).numpy(), bins
    places = np.minimum(np.searchsorted(edges, confidence, "right") - 1, last)
    edges = np.append(edges, 1.0)

    def run(weights: Weights) -> Value:
        drawn = weights if every else weights[place[0]]
        sums = [np.bincount(places, one, last + 1) for one in (drawn, drawn * confidence, drawn * right)]
        total = float(sums[0].sum())
        found = [_bin(edges, k, *(float(one[k]) for one in sums)) for k in range(last + 1)]
        if not total:
            return {name: Undefined("no sample counts") for name in ("l1", "l2", "max")} | {"bins": found}
        there = sums[0] > 0
        weight, sure, good = (one[there] for one in sums)
        gaps = np.abs(good - sure) / weight
        return {
            "l1": float((gaps * (weight / total)).sum()),
            "l2": sqrt(float((gaps**2 * (weight / total)).sum())),
            "max": float(gaps.max()),
            "bins": found,
        }

    return run


def _bin(edges: Array, place: int, weight: float, sure: float, right: float) -> Mapping[str, Any]:
    """Return one bin."""
    empty = "no sample has a confidence in this bin"
    return {
        "lower": float(edges[place]),
        "upper": float(edges[place + 1]),
        "count": weight,
        "confidence": ratio(sure, weight, empty),
        "accuracy": ratio(right, weight, empty),
    }


@metric(
    title="Calibration error",
    tasks=("classification",),
    finish=calibration,
    likes=("torchmetrics",),
    requires=GIVEN,
    higher_is_better=False,
    aliases=("expected_calibration_error", "ece"),
    signed=("n_bins",),
    work="predictions",
    redraw=("N/4", "N L/4", "64n_bins"),
)
def calibration_error(
    predictions: Probabilities,
    targets: Outcomes,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    from_logits: bool = False,
    ignore_index: int | None = None,
    n_bins: Annotated[int, Ge(1), Le(1000)] = 15,
) -> Columns:
    r"""How far confidence is from the share of right decisions, among samples of about equal confidence.

    Formula:
        \sum_b \frac{n_b}{N} \left| \text{acc}_b - \text{conf}_b \right|

    Args:
        predictions: Probabilities ``[N, C]``, of class 1 ``[N]``, or of labels ``[N, L]``; or logits.
        targets: Classes ``[N]``, or 0 and 1.
        task: Must be binary if predictions have one dimension.
        num_classes: The number of classes, which predictions show.
        from_logits: Whether predictions are logits.
        ignore_index: Samples, or labels, with this target do not count.
        n_bins: Bins of equal width from 0 to 1; each holds its lower edge, the last one its upper edge too.

    Use when:
        A confidence of 0.8 should mean that 80 of 100 decisions are right.

    Pitfalls:
        With one probability, or several labels, the confidence is that of the positive class, else that of the predicted one.
        A model can be calibrated and useless. Few samples a bin make the error seem larger than it is; other bins give
        another error. ``l1`` is the formula, ``l2`` the root of the mean of squares, ``max`` the largest difference.

    Sources:
        - Guo et al., On Calibration of Modern Neural Networks, 2017
        - torchmetrics, CalibrationError
    """
    classes, counts = _counted(targets.cpu(), ignore_index)
    predictions = predictions.cpu()
    if predictions.dim() == 2 and targets.dim() == 1:
        confidence = in_parts(_confidence, predictions) if from_logits else predictions.double().amax(1)
        right = largest(predictions) == classes
    else:
        confidence = sigmoid(predictions) if from_logits else predictions.double()
        right = classes == 1
    return {"confidence": column(confidence), "right": column(right), **counting(counts)}


def _confidence(logits: Tensor) -> Tensor:
    """Return the largest probability of each row."""
    return 1 / below_largest(logits).exp().sum(1)
