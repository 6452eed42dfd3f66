"""The steps of one Open Inference Protocol request, from its body to its answer, for any thread to run."""

from collections.abc import Mapping, Sequence

from service.admission import codings
from service.catalogue.registry import AnyLoss
from service.doors.coded import coded_answer
from service.doors.front import Answer
from service.engine import cost
from service.engine.call import Evaluation
from service.problems import Unreadable, quoted
from service.wire.inference.inputs import HEADER
from service.wire.inference.read import DecodedInference, Reader, end_of_json
from service.wire.inference.write import encode

ALIGNMENT = 16
"""Alignment in memory of the first binary tensor, which is then used in place."""
MOST_DIGITS = 18


class Exchange:
    """One request; its body goes into ``buffer``, in its ``coding``."""

    def __init__(self, loss: AnyLoss, headers: Mapping[bytes, bytes]) -> None:
        """Read the headers.

        Raises:
            Unreadable: the length of the JSON is not a number.
            UnsupportedMedia: the content coding is neither gzip nor deflate.
        """
        self.loss = loss
        self._length = _length_of_json(headers)
        self.coding, self._accepts = codings.of_request(headers), codings.for_answer(headers)
        self._padding = -(self._length or 0) % ALIGNMENT
        self.buffer = bytearray(self._padding)

    @property
    def seconds_to_read(self) -> float:
        """Estimate the time to read the JSON."""
        return cost.reading(self._length or len(self.buffer))

    @property
    def seconds_to_decode(self) -> float:
        """Estimate the time to make the tensors, and to write as many."""
        return cost.copying(len(self.buffer))

    def swap(self) -> memoryview:
        """Return the encoded body, and start a new buffer for the decoded one."""
        coded, self.buffer = self.buffer, bytearray(self._padding)
        return memoryview(coded)[self._padding :]

    def read(self) -> Reader:
        """Read the JSON.

        Raises:
            Unreadable: it is not valid, or the body is shorter than declared.
            Invalid: it is not an object.
        """
        there = len(self.buffer) - self._padding
        if self._length is not None and self._length > there:
            raise _bad_length(f"at most {there}, the length of the body", str(self._length))
        return self._reader(there if self._length is None else self._length)

    def decode(self, reader: Reader) -> DecodedInference:
        """Read the tensors.

        Raises:
            Invalid: with every fault.
        """
        split = self._length is not None
        start = self._padding + (self._length or 0) if split else len(self.buffer)
        return reader.decode(self.buffer, start, split=split)

    def encode(self, decoded: DecodedInference, evaluation: Evaluation) -> Answer:
        """Write the answer."""
        encoded = encode(decoded, evaluation)
        parts: Sequence[bytes | memoryview] = [*encoded.heads, *filter(len, encoded.tensors)]
        media = b"octet-stream" if encoded.binary else b"json"
        headers = [(b"content-type", b"application/" + media)]
        if encoded.binary:
            headers.append((HEADER.lower().encode(), b"%d" % sum(map(len, encoded.heads))))
        return coded_answer(headers, parts, self._accepts)

    def _reader(self, length: int) -> Reader:
        """Return the reader of the JSON; its end is searched for if the request does not give its length."""
        head = memoryview(self.buffer)[self._padding : self._padding + length]
        try:
            return Reader(self.loss, head)
        except Unreadable:
            # any bytes after the JSON then fail for lack of the header
            if self._length is not None or not (end := end_of_json(head)):
                raise
        return Reader(self.loss, head[:end])


def _length_of_json(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the number of JSON bytes in the body; None if the request does not give it."""
    if (header := headers.get(HEADER.lower().encode())) is None:
        return None
    sent = header.decode("latin-1")
    if not (sent.isascii() and sent.isdecimal()) or len(sent) > MOST_DIGITS:
        raise _bad_length("the number of bytes of the JSON", quoted(sent))
    return int(sent)


def _bad_length(expected: str, got: str) -> Unreadable:
    return Unreadable(f"Expected {expected} as {HEADER}; got {got}.")
