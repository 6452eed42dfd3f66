"""Agreement of clusters with classes, however clusters are numbered."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from service.catalogue.domains import Integers
from service.catalogue.metric import Finish, Params, Undefined, Value, Weights, metric
from service.catalogue.spec import Prediction, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column

Clusters = Annotated[Tensor, Prediction("N", Integers())]
_MOST = 1e100
"""Largest sum of weights of which pairs are counted."""
Groups = Annotated[Tensor, Target("N", Integers())]


@dataclass(frozen=True, slots=True)
class Contingency:
    """The weights of clusters, of classes, and of pairs that occur ``[K]``, with the cluster and the class of each pair."""

    pairs: Array
    clusters: Array
    classes: Array
    cluster_of: Array
    class_of: Array

    @property
    def total(self) -> float:
        """The weight of all samples."""
        return float(self.pairs.sum())


def from_contingency(score: Callable[[Contingency], Value]) -> Finish:
    """Return the finish of a function of the contingency table."""

    def finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
        _, cluster = np.unique(rows["cluster"], return_inverse=True)
        kinds, group = np.unique(rows["group"], return_inverse=True)
        pairs, codes = np.unique(cluster * max(len(kinds), 1) + group, return_inverse=True)
        cluster_of, class_of = np.divmod(pairs, max(len(kinds), 1))

        def run(weights: Weights) -> Value:
            sums = np.bincount(codes, weights, len(pairs))
            there = sums > 0
            found = sums[there], cluster_of[there], class_of[there]
            clusters, classes = (np.bincount(of, found[0]) for of in found[1:])
            return score(Contingency(found[0], clusters, classes, *found[1:]))

        return run

    return finish


def mutual_information(found: Contingency) -> float:
    """Return the information, in nats, that a cluster gives about the class."""
    shares = found.pairs / found.total
    expected = found.clusters[found.cluster_of] / found.total * found.classes[found.class_of]
    # a sum of terms of either sign, which is never negative but for rounding
    return max(0.0, float((shares * np.log(found.pairs / expected)).sum()))


def entropy(weights: Array) -> float:
    """Return the entropy of shares in nats."""
    shares = weights[weights > 0] / weights.sum()
    return max(0.0, -float((shares * np.log(shares)).sum())) if len(shares) > 1 else 0.0


def _normalized_information(found: Contingency) -> Value:
    """Divide the mutual information by the mean of the entropies; two partitions of one part agree."""
    if not found.total:
        return Undefined("there are no samples")
    if _same(found):
        return 1.0
    return min(1.0, mutual_information(found) / ((entropy(found.clusters) + entropy(found.classes)) / 2))


def _parts_of_v(found: Contingency) -> Value:
    """Return homogeneity, completeness and their harmonic mean."""
    if not found.total:
        return dict.fromkeys(("homogeneity", "completeness", "v_measure"), Undefined("there are no samples"))
    information, clusters, classes = (
        mutual_information(found),
        entropy(found.clusters),
        entropy(found.classes),
    )
    # a side on which nothing is uncertain leaves nothing to explain
    pure = len(found.pairs) == (found.clusters > 0).sum()
    whole = len(found.pairs) == (found.classes > 0).sum()
    homogeneity = 1.0 if pure else min(1.0, information / classes)
    completeness = 1.0 if whole else min(1.0, information / clusters)
    total = homogeneity + completeness
    mean = 2 * homogeneity * completeness / total if total else 0.0
    return {"homogeneity": homogeneity, "completeness": completeness, "v_measure": mean}


def _adjusted_rand(found: Contingency) -> Value:
    """Return the share of pairs of samples on which both agree, scaled so that chance is 0."""
    if not found.total:
        return Undefined("there are no samples")
    if _same(found):
        return 1.0
    if found.total > _MOST:
        return Undefined(f"weights sum to more than {_MOST:g}")
    together, clusters, classes = (_pairs(one) for one in (found.pairs, found.clusters, found.classes))
    every = _pairs(np.array([found.total]))
    # as fractions, since the terms nearly cancel for independent partitions
    chance = clusters * classes
    spread = (clusters + classes) * every / 2 - chance
    return (
        float((together * every - chance) / spread) if spread else Undefined("there are no pairs of samples")
    )


def _pairs(weights: Array) -> Fraction:
    """Return the number of pairs of samples within each part, summed."""
    return Fraction(float((weights * (weights - 1) / 2).sum()))


def _same(found: Contingency) -> bool:
    """Return whether the partitions are equal: each cluster is a class."""
    return len(found.pairs) == (found.clusters > 0).sum() == (found.classes > 0).sum()


def _rows(predictions: Tensor, targets: Tensor) -> Columns:
    """Return the columns ``cluster`` and ``group``."""
    return {"cluster": column(predictions.to(torch.int64)), "group": column(targets.to(torch.int64))}


@metric(
    title="Normalized mutual information",
    tasks=("clustering",),
    finish=from_contingency(_normalized_information),
    redraw="N/2",
    aliases=("normalized_mutual_info_score",),
)
def nmi(predictions: Clusters, targets: Groups) -> Columns:
    r"""How much clusters say about classes, relative to the mean of both entropies.

    Formula:
        \frac{2\, I(K; Y)}{H(K) + H(Y)}

    Args:
        predictions: Clusters ``[N]``, any integers.
        targets: Classes ``[N]``, any integers.

    Use when:
        Clusters have no names, and the numbers of clusters and classes may differ.

    Pitfalls:
        It is not corrected for chance: many small clusters score above 0 though they mean nothing, see ari. Two equal
        partitions have 1, also of a single cluster.

    Sources:
        - Strehl and Ghosh, Cluster ensembles, 2002
        - scikit-learn, normalized_mutual_info_score
    """
    return _rows(predictions, targets)


@metric(
    title="Adjusted Rand index",
    tasks=("clustering",),
    finish=from_contingency(_adjusted_rand),
    redraw="N/2",
    aliases=("adjusted_rand_score", "adjusted_rand_index"),
)
def ari(predictions: Clusters, targets: Groups) -> Columns:
    r"""The agreement on which pairs of samples belong together, 0 for chance and 1 for equal partitions.

    Formula:
        \frac{\sum_{ij} \binom{n_{ij}}{2} - E}{\frac{1}{2} \left( \sum_i \binom{a_i}{2} + \sum_j \binom{b_j}{2} \right) - E},
        \quad E = \sum_i \binom{a_i}{2} \sum_j \binom{b_j}{2} \Big/ \binom{N}{2}

    Args:
        predictions: Clusters ``[N]``, any integers.
        targets: Classes ``[N]``, any integers.

    Use when:
        Partitions are compared, and chance must not be rewarded.

    Pitfalls:
        Large clusters dominate, as they have most pairs. It can be below 0. A weight counts a sample that many times, so weights
        should be whole numbers.

    Sources:
        - Hubert and Arabie, Comparing partitions, 1985
        - scikit-learn, adjusted_rand_score
    """
    return _rows(predictions, targets)


@metric(
    title="V-measure",
    tasks=("clustering",),
    finish=from_contingency(_parts_of_v),
    redraw="N/2",
    aliases=("v_measure_score", "homogeneity_completeness_v_measure"),
)
def v_measure(predictions: Clusters, targets: Groups) -> Columns:
    r"""Homogeneity, whether clusters hold one class each, completeness, whether classes are in one cluster, and their mean.

    Formula:
        h = \frac{I(K; Y)}{H(Y)}, \quad c = \frac{I(K; Y)}{H(K)}, \quad V = \frac{2 h c}{h + c}

    Args:
        predictions: Clusters ``[N]``, any integers.
        targets: Classes ``[N]``, any integers.

    Use when:
        You want to see whether clusters are too coarse or too fine.

    Pitfalls:
        A cluster for each sample is perfectly homogeneous. It is not corrected for chance, see ari. The V-measure is equal to nmi.

    Sources:
        - Rosenberg and Hirschberg, V-measure, 2007
        - scikit-learn, homogeneity_completeness_v_measure
    """
    return _rows(predictions, targets)
