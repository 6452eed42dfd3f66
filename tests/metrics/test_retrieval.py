"""Retrieval: values against trec_eval, scikit-learn and definitions."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import torch
import torchmetrics.retrieval as torchmetrics
from sklearn.metrics import ndcg_score

from service.metrics import METRICS
from tests.metrics.helpers import (
    assert_rows_depend_on_their_sample_alone,
    each_of,
    reason,
    rows_of,
    selected,
    value_of,
)

NAMES = ("ndcg", "map", "mrr", "recall_at_k", "precision_at_k", "hit_rate")
TREC = {
    "ndcg": ("ndcg", "ndcg_cut_5"),
    "map": ("map", "map_cut_5"),
    "mrr": ("recip_rank", None),
    "recall_at_k": (None, "recall_5"),
    "precision_at_k": (None, "P_5"),
    "hit_rate": (None, "success_5"),
}


def documents(seed: int, *, ties: bool = False, nothing: bool = False) -> dict[str, Any]:
    """Return documents of several queries, one after another or mixed; scores may be negative."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, 9)
    queries = np.repeat(np.arange(9), sizes)
    relevance = rng.integers(0, 4, len(queries)) * rng.integers(0, 2, len(queries))
    if nothing:
        relevance[queries == 3] = 0
    else:
        relevance[np.cumsum(sizes) - 1] = 2
    scores = rng.normal(size=len(queries))
    if ties:
        scores = scores.round() + 0.5
    order = rng.permutation(len(queries))
    return {
        "predictions": scores[order],
        "targets": relevance[order],
        "queries": [f"q{query}" for query in queries[order]],
    }


def lists(inputs: Mapping[str, Any], reverse: bool = False) -> list[list[float]]:
    """Return the relevance of the documents of each query by falling score, equal ones as sent."""
    found: dict[str, list[tuple[float, float]]] = {}
    for score, relevance, query in zip(
        inputs["predictions"], inputs["targets"], inputs["queries"], strict=True
    ):
        found.setdefault(query, []).append((-score, float(relevance)))
    ordered = [sorted(reversed(one) if reverse else one, key=lambda pair: pair[0]) for one in found.values()]
    return [[relevance for _, relevance in one] for one in ordered]


def dcg(relevance: list[float], gain: str) -> float:
    gains = [2**one - 1 if gain == "exponential" else one for one in relevance]
    return sum(one / math.log2(rank + 2) for rank, one in enumerate(gains))


def ndcg(one: list[float], k: int, gain: str = "linear") -> float:
    return dcg(one[:k], gain) / dcg(sorted(one, reverse=True)[:k], gain)


DEFINITIONS: dict[str, Callable[[list[float], int], Any]] = {
    "ndcg": ndcg,
    "map": lambda one, k: (
        sum(
            np.mean([other > 0 for other in one[: rank + 1]])
            for rank in range(min(k, len(one)))
            if one[rank] > 0
        )
        / sum(other > 0 for other in one)
    ),
    "mrr": lambda one, k: next((1 / (rank + 1) for rank, other in enumerate(one[:k]) if other > 0), 0.0),
    "recall_at_k": lambda one, k: sum(other > 0 for other in one[:k]) / sum(other > 0 for other in one),
    "precision_at_k": lambda one, k: sum(other > 0 for other in one[:k]) / (k if k < 1000 else len(one)),
    "hit_rate": lambda one, k: float(any(other > 0 for other in one[:k])),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_values_equal_their_definitions(name: str, ties: bool) -> None:
    for seed in range(5):
        inputs = documents(seed, ties=ties)
        for k in (1, 3, 5, None):
            expected = np.mean([DEFINITIONS[name](one, k or 1000) for one in lists(inputs)])
            assert value_of(name, inputs, top_k=k) == pytest.approx(expected, rel=1e-14), (seed, k)


@pytest.mark.parametrize("name", NAMES)
def test_values_equal_trec_eval_also_with_ties_and_queries_without_relevant_documents(name: str) -> None:
    for seed in range(5):
        inputs = documents(seed, ties=True, nothing=True)
        run: dict[str, dict[str, float]] = {}
        known: dict[str, dict[str, int]] = {}
        columns = (inputs[key] for key in ("predictions", "targets", "queries"))
        for place, (score, relevance, query) in enumerate(zip(*columns, strict=True)):
            # trec_eval puts the greater id first: ids that rise in the order sent
            run.setdefault(query, {})[f"d{place:04}"] = float(score)
            known.setdefault(query, {})[f"d{place:04}"] = int(relevance)
        for measure, k in zip(TREC[name], (None, 5), strict=True):
            if measure is not None:
                scores = pytrec_eval.RelevanceEvaluator(known, {measure.replace("_5", ".5")}).evaluate(run)
                expected = np.mean([one[measure] for one in scores.values()])
                value = value_of(name, inputs, top_k=k, like="trec_eval")
                assert value == pytest.approx(expected, rel=1e-12), (seed, measure)


def test_ndcg_equals_scikit_learn_where_no_scores_are_equal() -> None:
    rng = np.random.default_rng(0)
    scores, relevance = rng.normal(size=(6, 10)), rng.integers(0, 4, (6, 10))
    inputs = {
        "predictions": scores.reshape(-1),
        "targets": relevance.reshape(-1),
        "queries": [query for query in range(6) for _ in range(10)],
    }
    for k in (3, None):
        assert value_of("ndcg", inputs, top_k=k) == pytest.approx(
            ndcg_score(relevance, scores, k=k), rel=1e-14
        )


def test_values_equal_torchmetrics_also_for_scores_below_0_and_queries_without_relevant_documents() -> None:
    peers = {
        "ndcg": torchmetrics.RetrievalNormalizedDCG,
        "map": torchmetrics.RetrievalMAP,
        "mrr": torchmetrics.RetrievalMRR,
        "recall_at_k": torchmetrics.RetrievalRecall,
        "precision_at_k": torchmetrics.RetrievalPrecision,
        "hit_rate": torchmetrics.RetrievalHitRate,
    }
    for seed in range(3):
        inputs = documents(seed, nothing=True)
        indexes = torch.tensor([int(query[1:]) for query in inputs["queries"]])
        for (name, peer), k in itertools.product(peers.items(), (None, 3)):
            relevance = inputs["targets"] if name == "ndcg" else inputs["targets"] > 0
            scores = torch.tensor(inputs["predictions"])
            expected = peer(top_k=k)(scores, torch.tensor(relevance), indexes=indexes).item()
            assert value_of(name, inputs, top_k=k, like="torchmetrics") == pytest.approx(
                expected, rel=1e-5
            ), (name, k)


def test_ndcg_averages_over_the_orders_of_equal_scores_like_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores, relevance = rng.integers(0, 3, (6, 10)).astype(float), rng.integers(0, 4, (6, 10))
    relevance[2] = 0
    queries = [query for query in range(6) for _ in range(10)]
    inputs = {"predictions": scores.reshape(-1), "targets": relevance.reshape(-1), "queries": queries}
    for k in (1, 3, None):
        value = value_of("ndcg", inputs, top_k=k, like="sklearn")
        assert value == pytest.approx(ndcg_score(relevance, scores, k=k), rel=1e-13)


def test_the_exponential_gain_never_overflows_and_never_vanishes() -> None:
    inputs = documents(1)
    expected = np.mean([ndcg(one, 5, "exponential") for one in lists(inputs)])
    assert value_of("ndcg", inputs, top_k=5, gain="exponential") == pytest.approx(expected, rel=1e-14)
    for factor in (1e4, 1e300, 1e-20, 1e-300):
        scaled = {**inputs, "targets": inputs["targets"] * factor}
        for gain in ("linear", "exponential"):
            value = value_of("ndcg", scaled, gain=gain)
            assert 0 < value <= 1
        assert value_of("ndcg", scaled) == pytest.approx(value_of("ndcg", inputs), rel=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_queries_with_nothing_relevant_are_left_out_with_a_reason(name: str) -> None:
    inputs = documents(2, nothing=True)
    without = [place for place, query in enumerate(inputs["queries"]) if query != "q3"]
    declared = METRICS[name]
    params = {"like": None, **declared.defaults}
    reasons = declared.left_out(rows_of(declared, inputs, params), params)  # pyright: ignore[reportOptionalCall]
    nothing = {
        query
        for query, one in zip(dict.fromkeys(inputs["queries"]), lists(inputs), strict=True)
        if not any(one)
    }
    assert reasons == {f"queries/{query}": f"query {query} has nothing relevant" for query in nothing}
    assert "q3" in nothing
    assert value_of(name, inputs) == pytest.approx(value_of(name, selected(inputs, without)), rel=1e-14)
    each = each_of(name, inputs)
    assert np.isnan(each[[query in nothing for query in inputs["queries"]]]).all()
    irrelevant = {**inputs, "targets": inputs["targets"] * 0}
    assert reason(value_of(name, irrelevant)) == "no query has anything relevant"
    assert value_of(name, irrelevant, like="trec_eval") == 0
    empty = {"predictions": np.zeros(0), "targets": np.zeros(0), "queries": []}
    assert reason(value_of(name, empty)) == "no query has anything relevant"


@pytest.mark.parametrize("name", NAMES)
def test_a_query_weighs_as_its_documents_and_integers_and_texts_are_the_same_query(name: str) -> None:
    inputs = documents(3)
    factor = {f"q{query}": float(query % 3) for query in range(9)}
    weights = [factor[query] for query in inputs["queries"]]
    values = dict(zip(inputs["queries"], each_of(name, inputs), strict=True))
    expected = sum(factor[query] * value for query, value in values.items()) / sum(factor.values())
    assert value_of(name, inputs, weights=weights) == pytest.approx(expected, rel=1e-14)
    numbered = {
        **inputs,
        "queries": [int(query[1:]) if query > "q4" else query[1:] for query in inputs["queries"]],
    }
    assert value_of(name, numbered) == value_of(name, inputs)
    assert_rows_depend_on_their_sample_alone(name, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_documents_of_weight_0_leave_the_ranking(name: str) -> None:
    inputs = documents(4)
    weights = np.random.default_rng(0).integers(0, 2, len(inputs["queries"])).astype(float)
    some = value_of(name, selected(inputs, np.flatnonzero(weights)), top_k=3)
    assert value_of(name, inputs, weights=weights, top_k=3) == pytest.approx(some, rel=1e-14)
