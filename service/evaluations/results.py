"""Results of an evaluation: of all rows, of slices, in comparison with another one, and the rows that cost most."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from service.catalogue.metric import Undefined
from service.catalogue.rounds import go_on
from service.catalogue.table import Array, Table
from service.engine.bootstrap import Asked
from service.engine.measure import (
    MetricResult,
    bounds,
    finished,
    keys_drawn,
    numbers_of,
    replicates,
    weights_of,
)
from service.evaluations.identity import keys_of_hashes
from service.evaluations.merge import Merged
from service.evaluations.rows import Rows, bytes_as_texts
from service.evaluations.spec import Measure, Spec
from service.problems import Conflict, Fault, Invalid, TooLarge, quoted

EMPTY = "there are no rows"


@dataclass(frozen=True, slots=True)
class Selection:
    """What of an evaluation is asked for: metrics by name, columns of slices, and an interval."""

    measures: tuple[Measure, ...]
    slices: tuple[str, ...] = ()
    interval: Asked | None = None
    most_slices: int = 0


class Slice(NamedTuple):
    """The results of a slice by the names of metrics."""

    rows: int
    results: Mapping[str, MetricResult]


class Difference(NamedTuple):
    """By how much a number is larger than in another evaluation, and the interval of that; None and a reason if it is undefined."""

    value: float | None
    interval: Sequence[float] | None = None
    undefined: str | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """The results by the names of metrics, those of slices by ``column=value``, and differences by ``metric.path``."""

    rows: int
    results: Mapping[str, MetricResult]
    slices: Mapping[str, Slice] = field(default_factory=dict[str, Slice])
    difference: Mapping[str, Difference] | None = None
    paired: int | None = None


class Worst(NamedTuple):
    """A row, with its value of a metric."""

    id: str
    part: str
    value: float
    columns: Mapping[str, Any]


def results_of(merged: Merged, asked: Selection, other: Merged | None = None) -> Results:
    """Return the results of an evaluation, compared with another one if it is given.

    Raises:
        Invalid: there are too many slices, or the two evaluations have no id in common.
    """
    rows, keys = merged.rows, keys_of_hashes(merged.hashes)
    whole = _finished(rows, keys, asked)
    # slices need no ids
    rows = replace(
        rows, ids=None, contents=None, labels={name: rows.labels[name] for name in asked.slices if rows.count}
    )
    slices = {name: _slice(rows.take(places), keys[places], asked) for name, places in _places(rows, asked)}
    if other is None:
        return Results(rows.count, whole, slices)
    difference, paired = _difference(merged, other, asked)
    return Results(rows.count, whole, slices, difference, paired)


def refuse_incomparable(spec: Spec, other: Spec, asked: Selection) -> None:
    """Check that another evaluation computes the same.

    Raises:
        Conflict: a metric is not there, or has another signature.
    """
    for measure in asked.measures:
        there = other.by_name.get(measure.name)
        got = "no such metric" if there is None else there.signature
        if got != measure.signature:
            detail = f"Expected {measure.name} of both evaluations to be {measure.signature}; got {got}."
            raise Conflict(f"{detail} Choose others with ?metrics=.")


def worst_of(merged: Merged, spec: Spec, measure: Measure, most: int) -> list[Worst]:
    """Return the rows with the worst values of a metric, the worst first.

    Raises:
        Invalid: the metric has no value for a row alone.
    """
    each, rows = measure.metric.each, merged.rows
    if each is None:
        detail = f"Expected a metric that has a value for each row; got {measure.name}."
        raise Invalid(Fault("/query/worst", "rows", detail))
    if not rows.count:
        return []
    table = rows.table(measure.name)
    values: Array = each(table, measure.params).astype(np.float64)
    cost = -values if measure.metric.higher_is_better else values
    there = np.flatnonzero(~np.isnan(cost))
    places = there[np.argsort(-cost[there], kind="stable")[:most]]
    return [*_rows(merged, spec, table, values, places)]


def _finished(rows: Rows, keys: Array, asked: Selection) -> dict[str, MetricResult]:
    """Finish all metrics."""
    found: dict[str, MetricResult] = {}
    for measure in asked.measures:
        go_on()
        if rows.count:
            table = rows.table(measure.name)
            found[measure.name] = finished(
                measure.metric, measure.params, table, rows.weights, keys, asked.interval
            )
        else:
            found[measure.name] = MetricResult(None, {"value": EMPTY}, None, 0)
    return found


def _slice(rows: Rows, keys: Array, asked: Selection) -> Slice:
    """Return the results of a slice."""
    return Slice(rows.count, _finished(rows, keys, asked))


def _places(rows: Rows, asked: Selection) -> Iterator[tuple[str, Array]]:
    """Yield the places of the rows of each slice, in the order of its values.

    Raises:
        TooLarge: there are too many slices.
    """
    if not rows.count:
        return
    if (count := sum(len(rows.labels[name].texts) for name in asked.slices)) > asked.most_slices:
        expected = f"Expected at most {asked.most_slices} slices (LOSSD_EVALUATION_MAX_SLICES)"
        raise TooLarge(f"{expected}; got {count}: name fewer columns in ?slices=.")
    for name in asked.slices:
        labels = rows.labels[name]
        # numpy sorts short integers in a tenth of the time
        short = np.int16 if len(labels.texts) <= np.iinfo(np.int16).max else np.int32
        order = np.argsort(labels.places.astype(short), kind="stable")
        ends = np.cumsum(np.bincount(labels.places, minlength=len(labels.texts)))
        groups = dict(zip(labels.texts, np.split(order, ends[:-1]), strict=True))
        for text in sorted(groups):
            if len(groups[text]):
                yield f"{name}={text}", groups[text]


def _difference(merged: Merged, other: Merged, asked: Selection) -> tuple[dict[str, Difference], int]:
    """Compare the rows whose ids both evaluations have; both are drawn alike for intervals.

    Raises:
        Invalid: there are none.
    """
    _, here, there = np.intersect1d(merged.hashes, other.hashes, assume_unique=True, return_indices=True)
    if not len(here):
        detail = "Expected an evaluation with ids of this one; got one without any of them."
        raise Invalid(Fault("/query/against", "unpaired", detail))
    keys = keys_of_hashes(merged.hashes[here])
    pair = merged.rows.take(here), other.rows.take(there)
    found: dict[str, Difference] = {}
    for measure in asked.measures:
        go_on()
        found |= _differences(measure, pair, keys, asked.interval)
    return found, len(here)


def _differences(
    measure: Measure, pair: tuple[Rows, Rows], keys: Array, interval: Asked | None
) -> dict[str, Difference]:
    """Return the differences of all numbers of a metric."""
    metric, params = measure.metric, measure.params
    tables = [rows.table(measure.name) for rows in pair]
    finishes = [
        (metric.finish(table, params), weights_of(rows.weights, rows.count))
        for table, rows in zip(tables, pair, strict=True)
    ]
    values = [dict(numbers_of(run(weights))) for run, weights in finishes]
    drawn: list[dict[tuple[str, ...], Array]] = []
    if interval is not None:
        drawn = [
            replicates(run, weights, keys_drawn(metric, table, keys), interval)
            for table, (run, weights) in zip(tables, finishes, strict=True)
        ]
    found: dict[str, Difference] = {}
    for path, value in values[0].items():
        if (against := values[1].get(path)) is None:
            continue
        name = ".".join((measure.name, *path))
        if isinstance(value, Undefined):
            found[name] = Difference(None, undefined=value.reason)
            continue
        if isinstance(against, Undefined):
            found[name] = Difference(None, undefined=f"{against.reason}, in the other evaluation")
            continue
        found[name] = Difference(value - against)
        if interval is not None and all(path in one for one in drawn):
            span = bounds(drawn[0][path] - drawn[1][path], interval.level)
            found[name] = Difference(value - against, span)
    return found


def _rows(merged: Merged, spec: Spec, table: Table, values: Array, places: Array) -> Iterator[Worst]:
    """Yield rows with all that is kept of them."""
    rows = merged.rows.take(places)
    texts = None if rows.ids is None else bytes_as_texts(rows.ids)
    some = table.take(places)
    for row, place in enumerate(places):
        key = merged.keys[merged.part_of[place]]
        columns: dict[str, Any] = {n: one.texts[one.places[row]] for n, one in rows.labels.items()}
        if spec.weight is not None and rows.weights is not None:
            columns[spec.weight] = float(rows.weights[row])
        for name, column in some.columns.items():
            if isinstance(column, np.ndarray) and column.ndim == 1:
                columns[name] = column[row] if column.dtype == object else column[row].item()
        identity = f"{key}/{merged.place_of[place]}" if texts is None else texts[row].decode()
        yield Worst(identity, key, float(values[place]), columns)


def selected(spec: Spec, names: Sequence[str] | None) -> tuple[Measure, ...]:
    """Return the metrics of these names, all by default.

    Raises:
        Invalid: the evaluation has none of a name.
    """
    if names is None:
        return spec.measures
    return tuple(named_measure(spec, name, "metrics") for name in dict.fromkeys(names))


def named_measure(spec: Spec, name: str, parameter: str) -> Measure:
    """Return the metric of a name.

    Raises:
        Invalid: the evaluation has none of that name.
    """
    if (found := spec.by_name.get(name)) is not None:
        return found
    expected = f"one of {', '.join(spec.by_name)}"
    raise Invalid(Fault(f"/query/{parameter}", "unknown", f"Expected {expected}; got {quoted(name)}."))
