"""Items of a batch and lines of a stream give the same answers and faults as alone."""

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from service.catalogue.registry import AnyLoss
from service.wire import describe
from tests.client import Client
from tests.conformance.cases import every_loss


def spoiled(item: dict[str, Any], wrong: Any) -> dict[str, Any]:
    """Return an item whose first input begins with something else than its first number."""
    name, array = next(iter(item["inputs"].items()))
    copy = orjson.loads(orjson.dumps(array))
    row = copy
    while isinstance(row, list) and isinstance(row[0], list):
        row = row[0]
    if isinstance(row, list):
        row[0] = wrong
    return {**item, "inputs": {**item["inputs"], name: copy}}


def packed(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item with its arrays packed."""
    arrays = {name: np.array(value) for name, value in item["inputs"].items()}
    inputs = {
        name: {
            "dtype": str(array.dtype),
            "shape": array.shape,
            "data": base64.b64encode(array.tobytes()).decode(),
        }
        for name, array in arrays.items()
    }
    return {**item, "inputs": inputs}


def scaled(item: dict[str, Any], factor: float) -> dict[str, Any]:
    """Return an item with other fractions."""
    return orjson.loads(orjson.dumps(item).replace(b"0.", b"0.%d" % factor))


@every_loss
def test_items_of_a_batch_are_answered_as_they_are_alone(client: Client, loss: AnyLoss) -> None:
    item = {"dtype": "float64", **describe.example(loss)}
    items: list[dict[str, Any]] = [
        item,
        scaled(item, 1),
        scaled(item, 2),
        spoiled(item, [1]),
        spoiled(item, "1"),
        spoiled(item, True),
        spoiled(item, None),
        spoiled(item, -7.5),
        packed(item),
        packed(scaled(item, 1)),
        {**item, "reduction": "none", "encoding": "base64"},
        {**scaled(item, 3), "reduction": "none", "encoding": "base64"},
        {**item, "params": {"nonsense": 1}},
        {**item, "gradients": [next(iter(loss.inputs))]},
    ]
    sent = [{"id": f"a[{place}]", "loss": loss.name, **one} for place, one in enumerate(items)]
    together = client.post("/v1/batch", json={"items": sent}).json()["results"]
    lines = client.post(
        "/v1/batch",
        content=b"\n".join(map(orjson.dumps, sent)),
        headers={"content-type": "application/x-ndjson"},
    )
    for place, one in enumerate(items):
        alone = client.evaluate(loss.name, **one).json()
        for result in (together[place], orjson.loads(lines.text.splitlines()[place])):
            assert result["id"] == f"a[{place}]"
            if "errors" in alone:
                assert result["error"]["errors"] == alone["errors"]
            else:
                assert_close({key: result.get(key) for key in alone}, alone)


def assert_close(found: Any, expected: Any) -> None:
    """Compare answers: numbers to 1e-12, all else exactly."""
    if isinstance(expected, dict) and "data" in expected:
        dtype = expected["dtype"]
        numbers = [np.frombuffer(base64.b64decode(one["data"]), dtype) for one in (found, expected)]
        np.testing.assert_allclose(*numbers, rtol=1e-12, atol=1e-12)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list):
        np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-12, atol=1e-12)
    elif isinstance(expected, str | None):
        assert found == expected
    else:
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)
