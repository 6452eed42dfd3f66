"""The native JSON door: a request body to a valid call, an evaluation to a response body."""

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

import orjson
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind, bind_like
from service.engine.call import DTYPES, Call, Dtype, Evaluation, Reduction, Request, Sent
from service.engine.plan import Plan, plan
from service.engine.stack import Evaluations
from service.problems import Fault, Invalid, pointer
from service.wire import json, tensors
from service.wire.alike import take, tensors_of
from service.wire.params import CONFIG, levels, of_kinds, params_model, wanted

Encoding = Literal["json", "base64"]


class Envelope(BaseModel):
    """The fields of a request beside its tensors and params."""

    model_config = CONFIG

    reduction: Reduction = "mean"
    gradients: Annotated[bool | tuple[str, ...], of_kinds(str)] = True
    dtype: Dtype = "float32"
    encoding: Encoding = "json"


USUAL = Envelope()
SMALL = 1 << 12
"""Bytes of a body up to which its kind is remembered: the next of the kind takes half the time to read."""
MOST_KNOWN = 1 << 12
"""Kinds that are remembered, the latest ones."""
EXPECTED = {
    "reduction": '"mean", "sum" or "none"',
    "gradients": "true, false or a list of input names",
    "dtype": " or ".join(f'"{name}"' for name in get_args(Dtype)),
    "encoding": '"json" or "base64"',
}
FIELDS = ("inputs", "params", *EXPECTED, "sample_weight", "grad_output")

on_nonfinite: Callable[[str], None] | None = None
"""Told the loss of every answer with an element that is not finite."""


class Decoded(NamedTuple):
    """A valid call and how its answer is to be written."""

    call: Call
    encoding: Encoding


def decode(loss: AnyLoss, body: json.Body) -> Decoded:
    """Read a request body.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: the body does not fit the loss; every fault is named.
    """
    document = json.parse(body)
    if not json.is_object(document):
        raise Invalid(Fault("", "type", f"Expected a JSON object; got {json.show(document)}."))
    brackets = json.count_brackets(body)
    small = len(body) <= SMALL
    # the parser has a copy
    del body
    taken = take(document, loss) if small else None
    if taken and taken.brackets == brackets and (known := _known.get(taken.kind)):
        call = bind_like(known.first, known.plan, tensors_of(taken))
        if call:
            return Decoded(call, known.encoding)
    reader = Reader(loss, *json.members(document, FIELDS))
    # brackets in strings, and in what has been refused, only make for more
    if brackets != reader.arrays:
        reader.refuse_hidden_arrays()
    decoded = reader.bind()
    if taken:
        if len(_known) >= MOST_KNOWN:
            _known.pop(next(iter(_known)), None)
        first = replace(reader.request, inputs={})
        _known[taken.kind] = _Kind(first, plan(reader.request), decoded.encoding)
    return decoded


class _Kind(NamedTuple):
    """What requests share that differ in the values of their inputs alone."""

    first: Request
    plan: Plan | None
    encoding: Encoding


_known: dict[Hashable, _Kind] = {}


class Reader:
    """Reads the members of one request, and collects its faults.

    ``arrays`` is how many JSON arrays they are made of, as far as they have been read.
    """

    def __init__(self, loss: AnyLoss, fields: Mapping[str, Any], faults: Sequence[Fault]) -> None:
        self.loss = loss
        self.fields = fields
        self.faults = [*faults]
        self.arrays = 0
        self._tensors: list[tuple[Any, Sent, tuple[str, ...]]] = []
        self._envelope = self._read_envelope()
        self.request = Request(
            loss=loss,
            params=self._read_params(),
            inputs=self._read_inputs(),
            gradients=self._envelope.gradients,
            reduction=self._envelope.reduction,
            sample_weight=self._read_tensor(fields.get("sample_weight"), "sample_weight"),
            grad_output=self._read_tensor(fields.get("grad_output"), "grad_output"),
            dtype=DTYPES[self._envelope.dtype],
        )

    def bind(self) -> Decoded:
        """Return the valid call, or raise all faults together."""
        return Decoded(bind(self.request, self.faults), self.encoding)

    @property
    def encoding(self) -> Encoding:
        """How the answer is to be written."""
        return self._envelope.encoding

    def refuse_hidden_arrays(self) -> None:
        """Look for arrays inside rows of numbers, which the count of brackets gives away."""
        for value, sent, where in self._tensors:
            try:
                tensors.refuse_hidden(value, sent, *where)
            except Invalid as invalid:
                self.faults += invalid.faults

    def _read_envelope(self) -> Envelope:
        """Validate the options; wrong ones are told and take their defaults."""
        envelope, faults = read_envelope(self.fields)
        self.faults += faults
        self.arrays += _arrays(envelope.gradients)
        return envelope

    def _read_params(self) -> Mapping[str, Any]:
        """Validate the params; wrong ones are told and take their defaults."""
        found = self._object("params", self.loss.params) or {}
        sent = {name: json.plain(value, levels(self.loss.params[name])) for name, value in found.items()}
        if not sent and len(self.loss.defaults) == len(self.loss.params):
            return self.loss.defaults
        self.arrays += sum(map(_arrays, sent.values()))
        try:
            return dict(params_model(self.loss).model_validate(sent))
        except ValidationError as error:
            wrong = dict.fromkeys(str(e["loc"][0]) for e in error.errors())
            for name in wrong:
                code, got = ("value", json.show(found[name])) if name in sent else ("missing", "nothing")
                detail = f"Expected {wanted(self.loss.params[name].annotation)}; got {got}."
                self.faults.append(Fault(pointer("params", name), code, detail))
            return {**self.loss.defaults, **{n: v for n, v in sent.items() if n not in wrong}}

    def _read_inputs(self) -> dict[str, Sent]:
        """Read the loss's tensors; wrong ones are told and left out."""
        known, inputs = self.loss.inputs, dict[str, Sent]()
        if "inputs" not in self.fields:
            self.faults.append(Fault("/inputs", "missing", "Expected an object of tensors; got nothing."))
        if (found := self._object("inputs", known)) is None:
            return inputs
        for name, spec in known.items():
            if (sent := self._read_tensor(found.get(name), "inputs", name, whole=spec.whole)) is not None:
                inputs[name] = sent
            elif found.get(name) is None and not spec.optional:
                detail = f"Expected a tensor; got {'null' if name in found else 'nothing'}."
                self.faults.append(Fault(pointer("inputs", name), "missing", detail))
        return inputs

    def _object(self, name: str, known: Collection[str]) -> dict[str, Any] | None:
        """Return the known members of an object field; None where it is absent, or no object, which is told."""
        if name not in self.fields:
            return None
        value = self.fields[name]
        if not json.is_object(value):
            self.faults.append(Fault(pointer(name), "type", f"Expected an object; got {json.show(value)}."))
            return None
        found, faults = json.members(value, known, name)
        self.faults += faults
        return found

    def _read_tensor(self, value: Any, *where: str, whole: bool = False) -> Sent | None:
        """Read one tensor; None where there is none, or a fault."""
        if value is None:
            return None
        try:
            sent = tensors.read(value, *where, whole=whole)
        except Invalid as invalid:
            self.faults += invalid.faults
            return None
        self._tensors.append((value, sent, where))
        self.arrays += tensors.brackets(value, sent)
        return sent


def read_envelope(fields: Mapping[str, Any], *where: str) -> tuple[Envelope, list[Fault]]:
    """Validate the options among some fields; wrong ones are told and take their defaults."""
    sent = {name: json.plain(fields[name], levels=1) for name in EXPECTED if name in fields}
    if not sent:
        return USUAL, []
    faults: list[Fault] = []
    try:
        return Envelope.model_validate(sent), faults
    except ValidationError as error:
        for name in dict.fromkeys(str(e["loc"][0]) for e in error.errors()):
            detail = f"Expected {EXPECTED[name]}; got {json.show(fields[name])}."
            del sent[name]
            faults.append(Fault(pointer(*where, name), "value", detail))
        return Envelope.model_validate(sent), faults


def _arrays(value: Any) -> int:
    """Count the arrays that a plain value is made of."""
    if not isinstance(value, tuple):
        return 0
    items = cast(tuple[Any, ...], value)
    return 1 + (sum(map(_arrays, items)) if tuple in set(map(type, items)) else 0)


def encode(decoded: Decoded, evaluation: Evaluation, device: torch.device) -> bytes:
    """Write a response body."""
    return orjson.dumps(answer(decoded, evaluation, device), option=orjson.OPT_SERIALIZE_NUMPY)


def answer(decoded: Decoded, evaluation: Evaluation, device: torch.device) -> dict[str, Any]:
    """Return the members of an answer, tensors as what orjson writes."""
    call, encoding = decoded
    body: dict[str, Any] = {
        "loss": call.loss.name,
        "value": tensors.write(evaluation.value, encoding if call.reduction == "none" else "json"),
        "gradients": {name: tensors.write(t, encoding) for name, t in evaluation.gradients.items()},
        **_options(call, device),
    }
    if evaluation.aux:
        body["aux"] = {name: tensors.write(t, encoding) for name, t in evaluation.aux.items()}
    if counts := _nonfinite(evaluation):
        body["nonfinite"] = counts
        if on_nonfinite:
            on_nonfinite(call.loss.name)
    return body


def answers(
    like: Call, encoding: Encoding, evaluations: Evaluations, device: torch.device
) -> list[dict[str, Any]]:
    """Return the members of the answer to each of several calls that were evaluated together."""
    values = tensors.write_each(evaluations.value, encoding if like.reduction == "none" else "json")
    gradients = _each_named(evaluations.gradients, len(values), encoding)
    shared = _options(like, device)
    written: list[dict[str, Any]] = [
        {"loss": like.loss.name, "value": value, "gradients": named, **shared}
        for value, named in zip(values, gradients, strict=True)
    ]
    if evaluations.aux:
        for one, named in zip(written, _each_named(evaluations.aux, len(values), encoding), strict=True):
            one["aux"] = named
    for name, tensor in _outputs(evaluations):
        if _count_nonfinite(tensor):
            for one, count in zip(written, _count_each(tensor), strict=True):
                if count:
                    one.setdefault("nonfinite", {})[name] = count
    if on_nonfinite:
        for _ in filter(lambda one: "nonfinite" in one, written):
            on_nonfinite(like.loss.name)
    return written


def _each_named(named: Mapping[str, Tensor], count: int, encoding: str) -> Iterable[dict[str, Any]]:
    """Return, for each of several calls, its own of some named stacks."""
    if not named:
        return [{} for _ in range(count)]
    columns = [tensors.write_each(tensor, encoding) for tensor in named.values()]
    return [dict(zip(named, row, strict=True)) for row in zip(*columns, strict=True)]


def _options(call: Call, device: torch.device) -> dict[str, str]:
    """Return what an answer repeats of its call."""
    dtype = str(call.dtype).removeprefix("torch.")
    return {"reduction": call.reduction, "dtype": dtype, "device": str(device)}


def _nonfinite(evaluation: Evaluation) -> dict[str, int]:
    """Count the elements of each output that are not finite, leaving out outputs without any."""
    counts = {name: _count_nonfinite(tensor) for name, tensor in _outputs(evaluation)}
    return {name: count for name, count in counts.items() if count}


def _outputs(found: Evaluation | Evaluations) -> Iterator[tuple[str, Tensor]]:
    """Yield the outputs by the names that ``nonfinite`` has for them."""
    yield "value", found.value
    for name, tensor in found.gradients.items():
        yield f"gradients.{name}", tensor
    for name, tensor in found.aux.items():
        yield f"aux.{name}", tensor


def _count_nonfinite(tensor: Tensor) -> int:
    """Count the elements that are not finite."""
    # one such element shows in the sum, which is much sooner there than the count
    return 0 if math.isfinite(tensor.sum().item()) else int((~tensor.isfinite()).sum())


def _count_each(stack: Tensor) -> list[int]:
    """Count the elements that are not finite in each of several stacked tensors."""
    counts: Any = (~stack.isfinite()).reshape(len(stack), -1).sum(1)
    return counts.tolist()
