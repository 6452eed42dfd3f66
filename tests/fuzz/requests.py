"""Requests made from valid ones: something in them is turned into something else, somewhere, a few times over."""

import base64
import gzip
import zlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from service.losses import CATALOGUE
from service.wire import describe
from service.wire.inference.inputs import HEADER
from tests.fuzz.doors import Sent


@dataclass(frozen=True)
class Raw:
    """Bytes that are put into a document unchanged, JSON or not."""

    written: bytes


@dataclass
class Members:
    """An object, whose names may repeat."""

    pairs: list[tuple[bytes, Any]]


NAMES = sorted(CATALOGUE)
GOOD = {"loss": "mse", "inputs": {"predictions": [1.0, 2.5], "targets": [0.25, 0.0]}}
NUMBERS = [
    *(b"0", b"-0", b"-0.0", b"1", b"-1", b"2", b"0.5", b"1e308", b"-1e308", b"5e-324", b"-5e-324", b"1e-45"),
    *(b"3.4028236e38", b"65520", b"1e39", b"1e18", b"1E+2", b"9007199254740993"),
    *(b"2147483647", b"2147483648", b"4294967296", b"9223372036854775807", b"9223372036854775808"),
    *(b"-9223372036854775808", b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616"),
    *(b"1" * 30, b"0." + b"1" * 400, b"1e-400", b"1.0000000000000002"),
]
NO_NUMBERS = [
    b"1e400",
    b"-1e400",
    b"-" + b"9" * 400,
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"nan",
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"0x10",
    b"1_000",
    b"--1",
]
TEXTS = [
    *(
        b'""',
        b'"1"',
        b'"NaN"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\u0000"',
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
    ),
    *(
        b'"a/b~c"',
        b'"~"',
        b'"[[["',
        b'"\\""',
        b'"none"',
        b'"sum"',
        b'"float64"',
        b'"base64"',
        b'"logits"',
        b'"' + b"x" * 5000 + b'"',
    ),
    *('"é\U0001f600"'.encode(), b'"a\tb"', b"'a'", b'"\\x41"', b'"unended'),
]
VALUES = [
    *(
        b"null",
        b"true",
        b"false",
        b"tru",
        b"",
        b"//",
        b"[]",
        b"[[]]",
        b"[[],[]]",
        b"[[[]]]",
        b"{}",
        b"[{}]",
        b"[null]",
    ),
    *(
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1,[2]]",
        b"[[1],2]",
        b"[[1],[2,3]]",
        b"[true,1]",
        b"[true,false]",
        b'["a"]',
    ),
    *(
        b"[1.5]",
        b"[-1]",
        b"[1e400]",
        b"[NaN]",
        b"[9223372036854775808]",
        b'{"a":1}',
        b'{"a":1,"a":2}',
        b'{"":[]}',
    ),
    *(b"[" * 40 + b"1" + b"]" * 40, b"[" * 1500 + b"]" * 1500, b'{"a":' * 600 + b"1" + b"}" * 600),
]
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
LARGE = [
    b"[1],",
    b"1,",
    b"[],",
    b"{},",
    b"null,",
    b'"a",',
    b"[[1]],",
    b"[1,2],",
    b"1e5,",
    b"true,",
    b" ",
    b"[",
    b'{"a":',
    b"9",
    b"\\",
    b"-1.5e-10,",
    b'{"loss":"mse"},',
    b"1.0,",
    b"18446744073709551616,",
    b"\xff",
    b"\x00",
]
ENDS = [b"", b" ", b"\x00", b"\xff", b"x", b"{}", b",", b"]", b"}", b"\n\n"]


def _is_json(written: bytes) -> bool:
    try:
        orjson.loads(written)
    except orjson.JSONDecodeError:
        return False
    return True


WRITTEN = [*NUMBERS, *NO_NUMBERS, *TEXTS, *VALUES]
readable = st.sampled_from([*filter(_is_json, WRITTEN)]).map(Raw)
junk = st.one_of(
    readable,
    readable,
    readable,
    st.sampled_from(NUMBERS).map(Raw),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70).map(lambda number: Raw(b"%d" % number)),
    st.integers(-3, 5),
    st.sampled_from(WRITTEN).map(Raw),
)


@st.composite
def packed(draw: DrawFn) -> Any:
    """A packed tensor, right or wrong in one way or another."""
    dtype = draw(st.sampled_from([*DTYPES, "float32", "float8", "complex64"]))
    shape = draw(
        st.one_of(
            st.lists(st.integers(0, 4), max_size=4),
            st.lists(st.sampled_from([-1, 0, 1, 2, 2**20, 2**31, 2**62, 2**63, 2**64]), max_size=5),
            st.just([1] * 40),
        )
    )
    size = prod(shape) * (np.dtype(dtype).itemsize if dtype in DTYPES and dtype != "bfloat16" else 2)
    data = base64.b64encode(
        draw(st.binary(max_size=64)).ljust(size, b"\x00")[:size] if 0 <= size < 4096 else b"ab"
    ).decode()
    return draw(
        st.sampled_from(
            [
                {"dtype": dtype, "shape": shape, "data": data},
                {"dtype": dtype, "shape": shape, "data": data[:-1]},
                {"dtype": dtype, "shape": shape, "data": "\n" + data},
                {"dtype": dtype, "shape": shape, "data": data.replace("A", "-")},
                {"dtype": dtype, "shape": shape},
                {"dtype": dtype, "shape": [[*shape]], "data": data},
                {"dtype": dtype, "shape": shape, "data": [data], "more": 1},
            ]
        )
    )


@st.composite
def item(draw: DrawFn) -> Any:
    """A request of some loss, spoilt a few times; the loss's name among its members."""
    loss = CATALOGUE[draw(st.sampled_from(NAMES))]
    document: dict[str, Any] = {"loss": loss.name, **deepcopy(describe.example(loss))}
    params = dict(document.get("params", {}))
    for name in loss.params:
        if draw(st.integers(0, 3)) == 0:
            params[name] = draw(junk)
    if params:
        document["params"] = params
    options = {
        "reduction": st.sampled_from(["mean", "sum", "none"]),
        "dtype": st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
        "encoding": st.sampled_from(["json", "base64"]),
        "gradients": st.one_of(st.booleans(), st.lists(st.sampled_from([*loss.inputs, "value"]), max_size=4)),
        "sample_weight": st.one_of(
            st.sampled_from([0, 1.0, [1.0], [0.0, 2.0], [[1.0]], [], [[]], [1, 1, 1]]), packed()
        ),
        "tangents": st.dictionaries(
            st.sampled_from([*loss.inputs, "value"]),
            st.one_of(st.sampled_from([1, [1.0], []]), packed()),
            max_size=2,
        ),
        "hessian": st.sampled_from(["diagonal", "full"]),
        "grad_output": st.one_of(st.sampled_from([0, -2.5, [1.0], [], [1.0, 2.0], [[1.0]]]), packed()),
        "divide_by": st.sampled_from([1, 2.5, 7, 1e-300, 1e300, 5e-324, 0, -1, True, "1", [2.0]]),
    }
    for name, values in options.items():
        if draw(st.integers(0, 2)) == 0:
            document[name] = draw(values)
    inputs = document["inputs"]
    for name in inputs:
        change = draw(st.integers(0, 9)) if isinstance(inputs[name], list) else 9
        if change == 0:
            inputs[name] = draw(packed())
        elif change == 1:
            inputs[name] = _as_packed(
                inputs[name], draw(st.sampled_from(["float64", "float32", "float16", "int64", "bool"]))
            )
    tree = members(document)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3]))):
        _spoil(draw, tree)
    return tree


@st.composite
def evaluations(draw: DrawFn) -> Sent:
    """A request of ``/v1/losses/{name}``."""
    tree = draw(item())
    names = [value for name, value in tree.pairs if name == b"loss"]
    tree.pairs = [(name, value) for name, value in tree.pairs if name != b"loss"]
    name = names[0] if names and isinstance(names[0], str) else "mse"
    body = draw(spoilt(render(tree)))
    return Sent(f"/v1/losses/{name}", draw(pieces(body)), {"content-type": "application/json"})


@st.composite
def batches(draw: DrawFn) -> tuple[Sent, Sent, list[int]]:
    """A batch of good items among others, the batch of the good ones alone, and the places of those if known."""
    others = draw(st.lists(st.one_of(item(), junk), max_size=4))
    items: list[Any] = [members({**GOOD, "id": place}) for place in range(3)]
    places = sorted(draw(st.lists(st.integers(0, len(others)), min_size=3, max_size=3)))
    mixed, good = list[Any](), list[int]()
    for place in range(len(others) + 1):
        for at, made in zip(places, items, strict=True):
            if at == place:
                good.append(len(mixed))
                mixed.append(made)
        mixed += others[place : place + 1]
    headers = {"content-type": "application/json"}
    body = render(members({"items": mixed}))
    if draw(st.integers(0, 5)) == 0:
        body, good = draw(spoilt(body)), []
    alone = render(members({"items": items}))
    return Sent("/v1/batch", draw(pieces(body)), headers), Sent("/v1/batch", [alone], headers), good


@st.composite
def streams(draw: DrawFn) -> Sent:
    """Lines of items, whole and broken, in pieces that end anywhere."""
    line = st.one_of(
        item().map(render),
        st.just(orjson.dumps(GOOD)),
        st.sampled_from(
            [b"", b" ", b"\r", b"\x00", b"{", b"[]", b"null", b"\xff\xfe", b"{}" * 3, b"\xef\xbb\xbf{}"]
        ),
        st.sampled_from([b"x" * 10**6, b"[" * 10**6, b" " * 10**6, b'{"loss":"' + b"m" * 10**6 + b'"}'])
        if draw(st.integers(0, 30)) == 0
        else st.just(b"1"),
    )
    lines = draw(st.lists(line, min_size=1, max_size=8))
    body = b"".join(
        one.replace(b"\n", b" ") + draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n"])) for one in lines
    )
    body = body[: len(body) - draw(st.sampled_from([0, 0, 0, 1, 2, 5]))]
    return Sent("/v1/batch", draw(pieces(body)), {"content-type": "application/x-ndjson"})


@st.composite
def frames(draw: DrawFn) -> Sent:
    """A request of the inference protocol, its tensors in JSON and in binary, its head and headers spoilt."""
    loss = CATALOGUE[draw(st.sampled_from(NAMES))]
    inputs: list[Any] = []
    behind = b""
    for name, value in describe.example(loss)["inputs"].items():
        if not isinstance(value, list | int | float):
            continue
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        described = {
            "name": name,
            "shape": [*array.shape],
            "datatype": "INT64" if array.dtype.kind == "i" else "FP32",
        }
        if draw(st.integers(0, 7)) == 0:
            described["datatype"] = draw(
                st.sampled_from(["BOOL", "UINT8", "UINT64", "FP16", "FP64", "BF16", "BYTES", "FP8", ""])
            )
        if draw(st.booleans()):
            written = array.tobytes()
            behind += written
            inputs.append({**described, "parameters": {"binary_data_size": len(written)}})
        else:
            inputs.append({**described, "data": array.reshape(-1).tolist()})
    document: dict[str, Any] = {"id": draw(st.sampled_from(["", "a", "\u00e9"])), "inputs": inputs}
    if draw(st.booleans()):
        names = ["value", "grad." + next(iter(loss.inputs)), "aux.x"]
        document["outputs"] = [
            {"name": name, "parameters": {"binary_data": draw(st.booleans())}}
            for name in draw(st.lists(st.sampled_from(names), max_size=3))
        ]
    parameters = {name: draw(junk) for name in loss.params if draw(st.integers(0, 5)) == 0}
    if draw(st.booleans()):
        parameters |= {
            "reduction": draw(st.sampled_from(["sum", "none", "avg"])),
            "timeout": draw(st.sampled_from([0, 10**7, -1, 2**70, 1.5])),
        }
    tree = members(document | {"parameters": parameters})
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        _spoil(draw, tree)
    head = render(tree)
    headers = {}
    if draw(st.integers(0, 9)):
        lengths = [str(len(head))] * 9 + [
            "0",
            "-1",
            str(len(head) + 1),
            "9" * 18,
            "9" * 40,
            "1e3",
            "0x10",
            "",
            " 5 ",
            "٣".encode().decode("latin-1"),
        ]
        headers[HEADER] = draw(st.sampled_from(lengths))
    body = head + behind
    body = draw(st.sampled_from([body] * 6 + [body[:-1], body[: len(head)], body + b"\x00", b""]))
    coding = draw(st.sampled_from([None] * 6 + ["gzip", "deflate", "br", "gzip, gzip", "identity"]))
    if coding:
        headers["content-encoding"] = coding
        made = gzip.compress(body) if coding.startswith("gzip") else zlib.compress(body)
        whole = [made] * 3 + [made[: len(made) // 2], made + made, b"", made[:-1], b"\x1f\x8b" * 9]
        body = draw(st.sampled_from([*whole, gzip.compress(bytes(2 * 10**7), 1)]))
    if draw(st.integers(0, 4)) == 0:
        headers["accept-encoding"] = draw(
            st.sampled_from(["gzip", "deflate;q=0.5", "br", "gzip;q=nan", "*;q=1e999", ";;,"])
        )
    path = f"/v2/models/{loss.name}/infer"
    return Sent(path, draw(pieces(body)), headers)


@st.composite
def megabytes(draw: DrawFn) -> Sent:
    """A body of about a megabyte, of one thing again and again, at some place of a request."""
    unit = draw(st.sampled_from(LARGE))
    many = unit * (draw(st.sampled_from([10**5, 10**6])) // len(unit))
    start, end = draw(
        st.sampled_from(
            [
                (b'{"inputs":{"predictions":[', b'1],"targets":[1]}}'),
                (b'{"inputs":{"predictions":[[', b'1]],"targets":[[[1]]]}}'),
                (b'{"inputs":{"predictions":[1],"targets":[1]},"params":{"x":[', b"1]}}"),
                (b'{"inputs":{"predictions":[1],"targets":[1]},"gradients":[', b"1]}"),
                (b'{"inputs":{"predictions":[1],"targets":[1]},"sample_weight":[', b"1]}"),
                (b'{"inputs":{"predictions":{"dtype":"float32","shape":[', b'1],"data":""}}}'),
                (b'{"items":[', b"1]}"),
                (b'{"items":[{"loss":"mse","id":[', b"1]}]}"),
                (b'{"inputs":[{"name":"predictions","datatype":"FP32","shape":[', b'1],"data":[1]}]}'),
                (b'{"inputs":[{"name":"predictions","datatype":"FP32","shape":[1],"data":[', b"1]}]}"),
                (b'{"inputs":[', b"1]}"),
                (b"", b""),
            ]
        )
    )
    path = draw(
        st.sampled_from(["/v1/losses/mse", "/v1/losses/quantile", "/v1/batch", "/v2/models/mse/infer"])
    )
    return Sent(path, [start + many + end], {"content-type": "application/json"})


@st.composite
def pieces(draw: DrawFn, body: bytes) -> Sequence[bytes]:
    """A body in pieces that end anywhere; most often in one."""
    if draw(st.integers(0, 2)):
        return [body]
    cuts = sorted({draw(st.integers(0, len(body))) for _ in range(draw(st.integers(1, 5)))})
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


@st.composite
def spoilt(draw: DrawFn, body: bytes) -> bytes:
    """A document as bytes; sometimes cut, or with a byte in it that does not belong there."""
    how = draw(st.integers(0, 39))
    if how == 0:
        return body[: draw(st.integers(0, len(body)))]
    if how == 1:
        place = draw(st.integers(0, len(body)))
        return (
            body[:place]
            + draw(st.sampled_from([b"\xff", b"\x00", b'"', b"[", b"]", b"\xef\xbb\xbf", b"\\"]))
            + body[place:]
        )
    if how == 2:
        return draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b" " * 70, b"\x00"])) + body
    if how == 3:
        return body + draw(st.sampled_from(ENDS))
    if how == 4:
        return body.decode("utf-8", "replace").encode(
            draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig"])), "replace"
        )
    return body


def members(value: Any) -> Any:
    """Return a document with its objects as `Members`, so that a name can be there twice."""
    if isinstance(value, Mapping):
        return Members([(orjson.dumps(name)[1:-1], members(one)) for name, one in value.items()])
    return [members(one) for one in value] if isinstance(value, list | tuple) else value


def render(value: Any) -> bytes:
    """Write a document."""
    if isinstance(value, Raw):
        return value.written
    if isinstance(value, Members):
        return b"{" + b",".join(b'"' + name + b'":' + render(one) for name, one in value.pairs) + b"}"
    if isinstance(value, Mapping):
        return render(members(value))
    if isinstance(value, list):
        return b"[" + b",".join(map(render, value)) + b"]"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return b"%d" % value
    return orjson.dumps(value)


def _spoil(draw: DrawFn, node: Any) -> None:
    """Replace, remove, repeat, rename or wrap something, somewhere below a node."""
    for _ in range(12):
        held = node.pairs if isinstance(node, Members) else node
        if not held:
            return
        place = draw(st.integers(0, len(held) - 1))
        inner = held[place][1] if isinstance(node, Members) else held[place]
        if isinstance(inner, Members | list) and draw(st.integers(0, 3)):
            node = inner
            continue
        how = draw(st.integers(0, 7))
        if how == 0:
            del held[place]
        elif how == 1:
            held.append(held[place])
        elif how == 2 and isinstance(node, Members):
            held[place] = (
                draw(st.sampled_from([b"", b"x", b"a/b~0", b"\\ud800", b"\xff", b"inputs", b"\\u0000"])),
                inner,
            )
        elif how == 3:
            _put(node, place, [inner])
        elif how == 4 and isinstance(inner, list) and inner:
            _put(node, place, inner[0])
        else:
            _put(node, place, draw(st.one_of(junk, packed())))
        return


def _put(node: Any, place: int, value: Any) -> None:
    """Put a value at a place of a node."""
    if isinstance(node, Members):
        node.pairs[place] = (node.pairs[place][0], value)
    else:
        node[place] = value


def _as_packed(value: Any, dtype: str) -> Any:
    """Return a tensor in base64."""
    array = np.asarray(value).astype(dtype)
    return {"dtype": dtype, "shape": [*array.shape], "data": base64.b64encode(array.tobytes()).decode()}
