"""Which items of a batch are read together, and which are left to a closer look."""

from typing import Any

import orjson
import pytest

from service.losses import CATALOGUE
from service.wire import json
from service.wire.alike import take

PLAIN = {"loss": "cross_entropy", "inputs": {"logits": [[1.5, 2], [3, 4]], "targets": [0, 1]}}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({}, {"id": 7}, True),
        ({"id": "x"}, {"id": 1.5}, True),
        ({}, {"inputs": {"logits": [[9, 9], [9.5, 9]], "targets": [1, 1]}}, True),
        ({}, {"inputs": {"logits": [[9, 9, 9], [9, 9, 9]], "targets": [1, 1]}}, False),
        ({"params": {"ignore_index": 1}}, {"params": {"ignore_index": 2}}, False),
        ({"gradients": True}, {"gradients": False}, False),
        ({"gradients": ["logits"]}, {"gradients": ["logits"]}, True),
        ({"dtype": "float32"}, {"dtype": "float64"}, False),
    ],
)
def test_a_kind_is_what_items_share_beside_their_numbers(one: Any, other: Any, alike: bool) -> None:
    kinds = [taken({"id": 0, **PLAIN, **changes}).kind for changes in (one, other)]
    assert (kinds[0] == kinds[1]) == alike


@pytest.mark.parametrize(
    "inputs",
    [
        {"logits": [[1, 2], [3]], "targets": [0, 1]},
        {"logits": [[1, 2], [3, 4]], "targets": [0.0, 1]},
        {"logits": [[1, True], [3, 4]], "targets": [0, 1]},
        {"logits": [], "targets": [0, 1]},
        {"logits": 1, "targets": [0, 1]},
        {"logits": [[1, 2], [3, 4]], "other": [0, 1]},
        {"logits": {"dtype": "float32", "shape": [1], "data": "AAAA"}, "targets": [0]},
        {"logits": {"dtype": "float32", "shape": [1], "data": "AAAAA==="}, "targets": [0]},
        [1],
    ],
)
def test_what_is_not_plain_is_left_to_the_reader(inputs: Any) -> None:
    document = json.parse(orjson.dumps({**PLAIN, "inputs": inputs}), alone=True)
    assert take(document, CATALOGUE["cross_entropy"]) is None


def taken(item: dict[str, Any]) -> Any:
    """Take an item."""
    found = take(json.parse(orjson.dumps(item), alone=True), CATALOGUE["cross_entropy"])
    assert found
    return found
