"""Compositions on the wire: a request body to a plan with its tensors, their results to an answer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from torch import Tensor

from service.catalogue.registry import AnyLoss, Catalogue
from service.engine.call import DTYPES, Sent
from service.engine.compose import Composed, CompositionCall, TermResult
from service.engine.composition import (
    Composition,
    ExpressionTerm,
    LossTerm,
    PerTerm,
    Planner,
    Term,
    forms,
)
from service.problems import Fault, Invalid, pointer, quoted, under
from service.wire import json, written
from service.wire.document import Document, read_object
from service.wire.envelope import MOST_NAMES, USUAL, Encoding, Envelope, read_envelope
from service.wire.native import count_nonfinite
from service.wire.request import read_params
from service.wire.tensors import read_tensor
from service.wire.text import Body

FIELDS = ("inputs", "terms", "total", "gradients", "grad_output", "per_term", "dtype", "encoding")
LOSS_FIELDS = ("loss", "inputs", "params", "reduction", "sample_weight", "divide_by", "weight")
EXPRESSION_FIELDS = ("expression", "weight")
TERM_FIELDS = (*LOSS_FIELDS, *EXPRESSION_FIELDS)
MOST_TERMS = 64
"""Most terms of a composition; each takes some tenths of a millisecond."""
ESCAPED_BYTES = 12
"""Most bytes of a character in JSON: two escapes. An expression that is longer is not read."""
LONGEST_NAME = 64
"""Most characters of the name of a term or an input."""


class DecodedComposition(NamedTuple):
    """A composition that can be computed, and the format of its answer."""

    asked: CompositionCall
    encoding: Encoding


def decode_composition(catalogue: Catalogue, body: Body, planner: Planner) -> DecodedComposition:
    """Read a request body.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: it is not a composition, or does not fit its inputs.
        TooLarge: its work is over the limit.
    """
    document = read_object(body)
    return read_composition(document, catalogue, *document.given(document.root, FIELDS), planner)


def read_composition(
    document: Document,
    catalogue: Catalogue,
    fields: Mapping[str, Any],
    faults: Sequence[Fault],
    planner: Planner,
    defaults: Envelope = USUAL,
) -> DecodedComposition:
    """Read the members of a composition.

    Raises:
        Invalid: with every fault that can be found before the others are corrected.
        TooLarge: its work is over the limit.
        Unreadable: a part of the document that is parsed only here is not JSON.
    """
    return _Reader(document, catalogue, faults, planner).read(fields, defaults)


class _Reader:
    """Reads the members of one composition, and collects its faults."""

    def __init__(
        self, document: Document, catalogue: Catalogue, faults: Sequence[Fault], planner: Planner
    ) -> None:
        self.document = document
        self.catalogue = catalogue
        self.faults = [*faults]
        self.planner = planner
        self.characters = 0

    def read(self, fields: Mapping[str, Any], defaults: Envelope) -> DecodedComposition:
        """Read all members."""
        if "gradients" in fields:
            # in a long body, a long list is not parsed yet
            fields = {**fields, "gradients": self.document.plain(fields["gradients"])}
        envelope, wrong = read_envelope(fields, defaults=defaults)
        self.faults += wrong
        total = self._source(fields["total"], "total") if "total" in fields else None
        terms = self._terms(fields.get("terms"), weighted="total" not in fields)
        composition = Composition(
            terms=tuple(terms.items()),
            total=total,
            gradients=envelope.gradients,
            per_term=self._per_term(fields.get("per_term", "values")),
            dtype=DTYPES[envelope.dtype],
        )
        inputs = self._inputs(fields.get("inputs"))
        upstream = self._number(fields["grad_output"], "grad_output") if "grad_output" in fields else 1.0
        if (most := self.planner.most_characters) < self.characters:
            detail = f"Expected expressions of at most {most} characters together; got {self.characters}."
            self.faults.append(Fault("/terms", "size", detail))
        if self.faults:
            raise Invalid(*self.faults)
        return DecodedComposition(
            CompositionCall(self.planner.plan(composition, forms(inputs)), inputs, upstream),
            envelope.encoding,
        )

    def _fault(self, where: Sequence[str], code: str, expected: str, got: str) -> None:
        self.faults.append(Fault(pointer(*where), code, f"Expected {expected}; got {got}."))

    def _object(self, value: Any, most: int, *where: str) -> dict[str, Any]:
        """Return the members of an object whose names a client chooses; it has at least one."""
        if not json.is_object(value):
            got = "nothing" if value is None else json.show(value)
            self._fault(where, "type", "an object", got)
            return {}
        if not 1 <= len(value) <= most:
            self._fault(where, "size", f"1 to {most} names", str(len(value)))
            return {}
        found, faults = self.document.given(value, [*value.keys()], *where)
        self.faults += faults
        if not found and not faults:
            self._fault(where, "size", f"1 to {most} names", "nulls alone")
        for name in found:
            if not 1 <= len(name) <= LONGEST_NAME:
                self._fault(
                    (*where, name), "name", f"a name of 1 to {LONGEST_NAME} characters", str(len(name))
                )
        return found

    def _inputs(self, value: Any) -> dict[str, Sent]:
        """Read the shared tensors; invalid ones are reported and left out."""
        found = dict[str, Sent]()
        for name, one in self._object(value, MOST_NAMES, "inputs").items():
            try:
                found[name] = read_tensor(self.document, one, "inputs", name)
            except Invalid as invalid:
                self.faults += invalid.faults
        return found

    def _terms(self, value: Any, *, weighted: bool) -> dict[str, Term]:
        """Read the terms; invalid ones are reported and left out."""
        found = dict[str, Term]()
        for name, one in self._object(value, MOST_TERMS, "terms").items():
            where = ("terms", name)
            if not json.is_object(one):
                self._fault(where, "type", "an object with a loss or an expression", json.show(one))
                continue
            sent = {key: one[key] for key in ("loss", "expression") if one.get(key) is not None}
            if len(sent) != 1:
                got = "both" if sent else "neither"
                self._fault(where, "missing", "either a loss or an expression", got)
                continue
            kind = next(iter(sent))
            known = LOSS_FIELDS if kind == "loss" else EXPRESSION_FIELDS
            fields, faults = self.document.given(one, known, *where, others=TERM_FIELDS)
            self.faults += faults
            if "weight" in fields and not weighted:
                self._fault((*where, "weight"), "condition", "no weight beside total", "one")
            weight = self._number(fields["weight"], *where, "weight") if "weight" in fields else 1.0
            if kind == "expression":
                source = self._source(fields["expression"], *where, "expression")
                found |= {} if source is None else {name: ExpressionTerm(source, weight)}
            elif (loss := self._loss(fields["loss"], *where, "loss")) is not None:
                found[name] = self._loss_term(loss, fields, weight, *where)
        return found

    def _loss(self, value: Any, *where: str) -> AnyLoss | None:
        """Find a loss by its name or alias; None if there is none, which is reported."""
        if not isinstance(value, str):
            self._fault(where, "type", "the name of a loss", json.show(value))
        elif (loss := self.catalogue.find(value)) is not None:
            return loss
        else:
            closest = ", ".join(self.catalogue.closest(value))
            self._fault(
                where, "unknown", f"the name of a loss{closest and f', such as {closest}'}", quoted(value)
            )
        return None

    def _loss_term(self, loss: AnyLoss, fields: Mapping[str, Any], weight: float, *where: str) -> LossTerm:
        """Read a term with a loss; invalid members are reported."""
        params, faults = read_params(self.document, loss, fields.get("params"))
        self.faults += under(faults, *where)
        reduction = fields.get("reduction", "mean")
        if reduction not in ("mean", "sum"):
            self._fault((*where, "reduction"), "value", '"mean" or "sum"', json.show(reduction))
        divide_by = None
        if "divide_by" in fields:
            divide_by = self._number(fields["divide_by"], *where, "divide_by")
        sample_weight = fields.get("sample_weight")
        if sample_weight is not None and not isinstance(sample_weight, str):
            self._fault((*where, "sample_weight"), "type", "the name of an input", json.show(sample_weight))
            sample_weight = None
        return LossTerm(
            loss=loss,
            inputs=tuple(self._sources(loss, fields.get("inputs"), *where).items()),
            params=tuple(params.items()),
            reduction=reduction,
            sample_weight=sample_weight,
            divide_by=divide_by,
            weight=weight,
        )

    def _sources(self, loss: AnyLoss, value: Any, *where: str) -> dict[str, str]:
        """Read the expressions of a loss's inputs; invalid ones are reported and left out."""
        if not json.is_object(value):
            got = "nothing" if value is None else json.show(value)
            self._fault((*where, "inputs"), "type", "an object of expressions", got)
            return {}
        sent, faults = self.document.given(value, loss.inputs, *where, "inputs")
        self.faults += faults
        found = dict[str, str]()
        for key, spec in loss.inputs.items():
            if key in sent:
                source = self._source(sent[key], *where, "inputs", key)
                found |= {} if source is None else {key: source}
            elif not spec.optional:
                self._fault((*where, "inputs", key), "missing", "an expression", "nothing")
        return found

    def _source(self, value: Any, *where: str) -> str | None:
        """Read an expression; None if it is no string, which is reported."""
        if json.is_span(value) and len(value) <= ESCAPED_BYTES * self.planner.expressions.most:
            value = self.document.plain(value)
        if isinstance(value, str):
            self.characters += len(value)
            return value
        got = "a longer string" if json.is_span(value) and not value.is_array else json.show(value)
        self._fault(where, "type", f"a string of at most {self.planner.expressions.most} characters", got)
        return None

    def _per_term(self, value: Any) -> PerTerm:
        """Read what is reported of each term."""
        if value in get_args(PerTerm):
            return value
        expected = " or ".join(f'"{name}"' for name in get_args(PerTerm))
        self._fault(("per_term",), "value", expected, json.show(value))
        return "values"

    def _number(self, value: Any, *where: str) -> float:
        """Read a finite number; an invalid one is reported."""
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        self._fault(where, "type", "a number", json.show(value))
        return 1.0


def composition_parts(decoded: DecodedComposition, found: Composed) -> list[bytes]:
    """Write an answer in parts, each of which blocks the interpreter only briefly."""
    return [*written.joined(written.parts(composition_answer(decoded, found)))]


def composition_answer(decoded: DecodedComposition, found: Composed) -> dict[str, Any]:
    """Return the members of an answer; tensors are in a form that `written.parts` takes."""
    composition, encoding = decoded.asked.plan.composition, decoded.encoding
    answer: dict[str, Any] = {
        "value": written.write(found.value, "json"),
        "terms": {name: _term_answer(term, composition, encoding) for name, term in found.terms.items()},
        "gradients": written.write_named(found.gradients, encoding),
        "dtype": str(composition.dtype).removeprefix("torch."),
        "device": str(found.device),
    }
    if counts := _nonfinite(found, answer["terms"], composition.per_term):
        answer["nonfinite"] = counts
    return answer


def _term_answer(term: TermResult, composition: Composition, encoding: Encoding) -> dict[str, Any]:
    """Return the members of a term's results."""
    answer: dict[str, Any] = {"value": written.write(term.value, "json")}
    if term.divisor is not None:
        answer["divisor"] = written.write(term.divisor, "json")
    if composition.per_term == "norms":
        answer["norms"] = {name: _norm(gradient) for name, gradient in term.gradients.items()}
    elif composition.per_term == "gradients":
        answer["gradients"] = written.write_named(term.gradients, encoding)
    if term.aux:
        answer["aux"] = written.write_named(term.aux, encoding)
    return answer


def _norm(gradient: Tensor) -> float:
    """Return the Euclidean norm of a gradient."""
    exact = gradient.double()
    largest = exact.abs().max().item() if exact.numel() else 0.0
    if not 0 < largest < math.inf:
        return largest
    # scaled by a power of 2, so that no square overflows or vanishes
    scale = math.ldexp(1.0, math.frexp(largest)[1] - 1)
    return scale * (exact / scale).square().sum().sqrt().item()


def _nonfinite(found: Composed, terms: Mapping[str, Any], per_term: PerTerm) -> dict[str, int]:
    """Count the non-finite elements of each output that has any. ``terms`` are their answers, which have the norms."""
    counts = {name: count for name, tensor in _outputs(found, per_term) if (count := count_nonfinite(tensor))}
    for term, answer in terms.items():
        for name, norm in answer.get("norms", {}).items():
            if not math.isfinite(norm):
                counts[f"terms.{term}.norms.{name}"] = 1
    return counts


def _outputs(found: Composed, per_term: PerTerm) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an answer by their names in ``nonfinite``."""
    yield "value", found.value
    for name, tensor in found.gradients.items():
        yield f"gradients.{name}", tensor
    for name, term in found.terms.items():
        yield f"terms.{name}.value", term.value
        for key, tensor in term.aux.items():
            yield f"terms.{name}.aux.{key}", tensor
        if per_term == "gradients":
            for key, tensor in term.gradients.items():
                yield f"terms.{name}.gradients.{key}", tensor
