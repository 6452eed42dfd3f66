"""Retrieval: how well scores order the documents of each query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from torch import Tensor

from service.catalogue.domains import AtLeast
from service.catalogue.metric import Each, Finish, LeftOut, Like, Listing, Number, Params, Weights, metric
from service.catalogue.spec import Example, Prediction, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column, ratio

Scores = Annotated[Tensor, Prediction("N")]
Relevance = Annotated[Tensor, Target("N", AtLeast(0))]
Queries = Annotated[Sequence[str | int], Listing("target", str | int)]
TopK = Annotated[int, Ge(1)] | None
TASKS = ("ranking", "metric_learning")
PEERS: tuple[Like, ...] = ("trec_eval", "torchmetrics")
"""Peers that count 0 for a query with nothing relevant."""
AVERAGING: tuple[Like, ...] = (*PEERS, "sklearn")
"""Peers of `ndcg`; the last two average over the orders of equal scores."""
EXAMPLE = Example(
    inputs={
        "predictions": [0.9, 0.4, 0.7, 0.2, 0.5],
        "targets": [0, 2, 1, 1, 0],
        "queries": ["red shoes", "red shoes", "red shoes", "tent", "tent"],
    },
    params={"top_k": 2},
)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents sorted by query, and in each by falling score.

    ``query [N]`` is the query of each document, ``rank [N]`` its place from 1, ``relevance [N]`` and ``score [N]`` are its own,
    and ``order [N]`` is its row; ``sizes [Q]`` are the documents of each query, ``names [Q]`` their ids.
    """

    query: Array
    rank: Array
    relevance: Array
    score: Array
    order: Array
    sizes: Array
    names: list[str]

    def total(self, values: Array) -> Array:
        """Return the sum of the values of each query's documents, in the order of the ranks."""
        return np.bincount(self.query, weights=values, minlength=len(self.sizes))

    def cumulated(self, values: Array) -> Array:
        """Return the sum of the integers of each query's documents up to each rank."""
        sums: Array = np.cumsum(values)
        before = (sums - values)[self.rank == 1]
        return sums - np.repeat(before, self.sizes[self.sizes > 0])

    def within(self, top_k: int | None) -> Array:
        """Return whether a document is among the first ``top_k``."""
        return self.rank <= (len(self.rank) if top_k is None else top_k)


def ranking_of(rows: Table, like: str | None) -> Ranking:
    """Sort documents by query and falling score; documents of equal score keep their order."""
    codes = dict[str, int]()
    query = np.array([codes.setdefault(name, len(codes)) for name in rows["query"]], dtype=np.int64)
    keys, place = -rows["score"], np.arange(len(query))
    if like == "trec_eval":
        # trec_eval reads scores in single precision, and puts the greater id first where they are equal
        with np.errstate(over="ignore"):
            keys, place = keys.astype(np.float32), -place
    order = np.lexsort((place, keys, query))
    return _ranking(query[order], rows["relevance"][order], rows["score"][order], order, list(codes))


def _ranking(query: Array, relevance: Array, score: Array, order: Array, names: list[str]) -> Ranking:
    """Count the ranks of sorted documents."""
    sizes = np.bincount(query, minlength=len(names))
    rank = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    return Ranking(query, rank, relevance, score, order, sizes, names)


Measure = Callable[[Ranking, Params], Array]
"""Returns the value of each query, for those with something relevant."""


def _values(measure: Measure, ranking: Ranking, params: Params, peers: Sequence[Like]) -> tuple[Array, Array]:
    """Return the value of each query, and whether it counts: it has something relevant, or the peer gives 0."""
    relevant = ranking.total(ranking.relevance > 0) > 0
    with np.errstate(all="ignore"):
        values = np.where(relevant, measure(ranking, params), 0.0)
    return values, relevant | (params.get("like") in peers) & (ranking.sizes > 0)


def mean_of_queries(measure: Measure, peers: Sequence[Like] = PEERS) -> Finish:
    """Return the finish of the mean over queries that have something relevant; like these peers, over all.

    The weight of a query is the mean weight of its documents; those of weight 0 leave the ranking.
    """

    def finish(rows: Table, params: Params) -> Callable[[Weights], Number]:
        whole = ranking_of(rows, params.get("like"))
        values = _values(measure, whole, params, peers)

        def mean(ranking: Ranking, values: Array, counts: Array, weights: Weights) -> Number:
            share = ranking.total(weights) / np.maximum(ranking.sizes, 1) * counts
            return ratio(float((share * values).sum()), float(share.sum()), "no query has anything relevant")

        def run(weights: Weights) -> Number:
            weights = weights[whole.order]
            kept = weights > 0
            counted = whole.total(kept)
            if ((counted == 0) | (counted == whole.sizes)).all():
                return mean(whole, *values, weights)
            some = _ranking(
                whole.query[kept], whole.relevance[kept], whole.score[kept], whole.order[kept], whole.names
            )
            return mean(some, *_values(measure, some, params, peers), weights[kept])

        return run

    return finish


def each_query(measure: Measure, peers: Sequence[Like] = PEERS) -> Each:
    """Return the value of a document's query as the value of each row; NaN where nothing is relevant."""

    def each(rows: Table, params: Params) -> Array:
        ranking = ranking_of(rows, params.get("like"))
        values, counts = _values(measure, ranking, params, peers)
        spread = np.empty(len(rows))
        spread[ranking.order] = np.where(counts, values, np.nan)[ranking.query]
        return spread

    return each


def left_out(peers: Sequence[Like] = PEERS) -> LeftOut:
    """Return the reason for each query without a value, by its path."""

    def reasons(rows: Table, params: Params) -> dict[str, str]:
        if params.get("like") in peers:
            return {}
        ranking = ranking_of(rows, None)
        nothing = np.flatnonzero(ranking.total(ranking.relevance > 0) == 0)
        names = [ranking.names[place] for place in nothing]
        return {f"queries/{name}": f"query {name} has nothing relevant" for name in names}

    return reasons


def _hits(ranking: Ranking, params: Params) -> Array:
    """Return whether a document is relevant and among those that count."""
    hits = (ranking.relevance > 0) & ranking.within(params["top_k"])
    # torchmetrics takes documents with scores up to 0 for not found
    return hits & (ranking.score > 0) if params.get("like") == "torchmetrics" else hits


def _gains(relevance: Array, most: Array, gain: str) -> Array:
    """Return the gain of each document, up to a factor for its query, whose greatest relevance is ``most``."""
    if gain == "linear":
        return np.ldexp(relevance, -np.frexp(most)[1])
    # 2^r - 1, times 2^-most, so that it never overflows
    small = np.expm1(np.log(2) * relevance) * np.exp2(-most)
    return np.where(relevance < 1, small, np.exp2(relevance - most) - np.exp2(-most))


def _ndcg(ranking: Ranking, params: Params) -> Array:
    """Return the discounted gain of each query over that of the best order."""
    most = np.zeros(len(ranking.sizes))
    np.maximum.at(most, ranking.query, ranking.relevance)
    gains = _gains(ranking.relevance, most[ranking.query], params["gain"])
    discount = ranking.within(params["top_k"]) / np.log2(ranking.rank + 1)
    ideal = gains[np.lexsort((-gains, ranking.query))]
    best = ranking.total(ideal * discount)
    if params.get("like") in ("sklearn", "torchmetrics"):
        # documents of equal score share their discounts
        same = np.cumsum((ranking.rank == 1) | (np.diff(ranking.score, prepend=np.nan) != 0))
        discount = (np.bincount(same, discount) / np.maximum(np.bincount(same), 1))[same]
    return ranking.total(gains * discount) / best


@metric(
    title="Normalised discounted cumulative gain",
    tasks=TASKS,
    aliases=("normalized_dcg",),
    finish=mean_of_queries(_ndcg, AVERAGING),
    each=each_query(_ndcg, AVERAGING),
    left_out=left_out(AVERAGING),
    likes=AVERAGING,
    signed=("top_k", "gain"),
    unit="query",
    work="12N",
    redraw="3N",
    example=EXAMPLE,
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
        in the loss of this name.
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; any
        `like` counts them 0. With trec_eval the later of two documents comes first if their scores are equal in single
        precision; with sklearn and torchmetrics equal scores share their ranks.

    Sources:
        - Järvelin & Kekäläinen (2002), Cumulated Gain-Based Evaluation of IR Techniques, https://doi.org/10.1145/582415.582418
        - trec_eval, ndcg_cut
    """
    return _documents(predictions, targets, queries)


def _map(ranking: Ranking, params: Params) -> Array:
    """Return the sum of the precisions at the relevant documents, over their number."""
    hits = _hits(ranking, params)
    precision = ranking.cumulated(hits.astype(np.int64)) / ranking.rank
    # torchmetrics divides by those found
    relevant = ranking.total(hits if params.get("like") == "torchmetrics" else ranking.relevance > 0)
    return ranking.total(precision * hits) / np.maximum(relevant, 1)


@metric(
    title="Mean average precision of queries",
    tasks=TASKS,
    aliases=("retrieval_map",),
    finish=mean_of_queries(_map),
    each=each_query(_map),
    left_out=left_out(),
    likes=PEERS,
    signed=("top_k",),
    unit="query",
    work="12N",
    redraw="3N",
    example=EXAMPLE,
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
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; any
        `like` counts them 0. With trec_eval the later of two documents comes first if their scores are equal in single
        precision; with torchmetrics scores up to 0 count as not found, and it divides by the relevant documents found.

    Sources:
        - trec_eval, map and map_cut
    """
    return _documents(predictions, targets, queries)


def _mrr(ranking: Ranking, params: Params) -> Array:
    """Return one over the rank of the first relevant document, 0 if it is not among the first."""
    hits = _hits(ranking, params)
    return ranking.total(hits * (ranking.cumulated(hits.astype(np.int64)) == 1) / ranking.rank)


@metric(
    title="Mean reciprocal rank",
    tasks=TASKS,
    aliases=("mean_reciprocal_rank", "reciprocal_rank"),
    finish=mean_of_queries(_mrr),
    each=each_query(_mrr),
    left_out=left_out(),
    likes=PEERS,
    signed=("top_k",),
    unit="query",
    work="12N",
    redraw="3N",
    example=EXAMPLE,
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
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; any
        `like` counts them 0. With trec_eval the later of two documents comes first if their scores are equal in single
        precision; with torchmetrics scores up to 0 count as not found.

    Sources:
        - Voorhees (1999), The TREC-8 Question Answering Track Report
        - trec_eval, recip_rank
    """
    return _documents(predictions, targets, queries)


def _recall_at_k(ranking: Ranking, params: Params) -> Array:
    """Return the share of the relevant documents that are among the first."""
    return ranking.total(_hits(ranking, params)) / ranking.total(ranking.relevance > 0)


@metric(
    title="Recall at k",
    tasks=TASKS,
    aliases=("retrieval_recall",),
    finish=mean_of_queries(_recall_at_k),
    each=each_query(_recall_at_k),
    left_out=left_out(),
    likes=PEERS,
    signed=("top_k",),
    unit="query",
    work="12N",
    redraw="3N",
    example=EXAMPLE,
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
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; any
        `like` counts them 0. With trec_eval the later of two documents comes first if their scores are equal in single
        precision; with torchmetrics scores up to 0 count as not found.

    Sources:
        - trec_eval, recall
    """
    return _documents(predictions, targets, queries)


def _precision_at_k(ranking: Ranking, params: Params) -> Array:
    """Return the relevant documents among the first, over the number of ranks."""
    ranks = ranking.sizes if params["top_k"] is None else params["top_k"]
    return ranking.total(_hits(ranking, params)) / ranks


@metric(
    title="Precision at k",
    tasks=TASKS,
    aliases=("retrieval_precision",),
    finish=mean_of_queries(_precision_at_k),
    each=each_query(_precision_at_k),
    left_out=left_out(),
    likes=PEERS,
    signed=("top_k",),
    unit="query",
    work="12N",
    redraw="3N",
    example=EXAMPLE,
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
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; any
        `like` counts them 0. With trec_eval the later of two documents comes first if their scores are equal in single
        precision; with torchmetrics scores up to 0 count as not found.

    Sources:
        - trec_eval, P
    """
    return _documents(predictions, targets, queries)


def _hit_rate(ranking: Ranking, params: Params) -> Array:
    """Return 1 if a relevant document is among the first, else 0."""
    return ranking.total((ranking.relevance > 0) & ranking.within(params["top_k"])) > 0


@metric(
    title="Hit rate",
    tasks=TASKS,
    aliases=("success_at_k", "hit_ratio"),
    finish=mean_of_queries(_hit_rate),
    each=each_query(_hit_rate),
    left_out=left_out(),
    likes=PEERS,
    signed=("top_k",),
    unit="query",
    work="12N",
    redraw="3N",
    example=EXAMPLE,
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
        Documents of equal score keep the order sent. Queries with nothing relevant are left out, with a reason; any
        `like` counts them 0. With trec_eval the later of two documents comes first if their scores are equal in single
        precision.

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
