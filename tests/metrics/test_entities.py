"""Entities in tags: those that seqeval finds, in every scheme, and their F scores."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import seqeval.metrics
from numpy.random import default_rng
from seqeval.scheme import IOB2, IOBES, Tokens

from service.metrics import METRICS
from service.metrics.entities import entities
from tests.metrics.helpers import (
    assert_rows_depend_on_their_sample_alone,
    each_of,
    reason,
    selected,
    value_of,
)

peer: Any = seqeval.metrics
pytestmark = pytest.mark.filterwarnings("ignore")
SCHEMES: dict[str, Any] = {"IOB2": IOB2, "BIOES": IOBES}
TAGS = {None: "BIES", "IOB2": "BI", "BIOES": "BIES"}


def sentences(scheme: Any, count: int = 60, seed: int = 0) -> dict[str, list[list[str]]]:
    """Tags in any order, of which predictions keep most."""
    rng = default_rng(seed)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in TAGS[scheme] for kind in ("PER", "LOC", "A-B"))]
    targets = [[str(tag) for tag in rng.choice(tags, rng.integers(0, 12))] for _ in range(count)]
    predictions = [[str(rng.choice(tags)) if rng.random() < 0.3 else tag for tag in one] for one in targets]
    return {"predictions": predictions, "targets": targets}


@pytest.mark.parametrize("scheme", [None, "IOB2", "BIOES"])
def test_entities_of_all_short_sentences_are_those_of_seqeval(scheme: Any) -> None:
    tags = ["O", *(f"{prefix}-{kind}" for prefix in TAGS[scheme] for kind in "XY")]
    for length in range(5 if scheme == "IOB2" else 4):
        for sentence in product(tags, repeat=length):
            if scheme is None:
                expected = {
                    (k, start, end + 1) for k, start, end in peer.sequence_labeling.get_entities([*sentence])
                }
            else:
                found = Tokens([*sentence], SCHEMES[scheme]).entities
                expected = {(one.tag, one.start, one.end) for one in found}
            assert entities(sentence, scheme) == expected


@pytest.mark.parametrize("scheme", [None, "IOB2", "BIOES"])
def test_scores_equal_those_of_seqeval(scheme: Any) -> None:
    inputs = sentences(scheme)
    mode: dict[str, Any] = {} if scheme is None else {"mode": "strict", "scheme": SCHEMES[scheme]}
    found = value_of("entity_f1", inputs, scheme=scheme)
    for average, value in found.items():
        how = None if average == "per_class" else average
        expected = peer.f1_score(inputs["targets"], inputs["predictions"], average=how, **mode)
        given = [*value.values()] if average == "per_class" else value
        assert given == pytest.approx(expected, rel=1e-12)
    assert list(found["per_class"]) == ["A-B", "LOC", "PER"]


def test_bare_prefixes_are_of_one_type() -> None:
    assert entities(["B", "I", "O", "S", "B-"], None) == {("_", 0, 2), ("_", 3, 4), ("_", 4, 5)}


def test_rows_are_sentences() -> None:
    inputs = sentences(None)
    assert_rows_depend_on_their_sample_alone("entity_f1", inputs)
    counts = default_rng(0).integers(0, 3, 60)
    repeated = value_of("entity_f1", selected(inputs, np.repeat(np.arange(60), counts)))
    assert value_of("entity_f1", inputs, weights=counts) == repeated
    alone = [value_of("entity_f1", selected(inputs, [row]))["micro"] for row in range(60)]
    for number, one in zip(each_of("entity_f1", inputs), alone, strict=True):
        assert reason(one) == "there are no entities" if np.isnan(number) else number == one


def test_without_entities_there_is_no_score() -> None:
    found = value_of("entity_f1", {"predictions": [["O"]], "targets": [["O"]]})
    assert found["per_class"] == {}
    assert {reason(found[name]) for name in ("micro", "macro")} == {"there are no entities"}
    extra = value_of("entity_f1", {"predictions": [["B-X"]], "targets": [["O"]]})
    assert extra["micro"] == extra["macro"] == extra["per_class"]["X"] == 0.0
    assert reason(extra["weighted"]) == "there are no entities in targets"
    assert value_of("entity_f1", {"predictions": [], "targets": []})["per_class"] == {}


@pytest.mark.parametrize(
    ("scheme", "predictions", "targets", "flaws"),
    [
        (None, [["O"], ["O", "O"]], [["O"], ["O"]], [(("predictions", 1), "2")]),
        (None, [["O", "PER"]], [["O", "O"]], [(("predictions", 0, 1), '"PER"')]),
        (None, [["O"]], [[""]], [(("targets", 0, 0), '""')]),
        ("IOB2", [["O"]], [["E-X"]], [(("targets", 0, 0), '"E-X"')]),
        ("BIOES", [["S-X"]], [["E-X"]], []),
    ],
)
def test_tags_must_be_of_the_scheme_and_as_many_as_targets(
    scheme: Any, predictions: Any, targets: Any, flaws: list[Any]
) -> None:
    check = METRICS["entity_f1"].check
    assert check is not None
    found = check({"predictions": predictions, "targets": targets}, {"scheme": scheme})
    assert [(flaw.path, flaw.got) for flaw in found] == flaws
