"""The inputs of an Open Inference Protocol request: numbers in its JSON, or bytes after it."""

from collections.abc import Collection
from math import prod
from typing import Any

import torch

from service.engine.call import Sent
from service.problems import MOST_FAULTS, Fault, Invalid, pointer, quoted
from service.wire import json, tensors
from service.wire.document import Document
from service.wire.inference.datatypes import DATATYPES, NAMES, from_buffer, from_json

FIELDS = ("name", "shape", "datatype", "parameters", "data")
HEADER = "Inference-Header-Content-Length"


class Inputs:
    """Reads inputs one after another; their bytes follow the JSON in the same order.

    ``sent`` holds them by name, ``places`` their positions. Pointers of ``faults`` use names instead of positions.
    """

    def __init__(self, known: Collection[str], buffer: bytearray, start: int, *, split: bool) -> None:
        self.known = known
        self.sent: dict[str, Sent] = {}
        self.places: dict[str, int] = {}
        self.faults: list[Fault] = []
        self.double = False
        self.given = False
        self._buffer = buffer
        self._start = self._position = start
        self._split = split
        self._lost = False

    def read(self, document: Document, value: Any) -> None:
        """Read the field ``inputs``; ``given`` says whether it is an array.

        Raises:
            Unreadable: a part of it that is parsed only here is not JSON.
        """
        if not json.is_array(value):
            got = "nothing" if value is None else json.show(value)
            self.faults.append(Fault("/inputs", "type", f"Expected an array of inputs; got {got}."))
            return
        self.given = True
        items = ((part, item) for part, some in document.elements(value) for item in some)
        for place, (part, item) in enumerate(items):
            if len(self.faults) >= MOST_FAULTS:
                return
            try:
                self._read(part, place, item)
            except Invalid as invalid:
                self.faults += invalid.faults
        if self._position < len(self._buffer) and not self._lost:
            expected, there = self._position - self._start, len(self._buffer) - self._start
            detail = f"Expected {expected} bytes after the JSON, the sum of binary_data_size; got {there}."
            self.faults.append(Fault("/inputs", "length", detail))

    def _read(self, document: Document, place: int, item: Any) -> None:
        """Read one input.

        Raises:
            Invalid: it is not a valid input.
        """
        if not json.is_object(item):
            raise _invalid(("inputs", place), "type", "an object", json.show(item))
        fields, faults = document.members(item, FIELDS, "inputs", place)
        if repeated := [fault for fault in faults if fault.code == "duplicate"]:
            self._lost = True
            raise Invalid(*repeated)
        size = self._size(document, fields.get("parameters"), place)
        begin = self._position
        self._position += size or 0
        name = self._name(fields.get("name"), place)
        where = ("inputs", name)
        dtype = _datatype(fields.get("datatype"), (*where, "datatype"))
        shape = tensors.read_shape(fields.get("shape"), (*where, "shape"))
        self.double |= dtype == torch.float64
        if size is None and fields.get("data") is None:
            expected = "data, or binary_data_size among the parameters"
            raise _invalid((*where, "data"), "missing", expected, "neither")
        if size is None or (size == 0 and fields.get("data") is not None):
            self.sent[name] = Sent(from_json(document, fields.get("data"), dtype, shape, (*where, "data")))
        elif fields.get("data") is not None:
            raise _invalid(where, "data", "either data or binary_data_size", "both")
        else:
            self.sent[name] = self._from_bytes(begin, size, dtype, shape, where)

    def _size(self, document: Document, parameters: Any, place: int) -> int | None:
        """Return the number of bytes after the JSON that belong to an input; None if its numbers are in the JSON."""
        where = ("inputs", place, "parameters")
        if parameters is None:
            return None
        if not json.is_object(parameters):
            raise _invalid(where, "type", "an object", json.show(parameters))
        size = document.members(parameters, ("binary_data_size",))[0].get("binary_data_size")
        if size is None:
            return None
        if type(size) is not int or size < 0:
            self._lost = True
            raise _invalid((*where, "binary_data_size"), "type", "a number of bytes", json.show(size))
        return size

    def _name(self, name: Any, place: int) -> str:
        """Return the name of an input if it is known and new."""
        where = ("inputs", place, "name")
        if not isinstance(name, str) or name not in self.known:
            got = quoted(name) if isinstance(name, str) else "nothing" if name is None else json.show(name)
            raise _invalid(where, "unknown", f"one of {', '.join(self.known)}", got)
        if name in self.places:
            raise _invalid(where, "duplicate", f"the input {name} once", "it again")
        self.places[name] = place
        return name

    def _from_bytes(
        self, begin: int, size: int, dtype: torch.dtype, shape: list[int], where: tuple[str, ...]
    ) -> Sent:
        """Read bytes after the JSON."""
        if size != (expected := prod(shape) * dtype.itemsize):
            wanted = f"binary_data_size {expected} ({NAMES[dtype]} {shape})"
            raise _invalid(where, "length", wanted, f"{size}")
        if not self._split and size:
            raise _invalid(where, "length", f"the header {HEADER} with a binary input", "none")
        if begin + size > len(self._buffer):
            self._lost = True
            left = max(0, len(self._buffer) - begin)
            raise _invalid(where, "length", f"{size} bytes after the JSON and the inputs before", f"{left}")
        return Sent(from_buffer(self._buffer, begin, dtype, shape))


def _datatype(value: Any, where: tuple[str, ...]) -> torch.dtype:
    """Return the dtype of a datatype's name."""
    if not isinstance(value, str) or value not in DATATYPES:
        got = "nothing" if value is None else json.show(value)
        raise _invalid(where, "datatype", f"one of {', '.join(DATATYPES)}", got)
    return DATATYPES[value]


def _invalid(where: tuple[str | int, ...], code: str, expected: str, got: str) -> Invalid:
    """Return the problem of one fault."""
    return Invalid(Fault(pointer(*where), code, f"Expected {expected}; got {got}."))
