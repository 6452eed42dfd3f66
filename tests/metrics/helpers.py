"""Compute a metric from its inputs as the service does, without HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.catalogue.metric import AnyMetric, Undefined
from service.catalogue.table import Array, Ragged, Table, joined_column, table
from service.metrics import METRICS

Inputs = Mapping[str, Any]


def rows_of(metric: AnyMetric, inputs: Inputs, params: Mapping[str, Any]) -> Table:
    """Return the rows of a metric; arrays are sent as tensors, lists as they are."""
    sent = {
        name: torch.tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in inputs.items()
    }
    return table(metric.rows_of(sent, params))


def stacked_rows(tables: Sequence[Table]) -> Table:
    """Return the rows of all tables, which have the same columns, one table after another."""
    names = tables[0].columns
    return table({name: joined_column([one.columns[name] for one in tables]) for name in names})


def value_of(
    name: str, inputs: Inputs, *, weights: Sequence[float] | Array | None = None, **params: Any
) -> Any:
    """Return the value of a metric, with `Undefined` where there is none."""
    metric = METRICS[name]
    chosen = {"like": None, **metric.defaults, **params}
    rows = rows_of(metric, inputs, chosen)
    given = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64)
    return metric.finish(rows, chosen)(given)


def each_of(name: str, inputs: Inputs, **params: Any) -> Array:
    """Return the value of each row."""
    metric = METRICS[name]
    chosen = {"like": None, **metric.defaults, **params}
    assert metric.each is not None
    return metric.each(rows_of(metric, inputs, chosen), chosen)


def selected(inputs: Inputs, places: Sequence[int] | Array) -> dict[str, Any]:
    """Return the samples at these places."""
    return {
        name: value[list(places)]
        if isinstance(value, np.ndarray | Tensor)
        else [value[place] for place in places]
        for name, value in inputs.items()
    }


def assert_rows_depend_on_their_sample_alone(name: str, inputs: Inputs, **params: Any) -> None:
    """Compare rows computed one sample at a time, and in the opposite order, with rows computed together: equal to the bit."""
    metric = METRICS[name]
    chosen = {"like": None, **metric.defaults, **params}
    together = rows_of(metric, inputs, chosen)
    places = range(len(together))
    alone = stacked_rows([rows_of(metric, selected(inputs, [place]), chosen) for place in places])
    reverse = np.arange(len(together))[::-1]
    reversed_rows = rows_of(metric, selected(inputs, reverse), chosen).take(reverse)
    for other in (alone, reversed_rows):
        for key in together.columns:
            assert _bits(together, key) == _bits(other, key), key


def _bits(rows: Table, key: str) -> list[bytes]:
    """Return the bytes of a column."""
    column = rows.columns[key]
    parts = [column.lengths, column.values] if isinstance(column, Ragged) else [column]
    return [repr(part.tolist()).encode() if part.dtype == object else part.tobytes() for part in parts]


def reason(value: Any) -> str:
    """Return why a number is undefined."""
    assert isinstance(value, Undefined), value
    return value.reason
