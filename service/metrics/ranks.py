"""Agreement by order alone: rank correlations, and the concordance of risks with times to an event."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from torch import Tensor

from service.catalogue.domains import OneOf
from service.catalogue.metric import Number, Params, Undefined, Value, Weights, metric
from service.catalogue.spec import Example, Prediction, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.correlation import CONSTANT_PREDICTIONS, CONSTANT_TARGETS, correlation, mean_size
from service.metrics.finishes import column, ratio
from service.metrics.outputs import EMPTY, OUTPUTS, Estimates, Observations, Run, by_output, pairs


def codes_of(*columns: Array) -> Array:
    """Return the place of each row among the different ones, in the order of the first column, then of the others."""
    order = np.lexsort(columns[::-1])
    new = np.zeros(len(order), dtype=bool)
    for one in columns:
        ordered = one[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.cumsum(new)
    return codes


def _spearman(params: Params, predictions: Array, targets: Array) -> Run:
    """Prepare the correlation of weighted mean ranks."""
    predicted, known = codes_of(predictions), codes_of(targets)

    def ranks(codes: Array, weights: Weights) -> Array:
        share = np.bincount(codes, weights=weights)
        return (np.cumsum(share) - share / 2)[codes]

    def run(weights: Weights) -> Number:
        if not weights.any():
            return Undefined(EMPTY)
        return correlation(ranks(predicted, weights), ranks(known, weights), weights)

    return run


@metric(
    title="Spearman correlation",
    tasks=("regression", "ranking"),
    aliases=("spearman_correlation", "spearmanr"),
    finish=by_output(_spearman, "prediction", "target"),
    requires=(OUTPUTS,),
    work=("8N", "8N D"),
    redraw=("2N", "2N D", "300 D"),
)
def spearman(predictions: Estimates, targets: Observations) -> Columns:
    r"""The correlation of ranks: how well predictions put samples in the order of the targets, from -1 to 1.

    Formula:
        \operatorname{pearson}(\operatorname{rank}(\hat y), \operatorname{rank}(y))

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Only the order matters: scores of quality, similarity of sentences.

    Pitfalls:
        Equal values share the mean of their ranks. A weight of 2 is the same as a sample twice, also in the ranks.
        Undefined where all targets, or all predictions, are equal.

    Sources:
        - scipy, spearmanr
    """
    return pairs(predictions, targets)


def descents(codes: Array) -> Callable[[Weights, Weights], float]:
    """Prepare the weight of the pairs in which a code precedes a smaller one.

    The result takes the weights of rows as the first of a pair, and as the second. Codes are integers >= 0. A pair is counted
    at the highest bit in which its codes differ: O(n log n), in sums over arrays.
    """
    order, levels = np.arange(len(codes), dtype=np.int32), list[tuple[Array, Array, Array, Array]]()
    for bit in reversed(range(int(codes.max(initial=0)).bit_length())):
        group, one = codes[order] >> (bit + 1), (codes[order] >> bit & 1).astype(bool)
        before = np.concatenate(([0], np.cumsum(one))).astype(np.int32)
        starts = np.searchsorted(group, group[~one])
        levels.append((order[one], order[~one], before[:-1][~one], before[starts]))
        order = order[np.lexsort((one, group))]

    def run(first: Weights, second: Weights) -> float:
        total = 0.0
        for ones, zeros, before, start in levels:
            sums = np.concatenate(([0.0], np.cumsum(first[ones])))
            total += float((second[zeros] * (sums[before] - sums[start])).sum())
        return total

    return run


def _apart(codes: Array, weights: Weights) -> float:
    """Return the weight of the pairs of different codes."""
    share = np.bincount(codes, weights=weights)
    return float((share * (np.cumsum(share) - share)).sum())


def _kendall(params: Params, predictions: Array, targets: Array) -> Run:
    """Prepare the pairs in the same order less those in the opposite one, over those that differ."""
    predicted, known = codes_of(predictions), codes_of(targets)
    either, order = codes_of(predictions, targets), np.lexsort((known, predicted))
    opposite = descents(known[order])

    def run(weights: Weights) -> Number:
        if not weights.any():
            return Undefined(EMPTY)
        in_predictions, in_targets = _apart(predicted, weights), _apart(known, weights)
        if not in_targets:
            return Undefined(CONSTANT_TARGETS)
        if not in_predictions:
            return Undefined(CONSTANT_PREDICTIONS)
        in_both = in_predictions + in_targets - _apart(either, weights)
        agreed = in_both - 2 * opposite(weights[order], weights[order])
        return float(np.clip(agreed / mean_size(in_predictions, in_targets), -1, 1))

    return run


@metric(
    title="Kendall correlation",
    tasks=("regression", "ranking"),
    aliases=("kendall_tau", "kendalltau"),
    finish=by_output(_kendall, "prediction", "target"),
    requires=(OUTPUTS,),
    work=("30N", "30N D"),
    redraw=("7N", "7N D", "900 D"),
)
def kendall(predictions: Estimates, targets: Observations) -> Columns:
    r"""Kendall's tau-b: pairs of samples in the right order less those in the wrong one, from -1 to 1.

    Formula:
        \frac{P - Q}{\sqrt{(P + Q + T_{\hat y})(P + Q + T_y)}}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Only the order matters, there are few samples or many ties, and the number is to be read as a share of pairs.

    Pitfalls:
        T are the pairs that are equal in one of the two only; tau-a and tau-c treat them otherwise. A pair weighs the
        product of its weights. Undefined where all targets, or all predictions, are equal.

    Sources:
        - Kendall (1945), The Treatment of Ties in Ranking Problems, https://doi.org/10.1093/biomet/33.3.239
        - scipy, kendalltau
    """
    return pairs(predictions, targets)


def _c_index(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Prepare the weight of comparable pairs in the right order, equal pairs counted half."""
    failed = rows["event"]
    times, risks = codes_of(rows["time"]), codes_of(rows["risk"])
    # at one time failures precede those censored, which lived longer; by rising risk, as two failures do not compare
    order = np.lexsort((risks, ~failed, times))
    moment = codes_of(times, ~failed)[order]
    failed, risks = failed[order], risks[order]
    right, groups = descents(risks), np.lexsort((moment, risks))
    after = np.searchsorted(moment, moment, side="right")
    within = codes_of(risks[groups], moment[groups])
    equal_after = np.searchsorted(within, within, side="right")
    ends = np.searchsorted(risks[groups], risks[groups], side="right")

    def run(weights: Weights) -> Number:
        chosen = weights[order]
        first = chosen * failed
        sums = np.concatenate(([0.0], np.cumsum(chosen)))
        comparable = float((first * (sums[-1] - sums[after])).sum())
        grouped = np.concatenate(([0.0], np.cumsum(chosen[groups])))
        equal = float((first[groups] * (grouped[ends] - grouped[equal_after])).sum())
        return ratio(
            right(first, chosen) + equal / 2, comparable, "no two samples show which of them failed first"
        )

    return run


@metric(
    title="Concordance index",
    tasks=("regression",),
    aliases=("concordance_index", "harrell_c"),
    keywords=("survival analysis", "censored", "time to event", "hazard"),
    finish=_c_index,
    work="40N",
    redraw="8N",
    example=Example(
        inputs={"predictions": [0.9, 0.4, 0.7, 0.2], "targets": [2.0, 8.0, 3.5, 8.0], "events": [1, 0, 1, 1]}
    ),
)
def c_index(
    predictions: Annotated[Tensor, Prediction("N")],
    targets: Annotated[Tensor, Target("N")],
    events: Annotated[Tensor, Target("N", OneOf((0, 1), "1 where the time is that of a failure"))],
) -> Columns:
    r"""Harrell's C: the share of comparable pairs in which the one that fails first has the higher risk.

    Formula:
        \frac{\sum_{i, j} w_{ij} \bigl([r_i > r_j] + \tfrac12 [r_i = r_j]\bigr)}{\sum_{i, j} w_{ij}},
        \quad w_{ij} = e_i\, [t_i < t_j \text{ or } (t_i = t_j \text{ and } e_j = 0)]

    Args:
        predictions: Risks ``[N]``: the higher, the sooner the failure.
        targets: Times ``[N]`` of the failure, or of the last observation.
        events: 1 ``[N]`` where the failure was observed, 0 where the time is censored.

    Use when:
        Times to an event are partly unknown: patients who left a study, machines that still run.

    Pitfalls:
        lifelines takes predicted times, the opposite of risks: negate them. Two failures at one time do not compare; one
        censored at the time of a failure lived longer. Undefined where no pair compares. 0.5 is chance.

    Sources:
        - Harrell et al. (1982), Evaluating the Yield of Medical Tests, https://doi.org/10.1001/jama.1982.03320430047030
        - lifelines, concordance_index
    """
    return {
        "risk": column(predictions.double()),
        "time": column(targets.double()),
        "event": column(events == 1),
    }
