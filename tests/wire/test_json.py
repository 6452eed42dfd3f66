"""Reading JSON: refusals, quotes in messages, and memory bounded by the body."""

from typing import Any

import pytest

from service.problems import Problem, Unreadable
from service.wire import json, tensors
from service.wire.document import Document
from tests.waiting import within_cpu_s


def parse(body: bytes) -> Any:
    """Return the value of a body."""
    return Document(body).root


def read(body: bytes) -> None:
    """Read a body as a tensor."""
    document = Document(body)
    tensors.read(document, document.root, "x")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "line 1 column 1"),
        (b"[1,\n 2,]", "line 2 column 3"),
        (b'{"a": NaN}', "line 1 column 7"),
        (b"[1e400]", "line 1 column 2"),
        (b"[1" + b"0" * 400 + b"]", "line 1 column 2"),
        (b'["\\ud800"]', "line 1 column"),
        (b'{"a": "\xff"}', "byte 7"),
        (b"[" * 2000 + b"]" * 2000, "depth"),
    ],
)
def test_what_is_not_json_is_told_where(body: bytes, where: str) -> None:
    with pytest.raises(Unreadable, match=where):
        parse(body)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30, -(10**19)])
def test_integers_beyond_64_bits_are_floats(number: int) -> None:
    assert list(parse(b"[%d, 1.5, 7]" % number)) == [float(number), 1.5, 7]


def test_integers_beyond_64_bits_are_floats_while_another_document_is_there() -> None:
    held = parse(b"[1]")
    assert list(parse(b"[%d]" % (10**30))) == [1e30]
    assert list(held) == [1]


def test_digits_of_fractions_and_exponents_are_left_alone() -> None:
    body = b"[18446744073709551616, 0.12345678901234567890123, 1e-00000000000000000000005]"
    assert list(parse(body)) == [2.0**64, 0.12345678901234568, 1e-5]


@pytest.mark.parametrize("body", [b"[" + b"1" * 5_000_000 + b"x]", b"[" * 5_000_000, b" " * 5_000_000])
def test_a_hostile_body_is_refused_in_time(body: bytes) -> None:
    with within_cpu_s(2), pytest.raises(Problem):
        read(body)


def test_a_document_that_is_still_held_does_not_spoil_the_next() -> None:
    held = parse(b'{"a": 1}')
    assert list(parse(b"[2]")) == [2]
    assert held["a"] == 1


def test_plain_values_are_tuples_down_to_a_depth() -> None:
    assert json.plain(parse(b'[true, "a", null]'), levels=1) == (True, "a", None)
    assert json.plain(parse(b"[[1, 2], []]"), levels=2) == ((1, 2), ())
    for unread in (b"[1, [2]]", b"[[1], 2]", b"[[1], {}]", b"[[[1]]]", b"[[{}]]", b"[" * 900 + b"]" * 900):
        assert json.is_array(json.plain(parse(unread), levels=2))
    assert json.is_array(json.plain(parse(b"[[1]]"), levels=1))


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"a": [1, 2.5, true, null, "b"]}', '{"a":[1,2.5,true,null,"b"]}'),
        (b"[" * 900 + b"]" * 900, "[" * 57 + "..."),
        (b'"' + b"x" * 1000 + b'"', '"' + "x" * 56 + "..."),
        (b"[" + b"1," * 1000 + b"1]", "[" + "1," * 28 + "..."),
    ],
)
def test_values_are_quoted_shortened(body: bytes, shown: str) -> None:
    assert json.show(parse(body)) == shown
