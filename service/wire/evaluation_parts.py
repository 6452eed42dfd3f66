"""Parts on the wire: JSON columns, NDJSON rows or CSV, to the rows of all metrics of an evaluation."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import orjson
import torch

from service.catalogue.metric import Listed
from service.catalogue.rounds import go_on
from service.catalogue.spec import Input
from service.catalogue.table import Array, Column
from service.engine.bind_metric import Bound, Given, bind_metric
from service.engine.call import Sent
from service.engine.measure import rows_of
from service.evaluations.identity import content_hashes, digest_of, id_hashes, place_hashes
from service.evaluations.part import PartContent
from service.evaluations.rows import Categories, Rows, column_name, texts_as_bytes
from service.evaluations.spec import Measure, Spec
from service.problems import Fault, Invalid, TooLarge, pointer
from service.wire import json, tensors
from service.wire.document import Document
from service.wire.listed import read_listed
from service.wire.metrics import read_slice
from service.wire.tabular import columns_of_csv, columns_of_ndjson
from service.wire.text import Body

Media = Literal["json", "ndjson", "csv"]
LONGEST_ID = 256
"""Most bytes of an id."""
T = TypeVar("T")
ROW = re.compile(r"/rows/(\d+)(/|$)")


@dataclass(frozen=True, slots=True)
class PartLimits:
    """What a part is computed with: the device, and the most units of work."""

    device: torch.device
    work: int


def decode_part(spec: Spec, key: str, body: Body, media: Media, limits: PartLimits) -> PartContent:
    """Read a part, and compute the rows of every metric.

    Raises:
        Unreadable: the body is not of its format.
        Invalid: it does not fit the spec; lists every fault that can be found before the others are corrected.
        TooLarge: it is over the work limit, or does not fit into memory.
    """
    lines: Sequence[int] = ()
    if media == "ndjson":
        found = columns_of_ndjson(body, spec.columns)
        body, lines = found.text, found.lines
    elif media == "csv":
        found = columns_of_csv(body, spec.columns, _texts(spec))
        body, lines = found.text, found.lines
    document = Document(body)
    del body
    try:
        return replace(part_of(document, document.root, spec, key, limits), lines=lines)
    except Invalid as invalid:
        faults = [_with_line(fault, lines) for fault in invalid.faults]
    raise Invalid(*faults)


def part_of(document: Document, value: Any, spec: Spec, key: str, limits: PartLimits) -> PartContent:
    """Read the columns of a part; pointers lead to rows.

    Raises:
        Invalid: with every fault.
        TooLarge: it is over the work limit.
    """
    if not json.is_object(value):
        raise Invalid(Fault("", "type", json.no_object(value)))
    members, faults = document.given(value, spec.columns)
    missing = [
        Fault(pointer(name), "missing", "Expected a column; got nothing.")
        for name in spec.columns
        if name not in members
    ]
    if faults or missing:
        raise Invalid(*faults, *missing)
    return _PartReader(document, members, spec, key, limits).read()


def _texts(spec: Spec) -> set[str]:
    """Return the columns whose cells are texts."""
    inputs = [
        (column, measure.metric.inputs[name])
        for measure in spec.measures
        for name, column in measure.inputs.items()
    ]
    listed = {column for column, one in inputs if isinstance(one, Listed) and one.element is str}
    numeric = {column for column, one in inputs if not isinstance(one, Listed)}
    return {name for name in (spec.id, *spec.slices) if name is not None and name not in numeric} | listed


def _with_line(fault: Fault, lines: Sequence[int]) -> Fault:
    """Return a fault with the line of its row."""
    found = ROW.match(fault.pointer)
    place = int(found[1]) if found else len(lines)
    return replace(fault, line=lines[place]) if fault.line is None and place < len(lines) else fault


class _PartReader:
    """Reads the columns of a part, each once, and collects their faults."""

    def __init__(
        self, document: Document, members: Mapping[str, Any], spec: Spec, key: str, limits: PartLimits
    ) -> None:
        self.document = document
        self.members = members
        self.spec = spec
        self.key = key
        self.limits = limits
        self.faults: list[Fault] = []
        self._given: dict[tuple[str, str], Given | None] = {}
        self._lengths: dict[str, int] = {}

    def read(self) -> PartContent:
        """Read all columns, and compute the rows.

        Raises:
            Invalid: with every fault.
            TooLarge: it is over the work limit.
        """
        spec = self.spec
        ids = None if spec.id is None else self._attempt(spec.id, self._ids)
        labels = {name: self._attempt(name, self._labels) for name in spec.slices}
        weights = None if spec.weight is None else self._attempt(spec.weight, self._weights)
        inputs = [self._inputs(measure) for measure in spec.measures]
        self._check_lengths()
        if self.faults:
            raise Invalid(*dict.fromkeys(self.faults))
        count = next(iter(self._lengths.values()))
        there = {name: one for name, one in labels.items() if one is not None}
        contents = content_hashes(self._contents(there, weights), count)
        hashes = place_hashes(self.key, count) if ids is None else id_hashes(ids)
        rows = Rows(
            count=count,
            ids=None if ids is None else texts_as_bytes(ids),
            contents=None if ids is None else contents,
            weights=weights,
            labels=there,
            columns=self._columns(inputs) if count else {},
        )
        return PartContent(rows, hashes, contents, digest_of(hashes, contents, ordered=ids is None))

    def _attempt(self, column: str, read: Callable[[str], T]) -> T | None:
        """Return what a function reads of a column; None if it is invalid, which is reported."""
        try:
            return read(column)
        except Invalid as invalid:
            self.faults += [_in_rows(fault, {}) for fault in invalid.faults]
            return None

    def _ids(self, column: str) -> list[bytes]:
        """Read ids: texts, or integers, which are the same as their decimals as texts."""
        value = self.members[column]
        if json.is_object(value):
            ids = [b"%d" % one for one in self._integers(column).tolist()]
        else:
            ids = [str(one).encode() for one in read_listed(self.document, value, str | int, column)]
        self._lengths[column] = len(ids)
        wrong = next((place for place, one in enumerate(ids) if not 0 < len(one) <= LONGEST_ID), None)
        if wrong is not None:
            detail = f"Expected an id of 1 to {LONGEST_ID} bytes; got {len(ids[wrong])}."
            raise Invalid(Fault(pointer(column, wrong), "size", detail))
        return ids

    def _labels(self, column: str) -> Categories:
        """Read a column of slices."""
        value = self.members[column]
        if json.is_object(value):
            distinct, places = np.unique(self._integers(column), return_inverse=True)
            labels = Categories(tuple(map(str, distinct.tolist())), places.astype(np.int32))
        else:
            labels = Categories.of(read_slice(self.document, value, column))
        self._lengths[column] = len(labels.places)
        return labels

    def _weights(self, column: str) -> Array:
        """Read the weights of rows."""
        sent = self._tensor(column, whole=False).tensor
        weights: Array = sent.to(torch.float64).contiguous().numpy()
        if weights.ndim != 1:
            raise _not_numbers(column, list(weights.shape), "a number a row")
        wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
        if len(wrong):
            detail = f"Expected finite numbers of at least 0; got {weights[wrong[0]]:g}."
            raise Invalid(Fault(pointer(column, int(wrong[0])), "domain", detail))
        return weights

    def _integers(self, column: str) -> Array:
        """Read packed integers."""
        tensor = self._tensor(column, whole=True).tensor
        if tensor.dim() != 1 or tensor.is_floating_point():
            raise _not_numbers(column, f"{tensor.dtype} {list(tensor.shape)}", "an integer a row")
        return tensor.to(torch.int64).numpy()

    def _tensor(self, column: str, *, whole: bool) -> Sent:
        """Read a tensor with a row for each row of the part."""
        sent = tensors.read_tensor(self.document, self.members[column], column, whole=whole)
        if not sent.tensor.dim():
            raise _not_numbers(column, "one value", "a list with a value a row")
        self._lengths[column] = len(sent.tensor)
        # a row must not depend on whether all numbers of its part happen to be integers
        as_floats = not whole and not sent.tensor.is_floating_point()
        tensor = sent.tensor.to(torch.float64) if as_floats else sent.tensor
        # an element has a place, whatever format it came in
        return sent._replace(tensor=tensor, addressable=True)

    def _inputs(self, measure: Measure) -> dict[str, Given]:
        """Read the inputs of a metric; a column is read once for all inputs of its kind."""
        found: dict[str, Given] = {}
        for name, column in measure.inputs.items():
            spec = measure.metric.inputs[name]
            kind = repr(spec.element) if isinstance(spec, Listed) else str(spec.whole)
            if (column, kind) not in self._given:
                read = partial(self._input, spec)
                self._given[column, kind] = self._attempt(column, read)
            if (given := self._given[column, kind]) is not None:
                found[name] = given
        return found

    def _input(self, spec: Input, column: str) -> Given:
        """Read a column as an input."""
        if not isinstance(spec, Listed):
            return self._tensor(column, whole=spec.whole)
        found = read_listed(self.document, self.members[column], spec.element, column)
        self._lengths[column] = len(found)
        return found

    def _check_lengths(self) -> None:
        """Report columns that differ in length from the first one."""
        if not self._lengths:
            return
        first, count = next(iter(self._lengths.items()))
        self.faults += [
            Fault(pointer(name), "shape", f"Expected {count} values, as in {first}; got {length}.")
            for name, length in self._lengths.items()
            if length != count
        ]

    def _contents(
        self, labels: Mapping[str, Categories], weights: Array | None
    ) -> dict[str, Array | Categories | Sequence[bytes]]:
        """Return what makes a row the same row, beside its id."""
        found: dict[str, Array | Categories | Sequence[bytes]] = {**labels}
        if weights is not None and self.spec.weight is not None:
            found[self.spec.weight] = weights
        for (column, _), given in self._given.items():
            if isinstance(given, list):
                found[column] = [orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in given]
            elif given is not None:
                found[column] = _numbers(given.tensor)
        if self.spec.id in found:
            del found[self.spec.id]
        return found

    def _columns(self, inputs: Sequence[Mapping[str, Given]]) -> dict[str, Column]:
        """Compute the rows of every metric."""
        bound = [self._bound(*pair) for pair in zip(self.spec.measures, inputs, strict=True)]
        if self.faults:
            raise Invalid(*dict.fromkeys(self.faults))
        there = [one for one in bound if one is not None]
        if (work := sum(one.work for one in there)) > self.limits.work:
            raise TooLarge(
                f"Expected at most {self.limits.work} units of work in a part (LOSSD_MAX_WORK); got {work}: send smaller parts."
            )
        found: dict[str, Column] = {}
        for measure, one in zip(self.spec.measures, there, strict=True):
            go_on()
            try:
                table = rows_of(measure.metric, one.inputs, measure.params, self.limits.device)
            except Invalid as invalid:
                raise Invalid(*(_in_rows(fault, measure.inputs) for fault in invalid.faults)) from None
            found |= {column_name(measure.name, name): column for name, column in table.columns.items()}
        return found

    def _bound(self, measure: Measure, given: Mapping[str, Given]) -> Bound | None:
        """Check the inputs of a metric; None if they are invalid, which is reported."""
        try:
            return bind_metric(measure.metric, given, measure.params)
        except Invalid as invalid:
            self.faults += [_in_rows(fault, measure.inputs) for fault in invalid.faults]
            return None


def _numbers(tensor: torch.Tensor) -> Array:
    """Return a tensor as an array; numpy has no bfloat16."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def _not_numbers(column: str, got: object, expected: str) -> Invalid:
    """Return the problem of a column of another shape."""
    return Invalid(Fault(pointer(column), "shape", f"Expected {expected}; got {got}."))


def _in_rows(fault: Fault, inputs: Mapping[str, str]) -> Fault:
    """Return a fault of a column, or of a metric's input, with a pointer to the row: /rows/17/label."""
    names = fault.pointer.split("/")[1:]
    if inputs and names[:1] == ["inputs"] and len(names) > 1 and names[1] in inputs:
        names = [pointer(inputs[names[1]])[1:], *names[2:]]
    if len(names) > 1 and names[1].isdecimal():
        names = ["rows", names[1], names[0], *names[2:]]
    return replace(fault, pointer="".join(f"/{name}" for name in names))
