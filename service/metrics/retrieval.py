"""Retrieval: how well scores order the documents of each query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from torch import Tensor

from service.catalogue.domains import AtLeast
from service.catalogue.metric import Each, Finish, Listing, Number, Params, Weights, metric
from service.catalogue.spec import Prediction, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column, ratio

Scores = Annotated[Tensor, Prediction("N")]
Relevance = Annotated[Tensor, Target("N", AtLeast(0))]
Queries = Annotated[Sequence[str | int], Listing("target", str | int)]
TopK = Annotated[int, Ge(1)] | None
TASKS = ("ranking", "metric_learning")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents sorted by query, and in each by falling score.

    ``query [N]`` is the query of each document, ``rank [N]`` its place from 1, ``relevance [N]`` its relevance, ``order [N]`` its
    row; ``sizes [Q]`` are the documents of each query, ``names [Q]`` their ids.
    """

    query: Array
    rank: Array
    relevance: Array
    order: Array
    sizes: Array
    names: list[str]

    def total(self, values: Array) -> Array:
        """Return the sum of the values of each query's documents, in the order of the ranks."""
        return np.bincount(self.query, weights=values, minlength=len(self.sizes))

    def cumulated(self, values: Array) -> Array:
        """Return the sum of the integers of each query's documents up to each rank."""
        sums = np.cumsum(values)
        starts = np.cumsum(self.sizes) - self.sizes
        return sums - np.repeat((sums - values)[starts], self.sizes)

    def within(self, top_k: int | None) -> Array:
        """Return whether a document is among the first ``top_k``."""
        return self.rank <= (len(self.rank) if top_k is None else top_k)


def ranking_of(rows: Table, like: str | None, by: str = "score") -> Ranking:
    """Sort documents by query and falling score, or by another column; documents of equal score keep their order."""
    codes = dict[str, int]()
    query = np.array([codes.setdefault(name, len(codes)) for name in rows["query"]], dtype=np.int64)
    keys, place = -rows[by], np.arange(len(query))
    if like == "trec_eval":
        # trec_eval reads scores in single precision, and puts the greater id first where they are equal
        with np.errstate(over="ignore"):
            keys, place = keys.astype(np.float32), -place
    order = np.lexsort((place, keys, query))
    sizes = np.bincount(query, minlength=len(codes))
    rank = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    return Ranking(query[order], rank, rows["relevance"][order], order, sizes, list(codes))


Measure = Callable[[Ranking, Table, Params], Array]
"""Returns the value of each query, for those with something relevant."""


def _values(measure: Measure, rows: Table, params: Params) -> tuple[Ranking, Array, Array]:
    """Return the ranking, the value of each query, and whether it has something relevant."""
    ranking = ranking_of(rows, params.get("like"))
    relevant = ranking.total(ranking.relevance > 0) > 0
    with np.errstate(all="ignore"):
        values = measure(ranking, rows, params)
    return ranking, np.where(relevant, values, 0.0), relevant


def mean_of_queries(measure: Measure) -> Finish:
    """Return the finish of the mean over queries that have something relevant; like trec_eval, over all.

    The weight of a query is the mean weight of its documents.
    """

    def finish(rows: Table, params: Params) -> Callable[[Weights], Number]:
        ranking, values, relevant = _values(measure, rows, params)
        counts = relevant | (params.get("like") == "trec_eval")

        def run(weights: Weights) -> Number:
            share = ranking.total(weights[ranking.order]) / ranking.sizes * counts
            return ratio(float((share * values).sum()), float(share.sum()), "no query has anything relevant")

        return run

    return finish


def each_query(measure: Measure) -> Each:
    """Return the value of a document's query as the value of each row; NaN where nothing is relevant."""

    def each(rows: Table, params: Params) -> Array:
        ranking, values, relevant = _values(measure, rows, params)
        values = np.where(relevant | (params.get("like") == "trec_eval"), values, np.nan)
        spread = np.empty(len(rows))
        spread[ranking.order] = values[ranking.query]
        return spread

    return each


def left_out(rows: Table, params: Params) -> dict[str, str]:
    """Return the reason for each query without a value, by its path."""
    if params.get("like") == "trec_eval":
        return {}
    ranking = ranking_of(rows, None)
    nothing = np.flatnonzero(ranking.total(ranking.relevance > 0) == 0)
    return {
        f"queries/{ranking.names[place]}": f"query {ranking.names[place]} has nothing relevant"
        for place in nothing
    }


def _gains(relevance: Array, most: Array, gain: str) -> Array:
    """Return the gain of each document, up to a factor for its query, whose greatest relevance is ``most``."""
    if gain == "linear":
        return np.ldexp(relevance, -np.frexp(most)[1])
    # 2^r - 1, times 2^-most, so that it never overflows
    small = np.expm1(np.log(2) * relevance) * np.exp2(-most)
    return np.where(relevance < 1, small, np.exp2(relevance - most) - np.exp2(-most))


def _ndcg(ranking: Ranking, rows: Table, params: Params) -> Array:
    """Return the discounted gain of each query over that of the best order."""
    ideal = ranking_of(rows, None, by="relevance")
    most = ideal.relevance[np.cumsum(ideal.sizes) - ideal.sizes] if len(rows) else ideal.relevance
    gained, best = (
        one.total(
            _gains(one.relevance, most[one.query], params["gain"])
            / np.log2(one.rank + 1)
            * one.within(params["top_k"])
        )
        for one in (ranking, ideal)
    )
    return gained / best


@metric(
    title="Normalised discounted cumulative gain",
    tasks=TASKS,
    aliases=("normalized_dcg",),
    finish=mean_of_queries(_ndcg),
    each=each_query(_ndcg),
    left_out=left_out,
    likes=("trec_eval",),
    signed=("top_k", "gain"),
    unit="query",
)
def ndcg(
    predictions: Scores,
    targets: Relevance,
    queries: Queries,
    *,
    top_k: TopK = None,
    gain: Literal["linear", "exponential"] = "linear",
) -> Columns:
    r"""How much of the best possible gain a list has, where a document counts less the later it comes.

    Formula:
        \frac{1}{Q} \sum_q \frac{\mathrm{DCG}_q}{\mathrm{IDCG}_q}, \quad \mathrm{DCG} = \sum_{r \le k} \frac{g_r}{\log_2(1 + r)}

    Args:
        predictions: Scores ``[N]`` of documents: the higher, the earlier in the list.
        targets: Relevance ``[N]``, graded: the greater, the better; 0 for irrelevant.
        queries: The id ``[N]`` of each document's query: texts or integers; 1 and "1" are the same query.
        top_k: Ranks that count; null for all documents.
        gain: The gain of a document: its relevance $y$, or $2^y - 1$.

    Use when:
        Relevance has grades, and the first places matter most.

    Pitfalls:
        The gain is the relevance, as in trec_eval and scikit-learn; `exponential` is $2^y - 1$, as in much of learning to rank and
        in the loss of this name. scikit-learn and torchmetrics average over the orders of equal scores.
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; with
        `like` trec_eval they count 0, and the later document comes first where scores are equal in single precision.

    Sources:
        - Järvelin & Kekäläinen (2002), Cumulated Gain-Based Evaluation of IR Techniques, https://doi.org/10.1145/582415.582418
        - trec_eval, ndcg_cut
    """
    return _documents(predictions, targets, queries)


def _map(ranking: Ranking, rows: Table, params: Params) -> Array:
    """Return the sum of the precisions at the relevant documents, over their number."""
    hits = ranking.relevance > 0
    precision = ranking.cumulated(hits.astype(np.int64)) / ranking.rank
    return ranking.total(precision * hits * ranking.within(params["top_k"])) / ranking.total(hits)


@metric(
    title="Mean average precision of queries",
    tasks=TASKS,
    aliases=("retrieval_map",),
    finish=mean_of_queries(_map),
    each=each_query(_map),
    left_out=left_out,
    likes=("trec_eval",),
    signed=("top_k",),
    unit="query",
)
def map(predictions: Scores, targets: Relevance, queries: Queries, *, top_k: TopK = None) -> Columns:
    r"""The mean precision at the ranks of the relevant documents: one number for a whole list.

    Formula:
        \frac{1}{Q} \sum_q \frac{1}{R_q} \sum_{r \le k,\ r\ \text{relevant}} P_q(r)

    Args:
        predictions: Scores ``[N]`` of documents: the higher, the earlier in the list.
        targets: Relevance ``[N]``, above 0 for what is relevant.
        queries: The id ``[N]`` of each document's query: texts or integers; 1 and "1" are the same query.
        top_k: Ranks that count; null for all documents.

    Use when:
        A query has several relevant documents, and all are to come early.

    Pitfalls:
        With `top_k` it still divides by all relevant documents, as trec_eval and ranx; others divide by those found. It
        is not the average precision of detection: that is mean_average_precision.
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; with
        `like` trec_eval they count 0, and the later document comes first where scores are equal in single precision.

    Sources:
        - trec_eval, map and map_cut
    """
    return _documents(predictions, targets, queries)


def _mrr(ranking: Ranking, rows: Table, params: Params) -> Array:
    """Return one over the rank of the first relevant document, 0 if it is not among the first."""
    hits = ranking.relevance > 0
    first = hits & (ranking.cumulated(hits.astype(np.int64)) == 1) & ranking.within(params["top_k"])
    return ranking.total(first / ranking.rank)


@metric(
    title="Mean reciprocal rank",
    tasks=TASKS,
    aliases=("mean_reciprocal_rank", "reciprocal_rank"),
    finish=mean_of_queries(_mrr),
    each=each_query(_mrr),
    left_out=left_out,
    likes=("trec_eval",),
    signed=("top_k",),
    unit="query",
)
def mrr(predictions: Scores, targets: Relevance, queries: Queries, *, top_k: TopK = None) -> Columns:
    r"""One over the rank of the first relevant document: 1 if it comes first, 0.5 if second.

    Formula:
        \frac{1}{Q} \sum_q \frac{1}{r_q}

    Args:
        predictions: Scores ``[N]`` of documents: the higher, the earlier in the list.
        targets: Relevance ``[N]``, above 0 for what is relevant.
        queries: The id ``[N]`` of each document's query: texts or integers; 1 and "1" are the same query.
        top_k: Ranks that count; a query whose first relevant document comes later has 0; null for all documents.

    Use when:
        One right answer is enough: questions, known items.

    Pitfalls:
        It sees the first relevant document only, and the first two ranks decide most of it.
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; with
        `like` trec_eval they count 0, and the later document comes first where scores are equal in single precision.

    Sources:
        - Voorhees (1999), The TREC-8 Question Answering Track Report
        - trec_eval, recip_rank
    """
    return _documents(predictions, targets, queries)


def _recall_at_k(ranking: Ranking, rows: Table, params: Params) -> Array:
    """Return the share of the relevant documents that are among the first."""
    hits = ranking.relevance > 0
    return ranking.total(hits & ranking.within(params["top_k"])) / ranking.total(hits)


@metric(
    title="Recall at k",
    tasks=TASKS,
    aliases=("retrieval_recall",),
    finish=mean_of_queries(_recall_at_k),
    each=each_query(_recall_at_k),
    left_out=left_out,
    likes=("trec_eval",),
    signed=("top_k",),
    unit="query",
)
def recall_at_k(predictions: Scores, targets: Relevance, queries: Queries, *, top_k: TopK = None) -> Columns:
    r"""The share of a query's relevant documents that are among the first k.

    Formula:
        \frac{1}{Q} \sum_q \frac{|\{r \le k: r\ \text{relevant}\}|}{R_q}

    Args:
        predictions: Scores ``[N]`` of documents: the higher, the earlier in the list.
        targets: Relevance ``[N]``, above 0 for what is relevant.
        queries: The id ``[N]`` of each document's query: texts or integers; 1 and "1" are the same query.
        top_k: Ranks that count; null for all documents.

    Use when:
        A later stage reads the first k documents, and is to find all that is relevant among them.

    Pitfalls:
        Without `top_k` it is always 1. It counts the relevant documents that were sent, not those in the whole
        collection. A query with more than k relevant documents cannot reach 1.
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; with
        `like` trec_eval they count 0, and the later document comes first where scores are equal in single precision.

    Sources:
        - trec_eval, recall
    """
    return _documents(predictions, targets, queries)


def _precision_at_k(ranking: Ranking, rows: Table, params: Params) -> Array:
    """Return the relevant documents among the first, over the number of ranks."""
    ranks = ranking.sizes if params["top_k"] is None else params["top_k"]
    return ranking.total((ranking.relevance > 0) & ranking.within(params["top_k"])) / ranks


@metric(
    title="Precision at k",
    tasks=TASKS,
    aliases=("retrieval_precision",),
    finish=mean_of_queries(_precision_at_k),
    each=each_query(_precision_at_k),
    left_out=left_out,
    likes=("trec_eval",),
    signed=("top_k",),
    unit="query",
)
def precision_at_k(
    predictions: Scores, targets: Relevance, queries: Queries, *, top_k: TopK = None
) -> Columns:
    r"""The share of the first k ranks that hold a relevant document.

    Formula:
        \frac{1}{Q} \sum_q \frac{|\{r \le k: r\ \text{relevant}\}|}{k}

    Args:
        predictions: Scores ``[N]`` of documents: the higher, the earlier in the list.
        targets: Relevance ``[N]``, above 0 for what is relevant.
        queries: The id ``[N]`` of each document's query: texts or integers; 1 and "1" are the same query.
        top_k: Ranks that count; null for all documents.

    Use when:
        A page shows k results, and each place is to be worth it.

    Pitfalls:
        It divides by k even where a query has fewer documents, as trec_eval. A query with fewer than k relevant documents
        cannot reach 1.
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; with
        `like` trec_eval they count 0, and the later document comes first where scores are equal in single precision.

    Sources:
        - trec_eval, P
    """
    return _documents(predictions, targets, queries)


def _hit_rate(ranking: Ranking, rows: Table, params: Params) -> Array:
    """Return 1 if a relevant document is among the first, else 0."""
    return ranking.total((ranking.relevance > 0) & ranking.within(params["top_k"])) > 0


@metric(
    title="Hit rate",
    tasks=TASKS,
    aliases=("success_at_k", "hit_ratio"),
    finish=mean_of_queries(_hit_rate),
    each=each_query(_hit_rate),
    left_out=left_out,
    likes=("trec_eval",),
    signed=("top_k",),
    unit="query",
)
def hit_rate(predictions: Scores, targets: Relevance, queries: Queries, *, top_k: TopK = None) -> Columns:
    r"""The share of queries with a relevant document among the first k.

    Formula:
        \frac{1}{Q} \sum_q \bigl[\exists\, r \le k: r\ \text{relevant}\bigr]

    Args:
        predictions: Scores ``[N]`` of documents: the higher, the earlier in the list.
        targets: Relevance ``[N]``, above 0 for what is relevant.
        queries: The id ``[N]`` of each document's query: texts or integers; 1 and "1" are the same query.
        top_k: Ranks that count; null for all documents.

    Use when:
        One relevant document among k is enough: recommendations, candidates for a reader.

    Pitfalls:
        Without `top_k` it is always 1. It does not see whether the document comes first or last among the k.
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; with
        `like` trec_eval they count 0, and the later document comes first where scores are equal in single precision.

    Sources:
        - trec_eval, success
    """
    return _documents(predictions, targets, queries)


def _documents(predictions: Tensor, targets: Tensor, queries: Sequence[str | int]) -> Columns:
    """Return documents as rows."""
    return {
        "query": np.array([str(query) for query in queries], dtype=object),
        "score": column(predictions.double()),
        "relevance": column(targets.double()),
    }
