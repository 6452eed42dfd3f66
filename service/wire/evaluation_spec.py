"""The spec of an evaluation on the wire: metrics, the params that they share, columns, and how long it is kept."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson

from service.catalogue.registry import Catalogues, Unknown
from service.evaluations.spec import Duplicates, Measure, Spec
from service.problems import Fault, Invalid, NotFound, TooLarge, pointer, quoted
from service.wire import json
from service.wire.document import Document
from service.wire.evaluation_metrics import MeasureReader, Shared, find_measure, read_like
from service.wire.text import Body

OWN = ("columns", "metrics", "expect", "expires_s", "duplicates", "like")
"""Members of a spec beside params of its metrics."""
EVERYWHERE = ("task", "num_classes", "from_logits", "threshold", "ignore_index")
"""Params that a spec may state even if none of its metrics has them."""
NOT_INPUTS = ("id", "slices", "weight")
MOST_SLICE_COLUMNS = 16
MOST_ROWS = 2**53
LONGEST_COLUMN = 200
"""Most characters of a column's name."""


@dataclass(frozen=True, slots=True)
class SpecLimits:
    """The limits of a spec: the number of its metrics, and the seconds that an evaluation is kept."""

    metrics: int
    expires_s: float


def read_spec(body: Body, catalogues: Catalogues, limits: SpecLimits) -> Spec:
    """Read a spec.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: it is no valid spec; lists every fault.
        TooLarge: it has too many metrics.
    """
    document = Document(body)
    if not json.is_object(document.root):
        raise Invalid(Fault("", "type", json.no_object(document.root)))
    return spec_of(document, [*document.root.keys()], catalogues, limits)


def spec_of(
    document: Document,
    names: Collection[str],
    catalogues: Catalogues,
    limits: SpecLimits,
    others: Collection[str] = (),
) -> Spec:
    """Read the members of a spec, which have these names; the ``others`` are read elsewhere.

    Raises:
        Invalid: it is no valid spec; lists every fault.
        TooLarge: it has too many metrics.
    """
    members, faults = document.members(document.root, [*names, *others])
    fields = {name: one for name, one in members.items() if one is not None and name not in others}
    return _SpecReader(document, fields, catalogues, limits, faults).read()


def stored_spec(text: str, catalogues: Catalogues) -> Spec:
    """Return a spec as it was stored.

    Raises:
        NotFound: this server lacks one of its metrics.
    """
    stored = orjson.loads(text)
    columns = stored["columns"]
    return Spec(
        tuple(_stored_measure(one, catalogues) for one in stored["metrics"]),
        columns["id"],
        tuple(columns["slices"]),
        columns["weight"],
        stored["expect"],
        stored["expires_s"],
        stored["duplicates"],
    )


def _stored_measure(stored: Mapping[str, Any], catalogues: Catalogues) -> Measure:
    """Return a metric of a spec as it was stored."""
    kind: Literal["metric", "loss"] = "loss" if "loss" in stored else "metric"
    try:
        found = find_measure(catalogues, kind, stored[kind])
    except Unknown as error:
        raise NotFound(f"{error} Another version of this server has created the evaluation.") from None
    params = {name: _tuples(value) for name, value in stored["params"].items()}
    return Measure(stored["name"], kind, found, params, stored["inputs"])


class _SpecReader:
    """Reads the members of a spec, and collects their faults."""

    def __init__(
        self,
        document: Document,
        fields: Mapping[str, Any],
        catalogues: Catalogues,
        limits: SpecLimits,
        faults: Sequence[Fault],
    ) -> None:
        self.document = document
        self.fields = fields
        self.catalogues = catalogues
        self.limits = limits
        self.faults = [*faults]

    def read(self) -> Spec:
        """Read all members.

        Raises:
            Invalid: with every fault.
        """
        columns, params = self._columns(), {n: one for n, one in self.fields.items() if n not in OWN}
        shared = Shared(params, columns, read_like(self.fields.get("like"), self.faults))
        measures = self._measures(shared)
        spec = Spec(
            measures,
            self._column(columns, "id"),
            self._slices(columns.get("slices")),
            self._column(columns, "weight"),
            self._expect(),
            self._expires(),
            self._duplicates(),
        )
        if not self.faults:
            self._refuse_unused(shared)
        if self.faults:
            raise Invalid(*dict.fromkeys(self.faults))
        return spec

    def _fault(self, where: str, code: str, expected: str, got: str) -> None:
        """Report a fault."""
        self.faults.append(Fault(where, code, f"Expected {expected}; got {got}."))

    def _columns(self) -> dict[str, Any]:
        """Read the names of columns by what they hold."""
        value: Any = self.fields.get("columns")
        if not json.is_object(value):
            got = "nothing" if value is None else json.show(value)
            self._fault("/columns", "type", "an object with the names of columns", got)
            return {}
        found, faults = self.document.given(value, [*value.keys()], "columns")
        self.faults += faults
        for name in found:
            if name != "slices":
                self._column(found, name)
        return found

    def _column(self, columns: Mapping[str, Any], name: str) -> str | None:
        """Return the name of a column; None if there is none, or it is invalid, which is reported once."""
        value = columns.get(name)
        if value is None or (isinstance(value, str) and 0 < len(value) <= LONGEST_COLUMN):
            return value
        fault = f"Expected the name of a column, of 1 to {LONGEST_COLUMN} characters; got {json.show(value)}."
        if (found := Fault(pointer("columns", name), "type", fault)) not in self.faults:
            self.faults.append(found)
        return None

    def _slices(self, value: Any) -> tuple[str, ...]:
        """Read the names of the columns of slices."""
        plain = () if value is None else self.document.plain(value)
        names = cast(tuple[Any, ...], plain) if isinstance(plain, tuple) else (None,)
        if not all(isinstance(name, str) and 0 < len(name) <= LONGEST_COLUMN for name in names):
            self._fault("/columns/slices", "type", "a list of names of columns", json.show(value))
            return ()
        if len(names) > MOST_SLICE_COLUMNS or len({*names}) < len(names):
            expected = f"at most {MOST_SLICE_COLUMNS} different columns"
            self._fault("/columns/slices", "size", expected, f"{len(names)}")
        return tuple(map(str, names))

    def _measures(self, shared: Shared) -> tuple[Measure, ...]:
        """Read the list of metrics, whose names in results must differ."""
        value: Any = self.fields.get("metrics")
        most = self.limits.metrics
        if not json.is_array(value) or not len(value):
            got = "nothing" if value is None else json.show(value)
            self._fault("/metrics", "type", "a list of metrics", got)
            return ()
        if json.is_span(value) or len(value) > most:
            got = "more" if json.is_span(value) else str(len(value))
            raise TooLarge(f"Expected at most {most} metrics (LOSSD_EVALUATION_MAX_METRICS); got {got}.")
        found: dict[str, Measure] = {}
        for place, one in enumerate(value):
            where = ("metrics", place)
            reader = MeasureReader(self.document, self.catalogues, shared, self.faults, where)
            measure = reader.read(self.document.resolve(one))
            if measure is not None and found.setdefault(measure.name, measure) is not measure:
                expected = 'another name in results, by "name"'
                self._fault(pointer(*where), "duplicate", expected, f"{quoted(measure.name)} again")
        return tuple(found.values())

    def _expect(self) -> int | None:
        """Read the number of rows to expect."""
        value = self.fields.get("expect")
        if value is None or (type(value) is int and 0 <= value <= MOST_ROWS):
            return value
        self._fault("/expect", "value", "a number of rows", json.show(value))
        return None

    def _expires(self) -> float | None:
        """Read the seconds that the evaluation is kept; None if the spec leaves that to the server."""
        value, most = self.fields.get("expires_s"), self.limits.expires_s
        if value is None or (type(value) in (int, float) and 0 < value <= most):
            return None if value is None else float(value)
        expected = f"seconds, more than 0 and at most {most:g} (LOSSD_EVALUATION_MAX_EXPIRES_S)"
        self._fault("/expires_s", "value", expected, json.show(value))
        return None

    def _duplicates(self) -> Duplicates:
        """Read what happens if an id comes with another content."""
        value = self.fields.get("duplicates", "refuse")
        if value == "first" or value == "refuse":
            return value
        self._fault("/duplicates", "value", '"refuse" or "first"', json.show(value))
        return "refuse"

    def _refuse_unused(self, shared: Shared) -> None:
        """Refuse members that no metric reads: they are misspelt."""
        for name in shared.params.keys() - shared.used - {*EVERYWHERE}:
            expected = f"one of {', '.join(OWN)}, or a param of a metric"
            self._fault(pointer(name), "unknown", expected, quoted(name))
        for name in shared.columns.keys() - shared.used - {*NOT_INPUTS}:
            self._fault(
                pointer("columns", name),
                "unknown",
                "an input of a metric, id, slices or weight",
                quoted(name),
            )


def _tuples(value: Any) -> Any:
    """Return params as they were before they were stored."""
    return tuple(map(_tuples, cast(list[Any], value))) if isinstance(value, list) else value
