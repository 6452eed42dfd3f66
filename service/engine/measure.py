"""Measure: a metric's rows from its inputs, and from any rows the value, its interval, and those of slices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import frexp, isfinite
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from service.catalogue.metric import AnyMetric, Undefined, Value, Weights
from service.catalogue.spec import Params
from service.catalogue.table import Array, Table, table
from service.engine.bootstrap import Asked, counts, keys_of_unit

Inputs = Mapping[str, Tensor | list[Any]]
"""The inputs of a metric: tensors, and lists with one value a sample."""
Path = tuple[str, ...]
ON_DEVICE = 1 << 22
"""Elements of the inputs from which on a device other than the CPU computes the rows: copying fewer takes longer."""
LEAST_DEFINED = 0.5
"""Least share of replicates in which a number is defined, for it to have an interval."""


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The result of rows: ``value`` and ``interval`` hold None where ``undefined`` has a reason by path, and arrays for curves."""

    value: Any
    undefined: Mapping[str, str]
    interval: Any
    samples: int


Measures = tuple[MetricResult, Mapping[str, MetricResult]]
"""The result of all samples, and that of each slice by ``column=value``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A valid request for a metric.

    ``params`` include ``like``. ``sample_weight [N]`` is float64; ``slices`` have a value a sample; ``work`` is the estimated
    cost in the unit of `Declaration.elements`.
    """

    metric: AnyMetric
    inputs: Inputs
    params: Params
    samples: int
    work: int
    sample_weight: Array | None = None
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    interval: Asked | None = None


def rows_of(metric: AnyMetric, inputs: Inputs, params: Params, device: torch.device) -> Table:
    """Compute the rows of a metric; large tensors on the device."""
    tensors = [one for one in inputs.values() if isinstance(one, Tensor)]
    if device.type != "cpu" and sum(one.numel() for one in tensors) >= ON_DEVICE:
        inputs = {name: one.to(device) if isinstance(one, Tensor) else one for name, one in inputs.items()}
    with torch.inference_mode():
        return table(metric.rows_of(inputs, params))


def measure(asked: Measurement, device: torch.device) -> Measures:
    """Return the result of a request, and that of each of its slices."""
    rows = rows_of(asked.metric, asked.inputs, asked.params, device)
    keys = np.arange(len(rows), dtype=np.uint64)
    whole = finished(asked.metric, asked.params, rows, asked.sample_weight, keys, asked.interval)
    slices = {
        name: finished(
            asked.metric,
            asked.params,
            rows.take(places),
            _taken(asked.sample_weight, places),
            keys[places],
            asked.interval,
        )
        for name, places in places_of(asked.slices)
    }
    return whole, slices


def places_of(slices: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Array]]:
    """Yield the places of the rows of each slice, by ``column=value``, in the order of the values."""
    for column, values in slices.items():
        found = sorted(set(values))
        places = {value: place for place, value in enumerate(found)}
        codes = np.array([places[value] for value in values], dtype=np.int64)
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(found)))
        for value, some in zip(found, np.split(order, ends[:-1]), strict=bool(found)):
            yield f"{column}={value}", some


def finished(
    metric: AnyMetric,
    params: Params,
    rows: Table,
    weights: Array | None,
    keys: Array,
    asked: Asked | None = None,
) -> MetricResult:
    """Finish rows, which are in the order of their ids; ``keys`` are hashed from the ids."""
    run, weights = metric.finish(rows, params), weights_of(weights, len(rows))
    with np.errstate(over="ignore", invalid="ignore"):
        value = run(weights)
    undefined: dict[str, str] = {}
    shown = _plain(value, (), undefined)
    if metric.left_out is not None:
        undefined.update(metric.left_out(rows, params))
    interval = None
    if asked is not None:
        analytic = metric.interval and metric.interval(rows, params, weights, asked.level)
        if analytic:
            interval = [*analytic]
        else:
            drawn = replicates(run, weights, keys_drawn(metric, rows, keys), asked)
            interval = _interval(value, drawn, asked.level)
    return MetricResult(shown, undefined, interval, len(rows))


def keys_drawn(metric: AnyMetric, rows: Table, keys: Array) -> Array:
    """Return the key of each row in a bootstrap: that of its id, or of the unit that is drawn together."""
    return keys if metric.unit is None else keys_of_unit(rows[metric.unit])


def replicates(
    run: Callable[[Weights], Value], weights: Array, keys: Array, asked: Asked
) -> dict[Path, Array]:
    """Return each number of the value in every replicate of a bootstrap, by its path; NaN where it is undefined.

    ``run`` is what `Metric.finish` returned for the rows.
    """
    found: dict[Path, list[float]] = {}
    for drawn in counts(keys, asked):
        for path, number in numbers_of(run(weights * drawn)):
            found.setdefault(path, []).append(np.nan if isinstance(number, Undefined) else number)
    return {path: np.array(values) for path, values in found.items()}


def numbers_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, float | Undefined]]:
    """Yield the numbers of a value with their paths; arrays, such as curves, have none."""
    if isinstance(value, Mapping):
        for name, one in cast(Mapping[str, Any], value).items():
            yield from numbers_of(one, (*path, name))
    elif isinstance(value, list | tuple):
        for place, one in enumerate(cast(Sequence[Any], value)):
            yield from numbers_of(one, (*path, str(place)))
    elif not isinstance(value, np.ndarray):
        yield path, value if isinstance(value, Undefined) else float(value)


def bounds(values: Array, level: float) -> list[float] | None:
    """Return the interval of replicates at a level, None if too few are defined."""
    defined = values[np.isfinite(values)]
    if not len(defined) or len(defined) < LEAST_DEFINED * len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _interval(value: Any, drawn: Mapping[Path, Array], level: float, path: Path = ()) -> Any:
    """Return intervals in the shape of a value, without its arrays."""
    if isinstance(value, Mapping):
        members = cast(Mapping[str, Any], value).items()
        return {
            name: _interval(one, drawn, level, (*path, name))
            for name, one in members
            if not isinstance(one, np.ndarray)
        }
    if isinstance(value, list | tuple):
        return [
            _interval(one, drawn, level, (*path, str(place)))
            for place, one in enumerate(cast(Sequence[Any], value))
        ]
    if isinstance(value, Undefined | np.ndarray) or path not in drawn:
        return None
    return bounds(drawn[path], level)


def _plain(value: Any, path: Path, undefined: dict[str, str]) -> Any:
    """Return a value for JSON, and collect the reasons of what is undefined by path."""
    if isinstance(value, Undefined):
        undefined["/".join(path) or "value"] = value.reason
        return None
    if isinstance(value, np.ndarray):
        array = cast(Array, value)
        return array if np.isfinite(array).all() else _plain(array.tolist(), path, undefined)
    if isinstance(value, Mapping):
        members = cast(Mapping[str, Any], value).items()
        return {name: _plain(one, (*path, name), undefined) for name, one in members}
    if isinstance(value, list | tuple):
        return [
            _plain(one, (*path, str(place)), undefined)
            for place, one in enumerate(cast(Sequence[Any], value))
        ]
    number = cast(Any, value).item() if isinstance(value, np.generic) else value
    if isinstance(number, float) and not isfinite(number):
        # such as a sum of weights of 1e308
        return _plain(Undefined("it is beyond the range of numbers"), path, undefined)
    return number


def weights_of(weights: Array | None, count: int) -> Array:
    """Return weights whose sums and products are in the range of numbers, scaled by a power of two if need be; ones for None."""
    if weights is None:
        return np.ones(count)
    exponent = frexp(float(weights.max(initial=0.0)))[1]
    return weights if abs(exponent) < 200 else np.ldexp(weights, -exponent)


def _taken(weights: Array | None, places: Array) -> Array | None:
    """Return the weights at places."""
    return None if weights is None else weights[places]
