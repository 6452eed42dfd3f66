"""The metrics of a spec: the declared metric or loss of each, its params, and the columns that its inputs come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from service.catalogue.metric import AnyMetric, Like
from service.catalogue.registry import Catalogues, Unknown
from service.engine.rowwise import as_metric, takes_samples_alone
from service.evaluations.spec import Measure
from service.problems import Fault, pointer
from service.wire import json
from service.wire.defaults import wrong_params
from service.wire.document import Document
from service.wire.names import NAME, NAMED
from service.wire.params import complete, levels, validated

ENTRY = ("metric", "loss", "name", "params", "inputs")
ROLES: Mapping[str, str] = {"prediction": "predictions", "target": "targets"}
"""The column of a loss's first input of each role, whatever the loss calls it."""
Where = tuple[str | int, ...]
Kind = Literal["metric", "loss"]


def find_measure(catalogues: Catalogues, kind: Kind, name: str) -> AnyMetric:
    """Return a metric, or a loss as one.

    Raises:
        Unknown: there is none of that name.
    """
    return as_metric(catalogues.losses[name]) if kind == "loss" else catalogues.metrics[name]


@dataclass(slots=True)
class Shared:
    """What a spec states once for all its metrics: params and columns, and which of them some metric has used."""

    params: Mapping[str, Any]
    columns: Mapping[str, Any]
    like: Like | None
    used: set[str] = field(default_factory=set[str])


class MeasureReader:
    """Reads one metric of a spec at a place of the document, and collects its faults."""

    def __init__(
        self, document: Document, catalogues: Catalogues, shared: Shared, faults: list[Fault], where: Where
    ) -> None:
        self.document = document
        self.catalogues = catalogues
        self.shared = shared
        self.faults = faults
        self.where = where

    def read(self, value: Any) -> Measure | None:
        """Read a name, or an object with a name, params and inputs; None if it is invalid, which is reported."""
        if isinstance(value, str):
            entry: dict[str, Any] = {"metric": value}
        elif json.is_object(value):
            entry, faults = self.document.given(value, ENTRY, *self.where)
            self.faults += faults
        else:
            entry = {}
        kind: Kind = "loss" if "loss" in entry else "metric"
        if ("metric" in entry) == ("loss" in entry) or not isinstance(entry[kind], str):
            self._fault((), "type", 'a name, {"metric": name} or {"loss": name}', json.show(value))
            return None
        try:
            metric = find_measure(self.catalogues, kind, entry[kind])
        except Unknown as error:
            at = (kind,) if json.is_object(value) else ()
            self.faults.append(Fault(pointer(*self.where, *at), "unknown", str(error)))
            return None
        params, inputs = self._params(metric, entry.get("params")), self._inputs(metric, entry.get("inputs"))
        if kind == "loss" and not takes_samples_alone(self.catalogues.losses[metric.name], params):
            expected = "a loss that has a value for each sample alone"
            self._fault(("loss",), "samples", expected, f"{metric.name}, which needs several samples at once")
        return Measure(self._name(entry.get("name", metric.name)), kind, metric, params, inputs)

    def _fault(self, where: Where, code: str, expected: str, got: str) -> None:
        """Report a fault below this metric."""
        self.faults.append(Fault(pointer(*self.where, *where), code, f"Expected {expected}; got {got}."))

    def _name(self, name: Any) -> str:
        """Read the name of a metric in results."""
        if isinstance(name, str) and NAME.fullmatch(name):
            return name
        self._fault(("name",), "name", NAMED, json.show(name))
        return ""

    def _params(self, metric: AnyMetric, value: Any) -> dict[str, Any]:
        """Read the params of a metric, on top of those that the spec states once for all metrics."""
        shared = {name: one for name, one in self.shared.params.items() if name in metric.params}
        own = self._object(value, metric.params, "params")
        self.shared.used |= shared.keys()
        sent = {**shared, **own}
        plain = {name: self.document.plain(one, levels(metric.params[name])) for name, one in sent.items()}
        valid, wrong = validated(metric, plain)
        full, missing = complete(metric, valid)
        for fault in wrong_params(metric, sent, [*wrong, *(name for name in missing if name not in sent)]):
            name = fault.pointer.rpartition("/")[2]
            at = pointer(name) if name in shared and name not in own else pointer(*self.where) + fault.pointer
            self.faults.append(Fault(at, fault.code, fault.detail))
        like = self.shared.like
        return {**full, "like": like if like in metric.likes else None}

    def _inputs(self, metric: AnyMetric, value: Any) -> dict[str, str]:
        """Find the column of each input: the metric's own choice, the one of that name, or the one of its role."""
        own, found = self._object(value, metric.inputs, "inputs"), dict[str, str]()
        aliases = _aliases(metric)
        for name, spec in metric.inputs.items():
            alias = aliases.get(name, name)
            chosen = name if name in self.shared.columns else alias
            self.shared.used.add(chosen)
            column = own.get(name, self.shared.columns.get(chosen))
            if column is None:
                if not spec.optional:
                    detail = "Expected the name of a column; got nothing."
                    self.faults.append(Fault(pointer("columns", chosen), "missing", detail))
            elif isinstance(column, str) and column:
                found[name] = column
            elif name in own:
                self._fault(("inputs", name), "type", "the name of a column", json.show(column))
            # otherwise the reader of the columns reports it, once
        return found

    def _object(self, value: Any, known: Sequence[str] | Mapping[str, Any], *where: str) -> dict[str, Any]:
        """Return the known members of an object, without nulls."""
        if value is None:
            return {}
        if not json.is_object(value):
            self.faults.append(Fault(pointer(*self.where, *where), "type", json.no_object(value)))
            return {}
        found, faults = self.document.given(value, [*known], *self.where, *where)
        self.faults += faults
        return found


def read_like(value: Any, faults: list[Fault]) -> Like | None:
    """Read whose conventions apply; what is invalid is reported."""
    if value is None or value in get_args(Like):
        return value
    expected = " or ".join(f'"{name}"' for name in get_args(Like))
    faults.append(Fault("/like", "value", f"Expected {expected}; got {json.show(value)}."))
    return None


def _aliases(metric: AnyMetric) -> dict[str, str]:
    """Return the column of the first input of each role, unless another input has that name."""
    found: dict[str, str] = {}
    for name, spec in metric.inputs.items():
        role = ROLES[spec.role]
        if role not in metric.inputs and role not in found.values():
            found[name] = role
    return found
