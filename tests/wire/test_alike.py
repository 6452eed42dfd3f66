"""Which items of a batch are read together, and which are left to a closer look."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.catalogue.registry import Catalogues
from service.engine.call import Call
from service.engine.composition import Planner
from service.engine.expression import Expressions
from service.engine.stack import Stack
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.problems import Invalid
from service.wire import batch, native
from service.wire.alike import take
from service.wire.document import MODERATE, Document
from service.wire.written import raw_bytes

BOTH = Catalogues(CATALOGUE, METRICS)
PLANNER = Planner(Expressions(4096), 1 << 27)
PLAIN = {"loss": "cross_entropy", "inputs": {"logits": [[1.5, 2], [3, 4]], "targets": [0, 1]}}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({}, {"id": 7}, True),
        ({"id": "x"}, {"id": 1.5}, True),
        ({}, {"inputs": {"logits": [[9, 9], [9.5, 9]], "targets": [1, 1]}}, True),
        ({}, {"inputs": {"logits": [[9, 9, 9], [9, 9, 9]], "targets": [1, 1]}}, False),
        ({"params": {"ignore_index": 1}}, {"params": {"ignore_index": 2}}, False),
        ({"gradients": True}, {"gradients": False}, False),
        ({"gradients": ["logits"]}, {"gradients": ["logits"]}, True),
        ({"gradients": True}, {"gradients": 1}, False),
        ({"dtype": "float32"}, {"dtype": "float64"}, False),
    ],
)
def test_a_kind_is_what_items_share_beside_their_numbers(one: Any, other: Any, alike: bool) -> None:
    kinds = [taken({"id": 0, **PLAIN, **changes}).kind for changes in (one, other)]
    assert (kinds[0] == kinds[1]) == alike


@pytest.mark.parametrize(
    "inputs",
    [
        {"logits": [[1, 2], [3]], "targets": [0, 1]},
        {"logits": [[1, 2], [3, [4]]], "targets": [0, 1]},
        {"logits": [[1, 2], [[], [3, 4]]], "targets": [0, 1]},
        {"logits": [[1, 2], [3, 4]], "targets": [0, [1]]},
        {"logits": [[1, 2], [3, 4]], "targets": [0.0, 1]},
        {"logits": [[1, True], [3, 4]], "targets": [0, 1]},
        {"logits": [], "targets": [0, 1]},
        {"logits": 1, "targets": [0, 1]},
        {"logits": [[1, 2], [3, 4]], "other": [0, 1]},
        {"logits": {"dtype": "float32", "shape": [1], "data": "AAAA"}, "targets": [0]},
        {"logits": {"dtype": "float32", "shape": [1], "data": "AAAAA==="}, "targets": [0]},
        [1],
    ],
)
def test_what_is_not_plain_is_left_to_the_reader(inputs: Any) -> None:
    document = Document(orjson.dumps({**PLAIN, "inputs": inputs}))
    assert take(document, document.root, CATALOGUE, None) is None


def test_an_input_that_is_there_twice_is_left_to_the_reader() -> None:
    document = Document(b'{"loss": "cross_entropy", "inputs": {"targets": [0], "targets": [0]}}')
    assert take(document, document.root, CATALOGUE, None) is None


def taken(item: dict[str, Any]) -> Any:
    """Take an item."""
    document = Document(orjson.dumps(item))
    found = take(document, document.root, CATALOGUE, None)
    assert found
    return found


numbers = (
    st.integers(-3, 3) | st.floats(-1e39, 1e39) | st.sampled_from([1.0, 0.5, -0.0, 2**53 + 1, 2**64, True])
)
odd = st.none() | st.just("1") | st.lists(st.integers(0, 1), max_size=2) | st.just({}) | st.just("[")


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    """Return an item of a few kinds, of which some are wrong somewhere."""
    rows, classes = draw(st.sampled_from([(1, 2), (2, 2), (3, 1)]))
    logits: list[list[Any]] = [[draw(numbers) for _ in range(classes)] for _ in range(rows)]
    targets: list[Any] = [draw(st.integers(0, classes)) for _ in range(rows)]
    if draw(st.integers(0, 9)) == 0:
        draw(st.sampled_from([logits[0], targets]))[0] = draw(odd)
    inputs: dict[str, Any] = {"logits": logits, "targets": targets}
    if draw(st.booleans()):
        inputs["targets"] = {
            "dtype": "uint8",
            "shape": [rows],
            "data": draw(st.sampled_from(["AA==", "AAE=", "AAEA"])),
        }
    options = st.fixed_dictionaries(
        {},
        optional={
            "params": st.sampled_from(
                [{}, {"ignore_index": 1}, {"weight": [1, 2]}, {"weight": [1, [2]]}, {"x": 1}, []]
            ),
            "gradients": st.sampled_from([True, False, ["logits"], ["targets"], ["[", "logits"]]),
            "reduction": st.sampled_from(["mean", "sum", "none", "avg"]),
            "dtype": st.sampled_from(["float32", "float64", "float16"]),
            "sample_weight": st.sampled_from([None, [1] * rows, [[1]]]),
        },
    )
    return {"inputs": inputs, **draw(options)}


@given(st.lists(items(), min_size=1, max_size=12), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_items_that_are_read_together_are_what_each_is_alone(some: list[dict[str, Any]], times: int) -> None:
    some = some * times
    sent = [{"id": f"[{place}", "loss": "cross_entropy", **item} for place, item in enumerate(some)]
    together = batch.decode_batch(BOTH, json.dumps({"items": sent}).encode(), 100, PLANNER)
    assert [echo["id"] for echo in together.echoes] == [one["id"] for one in sent]
    calls = dict(
        pair for group in together.groups for pair in zip(group.places, calls_of(group), strict=True)
    )
    for place, item in enumerate(some):
        if place in together.problems:
            with pytest.raises(Invalid) as raised:
                native.decode(CATALOGUE["cross_entropy"], json.dumps(item).encode())
            assert together.problems[place].faults == raised.value.faults
        else:
            alone = native.decode(CATALOGUE["cross_entropy"], json.dumps(item).encode()).call
            assert as_bits(calls[place]) == as_bits(alone)


def calls_of(group: batch.Group) -> list[Call]:
    """Return the calls of a group."""
    return [*group.part] if isinstance(group.part, Stack) else [group.part]


def as_bits(call: Call) -> Any:
    """Return all that a call is, its tensors as bytes."""
    tensors = {**call.inputs, "sample_weight": call.sample_weight, "grad_output": call.grad_output}
    bits = {
        name: (tensor.dtype, tuple(tensor.shape), bytes(raw_bytes(tensor)))
        for name, tensor in tensors.items()
        if tensor is not None
    }
    return bits, dict(call.params), call.gradients_of, call.reduction, call.dtype, call.work


LONG = [[[row + column / 7 for column in range(20)] for row in range(30)]] * 2
ODD: list[Any] = [
    None,
    [*LONG[0][:-1], [1.5] * 19],
    [*LONG[0][:-1], [*range(19), [1]]],
    [*LONG[0][:-1], [*range(19), []]],
    [*LONG[0][:-1], [*range(19), None]],
    [*LONG[0][:-1], [*range(19), True]],
    [[value, *range(19)] for value in LONG[0]],
    [[1.5] * 30] * 20,
]


@given(st.lists(st.sampled_from(range(len(ODD))), min_size=0, max_size=3), st.integers(0, 99), st.booleans())
@settings(max_examples=15, deadline=None)
def test_items_of_a_long_batch_are_what_each_is_alone(odd: list[int], place: int, last: bool) -> None:
    """The nesting of its runs is compared for all items at once, except the odd ones."""
    some: list[dict[str, Any]] = [
        {"inputs": {"predictions": LONG[0], "targets": LONG[1]}} for _ in range(100)
    ]
    for which in odd:
        some[(place + which) % 100]["inputs"] = {
            "predictions": ODD[which],
            "targets": LONG[1] if last else ODD[which],
        }
    sent = [{"id": f"],[{place}", "loss": "mse", **item} for place, item in enumerate(some)]
    together = batch.decode_batch(BOTH, orjson.dumps({"items": sent}), 100, PLANNER)
    calls = dict(
        pair for group in together.groups for pair in zip(group.places, calls_of(group), strict=True)
    )
    for place, item in enumerate(some):
        if place in together.problems:
            with pytest.raises(Invalid) as raised:
                native.decode(CATALOGUE["mse"], orjson.dumps(item))
            assert together.problems[place].faults == raised.value.faults
        else:
            assert as_bits(calls[place]) == as_bits(native.decode(CATALOGUE["mse"], orjson.dumps(item)).call)


def test_an_array_that_lacks_its_one_number_is_left_to_the_reader() -> None:
    """Its nesting equals that of an array with one number."""
    whole, lacking = (
        Document(orjson.dumps({"loss": "mse", "inputs": {"predictions": rows, "targets": [[1.5], [2.5]]}}))
        for rows in ([[1.5], [2.5]], [[1.5], []])
    )
    like = take(whole, whole.root, CATALOGUE, None)
    again = take(whole, whole.root, CATALOGUE, None, like)
    assert like and again and like.kind == again.kind
    assert take(lacking, lacking.root, CATALOGUE, None, like) is None


SPELLED = {
    "predictions": ["2.0", "2e0", "-0", "-0.0", "9007199254740993", "18446744073709551616", " 2\t"],
    "values": ["null", "true", '"2"', '"NaN"', '"a,]["', '"\\""', "[]", "[2]", "{}"],
    "ids": ['"\\u0061"', '"],[\\""', '"{"', '"0"', "null", "1.5", "9007199254740993", "[1]"],
    "names": ['"pred\\u0069ctions"', '"targets"', '"Predictions"'],
    "members": [
        '"params":null',
        '"params":[]',
        '"gradients":false',
        '"reduction": "sum"',
        '"loss":"mae"',
        '"x":1',
    ],
}
"""Ways in which an item of a batch can differ from its neighbours, as JSON."""
COLUMNS = 24
ROWS = 40


def spelled(place: int, change: tuple[str, str] | None, last: int) -> str:
    """Return an item of 3 kB as JSON, with one change; ``last`` is the place of the number that changes."""
    kind, text = change or ("", "")
    numbers = ["1.5"] * (ROWS * COLUMNS)
    if kind in ("predictions", "values"):
        numbers[last] = text
    rows = [f"[{','.join(numbers[first : first + COLUMNS])}]" for first in range(0, len(numbers), COLUMNS)]
    name = text if kind in ("names", "swapped") else '"predictions"'
    other = '"predictions"' if kind == "swapped" else '"targets"'
    targets = json.dumps([[1] * COLUMNS] * ROWS)
    members = [
        f'"id":{text if kind == "ids" else place}',
        '"loss":"mse"',
        f'"inputs":{{{name}:[{",".join(rows)}],{other}:{targets}}}',
        *([text] if kind == "members" else []),
    ]
    return f"{{{','.join(members[::-1] if kind == 'order' else members)}}}"


SWAPPED = ("swapped", '"targets"')
changes = st.sampled_from([("order", ""), SWAPPED]) | st.sampled_from(
    [(kind, text) for kind, texts in SPELLED.items() for text in texts]
)


@given(
    st.dictionaries(st.integers(0, 199), changes, max_size=4),
    st.sampled_from([0, 1, COLUMNS - 1, COLUMNS, ROWS * COLUMNS - 1]),
    st.sampled_from([",", ", ", ",\n"]),
)
@example({7: SWAPPED, 8: ("names", '"targets"'), 9: ("names", '"Predictions"')}, 0, ",")
@settings(max_examples=20, deadline=None)
def test_items_of_a_long_batch_are_read_as_they_are_spelled(
    odd: dict[int, tuple[str, str]], last: int, between: str
) -> None:
    texts = [spelled(place, odd.get(place), last) for place in range(200)]
    assert sum(map(len, texts)) > MODERATE
    together = batch.decode_batch(BOTH, f'{{"items":[{between.join(texts)}]}}'.encode(), 200, PLANNER)
    calls = dict(
        pair for group in together.groups for pair in zip(group.places, calls_of(group), strict=True)
    )
    for place in {0, 100, 199, *odd}:
        alone = batch.decode_batch(BOTH, f'{{"items":[{texts[place]}]}}'.encode(), 1, PLANNER)
        assert together.echoes[place] == alone.echoes[0]
        assert (place in together.problems) == bool(alone.problems)
        if alone.problems:
            assert together.problems[place].faults == alone.problems[0].faults
        else:
            assert as_bits(calls[place]) == as_bits(calls_of(alone.groups[0])[0])
