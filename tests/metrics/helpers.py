"""Compute a metric as the door does, without HTTP."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.catalogue.metric import AnyMetric
from service.catalogue.table import Table
from service.engine.bind_metric import Given, bind_metric
from service.engine.call import CPU, Sent
from service.engine.measure import MetricResult, finished, rows_of
from service.metrics import METRICS

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)


def sent(value: Any) -> Given:
    """Return an input as read: lists of texts or objects as they are, all else as a tensor."""
    if isinstance(value, Tensor):
        return Sent(value)
    if isinstance(value, list) and value and not isinstance(value[0], int | float | list):
        return value
    if isinstance(value, list) and _holds_texts(value):
        return value
    array = np.asarray(value)
    return Sent(torch.from_numpy(array), addressable=True, any_rank=array.size == 0)


def rows(metric: AnyMetric, inputs: Mapping[str, Any], **params: Any) -> Table:
    """Return the rows of a valid request."""
    full = {**metric.defaults, "like": None, **params}
    bound = bind_metric(metric, {name: sent(value) for name, value in inputs.items()}, full)
    return rows_of(metric, bound.inputs, full, CPU)


def measured(
    metric: AnyMetric, inputs: Mapping[str, Any], weights: Any = None, **params: Any
) -> MetricResult:
    """Return the result of a valid request."""
    found = rows(metric, inputs, **params)
    keys = np.arange(len(found), dtype=np.uint64)
    weighed = None if weights is None else np.asarray(weights, dtype=np.float64)
    return finished(metric, {**metric.defaults, "like": None, **params}, found, weighed, keys)


def value_of(metric: AnyMetric, inputs: Mapping[str, Any], weights: Any = None, **params: Any) -> Any:
    """Return the value of a valid request, null as None."""
    return measured(metric, inputs, weights, **params).value


def _holds_texts(value: Any) -> bool:
    """Return whether nested lists hold anything but numbers."""
    while isinstance(value, list):
        value = next((one for one in value if not isinstance(one, list) or one), None)
        if value is None:
            return False
    return not isinstance(value, int | float)
