"""Every metric of the catalogue in an evaluation: as it is computed at once, for any partition."""

import json
import math
from typing import Any

import pytest
import torch

from service.catalogue.metric import AnyMetric
from service.evaluations.block import decode_rows, encode_rows
from service.evaluations.merge import NOTHING, Placed
from service.evaluations.results import Selection, results_of
from service.metrics import METRICS
from service.wire import written
from service.wire.describe_metric import metric_example
from service.wire.evaluation_answers import results_answer
from service.wire.evaluation_parts import PartLimits, decode_part
from service.wire.evaluation_spec import SpecLimits, read_spec
from tests.client import Client
from tests.evaluations.parts import CATALOGUES


def results_in_parts(metric: AnyMetric, size: int, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a metric's example in parts of some rows."""
    example = metric_example(metric)
    entry = {"metric": metric.name, "params": example.get("params", {})}
    named = {name: name for name in columns if name != "id"}
    members = {"columns": {**named, "id": "id"}, "metrics": [entry]}
    spec = read_spec(json.dumps(members).encode(), CATALOGUES, SpecLimits(9, 9.0))
    merged = NOTHING
    for start in range(0, len(columns["id"]), size):
        part = {name: values[start : start + size] for name, values in columns.items()}
        body, limits = json.dumps(part).encode(), PartLimits(torch.device("cpu"), 2**30)
        rows = decode_part(spec, "p", body, "json", limits).rows
        merged = merged.extended([Placed(str(start), decode_rows(encode_rows(rows).data))])
    answer = results_answer(None, spec, results_of(merged, Selection(spec.measures)))
    return json.loads(b"".join(written.parts(answer)))


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """Return the numbers in a JSON value by their paths, NaN for null."""
    if isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: one for name, part in members for key, one in numbers(part, f"{path}/{name}").items()}
    return {path: math.nan if value is None else value}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_has_the_same_value_in_parts_as_at_once(client: Client, metric: AnyMetric) -> None:
    example = metric_example(metric)
    inputs = example["inputs"]
    count = len(next(iter(inputs.values())))
    if any(len(values) != count for values in inputs.values()):
        pytest.skip("its inputs have no rows in common")
    columns = {"id": [f"row {place}" for place in range(count)], **inputs}
    alone, together = (results_in_parts(metric, size, columns) for size in (1, count))
    assert alone == together
    at_once = client.post(f"/v1/metrics/{metric.name}", json=example).json()
    [found] = together["results"].values()
    assert numbers(found["value"]) == pytest.approx(numbers(at_once["value"]), rel=1e-9, nan_ok=True)
    assert found["signature"] == at_once["signature"]
