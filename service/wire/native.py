"""The native JSON door: a request body to a valid call, an evaluation to a response body."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import orjson
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import DTYPES, Call, Dtype, Evaluation, Reduction, Request, Sent
from service.problems import Fault, Invalid, pointer
from service.wire import json, tensors
from service.wire.params import CONFIG, params_model, tuples, wanted

Encoding = Literal["json", "base64"]


class Envelope(BaseModel):
    """The fields of a request beside its tensors and params."""

    model_config = CONFIG

    reduction: Reduction = "mean"
    gradients: bool | tuple[str, ...] = True
    dtype: Dtype = "float32"
    encoding: Encoding = "json"


EXPECTED = {
    "reduction": '"mean", "sum" or "none"',
    "gradients": "true, false or a list of input names",
    "dtype": " or ".join(f'"{name}"' for name in get_args(Dtype)),
    "encoding": '"json" or "base64"',
}
FIELDS = ("inputs", "params", *EXPECTED, "sample_weight", "grad_output")


class Decoded(NamedTuple):
    """A valid call and how its answer is to be written."""

    call: Call
    encoding: Encoding


def decode(loss: AnyLoss, body: bytes) -> Decoded:
    """Read a request body.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: the body does not fit the loss; every fault is named.
    """
    return _Reader(loss, json.parse(body), body).decode()


class _Reader:
    """Reads one document, and collects its faults."""

    def __init__(self, loss: AnyLoss, document: Any, body: bytes) -> None:
        if not json.is_object(document):
            raise Invalid(Fault("", "type", f"Expected a JSON object; got {json.show(document)}."))
        self.loss = loss
        self.body = body
        self.faults: list[Fault] = []
        self.tensors: list[tuple[Any, Sent, tuple[str, ...]]] = []
        self.fields = dict(json.members(document))

    def decode(self) -> Decoded:
        """Return the valid call, or raise all faults together."""
        self._refuse_unknown(self.fields, FIELDS)
        envelope = self._envelope()
        params = self._params()
        inputs = self._inputs()
        sample_weight = self._tensor(self.fields.get("sample_weight"), "sample_weight")
        grad_output = self._tensor(self.fields.get("grad_output"), "grad_output")
        self._refuse_hidden_arrays()
        call = bind(
            Request(
                loss=self.loss,
                inputs=inputs,
                params=params,
                gradients=envelope.gradients,
                reduction=envelope.reduction,
                sample_weight=sample_weight,
                grad_output=grad_output,
                dtype=DTYPES[envelope.dtype],
            ),
            self.faults,
        )
        return Decoded(call, envelope.encoding)

    def _refuse_unknown(self, found: Mapping[str, Any], known: tuple[str, ...], *where: str) -> None:
        """Tell of names that nothing reads."""
        for name in found.keys() - set(known):
            detail = f"Expected one of {', '.join(known) or 'no names'}; got {name!r}."
            self.faults.append(Fault(pointer(*where, name), "unknown", detail))

    def _envelope(self) -> Envelope:
        """Validate the options; wrong ones are told and take their defaults."""
        sent = {name: tuples(json.plain(self.fields[name])) for name in EXPECTED if name in self.fields}
        try:
            return Envelope.model_validate(sent)
        except ValidationError as error:
            for name in dict.fromkeys(str(e["loc"][0]) for e in error.errors()):
                detail = f"Expected {EXPECTED[name]}; got {json.show(sent.pop(name))}."
                self.faults.append(Fault(pointer(name), "value", detail))
            return Envelope.model_validate(sent)

    def _params(self) -> Mapping[str, Any]:
        """Validate the params; wrong ones are told and take their defaults."""
        found = self._object("params") or {}
        self._refuse_unknown(found, tuple(self.loss.params), "params")
        sent = {name: tuples(json.plain(v)) for name, v in found.items() if name in self.loss.params}
        try:
            return dict(params_model(self.loss).model_validate(sent))
        except ValidationError as error:
            wrong = dict.fromkeys(str(e["loc"][0]) for e in error.errors())
            for name in wrong:
                code, got = ("value", json.show(sent[name])) if name in sent else ("missing", "nothing")
                detail = f"Expected {wanted(self.loss.params[name].annotation)}; got {got}."
                self.faults.append(Fault(pointer("params", name), code, detail))
            return {**self.loss.defaults, **{n: v for n, v in sent.items() if n not in wrong}}

    def _inputs(self) -> dict[str, Sent]:
        """Read the loss's tensors; wrong ones are told and left out."""
        known, inputs = self.loss.inputs, dict[str, Sent]()
        if "inputs" not in self.fields:
            self.faults.append(Fault("/inputs", "missing", "Expected an object of tensors; got nothing."))
        if (found := self._object("inputs")) is None:
            return inputs
        self._refuse_unknown(found, tuple(known), "inputs")
        for name, spec in known.items():
            whole = any(form.domain.kind == "int" for form in spec.forms)
            if (sent := self._tensor(found.get(name), "inputs", name, whole=whole)) is not None:
                inputs[name] = sent
            elif found.get(name) is None and not spec.optional:
                detail = f"Expected a tensor; got {'null' if name in found else 'nothing'}."
                self.faults.append(Fault(pointer("inputs", name), "missing", detail))
        return inputs

    def _object(self, name: str) -> dict[str, Any] | None:
        """Return the members of an object field; None where it is absent, or no object, which is told."""
        if name not in self.fields:
            return None
        value = self.fields[name]
        if not json.is_object(value):
            self.faults.append(Fault(pointer(name), "type", f"Expected an object; got {json.show(value)}."))
            return None
        return dict(json.members(value, name))

    def _tensor(self, value: Any, *where: str, whole: bool = False) -> Sent | None:
        """Read one tensor; None where there is none, or a fault."""
        if value is None:
            return None
        try:
            sent = tensors.read(value, *where, whole=whole)
        except Invalid as invalid:
            self.faults += invalid.faults
            return None
        self.tensors.append((value, sent, where))
        return sent

    def _refuse_hidden_arrays(self) -> None:
        """Look for arrays inside rows of numbers, where the count of brackets says that there are some."""
        others = {n: json.plain(v) for n, v in self.fields.items() if n in EXPECTED or n == "params"}
        expected = sum(tensors.brackets(value, sent) for value, sent, _ in self.tensors)
        expected += orjson.dumps(others).count(b"[") + sum(
            json.is_object(value) for value, _, _ in self.tensors
        )
        # a search for one byte is much faster than for several, and bodies seldom hold an escape
        escaped = b"\\" in self.body and b"\\u005" in self.body
        if self.body.count(b"[") == expected and not escaped:
            return
        for value, sent, where in self.tensors:
            try:
                tensors.refuse_hidden(value, sent, *where)
            except Invalid as invalid:
                self.faults += invalid.faults


def encode(decoded: Decoded, evaluation: Evaluation, device: torch.device) -> bytes:
    """Write a response body."""
    call, encoding = decoded
    body: dict[str, Any] = {
        "loss": call.loss.name,
        "value": tensors.write(evaluation.value, encoding if call.reduction == "none" else "json"),
        "gradients": {name: tensors.write(t, encoding) for name, t in evaluation.gradients.items()},
        "reduction": call.reduction,
        "dtype": str(call.dtype).removeprefix("torch."),
        "device": str(device),
    }
    if evaluation.aux:
        body["aux"] = {name: tensors.write(t, encoding) for name, t in evaluation.aux.items()}
    if counts := _nonfinite(evaluation):
        body["nonfinite"] = counts
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _nonfinite(evaluation: Evaluation) -> dict[str, int]:
    """Count the elements of each output that are not finite, leaving out outputs without any."""
    outputs: dict[str, Tensor] = {"value": evaluation.value}
    outputs |= {f"gradients.{name}": tensor for name, tensor in evaluation.gradients.items()}
    outputs |= {f"aux.{name}": tensor for name, tensor in evaluation.aux.items()}
    counts = {name: int((~tensor.isfinite()).sum()) for name, tensor in outputs.items()}
    return {name: count for name, count in counts.items() if count}
