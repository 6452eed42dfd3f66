"""No step of reading a body or writing an answer keeps the interpreter for long, whatever the body holds."""

import base64
from collections.abc import Callable
from functools import partial

import numpy as np
import orjson
import pytest
import torch

from service.catalogue.registry import Catalogues
from service.engine.call import Call, Evaluation
from service.engine.composition import Planner
from service.engine.expression import Expressions
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.problems import Problem
from service.wire import batch, native
from service.wire.inference.read import Reader
from tests.wire.pauses import longest_pause

BOTH = Catalogues(CATALOGUE, METRICS)
PLANNER = Planner(Expressions(4096), 1 << 27)
SIZE = 12 << 20
"""Bytes of a body: to parse so many at once takes longer than the bound, a piece of them a tenth of it."""
BOUND_S = 0.1
MSE = CATALOGUE["mse"]


def many(unit: bytes, size: int = SIZE) -> bytes:
    """Return something again and again."""
    return unit * (size // len(unit))


def array(unit: bytes, last: bytes) -> bytes:
    """Return a long array."""
    return b"[%b%b]" % (many(unit), last)


def packed(data: bytes, count: int) -> bytes:
    return b'{"dtype": "uint8", "shape": [%d], "data": "%b"}' % (count, data)


PREDICTIONS = {
    "integers": lambda: array(b"1,", b"1"),
    "floats": lambda: array(b"0.123456789,", b"1"),
    "rows of one": lambda: array(b"[1],", b"[1]"),
    "rows in rows": lambda: array(b"[[[1]]],", b"[[[1]]]"),
    "rows of which one is ragged": lambda: array(b"[1, 2],", b"[1]"),
    "rows of which one hides an array": lambda: array(b"[1, 2],", b"[1, [2]]"),
    "rows that are long": lambda: array(b"[" + many(b"1.5,", 1 << 20) + b"1],", b"[1]"),
    "nested without end": lambda: many(b"["),
    "nested deep": lambda: many(b"[" * 500 + b"]" * 500 + b",") + b"1",
    "booleans": lambda: array(b"true,", b"1"),
    "strings": lambda: array(b'"a",', b"1"),
    "escapes": lambda: array(b'"\\"[",', b"1"),
    "objects": lambda: array(b"{},", b"1"),
    "an integer of 25 digits": lambda: array(b"1.5,", b"1234567890123456789012345"),
    "integers of 25 digits": lambda: array(b"1234567890123456789012345,", b"1"),
    "digits": lambda: array(b"1", b""),
    "spaces": lambda: b"[1, " + many(b" ") + b"2]",
    "something broken at the end": lambda: array(b"1,", b"x"),
    "a string": lambda: b'"' + many(b"x") + b'"',
    "base64": lambda: packed(base64.b64encode(bytes(SIZE // 4 * 3)), SIZE // 4 * 3),
    "base64 with escapes": lambda: packed(many(b"\\/\\/\\/\\/"), SIZE // 8 * 3),
}
BODIES: dict[str, Callable[[], bytes]] = {
    "a list of a param": lambda: b'{"inputs": {}, "params": {"weight": ' + array(b"1.5,", b"1") + b"}}",
    "a list of names": lambda: b'{"inputs": {}, "gradients": ' + array(b'"logits",', b'"logits"') + b"}",
    "names": lambda: b'{"inputs": {' + many(b'"a": 1,') + b'"b": 1}}',
    "names of arrays": lambda: b'{"inputs": {' + many(b'"a": [1],') + b'"b": 1}}',
    "a long name": lambda: b'{"' + many(b"n") + b'": 1}',
    "spaces": lambda: many(b" "),
    "an end too early": lambda: b'{"inputs": ' + array(b"1,", b"1"),
}


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_tensor_is_read_in_short_steps(kind: str) -> None:
    body = b'{"inputs": {"predictions": ' + PREDICTIONS[kind]() + b', "targets": [1]}}'
    assert_short(partial(native.decode, MSE, body))


@pytest.mark.parametrize("kind", BODIES)
def test_what_no_request_needs_is_refused_in_short_steps(kind: str) -> None:
    assert_short(partial(native.decode, CATALOGUE["cross_entropy"], BODIES[kind]()))


@pytest.mark.parametrize("kind", ["floats", "rows of one", "strings", "something broken at the end"])
def test_inference_requests_are_read_in_short_steps(kind: str) -> None:
    body = (
        b'{"inputs": [{"name": "predictions", "datatype": "FP32", "shape": [1], "data": '
        + PREDICTIONS[kind]()
        + b"}]}"
    )

    def read() -> object:
        return Reader(MSE, body).decode(bytearray(), 0, split=False)

    assert_short(read)


def test_words_for_numbers_are_read_in_short_steps() -> None:
    body = b'{"inputs": [{"name": "predictions", "datatype": "FP32", "shape": [1], "data": %b}]}'
    text = body % array(b"NaN, -Infinity, 1,", b"null")
    assert_short(lambda: Reader(MSE, text).decode(bytearray(), 0, split=False))


@pytest.mark.parametrize("length", [2, 20, 400, 40_000])
@pytest.mark.parametrize("last", [b"1", b"[1]"])
def test_batches_are_read_in_short_steps(length: int, last: bytes) -> None:
    item = b'{"loss": "mse", "inputs": {"predictions": [%b%b], "targets": [1]}}' % (b"0.5," * length, last)
    count = min(10_000, SIZE // len(item))
    body = b'{"items": [%b]}' % b",".join([item] * count)
    pause = assert_short(partial(batch.decode_batch, BOTH, body, 10_000, PLANNER))
    assert isinstance(pause, batch.Batch)
    assert len(pause.echoes) == count


@pytest.mark.parametrize(
    "unit", [b"{},", b"1,", b"[],", b'{"loss": "mse"},', b'{"id": "[\\"", "loss": "x"},']
)
def test_items_beyond_the_limit_are_refused_in_short_steps(unit: bytes) -> None:
    assert_short(partial(batch.decode_batch, BOTH, b'{"items": ' + array(unit, b"1") + b"}", 10_000, PLANNER))


@pytest.mark.parametrize("encoding", ["json", "base64"])
@pytest.mark.parametrize("shape", [(3_000_000,), (3, 1_000_000), (1_000_000, 3), (1, 1, 3_000_000)])
def test_answers_are_written_in_short_steps(encoding: native.Encoding, shape: tuple[int, ...]) -> None:
    gradient = torch.rand(shape)
    call = Call(loss=MSE, inputs={}, params={}, work=0)
    evaluation = Evaluation(torch.tensor(1.0), {"predictions": gradient}, {})
    written = assert_short(lambda: native.answer_parts(native.Decoded(call, encoding), evaluation))
    assert isinstance(written, list)
    returned = orjson.loads(b"".join(written))["gradients"]["predictions"]
    raw = (
        np.array(returned, np.float32)
        if encoding == "json"
        else np.frombuffer(base64.b64decode(returned["data"]), np.float32)
    )
    assert np.array_equal(raw.reshape(shape), gradient.numpy())


def assert_short(work: Callable[[], object]) -> object:
    """Compare the longest pause of some work with the bound, and return its result."""
    pause = longest_pause(work)
    assert not isinstance(pause.answer, Exception) or isinstance(pause.answer, Problem), pause.answer
    assert pause.seconds < BOUND_S, f"{1000 * pause.seconds:.0f} ms"
    return pause.answer
