"""Defaults that items of a batch inherit: read once, and refused once if no item can use them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.catalogue.declaration import AnyDeclaration
from service.catalogue.registry import AnyLoss, Catalogue
from service.problems import Fault, Invalid, pointer, quoted
from service.wire import json
from service.wire.document import MOST_LISTED, Document
from service.wire.envelope import EXPECTED, USUAL, Envelope, read_envelope
from service.wire.params import levels, validated, wanted

FIELDS = ("loss", "params", *EXPECTED)


@dataclass(frozen=True, slots=True)
class Inherited:
    """The params inherited by items of one loss, and the faults of those that are not valid for it."""

    valid: Mapping[str, Any]
    faults: Mapping[str, Fault]


NOTHING = Inherited({}, {})


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults of a batch."""

    loss: str | None = None
    envelope: Envelope = USUAL
    document: Document | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inherited: dict[AnyLoss, Inherited] = field(default_factory=dict[AnyLoss, Inherited])

    def params_for(self, loss: AnyLoss) -> Inherited:
        """Return the params that items of a loss inherit."""
        if not self.params or self.document is None:
            return NOTHING
        if (known := self.inherited.get(loss)) is None:
            known = self.inherited[loss] = _inherit(self.document, loss, self.params)
        return known

    def refuse_useless(self) -> None:
        """Refuse params that none of the batch's losses takes.

        Raises:
            Invalid: with a fault for each.
        """
        useless = [
            next(one.faults[name] for one in self.inherited.values())
            for name in self.params
            if self.inherited and all(name in one.faults for one in self.inherited.values())
        ]
        if useless:
            raise Invalid(*(Fault(f"/defaults{one.pointer}", one.code, one.detail) for one in useless))


NONE = Defaults()


def read_defaults(document: Document, value: Any, catalogue: Catalogue) -> tuple[Defaults, list[Fault]]:
    """Read the defaults of a batch, apart from params, which depend on the items' losses."""
    if value is None:
        return NONE, []
    if not json.is_object(value):
        return NONE, [Fault("/defaults", "type", json.no_object(value))]
    found, faults = document.given(value, FIELDS, "defaults")
    envelope, wrong = read_envelope(found, "defaults")
    loss, params = found.get("loss"), found.get("params")
    if "loss" in found and not isinstance(loss, str):
        detail = f"Expected the name of a loss; got {json.show(loss)}."
        wrong.append(Fault("/defaults/loss", "type", detail))
    if "params" in found and not json.is_object(params):
        wrong.append(Fault("/defaults/params", "type", json.no_object(params)))
    known: dict[str, Any] = {}
    if json.is_object(params):
        names = {name for one in catalogue.values() for name in one.params}
        known, unknown = document.members(params, names, "defaults", "params")
        wrong += [_unknown(fault) for fault in unknown]
    return Defaults(loss if isinstance(loss, str) else None, envelope, document, known), [*faults, *wrong]


def wrong_params(declared: AnyDeclaration, found: Mapping[str, Any], names: Collection[str]) -> list[Fault]:
    """Return a fault for each named param that is invalid, or missing."""
    faults: list[Fault] = []
    for name in names:
        code, got = ("value", json.show(found[name])) if name in found else ("missing", "nothing")
        if name in found and json.is_span(found[name]):
            code, got = "size", f"a list of more than {MOST_LISTED} values, or of other lists"
        detail = f"Expected {wanted(declared.params[name].annotation)}; got {got}."
        faults.append(Fault(pointer("params", name), code, detail))
    return faults


def _inherit(document: Document, loss: AnyLoss, params: Mapping[str, Any]) -> Inherited:
    """Validate params for a loss."""
    known = {name: value for name, value in params.items() if name in loss.params}
    sent = {name: document.plain(value, levels(loss.params[name])) for name, value in known.items()}
    valid, wrong = validated(loss, sent)
    expected = f"one of {', '.join(loss.params)}" if loss.params else "no names"
    faults = {
        name: Fault(pointer("params", name), "unknown", f"Expected {expected}; got {quoted(name)}.")
        for name in params
        if name not in known
    }
    return Inherited(valid, faults | dict(zip(wrong, wrong_params(loss, known, wrong), strict=True)))


def _unknown(fault: Fault) -> Fault:
    """Reword a fault for a name that is unknown to all losses, without listing the params of one."""
    if fault.code != "unknown":
        return fault
    got = fault.detail.rpartition("; got ")[2]
    return Fault(fault.pointer, fault.code, f"Expected the name of a param; got {got}")
