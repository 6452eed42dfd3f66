"""The parameters of an Open Inference Protocol request: options of the call, and params of the loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from service.catalogue.registry import AnyLoss
from service.engine.call import Dtype, Reduction
from service.problems import Fault, Invalid, Unreadable, pointer
from service.wire import json
from service.wire.document import Document
from service.wire.params import complete, levels, validated, wanted

T = TypeVar("T")
NAMES = ("reduction", "gradients", "dtype", "divide_by", "timeout", "binary_data_output")
RESERVED = ("sequence_id", "sequence_start", "sequence_end", "priority", "headers")
"""Parameters with a meaning on other servers, ignored here, as are those that begin with `TRITON`."""
TRITON = "triton_"


class InferenceOptions:
    """Reads parameters; invalid ones are reported and replaced by defaults. ``dtype`` is None by default."""

    def __init__(self, loss: AnyLoss, document: Document, value: Any) -> None:
        self.loss = loss
        self._document = document
        self.faults: list[Fault] = []
        self._written = self._known(value)
        self._sent = {
            name: document.plain(value, self._levels(name)) for name, value in self._written.items()
        }
        self.reduction: Reduction = self._choice("reduction", get_args(Reduction), "mean")
        self.dtype: Dtype | None = self._choice("dtype", get_args(Dtype), None)
        self.gradients = self._gradients()
        self.divide_by = self._divide_by()
        self.timeout_s = self._timeout()
        self.binary = self._binary()
        self.params = self._params()

    def _known(self, value: Any) -> Mapping[str, Any]:
        """Return the parameters that are not ignored."""
        if value is None:
            return {}
        if not json.is_object(value):
            detail = f"Expected an object; got {json.show(value)}."
            self.faults.append(Fault("/parameters", "type", detail))
            return {}
        found, faults = self._document.members(value, (*self.loss.params, *NAMES, *RESERVED), "parameters")
        self.faults += [fault for fault in faults if not fault.pointer.startswith(f"/parameters/{TRITON}")]
        return found

    def _choice(self, name: str, choices: Sequence[T], default: Any) -> Any:
        """Return a parameter that is one of a few words."""
        value = self._sent.get(name)
        if value is None or value in choices:
            return default if value is None else value
        self._refuse(name, " or ".join(f'"{choice}"' for choice in choices))
        return default

    def _gradients(self) -> bool | tuple[str, ...]:
        """Return the inputs whose gradients are requested."""
        value = self._sent.get("gradients", False)
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            return tuple(name for part in value.split(",") if (name := part.strip()))
        self._refuse("gradients", "true, false or input names separated by commas")
        return False

    def _divide_by(self) -> float | None:
        """Return the number that the mean divides by instead of its divisor."""
        value = self._sent.get("divide_by")
        if value is None or (type(value) in (int, float) and 0 < value < math.inf):
            return None if value is None else float(value)
        self._refuse("divide_by", "a finite number greater than 0")
        return None

    def _timeout(self) -> float | None:
        """Return the client's timeout in seconds; None if it is 0."""
        value = self._sent.get("timeout", 0)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value / 1e6 or None
        self._refuse("timeout", "a number of microseconds")
        return None

    def _binary(self) -> bool:
        """Return whether outputs are binary by default."""
        value = self._sent.get("binary_data_output", False)
        if not isinstance(value, bool):
            self._refuse("binary_data_output", "true or false")
        return value is True

    def _params(self) -> Mapping[str, Any]:
        """Validate the params of the loss; a string may hold a param as JSON, as is necessary for lists."""
        sent = {name: value for name, value in self._sent.items() if name in self.loss.params}
        valid, wrong = validated(self.loss, sent)
        if texts := [name for name in wrong if isinstance(sent[name], str)]:
            sent |= {name: _read(sent[name], self._levels(name)) for name in texts}
            valid, wrong = validated(self.loss, sent)
        params, missing = complete(self.loss, valid)
        for name in (*wrong, *(name for name in missing if name not in sent)):
            self._refuse(name, wanted(self.loss.params[name].annotation))
        return params

    def _levels(self, name: str) -> int:
        """Return how deep the lists of a parameter may be nested."""
        return levels(self.loss.params[name]) if name in self.loss.params else 1

    def _refuse(self, name: str, expected: str) -> None:
        """Report an invalid parameter."""
        there = name in self._written
        code, got = ("value", json.show(self._written[name])) if there else ("missing", "nothing")
        self.faults.append(Fault(pointer("parameters", name), code, f"Expected {expected}; got {got}."))


def _read(text: str, levels: int) -> Any:
    """Parse a string as JSON; return the string itself if it is not JSON."""
    try:
        document = Document(text.encode())
        return document.plain(document.root, levels)
    except (Unreadable, Invalid, UnicodeEncodeError):
        return text
