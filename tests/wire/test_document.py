"""A document equals its JSON, for any length and any place of cuts."""

import json as plain_json
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.problems import MOST_FAULTS, Invalid, Unreadable
from service.wire import json, tensors
from service.wire.document import MOST_BESIDE, MOST_LISTED, SHORT, Document
from service.wire.scan import MOST_STRINGS, outline, scan
from service.wire.text import BLOCK, Span

texts = st.text(max_size=6) | st.sampled_from(['"', "\\", '[\\"', "],[", "a,b", "\\\\", "u005b", "y" * 2000])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-9, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
names = st.text(max_size=6) | st.just('"[,')
lengths = st.sampled_from([1, 2, 3, 700, 9000])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return lists and objects of a few values."""
    return st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)


def repeated(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return lists, of which some are as long as several blocks."""
    lists = st.lists(inner, max_size=3)
    return st.tuples(lists, lengths, lists).map(lambda parts: parts[0] * parts[1] + parts[2])


short = st.recursive(scalars, nested, max_leaves=6)
values = st.recursive(short | repeated(short), nested, max_leaves=4)


def undone(document: Document, value: Any) -> Any:
    """Return a value of a document with all that was left out."""
    value = document.resolve(value)
    if isinstance(value, Span):
        if not value.is_array:
            return orjson.loads(value.text)
        return [undone(part, one) for part, some in document.elements(value) for one in some]
    if json.is_array(value):
        return [undone(part, one) for part, some in document.elements(value) for one in some]
    if json.is_object(value):
        return {name: undone(document, value[name]) for name in value.keys()}  # noqa: SIM118
    return value


@given(values, st.sampled_from([None, 1]))
@settings(max_examples=100, deadline=None)
def test_a_document_is_what_its_text_says(value: Any, indent: int | None) -> None:
    text = plain_json.dumps({"value": value, "behind": [1]}, indent=indent, ensure_ascii=False).encode()
    if b"\\ud" in text or b"\\u0000" in text or len(text) > 8 << 20 or _size_beside(value) > MOST_BESIDE // 2:
        return
    for split in (None, True):
        document = Document(text, split=split)
        assert undone(document, document.root) == {"value": value, "behind": [1]}


def _size_beside(value: Any) -> int:
    """Return the approximate length of the parts outside arrays."""
    if isinstance(value, dict):
        return sum(len(name) + _size_beside(one) for name, one in value.items())
    return 10


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
shapes = st.sampled_from(
    [(150_000,), (3, 50_000), (50_000, 3), (50_000, 1, 2), (1, 1, 150_000), (2, 70_000, 1)]
)


@given(st.lists(numbers, min_size=1, max_size=5), shapes, st.booleans(), st.sampled_from(["", " ", "\n "]))
@settings(max_examples=40, deadline=None)
def test_a_long_array_is_read_as_a_short_one_is(
    some: list[Any], shape: tuple[int, ...], whole: bool, space: str
) -> None:
    """Results may differ only if all numbers are kept as floats because one of them is a float."""
    array = np.resize(np.array(some, object), shape).tolist()
    text = plain_json.dumps(array, separators=(f",{space}", ":")).encode()
    assert len(text) > BLOCK
    found = read(text, whole=whole)
    if not whole or all(isinstance(one, int) for one in some):
        kind = np.int64 if whole else np.float64
        assert np.array_equal(found.numpy().astype(kind), np.array(array).astype(kind))
    else:
        assert np.array_equal(found.double().numpy(), np.array(array, np.float64))


def read(text: bytes, *, whole: bool = False) -> torch.Tensor:
    """Read a text as a tensor."""
    document = Document(text)
    return tensors.read_tensor(document, document.root, "x", whole=whole).tensor


@pytest.mark.parametrize(
    ("place", "wrong", "pointer", "code"),
    [
        (40_000, b"[1]", "/x/40000", "ragged"),
        (40_000, b"[1, 2, 3]", "/x/40000", "ragged"),
        (40_000, b"[1, [2]]", "/x/40000/1", "ragged"),
        (40_000, b"[[], [1, 2]]", "/x/40000/0", "ragged"),
        (40_000, b"[[1, 2]]", "/x/40000", "ragged"),
        (40_000, b"1", "/x/40000", "ragged"),
        (40_000, b'[1, "\\u005b"]', "/x/40000/1", "type"),
        (40_000, b"[1, null]", "/x/40000/1", "type"),
        (0, b"1", "/x/1", "type"),
        (49_999, b"{}", "/x/49999", "ragged"),
        (40_000, b"[" + b"1, " * 200_000 + b"1]", "/x/40000", "ragged"),
        (40_000, b'"' + b"x" * 900_000 + b'"', "/x/40000", "ragged"),
        (40_000, b"[" + b"1, " * 600_000 + b"1]", "/x/40000", "ragged"),
    ],
)
def test_what_is_wrong_in_a_long_array_is_pointed_at(
    place: int, wrong: bytes, pointer: str, code: str
) -> None:
    rows = [b"[1, 2]"] * 50_000
    rows[place] = wrong
    if pointer == "/x/1":
        rows[1:] = [b'"a"'] * 50_000
    with pytest.raises(Invalid) as raised:
        read(b"[%b]" % b",".join(rows))
    [fault] = raised.value.faults
    assert (fault.pointer, fault.code) == (pointer, code), fault


@pytest.mark.parametrize(
    "wrong", [b"", b"1 2", b"x", b"NaN", b"01", b"1,]", b"[1", b"]", b"[1}", b'"', b"1e400", b"\xff", b"--1"]
)
@pytest.mark.parametrize("place", [0, 50_000, 99_999])
def test_what_is_no_json_in_a_long_array_is_unreadable_and_told_where(wrong: bytes, place: int) -> None:
    elements = [b"1.25"] * 100_000
    elements[place] = wrong
    body = b"[\n%b]" % b",".join(elements)
    with pytest.raises(Unreadable, match=r"line 2 column|end of data|not UTF-8|nested") as raised:
        read(body)
    if wrong in (b"x", b"NaN", b"1e400", b"--1"):
        column = int(raised.value.detail.partition("column ")[2].partition(" ")[0])
        assert abs(column - (5 * place + 1)) <= 1


def test_integers_of_many_digits_leave_strings_as_they_are() -> None:
    text = b'{"id": "order 12345678901234567890 of 2", "n": 123456789012345678901234}'
    root = Document(text).root
    assert root["id"] == "order 12345678901234567890 of 2"
    assert root["n"] == 123456789012345678901234.0


def test_lists_become_python_values_up_to_a_length() -> None:
    for count in (2, 3000, 100_000):
        document = Document(orjson.dumps({"list": [0.5] * count}))
        found = document.members(document.root, ["list"])[0]["list"]
        assert document.plain(found) == (0.5,) * count
    document = Document(orjson.dumps({"list": [0.5] * (MOST_LISTED + 1)}))
    assert isinstance(document.plain(document.members(document.root, ["list"])[0]["list"]), Span)


def test_a_mark_of_what_was_left_out_cannot_be_made_up() -> None:
    body = orjson.dumps({"long": [1] * 9000, "mark": "0"})
    document = Document(body)
    mark = document.root["long"]
    forged = Document(orjson.dumps({"long": [1] * 9000, "mark": mark}))
    assert forged.members(forged.root, ["mark"])[0]["mark"] == mark


def test_members_are_those_known_and_every_other_is_a_fault() -> None:
    document = Document(b'{"a": [1], "b/~": 2, "a\\u0000": 3, "c": 4, "c": 5}')
    found, faults = document.members(document.root, ("a", "c", "d"), "x")
    assert found.keys() == {"a", "c"}
    assert [(f.pointer, f.code) for f in faults] == [
        ("/x/b~1~0", "unknown"),
        ("/x/a\0", "unknown"),
        ("/x/c", "duplicate"),
    ]


def test_faults_do_not_grow_with_the_body() -> None:
    names = ", ".join(f'"{"k" * 1000}{i}": 1' for i in range(1000))
    document = Document(f"{{{names}}}".encode())
    _, faults = document.members(document.root, ())
    assert len(faults) == MOST_FAULTS
    assert max(len(f.pointer) + len(f.detail) for f in faults) < 300


LONG = b"1, " * 3000 + b"1"


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        (b'{"a": [%b], "b": [1], "c": {}}' % LONG, 1),
        (b'{"a": {"b": [[%b]]}, "c": [%b]}' % (LONG, LONG), 2),
        (b'{"a": "%b", "b": [1]}' % (b"x" * 9000), 1),
        (b'{"a": [%b], "b": "\\"]"}' % LONG, 1),
        (b'{"a": "\\"", "b": [%b, "], \\""]}' % LONG, 1),
        (b'{"a": [%b, "x", [1]], "b": 1}' % LONG, 1),
        (b'{"a": [[1], [%b], "x", [2]], "b": 1}' % LONG, 1),
        (b'{"a": [[%b], {"b": 1}, []], "b": []}' % LONG, 1),
        (b'{"a": [{}, %b], "b": 1}' % LONG, 1),
        (b'{"a": [%b, {}], "b": 1}' % LONG, 1),
        (b'{"a": [{"b": [%b]}, {"c": [2]}], "d": 1}' % LONG, 1),
        (b'{"a": [1, {"b": "%b"}], "d": "]"}' % (b"x" * 9000), 1),
        (b'{"a": ["%b"], "b": 1}' % (b"x" * 9000), 1),
        (b'{"a": {"b": [%b]}, "c": [[1, 2]]}' % LONG, 1),
        (b'{"a": %b, "b": 1}' % (b" " * 9000 + b"[%b]" % LONG + b" " * 9000), 1),
        (b'{"a": [%b]%b, "b": 1}' % (LONG, b" " * 9000), 1),
        (b'{"a": 1%b, "b": [2]}' % (b" " * 9000), 0),
        (b'{"a": "\\"", "b": ["], \\"", %b]}' % LONG, 1),
        (b'[[%b], "a"]' % LONG, 1),
        (b"[%b]" % LONG, 1),
        (b'"%b"' % (b"x" * 9000), 1),
        (b'{"a": {"shape" : [3], "data" \n: "%b"}}' % (b"x" * 9000), 1),
        (b'{"a":{"shape":[3],"data":"%b"},"b":[%b]}' % (b"x" * 3 * BLOCK, LONG), 2),
        (b'{"a":[%b],"b":[%b]}' % (b"1, " * BLOCK + b"1", LONG), 2),
    ],
)
def test_long_members_are_left_out_of_a_text_of_moderate_length(text: bytes, left_out: int) -> None:
    assert len(text) > SHORT
    spans = [(span.start, span.end) for span in outline(text, 0, len(text))]
    assert spans == [(span.start, span.end) for span in scan(text, 0, len(text))]
    assert len(spans) == left_out
    for place in (0, 3):
        document = Document(b" " * place + text, place)
        assert undone(document, document.root) == plain_json.loads(text)


def test_a_text_of_many_strings_is_parsed_whole() -> None:
    strings = [b'"%d": [1]' % place for place in range(MOST_STRINGS + 1)]
    text = b'{"a": [%b], %b}' % (LONG, b", ".join(strings))
    assert outline(text, 0, len(text)) == []
    assert len(scan(text, 0, len(text))) == 1


@pytest.mark.parametrize(
    "text", [b'{"a": [%b', b'{"a": [%b}', b'{"a": [%b]]}', b'{"a": [[%b]}', b'{"a": [%b], "b}']
)
def test_a_text_of_moderate_length_that_is_no_json_is_unreadable(text: bytes) -> None:
    with pytest.raises(Unreadable):
        undone(document := Document(text % LONG), document.root)
