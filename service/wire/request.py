"""Read the members of one request, with all their faults."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from service.catalogue.registry import AnyLoss
from service.engine.call import DTYPES, NO_TANGENTS, Request, Sent
from service.problems import Fault, Invalid, pointer
from service.wire import json
from service.wire.defaults import NONE, Defaults, wrong_params
from service.wire.document import Document
from service.wire.envelope import EXPECTED, Encoding, read_envelope
from service.wire.numbers import How, read_numbers
from service.wire.params import complete, levels, validated
from service.wire.tensors import read_tensor

FIELDS = ("inputs", "params", *EXPECTED, "sample_weight", "grad_output", "tangents")


class Read(NamedTuple):
    """A request as read, with the faults found so far."""

    request: Request
    encoding: Encoding
    faults: Sequence[Fault]


def read(
    document: Document,
    loss: AnyLoss,
    fields: Mapping[str, Any],
    faults: Sequence[Fault],
    defaults: Defaults = NONE,
) -> Read:
    """Read the members of a request; invalid ones are reported, and left out or replaced by their defaults.

    Raises:
        Unreadable: a part of the document that is parsed only here is not JSON.
    """
    return _Reader(document, loss, fields, faults, defaults).read()


def read_params(
    document: Document, loss: AnyLoss, value: Any, defaults: Defaults = NONE
) -> tuple[Mapping[str, Any], list[Fault]]:
    """Validate the params of a request; invalid ones are reported and replaced by their defaults."""
    if value is None and not defaults.params and len(loss.defaults) == len(loss.params):
        return loss.defaults, []
    found, faults = dict[str, Any](), list[Fault]()
    if value is not None and type(value) is not json.OBJECT:
        faults.append(Fault("/params", "type", json.no_object(value)))
    elif value is not None:
        found, faults = document.members(value, loss.params, "params")
    sent = {name: document.plain(one, levels(loss.params[name])) for name, one in found.items()}
    valid, wrong = validated(loss, sent) if sent else ({}, [])
    inherited = defaults.params_for(loss)
    faults += wrong_params(loss, found, wrong)
    faults += [fault for name, fault in inherited.faults.items() if name not in found]
    params, missing = complete(loss, {**inherited.valid, **valid})
    absent = [name for name in missing if name not in found and name not in inherited.faults]
    return params, [*faults, *wrong_params(loss, {}, absent)]


class _Reader:
    """Reads the members of one request, and collects its faults."""

    def __init__(
        self,
        document: Document,
        loss: AnyLoss,
        fields: Mapping[str, Any],
        faults: Sequence[Fault],
        defaults: Defaults,
    ) -> None:
        self.document = document
        self.loss = loss
        self.fields = fields
        self.faults = [*faults]
        self.defaults = defaults

    def read(self) -> Read:
        """Read all members."""
        fields, envelope = self.fields, self.defaults.envelope
        if not fields.keys().isdisjoint(EXPECTED):
            envelope, faults = read_envelope(fields, defaults=envelope)
            self.faults += faults
        params, wrong = read_params(self.document, self.loss, fields.get("params"), self.defaults)
        self.faults += wrong
        request = Request(
            loss=self.loss,
            params=params,
            inputs=self._read_inputs(),
            gradients=envelope.gradients,
            reduction=envelope.reduction,
            sample_weight=self._read_tensor("sample_weight") if "sample_weight" in fields else None,
            grad_output=self._read_tensor("grad_output") if "grad_output" in fields else None,
            dtype=DTYPES[envelope.dtype],
            divide_by=envelope.divide_by,
            tangents=self._read_tangents() if "tangents" in fields else NO_TANGENTS,
            hessian=envelope.hessian,
        )
        return Read(request, envelope.encoding, self.faults)

    def _read_inputs(self) -> dict[str, Sent]:
        """Read the loss's tensors; invalid ones are reported and left out."""
        known, inputs = self.loss.inputs, dict[str, Sent]()
        if "inputs" not in self.fields:
            self.faults.append(Fault("/inputs", "missing", "Expected an object of tensors; got nothing."))
        if (found := self._object("inputs", known)) is None:
            return inputs
        for name, spec in known.items():
            value = found.get(name)
            if value is None:
                if not spec.optional:
                    detail = f"Expected a tensor; got {'null' if name in found else 'nothing'}."
                    self.faults.append(Fault(pointer("inputs", name), "missing", detail))
                continue
            where = ("inputs", name)
            try:
                if type(value) is json.ARRAY:
                    inputs[name] = read_numbers(value, How(where, spec.whole))
                else:
                    inputs[name] = read_tensor(self.document, value, *where, whole=spec.whole)
            except Invalid as invalid:
                self.faults += invalid.faults
        return inputs

    def _read_tangents(self) -> Mapping[str, Sent]:
        """Read the tangents of inputs; invalid ones are reported and left out."""
        tangents = dict[str, Sent]()
        for name, value in (self._object("tangents", self.loss.inputs) or {}).items():
            if value is None:
                continue
            try:
                tangents[name] = read_tensor(self.document, value, "tangents", name)
            except Invalid as invalid:
                self.faults += invalid.faults
        return tangents

    def _object(self, name: str, known: Collection[str]) -> dict[str, Any] | None:
        """Return the known members of an object field; None if it is absent, or not an object, which is reported."""
        if name not in self.fields:
            return None
        value = self.fields[name]
        if type(value) is not json.OBJECT:
            self.faults.append(Fault(pointer(name), "type", json.no_object(value)))
            return None
        found, faults = self.document.members(value, known, name)
        self.faults += faults
        return found

    def _read_tensor(self, name: str) -> Sent | None:
        """Read a tensor beside the inputs; None if it is missing or invalid."""
        if (value := self.fields[name]) is None:
            return None
        try:
            return read_tensor(self.document, value, name)
        except Invalid as invalid:
            self.faults += invalid.faults
            return None
