"""An Open Inference Protocol request to a valid call.

The parameter ``dtype`` sets the dtype of the arithmetic; by default it is float64 if an input is FP64, else float32.
Results have the dtype of the arithmetic: FP16 and BF16 inputs are exact in float32 and give FP32, rounded to half
precision only if ``dtype`` asks for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import DTYPES, Call, Request, Sent
from service.problems import MOST_FAULTS, Fault, Invalid, pointer, quoted
from service.wire import json
from service.wire.document import Document
from service.wire.inference.inputs import Inputs
from service.wire.inference.metadata import DIVISOR, GRADIENT, outputs_of
from service.wire.inference.options import InferenceOptions
from service.wire.text import Body

FIELDS = ("id", "parameters", "inputs", "outputs")
OUTPUT = ("name", "parameters")
BESIDE = ("sample_weight", "grad_output")
"""Tensors that every loss takes in addition to its inputs."""
LONGEST_HEAD = 1 << 16
"""Bytes at the start of a body in which to search for the end of the JSON."""


@dataclass(frozen=True, slots=True)
class DecodedInference:
    """A valid call, and the format of its answer.

    ``outputs`` maps the requested outputs to whether they are binary; if none are requested, all computed ones are
    returned, ``binary`` or not.
    """

    call: Call
    identity: str | None
    outputs: Mapping[str, bool]
    binary: bool


class Reader:
    """Reads the JSON of one request, then its tensors."""

    def __init__(self, loss: AnyLoss, head: Body) -> None:
        """Read everything except the tensors.

        Raises:
            Unreadable: the head is not JSON.
            Invalid: it is not an object.
        """
        self.loss = loss
        self.faults: list[Fault] = []
        self._document = Document(head, words=True)
        root = self._document.root
        if not json.is_object(root):
            raise Invalid(Fault("", "type", f"Expected a JSON object; got {json.show(root)}."))
        self._fields = self._members(self._document, root, FIELDS)
        self.options = InferenceOptions(loss, self._document, self._fields.get("parameters"))
        self.faults += self.options.faults
        self._identity = self._read_identity()
        self._places: dict[str, int] = {}
        self._outputs = self._read_outputs()

    def decode(self, buffer: bytearray, start: int, *, split: bool) -> DecodedInference:
        """Read the tensors, with the binary ones from ``start`` on, and return the valid call.

        ``split``: the request gives the length of its JSON.

        Raises:
            Invalid: with every fault and its place in the request.
        """
        inputs = Inputs((*self.loss.inputs, *BESIDE), buffer, start, split=split)
        inputs.read(self._document, self._fields.get("inputs"))
        faults = [*self.faults, *inputs.faults]
        if inputs.given:
            faults += self._missing(inputs)
        try:
            call = bind(self._request(inputs), faults)
        except Invalid as invalid:
            raise Invalid(*(self._placed(fault, inputs) for fault in invalid.faults)) from None
        return DecodedInference(call, self._identity, self._outputs, self.options.binary)

    def _request(self, inputs: Inputs) -> Request:
        """Return the request for the engine."""
        options, sent = self.options, inputs.sent
        return Request(
            loss=self.loss,
            inputs={name: sent[name] for name in self.loss.inputs if name in sent},
            params=options.params,
            gradients=self._gradients(),
            reduction=options.reduction,
            sample_weight=sent.get("sample_weight"),
            grad_output=self._upstream(sent.get("grad_output")),
            dtype=DTYPES[options.dtype or ("float64" if inputs.double else "float32")],
            divide_by=options.divide_by,
        )

    def _upstream(self, sent: Sent | None) -> Sent | None:
        """Return the upstream gradient; for a reduced value the shape [1] is allowed here."""
        if sent is None or self.options.reduction == "none" or tuple(sent.tensor.shape) != (1,):
            return sent
        return sent._replace(tensor=sent.tensor.reshape(()))

    def _gradients(self) -> bool | tuple[str, ...]:
        """Return the inputs whose gradients are requested as outputs or in the parameters."""
        wanted = self.options.gradients
        if isinstance(wanted, bool) and not self._outputs:
            return wanted
        return (*self._of_outputs, *(() if isinstance(wanted, bool) else wanted))

    @property
    def _of_outputs(self) -> list[str]:
        """The inputs whose gradients are requested as outputs."""
        return [name.removeprefix(GRADIENT) for name in self._outputs if name.startswith(GRADIENT)]

    def _missing(self, inputs: Inputs) -> list[Fault]:
        """Return a fault for each missing input."""
        return [
            Fault(pointer("inputs", name), "missing", "Expected a tensor; got nothing.")
            for name, spec in self.loss.inputs.items()
            if not spec.optional and name not in inputs.places
        ]

    def _placed(self, fault: Fault, inputs: Inputs) -> Fault:
        """Translate the pointer of a fault from names to positions in the request."""
        first, *rest = fault.pointer.strip("/").split("/")
        if first in ("params", "divide_by"):
            where = rest if first == "params" else [first]
            return Fault(pointer("parameters", *where), fault.code, fault.detail)
        if first == "gradients":
            asked = self._of_outputs
            place = int(rest[0])
            name = f"{GRADIENT}{asked[place]}" if place < len(asked) else ""
            where = ("outputs", self._places[name]) if name else ("parameters", "gradients")
            return Fault(pointer(*where), fault.code, fault.detail)
        name = rest.pop(0) if first == "inputs" and rest else first
        if name not in inputs.known:
            return fault
        place = inputs.places.get(name)
        where = ("inputs",) if place is None else ("inputs", place, *rest)
        return Fault(pointer(*where), fault.code, f"{name}: {fault.detail}")

    def _read_identity(self) -> str | None:
        """Return the request's id."""
        identity = self._fields.get("id")
        if identity is not None and not isinstance(identity, str):
            self.faults.append(Fault("/id", "type", f"Expected a string; got {json.show(identity)}."))
            return None
        return identity

    def _read_outputs(self) -> dict[str, bool]:
        """Return the requested outputs, and whether each is binary."""
        asked, value = dict[str, bool](), self._fields.get("outputs")
        if value is None:
            return asked
        if not json.is_array(value):
            detail = f"Expected an array of outputs; got {json.show(value)}."
            self.faults.append(Fault("/outputs", "type", detail))
            return asked
        items = ((part, item) for part, some in self._document.elements(value) for item in some)
        for place, (part, item) in enumerate(items):
            if len(self.faults) >= MOST_FAULTS:
                break
            if not json.is_object(item):
                detail = f"Expected an object; got {json.show(item)}."
                self.faults.append(Fault(pointer("outputs", place), "type", detail))
                continue
            fields = self._members(part, item, OUTPUT, "outputs", place)
            if (name := self._known_output(fields.get("name"), asked, place)) is not None:
                asked[name] = self._is_binary(part, fields.get("parameters"), place)
                self._places[name] = place
        return asked

    def _known_output(self, name: Any, asked: Mapping[str, bool], place: int) -> str | None:
        """Return the name of an output; report it and return None if it is unknown or repeated."""
        known, where = outputs_of(self.loss), pointer("outputs", place, "name")
        if not isinstance(name, str) or name not in known:
            got = quoted(name) if isinstance(name, str) else "nothing" if name is None else json.show(name)
            detail = f"Expected one of {', '.join(known)}; got {got}."
            self.faults.append(Fault(where, "unknown", detail))
            return None
        if name == DIVISOR and self.options.reduction == "none":
            detail = f"Expected reduction mean or sum for the output {DIVISOR}; got none."
            self.faults.append(Fault(where, "reduction", detail))
            return None
        if name in asked:
            self.faults.append(Fault(where, "duplicate", f"Expected the output {name} once; got it again."))
            return None
        return name

    def _is_binary(self, document: Document, parameters: Any, place: int) -> bool:
        """Return whether an output is binary."""
        where = ("outputs", place, "parameters")
        if parameters is None:
            return self.options.binary
        if not json.is_object(parameters):
            detail = f"Expected an object; got {json.show(parameters)}."
            self.faults.append(Fault(pointer(*where), "type", detail))
            return False
        found = self._members(document, parameters, ("binary_data",), *where)
        binary = found.get("binary_data", self.options.binary)
        if not isinstance(binary, bool):
            detail = f"Expected true or false; got {json.show(binary)}."
            self.faults.append(Fault(pointer(*where, "binary_data"), "value", detail))
        return binary is True

    def _members(
        self, document: Document, value: Any, known: tuple[str, ...], *where: str | int
    ) -> dict[str, Any]:
        """Return the known members of an object; others are ignored, repeated ones reported."""
        found, faults = document.members(value, known, *where)
        self.faults += [fault for fault in faults if fault.code != "unknown"]
        return found


def end_of_json(body: Body) -> int | None:
    """Find the end of the JSON at the start of a body without a length header; None if there is none."""
    try:
        return JSONDecoder().raw_decode(bytes(body[:LONGEST_HEAD]).decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return None
