"""Tensors on the wire: every form in, the same bits out, and a pointer to each fault."""

import base64
from typing import Any

import orjson
import pytest
import torch

from service.engine.call import Sent
from service.problems import Invalid
from service.wire import tensors, written
from service.wire.arrays import PIECE
from service.wire.document import Document

DTYPES = sorted(tensors.DTYPES)


def read(body: str | bytes, *, whole: bool = False) -> Sent:
    """Read a tensor as a request's body holds it."""
    document = Document(body.encode() if isinstance(body, str) else body)
    return tensors.read_tensor(document, document.root, "x", whole=whole)


def text(tensor: torch.Tensor, encoding: str) -> bytes:
    """Write a tensor."""
    return b"".join(written.parts(written.write(tensor, encoding)))


def packed(shape: Any, data: Any, dtype: Any = "float32") -> bytes:
    return orjson.dumps({"dtype": dtype, "shape": shape, "data": data})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1", torch.tensor(1.0)),
        ("-0.0", torch.tensor(-0.0)),
        ("true", torch.tensor(True)),
        ("[1, 2.0, 3e0]", torch.tensor([1.0, 2.0, 3.0])),
        ("[true, false]", torch.tensor([True, False])),
        ("[[true], [1], [0.5]]", torch.tensor([[1.0], [1.0], [0.5]])),
        ("[[[1, 2], [3, 4]]]", torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])),
        ("[[], []]", torch.zeros(2, 0)),
        ("[18446744073709551616]", torch.tensor([2.0**64])),
    ],
)
def test_json_tensors(body: str, expected: torch.Tensor) -> None:
    sent = read(body)
    assert sent.addressable
    torch.testing.assert_close(sent.tensor.double(), expected.double(), rtol=0, atol=0)


def test_only_a_bare_empty_array_has_any_rank() -> None:
    assert read("[]").any_rank
    assert not read("[[]]").any_rank
    assert not read(packed([0], "")).any_rank


@pytest.mark.parametrize(
    "body", ["[9007199254740993]", "[9007199254740993, 1.0]", "[[9007199254740993, true]]"]
)
def test_whole_numbers_keep_all_digits(body: str) -> None:
    assert int(read(body, whole=True).tensor.flatten()[0]) == 2**53 + 1


@pytest.mark.parametrize(
    ("body", "pointer", "code", "got"),
    [
        ("[[1, 2], 3]", "/x/1", "ragged", "3"),
        ("[[1, 2], [3]]", "/x/1", "ragged", "length 1"),
        ("[[1], [2, [3]]]", "/x/1", "ragged", "length 2"),
        ("[[1, 2], [3, [4]]]", "/x/1/1", "ragged", "[4]"),
        ("[1, [2]]", "/x/1", "ragged", "[2]"),
        ("[[1, []], [2, [3, 4]]]", "/x/0/1", "ragged", "[]"),
        ("[[[1], [2]], [[3], [4, 5]]]", "/x/1/1", "ragged", "length 2"),
        ("[[], [1]]", "/x/1", "ragged", "length 1"),
        ("[[1, 2], []]", "/x/1", "ragged", "length 0"),
        ("[[], {}]", "/x/1", "ragged", "{}"),
        ('[[], ""]', "/x/1", "ragged", '""'),
        ('[[1, 2], "ab"]', "/x/1", "ragged", '"ab"'),
        ('[[1, 2], {"a": 1, "b": 2}]', "/x/1", "ragged", '{"a":1,"b":2}'),
        ('[1, "2"]', "/x/1", "type", '"2"'),
        ("[true, null]", "/x/1", "type", "null"),
        ("null", "/x", "type", "null"),
        ('"1"', "/x", "type", '"1"'),
        ("[" * 33 + "]" * 33, "/x", "rank", "more"),
    ],
)
def test_json_that_is_no_tensor(body: str, pointer: str, code: str, got: str) -> None:
    with pytest.raises(Invalid) as raised:
        read(body)
    [fault] = raised.value.faults
    assert (fault.pointer, fault.code) == (pointer, code)
    assert fault.detail.startswith("Expected ")
    assert fault.detail.endswith(f"; got {got}.")


def test_a_long_string_among_numbers_takes_no_memory() -> None:
    with pytest.raises(Invalid, match="One thing"):
        read(b"[" + b"1," * 1000 + b'"' + b"a" * 1_000_000 + b'"]')


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_tensors_come_back_bit_for_bit(dtype: str) -> None:
    kind = tensors.DTYPES[dtype]
    raw = bytes([1, 0, 1, 1, 0, 1] if kind == torch.bool else range(250, 256)) * kind.itemsize
    body = packed([3, 2], base64.b64encode(raw).decode(), dtype)
    sent = read(body)
    assert (sent.tensor.dtype, sent.addressable) == (kind, False)
    assert orjson.loads(text(sent.tensor, "base64")) == orjson.loads(body)


def test_any_byte_but_zero_is_true() -> None:
    assert read(packed([3], "AAL/", "bool")).tensor.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        (packed([1], "AAAA AA=="), "/x/data", "length"),
        (packed([1], "AAAAAA"), "/x/data", "length"),
        (packed([1], "-_-_AA=="), "/x/data", "base64"),
        (packed([1], "AAAAAA=A"), "/x/data", "base64"),
        (packed([3], "AAAAAAAAAAAAAA=="), "/x/data", "length"),
        (packed([1], "éAAAAA=="), "/x/data", "base64"),
        (packed([1], 1), "/x/data", "type"),
        (packed([2**62, 2**62], "AAAA"), "/x/data", "length"),
        (packed([0, 2**62], ""), "/x/shape", "shape"),
        (packed([0, 2**63], ""), "/x/shape", "shape"),
        (packed([-1], ""), "/x/shape", "shape"),
        (packed([1.0], "AAAAAA=="), "/x/shape", "shape"),
        (packed([True], "AAAAAA=="), "/x/shape", "shape"),
        (packed("3", "AAAAAA=="), "/x/shape", "shape"),
        (packed([1] * 33, "AAAAAA=="), "/x/shape", "rank"),
        (packed([1] * 100_000, "AAAAAA=="), "/x/shape", "rank"),
        (packed([1], "AAAAAA==", "float"), "/x/dtype", "dtype"),
        (packed([1], "AAAAAA==", ["float32"]), "/x/dtype", "dtype"),
        (b'{"dtype": "float32", "shape": [1], "data": "AAAAAA==", "order": "C"}', "/x/order", "unknown"),
        (b'{"dtype": "float32", "shape": [1], "data": "", "data": "AAAAAA=="}', "/x/data", "duplicate"),
        (b'{"shape": [1], "data": "AAAAAA=="}', "/x", "type"),
        (b"{}", "/x", "type"),
    ],
)
def test_packed_tensors_that_are_not_what_they_say(body: bytes, pointer: str, code: str) -> None:
    with pytest.raises(Invalid) as raised:
        read(body)
    [fault] = raised.value.faults
    assert (fault.pointer, fault.code) == (pointer, code)
    assert fault.detail.startswith("Expected ")


def test_an_empty_packed_tensor_keeps_its_shape() -> None:
    assert read(packed([0, 3, 224, 224], "")).tensor.shape == (0, 3, 224, 224)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_json_numbers_read_back_are_the_same(dtype: torch.dtype) -> None:
    tensor = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    assert torch.equal(
        torch.tensor(orjson.loads(text(tensor, "json")), dtype=torch.float64).to(dtype), tensor
    )


LONG = b"1," * (PIECE // 2 + 1000)
"""Elements of an array that is read in pieces, all but the last."""


@pytest.mark.parametrize(
    ("last", "whole", "dtype"),
    [
        (b"2", False, torch.float64),
        (b"2", True, torch.int64),
        (b"2.0", True, torch.int64),
        (b"0.5", True, torch.float64),
        (b"9007199254740991.0", True, torch.int64),
        (b"9007199254740992.0", True, torch.int64),
        (b"1e300", True, torch.float64),
    ],
)
def test_a_long_array_keeps_integers_until_there_is_a_fraction(
    last: bytes, whole: bool, dtype: torch.dtype
) -> None:
    found = read(b"[" + LONG + last + b"]", whole=whole).tensor
    assert (found.dtype, found.shape) == (dtype, (PIECE // 2 + 1001,))
    assert found[-1].item() == float(last)
    assert bool((found[:-1] == 1).all())


def test_a_long_array_has_as_many_dimensions_as_a_short_one_may_have() -> None:
    def nested(levels: int) -> bytes:
        return b"[" * levels + LONG + b"1" + b"]" * levels

    assert read(nested(32)).tensor.dim() == 32
    with pytest.raises(Invalid, match="must be changed") as raised:
        read(nested(33))
    assert [(fault.pointer, fault.code) for fault in raised.value.faults] == [("/x", "rank")]


@pytest.mark.parametrize("size", [12, tensors.PIECE + 1024])
def test_characters_behind_the_padding_are_refused(size: int) -> None:
    data = "AAA=" + "A" * (size - 4)
    with pytest.raises(Invalid) as raised:
        read(packed([size // 4 * 3], data, "uint8"))
    assert [(fault.pointer, fault.code) for fault in raised.value.faults] == [("/x/data", "base64")]


@pytest.mark.parametrize("begin", [b"", b"\3"])
def test_an_escape_may_be_cut_by_the_end_of_a_piece(begin: bytes) -> None:
    """Some encoders escape slashes: one character before them, and each piece ends within an escape."""
    raw = begin + b"\xff" * (tensors.PIECE - len(begin) - 1)
    body = packed([len(raw)], base64.b64encode(raw).decode(), "uint8").replace(b"/", b"\\/")
    assert bytes(read(body).tensor.numpy()) == raw
