"""Metrics on the wire: a request body to a valid measurement, its result to an answer."""

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import numpy as np
import torch

from service.catalogue.metric import AnyMetric, Like, Listed
from service.catalogue.table import Array
from service.engine.bind_metric import Given, bind_metric, samples_of
from service.engine.bootstrap import MOST_REPLICATES, REPLICATES, Asked
from service.engine.call import Sent
from service.engine.measure import Measurement, MetricResult
from service.problems import Fault, Invalid, pointer
from service.wire import json, tensors, written
from service.wire.defaults import wrong_params
from service.wire.document import Document, read_object
from service.wire.listed import begins_with_text, read_listed
from service.wire.params import complete, levels, validated
from service.wire.text import Body

FIELDS = ("inputs", "params", "like", "sample_weight", "slices", "interval", "replicates", "seed")
MOST_COLUMNS = 16
"""Most columns of slices."""
MOST_SLICES = 10_000
"""Most slices of a result."""


def decode_metric(metric: AnyMetric, body: Body) -> Measurement:
    """Read a request body.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: the body does not fit the metric; lists every fault.
    """
    document = read_object(body)
    return read_measurement(document, metric, *document.given(document.root, FIELDS))


def read_measurement(
    document: Document, metric: AnyMetric, fields: Mapping[str, Any], faults: Sequence[Fault]
) -> Measurement:
    """Read the members of a request.

    Raises:
        Invalid: with every fault that can be found before the others are corrected.
        Unreadable: a part of the document that is parsed only here is not JSON.
    """
    reader = MetricReader(document, metric, faults)
    params = reader.params(fields.get("params"), fields.get("like"))
    given = reader.inputs(fields.get("inputs"))
    interval = read_interval(fields, reader.faults)
    weights = reader.weights(fields.get("sample_weight"))
    slices = reader.slices(fields.get("slices"))
    reader.faults += _lengths(metric, given, weights, slices)
    bound = bind_metric(metric, given, params, reader.faults)
    draws = 0 if interval is None else interval.replicates
    return Measurement(
        metric=metric,
        inputs=bound.inputs,
        params=params,
        samples=bound.samples,
        work=bound.work_of(draws, len(slices), sum(len({*values}) for values in slices.values())),
        sample_weight=weights,
        slices=slices,
        interval=interval,
    )


class MetricReader:
    """Reads the members of a request for a metric, and collects their faults."""

    def __init__(self, document: Document, metric: AnyMetric, faults: Sequence[Fault]) -> None:
        self.document = document
        self.metric = metric
        self.faults = [*faults]

    def attempt(self, read: Any) -> Any:
        """Return what a function reads; None if it is invalid, which is reported."""
        try:
            return read()
        except Invalid as invalid:
            self.faults += invalid.faults
            return None

    def params(self, value: Any, like: Any = None) -> dict[str, Any]:
        """Read the params, with ``like`` among them; invalid ones are reported and replaced by their defaults."""
        metric, sent, known = self.metric, dict[str, Any](), set[str]()
        if value is not None and not json.is_object(value):
            self.faults.append(Fault("/params", "type", json.no_object(value)))
        elif value is not None:
            found, faults = self.document.given(value, metric.params, "params")
            self.faults += faults
            plain = {
                name: self.document.plain(one, levels(metric.params[name])) for name, one in found.items()
            }
            sent, wrong = validated(metric, plain)
            self.faults += wrong_params(metric, found, wrong)
            # these have their faults already
            known = {*found}
        if like is not None and like not in get_args(Like):
            names = " or ".join(f'"{name}"' for name in get_args(Like))
            self.faults.append(Fault("/like", "value", f"Expected {names}; got {json.show(like)}."))
            like = None
        full, missing = complete(metric, sent)
        self.faults += wrong_params(metric, {}, [name for name in missing if name not in known])
        return {**full, "like": like}

    def inputs(self, value: Any) -> dict[str, Given]:
        """Read the inputs; invalid ones are reported and left out."""
        if not json.is_object(value):
            got = "nothing" if value is None else json.show(value)
            self.faults.append(
                Fault("/inputs", "type", f"Expected an object of tensors and lists; got {got}.")
            )
            return {}
        found, faults = self.document.given(value, self.metric.inputs, "inputs")
        self.faults += faults
        read = {
            name: self.attempt(lambda name=name: self.input(found[name], name, "inputs", name))
            for name in found
        }
        return {name: one for name, one in read.items() if one is not None}

    def input(self, value: Any, name: str, *where: str | int) -> Given:
        """Read one input.

        Raises:
            Invalid: it is neither a tensor nor, where the metric takes one, a list.
        """
        spec = self.metric.inputs[name]
        if isinstance(spec, Listed):
            return read_listed(self.document, value, spec.element, *where)
        if spec.texts and begins_with_text(value):
            return read_listed(self.document, value, str, *where)
        return tensors.read_tensor(self.document, value, *where, whole=spec.whole)

    def weights(self, value: Any) -> Array | None:
        """Read the weights of samples as float64."""
        if value is None:
            return None
        sent: Sent | None = self.attempt(lambda: tensors.read_tensor(self.document, value, "sample_weight"))
        if sent is None:
            return None
        weights: Array = sent.tensor.to(torch.float64).contiguous().numpy()
        wrong = np.argwhere(~((weights >= 0) & np.isfinite(weights)))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            at, found = (place, "") if sent.addressable else ((), f" at {list(place)}")
            detail = f"Expected finite numbers of at least 0; got {weights[place]:g}{found}."
            self.faults.append(Fault(pointer("sample_weight", *at), "domain", detail))
        return weights

    def slices(self, value: Any) -> dict[str, list[str]]:
        """Read the values of slices by the name of their column."""
        if value is None:
            return {}
        if not json.is_object(value):
            self.faults.append(Fault("/slices", "type", json.no_object(value)))
            return {}
        if len(value) > MOST_COLUMNS:
            self.faults.append(
                Fault("/slices", "size", f"Expected at most {MOST_COLUMNS} names; got {len(value)}.")
            )
            return {}
        found, faults = self.document.given(value, [*value.keys()], "slices")
        self.faults += faults
        read = {
            name: self.attempt(lambda name=name: read_slice(self.document, found[name], "slices", name))
            for name in found
        }
        return {name: values for name, values in read.items() if values is not None}


def read_interval(fields: Mapping[str, Any], faults: list[Fault]) -> Asked | None:
    """Read the interval and its options; invalid ones are added to the faults."""
    level, replicates, seed = (fields.get(name) for name in ("interval", "replicates", "seed"))
    checks = (
        ("interval", level, type(level) is float and 0 < level < 1, "a number between 0 and 1"),
        (
            "replicates",
            replicates,
            _is_whole(replicates, 1, MOST_REPLICATES),
            f"an integer from 1 to {MOST_REPLICATES}",
        ),
        ("seed", seed, _is_whole(seed, 0, 2**53), "an integer of at least 0"),
    )
    wrong = [
        Fault(pointer(name), "value", f"Expected {expected}; got {json.show(value)}.")
        for name, value, right, expected in checks
        if value is not None and not right
    ]
    faults += wrong
    if wrong or level is None:
        return None
    return Asked(level, REPLICATES if replicates is None else int(replicates), int(seed or 0))


def read_slice(document: Document, value: Any, *where: str | int) -> list[str]:
    """Read the values of a column of slices as texts.

    Raises:
        Invalid: they are not strings, integers or booleans, or too many.
    """
    values = [_text(one) for one in read_listed(document, value, str | int | bool, *where)]
    if (count := len(set(values))) > MOST_SLICES:
        raise Invalid(Fault(pointer(*where), "size", f"Expected at most {MOST_SLICES} slices; got {count}."))
    return values


def _text(value: str | int | bool) -> str:
    """Return the value of a slice as a text."""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def _is_whole(value: Any, least: int, most: int) -> bool:
    """Return whether a value is an integer in a range."""
    return type(value) is int and least <= value <= most


def _lengths(
    metric: AnyMetric,
    given: Mapping[str, Given],
    weights: Array | None,
    slices: Mapping[str, Sequence[str]],
) -> list[Fault]:
    """Check that there is a weight and a value of each slice's column a sample, if the number of samples is known."""
    counts = samples_of(given)
    if len(found := {*counts.values()}) != 1:
        return _unpaired(counts, weights, slices) if metric.unpaired and found else []
    [samples] = found
    faults = [
        Fault(
            pointer("slices", name), "shape", f"Expected {samples} values, one a sample; got {len(values)}."
        )
        for name, values in slices.items()
        if len(values) != samples
    ]
    if weights is not None and weights.shape != (samples,):
        detail = f"Expected [{samples}], a weight a sample; got {list(weights.shape)}."
        faults.append(Fault("/sample_weight", "shape", detail))
    return faults


def _unpaired(
    counts: Mapping[str, int], weights: Array | None, slices: Mapping[str, Sequence[str]]
) -> list[Fault]:
    """Refuse weights and slices of sets that differ in number, as no sample of one belongs to one of the other."""
    numbers = " and ".join(f"{count} {name}" for name, count in counts.items())
    given = {"sample_weight": weights is not None, "slices": bool(slices)}
    return [
        Fault(pointer(name), "condition", f"Expected none, as the sets are not paired; got {numbers}.")
        for name, sent in given.items()
        if sent
    ]


def metric_parts(asked: Measurement, whole: MetricResult, slices: Mapping[str, MetricResult]) -> list[bytes]:
    """Write an answer in parts, each of which blocks the interpreter only briefly."""
    return [*written.joined(written.parts(metric_answer(asked, whole, slices)))]


def metric_answer(
    asked: Measurement, whole: MetricResult, slices: Mapping[str, MetricResult]
) -> dict[str, Any]:
    """Return the members of an answer; tensors are in a form that `written.parts` takes."""
    found = {"metric": asked.metric.name, **result_members(whole)}
    if asked.slices:
        found["slices"] = {name: result_members(one) for name, one in slices.items()}
    return {**found, "signature": asked.metric.signature(asked.params)}


def result_members(finished: MetricResult) -> dict[str, Any]:
    """Return the members of one result."""
    found: dict[str, Any] = {"value": _written(finished.value)}
    if finished.undefined:
        found["undefined"] = dict(finished.undefined)
    if finished.interval is not None:
        found["interval"] = finished.interval
    return {**found, "samples": finished.samples}


def _written(value: Any) -> Any:
    """Return a value with its arrays in a form that `written.parts` takes."""
    if isinstance(value, np.ndarray):
        # a reversed array of one number is contiguous too, but torch takes no negative strides
        return written.write(torch.as_tensor(cast(Array, value).copy()), "json")
    if isinstance(value, dict):
        return {name: _written(one) for name, one in cast(dict[str, Any], value).items()}
    return value
