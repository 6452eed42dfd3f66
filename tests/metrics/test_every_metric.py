"""What holds for every metric of the catalogue, on its example."""

import base64
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import orjson
import pytest
import torch

from service.catalogue.metric import AnyMetric, Listed
from service.catalogue.table import Column, Ragged, Table
from service.engine.bind_metric import bind_metric
from service.engine.bootstrap import Asked
from service.engine.call import CPU, Sent
from service.engine.measure import Inputs, finished, rows_of
from service.metrics import METRICS
from service.wire.describe_metric import metric_entry, metric_example
from service.wire.metrics import decode_metric
from tests.client import Client
from tests.metrics.helpers import stacked_rows

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
PAIRED = [metric for metric in METRICS.values() if metric.name != "frechet_distance"]
"""Metrics whose inputs have a value a sample each."""
every_paired = pytest.mark.parametrize("metric", PAIRED, ids=lambda metric: metric.name)


def decoded(metric: AnyMetric) -> tuple[Inputs, dict[str, Any], int]:
    """Return the inputs and params of the example."""
    found = decode_metric(metric, orjson.dumps(metric_example(metric)))
    return found.inputs, dict(found.params), found.samples


def taken(inputs: Inputs, places: list[int]) -> Inputs:
    """Return the samples at these places."""
    return {
        name: [value[place] for place in places] if isinstance(value, list) else value[places]
        for name, value in inputs.items()
    }


def same(one: Column, other: Column) -> bool:
    if isinstance(one, Ragged) or isinstance(other, Ragged):
        assert isinstance(one, Ragged) and isinstance(other, Ragged)
        return same(one.lengths, other.lengths) and same(one.values, other.values)
    if one.dtype == object:
        return one.tolist() == other.tolist()
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def nulls(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of nulls."""
    if value is None:
        yield "/".join(path) or "value"
    elif isinstance(value, dict):
        for name, one in cast(dict[str, Any], value).items():
            yield from nulls(one, (*path, name))
    elif isinstance(value, list):
        for place, one in enumerate(cast(list[Any], value)):
            yield from nulls(one, (*path, str(place)))


@every_metric
def test_its_example_runs_with_slices_weights_and_an_interval(metric: AnyMetric, client: Client) -> None:
    example = metric_example(metric)
    _, _, samples = decoded(metric)
    plain = client.post(f"/v1/metrics/{metric.name}", json=example)
    assert plain.status_code == 200, plain.text
    answer = plain.json()
    assert answer["metric"] == metric.name and answer["samples"] == samples
    assert answer["signature"].startswith(metric.name) and answer["signature"].endswith("|undefined:null|v1")
    assert {*nulls(answer["value"])} <= {*answer.get("undefined", {})}
    more = {"slices": {"kind": ["a"] * samples}, "interval": 0.9, "replicates": 20}
    richer = client.post(f"/v1/metrics/{metric.name}", json={**example, **more}).json()
    assert richer["value"] == answer["value"]
    assert richer["slices"]["kind=a"]["value"] == answer["value"]
    assert richer["slices"]["kind=a"].get("interval") == richer.get("interval")
    weighed = client.post(f"/v1/metrics/{metric.name}", json={**example, "sample_weight": [1.0] * samples})
    assert weighed.json()["value"] == answer["value"]


@every_metric
def test_its_entry_has_everything_that_a_reader_needs(metric: AnyMetric, client: Client) -> None:
    entry = client.get(f"/v1/metrics/{metric.name}").json()
    assert entry == orjson.loads(orjson.dumps(metric_entry(metric)))
    assert entry["summary"].endswith(".") and entry["sources"] and entry["use_when"] and entry["pitfalls"]
    assert {"name", "title", "tasks", "summary"} <= entry.keys()


@every_paired
def test_a_row_depends_on_its_own_sample_only_to_the_bit(metric: AnyMetric) -> None:
    inputs, params, samples = decoded(metric)
    together = rows_of(metric, inputs, params, CPU)
    alone = stacked_rows([rows_of(metric, taken(inputs, [place]), params, CPU) for place in range(samples)])
    assert together.columns.keys() == alone.columns.keys()
    for name, column in together.columns.items():
        assert same(column, alone.columns[name]), name


@every_paired
def test_any_partition_and_order_gives_the_same_to_the_bit(metric: AnyMetric) -> None:
    inputs, params, samples = decoded(metric)
    order = np.random.default_rng(0).permutation(samples)
    shuffled = rows_of(metric, taken(inputs, order.tolist()), params, CPU)
    sorted_again = shuffled.take(np.argsort(order))
    rows = rows_of(metric, inputs, params, CPU)
    keys, asked = np.arange(samples, dtype=np.uint64), Asked(0.9, 20)
    one = finished(metric, params, rows, None, keys, asked)
    other = finished(metric, params, sorted_again, None, keys, asked)
    assert repr(one) == repr(other)


@every_paired
def test_no_samples_give_null_and_reasons_but_never_a_number(metric: AnyMetric) -> None:
    inputs, params, _ = decoded(metric)
    rows = rows_of(metric, inputs, params, CPU).take(np.zeros(0, dtype=np.int64))
    found = finished(metric, params, rows, None, np.zeros(0, dtype=np.uint64))
    for path in nulls(found.value):
        assert path in found.undefined, path
    for number in _numbers(found.value):
        assert number == 0 or not math.isnan(number)


@every_metric
def test_weights_of_zero_leave_samples_out(metric: AnyMetric) -> None:
    inputs, params, _ = decoded(metric)
    rows = rows_of(metric, inputs, params, CPU)
    keys = np.arange(len(rows), dtype=np.uint64)
    weights = np.ones(len(rows))
    weights[len(rows) // 2 :] = 0
    kept = rows.take(np.arange(len(rows) // 2))
    some = finished(metric, params, rows, weights, keys)
    only = finished(metric, params, kept, None, keys[: len(rows) // 2])
    assert _close(some.value, only.value), (some.value, only.value)


@every_metric
def test_nan_is_refused_in_every_tensor(metric: AnyMetric, client: Client) -> None:
    example = metric_example(metric)
    for name, spec in metric.inputs.items():
        if isinstance(spec, Listed) or name not in example["inputs"]:
            continue
        array = np.asarray(example["inputs"][name], dtype=np.float64)
        array.reshape(-1)[0] = np.nan
        packed = {
            "dtype": "float64",
            "shape": list(array.shape),
            "data": base64.b64encode(array.tobytes()).decode(),
        }
        answer = client.post(
            f"/v1/metrics/{metric.name}", json={**example, "inputs": {**example["inputs"], name: packed}}
        )
        assert answer.status_code == 422, answer.text
        assert any(one["pointer"].startswith(f"/inputs/{name}") for one in answer.json()["errors"])


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers of a value."""
    if isinstance(value, dict):
        for one in cast(dict[str, Any], value).values():
            yield from _numbers(one)
    elif isinstance(value, list):
        for one in cast(list[Any], value):
            yield from _numbers(one)
    elif isinstance(value, np.ndarray):
        yield from np.asarray(value, dtype=np.float64).reshape(-1).tolist()
    elif value is not None:
        yield float(value)


def _close(one: Any, other: Any) -> bool:
    """Return whether two values have equal numbers, but for rounding; arrays may differ in length."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        length = min(len(cast(list[Any], one)), len(other))
        return all(_close(a, b) for a, b in zip(one[:length], other[:length], strict=True))
    if one is None or other is None:
        return one is other
    return isinstance(one, np.ndarray) or one == pytest.approx(other, rel=1e-12, abs=1e-12)


def test_faults_of_a_request_come_together(client: Client) -> None:
    body = {
        "inputs": {"predictions": [[1.0, 2.0]], "target": [0]},
        "params": {"top_k": 0},
        "interval": 2,
        "x": 1,
    }
    errors = client.post("/v1/metrics/accuracy", json=body).json()["errors"]
    assert {one["pointer"] for one in errors} == {
        *("/x", "/params/top_k", "/inputs/target", "/inputs/targets", "/interval")
    }


def test_binding_needs_every_input() -> None:
    with pytest.raises(Exception, match="changed"):
        bind_metric(
            METRICS["accuracy"], {"predictions": Sent(torch.zeros(1, 2))}, {"task": None, "like": None}
        )


def test_table_takes_ragged_rows() -> None:
    column = Ragged(np.array([2, 0, 1]), np.array([[1, 2], [3, 4], [5, 6]]))
    found = Table({"a": column}, 3).take(np.array([2, 0, 1]))
    assert found.ragged("a").lengths.tolist() == [1, 2, 0]
    assert found.ragged("a").values.tolist() == [[5, 6], [1, 2], [3, 4]]
    assert column.rows.tolist() == [0, 0, 2]
