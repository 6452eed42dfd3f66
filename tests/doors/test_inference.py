"""POST /v2/models/{name}/infer: the protocol's promises, and its error messages."""

import asyncio
import gzip
import zlib
from typing import Any

import httpx
import orjson
import pytest
import torch
from torch import Tensor

from service.app import create_app
from service.settings import Settings
from service.wire.inference.inputs import HEADER
from tests.client import Client
from tests.infer import PLAIN, as_json, binary, infer, infer_binary, outputs, packed
from tests.waiting import within_cpu_s

LOGITS = torch.tensor([[2.0, 1.0, 0.1]])
TARGETS = torch.tensor([0])
CALL = {"logits": LOGITS, "targets": TARGETS}
INPUTS = [as_json(name, tensor) for name, tensor in CALL.items()]
VALUE = 0.4170299470424652
BINARY = {"binary_data_output": True}


def refused(answer: httpx.Response, status: int = 400) -> str:
    """Return the error in an answer."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    problem = answer.json()
    assert problem["status"] == status
    assert {"error", "type", "title", "detail", "instance", "errors"} == problem.keys() - {"status"}
    assert HEADER not in answer.headers
    return problem["error"]


def test_numbers_in_the_json(client: Client) -> None:
    answer = infer(client, "cross_entropy", INPUTS)
    assert answer.headers["content-type"] == "application/json"
    assert HEADER not in answer.headers
    assert answer.json() == {
        "model_name": "cross_entropy",
        "model_version": "1",
        "outputs": [{"name": "value", "shape": [1], "datatype": "FP32", "data": [pytest.approx(VALUE)]}],
    }


def test_bytes_behind_the_json(client: Client) -> None:
    answer = infer_binary(client, "cross_entropy", CALL, parameters=BINARY | {"gradients": True})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert int(answer.headers["content-length"]) == len(answer.content)
    found = outputs(answer)
    assert list(found) == ["value", "grad.logits"]
    expected = LOGITS.softmax(1) - torch.tensor([[1.0, 0, 0]])
    torch.testing.assert_close(found["grad.logits"], expected)


@pytest.mark.parametrize("padding", range(9))
def test_bytes_out_of_alignment_are_the_same(client: Client, padding: int) -> None:
    """Wherever the JSON ends, and whatever lies before a tensor."""
    mask = torch.tensor([True, False, True])
    tensors = {"mask": mask, "predictions": torch.tensor([1.0, 2, 3]), "targets": torch.zeros(3)}
    inputs = [binary(name, tensor) for name, tensor in tensors.items()]
    known = {name: tensors[name] for name in ("predictions", "targets")}
    plain = outputs(infer_binary(client, "mse", known, id=" " * padding))
    weights = tensors | {"sample_weight": mask}
    del weights["mask"]
    inputs[0]["name"] = "sample_weight"
    body, length = packed(inputs, tensors, id=" " * padding)
    odd = client.post("/v2/models/mse/infer", content=body, headers=PLAIN | {HEADER: str(length)})
    assert plain["value"] == pytest.approx(14 / 3)
    assert outputs(odd)["value"] == 5


def test_inputs_in_both_forms_in_one_request(client: Client) -> None:
    inputs = [as_json("logits", LOGITS), binary("targets", TARGETS)]
    body, length = packed(inputs, {"targets": TARGETS})
    headers = PLAIN | {HEADER: str(length)}
    answer = client.post("/v2/models/cross_entropy/infer", content=body, headers=headers)
    assert outputs(answer)["value"] == pytest.approx(VALUE)


def test_outputs_come_in_the_order_asked_each_in_its_form(client: Client) -> None:
    asked = [{"name": "grad.logits"}, {"name": "value", "parameters": {"binary_data": False}}]
    answer = infer(client, "cross_entropy", INPUTS, outputs=asked, parameters=BINARY)
    found = outputs(answer)
    assert list(found) == ["grad.logits", "value"]
    assert b'"data":[0.4170' in answer.content
    assert b'"binary_data_size":12' in answer.content


def test_gradients_only_where_they_are_asked_for(client: Client) -> None:
    def names(**fields: Any) -> list[str]:
        return list(outputs(infer(client, "cross_entropy", INPUTS, **fields)))

    assert names() == names(outputs=[]) == names(parameters={"gradients": False}) == ["value"]
    assert names(parameters={"gradients": True}) == ["value", "grad.logits"]
    assert names(parameters={"gradients": "logits"}) == ["value", "grad.logits"]
    assert names(outputs=[{"name": "grad.logits"}]) == ["grad.logits"]
    assert names(outputs=[{"name": "value"}], parameters={"gradients": "logits"}) == ["value"]


def test_diagnostics_are_outputs(client: Client) -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2]])
    found = outputs(infer(client, "giou", [as_json("boxes", boxes), as_json("targets", boxes + 1)]))
    assert list(found) == ["value", "aux.iou"]
    assert found["aux.iou"] == pytest.approx(1 / 7)


@pytest.mark.parametrize("identity", ["", "a", "\u2713"])
def test_the_id_is_echoed(client: Client, identity: str) -> None:
    assert infer(client, "cross_entropy", INPUTS, id=identity).json()["id"] == identity


def test_aliases_and_the_only_version(client: Client) -> None:
    for name in ("CrossEntropyLoss", "cross_entropy/versions/1"):
        answer = infer(client, name, INPUTS)
        assert (answer.status_code, answer.json()["model_name"]) == (200, "cross_entropy")
    assert "no version '2'" in refused(infer(client, "cross_entropy/versions/2", INPUTS), 404)
    assert "cross_entropy" in refused(infer(client, "cross_entropi", INPUTS), 404)


def test_parameters_are_options_and_params(client: Client) -> None:
    parameters = {
        "reduction": "sum",
        "label_smoothing": 0.5,
        "weight": "[1, 2, 3]",
        "priority": 3,
        "sequence_id": 1,
        "triton_enable_empty_final_response": True,
    }
    native = client.evaluate(
        "cross_entropy",
        inputs={"logits": LOGITS.tolist(), "targets": [0]},
        params={"label_smoothing": 0.5, "weight": [1, 2, 3]},
        reduction="sum",
    ).json()
    found = outputs(infer(client, "cross_entropy", INPUTS, parameters=parameters))
    assert found["value"].item() == native["value"]


def test_weights_and_upstream_gradients_are_inputs(client: Client) -> None:
    inputs = [
        as_json("predictions", torch.tensor([1.0, 2])),
        as_json("targets", torch.zeros(2)),
        as_json("sample_weight", torch.tensor([1.0, 0])),
        as_json("grad_output", torch.tensor([3.0, 5])),
    ]
    asked = [{"name": "grad.predictions"}]
    answer = infer(client, "mse", inputs, parameters={"reduction": "none"}, outputs=asked)
    assert outputs(answer)["grad.predictions"].tolist() == [6, 0]


@pytest.mark.parametrize("shape", [[], [1]])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_upstream_gradient_of_a_reduced_value_has_its_shape(
    client: Client, reduction: str, shape: list[int]
) -> None:
    inputs = [
        as_json("predictions", torch.tensor([1.0])),
        as_json("targets", torch.zeros(1)),
        as_json("grad_output", torch.tensor([3.0]).reshape(shape)),
    ]
    asked = [{"name": "value"}, {"name": "grad.predictions"}]
    found = outputs(infer(client, "mse", inputs, parameters={"reduction": reduction}, outputs=asked))
    assert found["value"].shape == (1,)
    assert found["grad.predictions"].tolist() == [6]


def test_the_upstream_gradient_of_a_reduced_value_is_one_number(client: Client) -> None:
    inputs = [
        as_json("predictions", torch.tensor([1.0, 2])),
        as_json("targets", torch.zeros(2)),
        as_json("grad_output", torch.tensor([3.0, 5])),
    ]
    answer = infer(client, "mse", inputs)
    assert answer.status_code == 400
    assert "/inputs/2 grad_output: Expected the shape of the value" in answer.json()["error"]


@pytest.mark.parametrize(
    ("dtype", "parameter", "computed"),
    [
        (torch.float64, None, "FP64"),
        (torch.float64, "float32", "FP32"),
        (torch.float32, None, "FP32"),
        (torch.float32, "float64", "FP64"),
        (torch.float16, None, "FP32"),
        (torch.float16, "float16", "FP16"),
        (torch.bfloat16, None, "FP32"),
        (torch.bfloat16, "bfloat16", "BF16"),
    ],
)
@pytest.mark.parametrize("form", [infer_binary, "json"])
def test_the_dtype_computed_in_is_the_one_of_the_outputs(
    client: Client, dtype: torch.dtype, parameter: str | None, computed: str, form: Any
) -> None:
    tensors = {"predictions": torch.tensor([0.1, 1e-3]).to(dtype), "targets": torch.zeros(2, dtype=dtype)}
    parameters = BINARY | {"gradients": True} | ({"dtype": parameter} if parameter else {})
    if form == "json":
        answer = infer(client, "mse", [as_json(n, t) for n, t in tensors.items()], parameters=parameters)
    else:
        answer = infer_binary(client, "mse", tensors, parameters=parameters)
    assert answer.content.count(f'"{computed}"'.encode()) == 2
    # two elements: the gradient of the mean equals the prediction
    found = outputs(answer)["grad.predictions"]
    assert torch.equal(found, tensors["predictions"].to(found.dtype))


INTEGERS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]


@pytest.mark.parametrize("name", [*INTEGERS, "bool", "float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("in_binary", [True, False])
def test_indices_of_any_datatype(client: Client, name: str, in_binary: bool) -> None:
    tensors = CALL | {"logits": LOGITS.repeat(2, 1), "targets": torch.tensor([0, 1]).to(getattr(torch, name))}
    if in_binary:
        answer = infer_binary(client, "cross_entropy", tensors)
    else:
        answer = infer(client, "cross_entropy", [as_json(n, t) for n, t in tensors.items()])
    assert outputs(answer)["value"] == pytest.approx(VALUE + 0.5)


@pytest.mark.parametrize("name", INTEGERS)
def test_the_ends_of_integers(client: Client, name: str) -> None:
    dtype = getattr(torch, name)
    ends = torch.tensor([torch.iinfo(dtype).min, torch.iinfo(dtype).max], dtype=dtype)
    tensors = {"predictions": ends, "targets": torch.zeros(2)}
    parameters = {"dtype": "float64", "reduction": "none"}
    expected = torch.tensor([float(end) ** 2 for end in ends.tolist()], dtype=torch.float64)
    for answer in (
        infer_binary(client, "mse", tensors, parameters=parameters),
        infer(client, "mse", [as_json(n, t) for n, t in tensors.items()], parameters=parameters),
    ):
        assert torch.equal(outputs(answer)["value"], expected)


def test_integers_keep_all_their_digits(client: Client) -> None:
    """2^53 + 1 is no float64: a code that ends in it names another bit pattern."""
    tensors = CALL | {"targets": torch.tensor([2**53 + 1])}
    for answer in (
        infer_binary(client, "cross_entropy", tensors),
        infer(client, "cross_entropy", [as_json(n, t) for n, t in tensors.items()]),
    ):
        assert "got 9007199254740993" in refused(answer)


def test_data_may_be_nested_or_flat(client: Client) -> None:
    for data in ([2, 1, 0.1], [[2, 1, 0.1]], [[2], [1], [0.1]]):
        answer = infer(client, "cross_entropy", [{**INPUTS[0], "data": data}, INPUTS[1]])
        assert outputs(answer)["value"] == pytest.approx(VALUE)
    for data, message in (
        ([[2, 1], [0.1]], "length 2"),
        ([2, [1, 0.1]], "Expected a number"),
        ([2, 1, 0.1, 3], "Expected 3 elements for shape [1, 3]; got 4"),
        ([2, 1, "0.1"], "Expected a number"),
    ):
        error = refused(infer(client, "cross_entropy", [{**INPUTS[0], "data": data}, INPUTS[1]]))
        assert "logits" in error
        assert message in error


def test_scalars_and_empty_tensors(client: Client) -> None:
    def value(tensor: Tensor, reduction: str) -> Tensor:
        tensors = {"predictions": tensor, "targets": torch.zeros_like(tensor)}
        parameters = {"reduction": reduction, **BINARY}
        sent = outputs(infer_binary(client, "mse", tensors, parameters=parameters))["value"]
        inputs = [as_json(name, tensor) for name, tensor in tensors.items()]
        written = infer(client, "mse", inputs, parameters={"reduction": reduction})
        assert torch.equal(outputs(written)["value"], sent)
        return sent

    assert value(torch.tensor(3.0), "none").shape == ()
    assert value(torch.tensor(3.0), "mean").tolist() == [9]
    assert value(torch.zeros(0), "sum").tolist() == [0]
    assert value(torch.zeros(2, 0, 3), "none").shape == (2, 0, 3)


def test_null_beside_no_bytes_is_an_empty_tensor(client: Client) -> None:
    inputs = [
        {"name": name, "shape": [0], "datatype": "FP32", "data": None, "parameters": {"binary_data_size": 0}}
        for name in ("predictions", "targets")
    ]
    assert outputs(infer(client, "mse", inputs, parameters={"reduction": "sum"}))["value"] == 0


@pytest.mark.parametrize("data", [b"[NaN, 1]", b"[null, 1]", b'["NaN", 1]'])
def test_nan_in_the_json(client: Client, data: bytes) -> None:
    inputs = b'{"name": "predictions", "shape": [2], "datatype": "FP32", "data": ' + data + b"}"
    rest = orjson.dumps(as_json("targets", torch.zeros(2)))
    body = (
        b'{"id": "NaN \\" [Infinity", "inputs": ['
        + inputs
        + b","
        + rest
        + b'], "parameters": {"reduction": "none"}}'
    )
    answer = client.post("/v2/models/mse/infer", content=body, headers=PLAIN)
    assert answer.json()["outputs"][0]["data"] == [None, 1]
    assert answer.json()["id"] == 'NaN " [Infinity'


def test_infinity_in_the_json(client: Client) -> None:
    inputs = b'{"name": "predictions", "shape": [2], "datatype": "FP32", "data": [-Infinity, Infinity]}'
    rest = orjson.dumps(as_json("targets", torch.zeros(2)))
    body = (
        b'{"inputs": ['
        + inputs
        + b","
        + rest
        + b'], "parameters": {"reduction": "none", "binary_data_output": true}}'
    )
    answer = client.post("/v2/models/mse/infer", content=body, headers=PLAIN)
    assert outputs(answer)["value"].tolist() == [torch.inf, torch.inf]


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"null"])
def test_what_is_no_number_is_no_integer(client: Client, word: bytes) -> None:
    body = orjson.dumps({"inputs": INPUTS}).replace(b'"data":[0]', b'"data":[' + word + b"]")
    answer = client.post("/v2/models/cross_entropy/infer", content=body, headers=PLAIN)
    assert "targets: Expected a number" in refused(answer)


@pytest.mark.parametrize("media", [None, "application/octet-stream", "text/plain", "x"])
def test_the_content_type_is_never_looked_at(client: Client, media: str | None) -> None:
    headers = {"content-type": media} if media else {}
    assert infer(client, "cross_entropy", INPUTS, headers).status_code == 200


CODERS: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", CODERS)
def test_bodies_in_a_coding(client: Client, coding: str) -> None:
    tensors = {"predictions": torch.ones(40_000), "targets": torch.zeros(40_000)}
    inputs = [binary(name, tensor) for name, tensor in tensors.items()]
    body, length = packed(inputs, tensors, parameters={**BINARY, "gradients": True})
    headers = {HEADER: str(length), "content-encoding": coding, "accept-encoding": f"br, {coding}"}
    answer = client.post("/v2/models/mse/infer", content=CODERS[coding](body), headers=headers)
    assert answer.headers["content-encoding"] == coding
    assert answer.num_bytes_downloaded == int(answer.headers["content-length"]) < 10_000
    assert torch.equal(outputs(answer)["grad.predictions"], torch.full((40_000,), 2 / 40_000))


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("*", None),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("DEFLATE", "deflate"),
    ],
)
def test_answers_are_coded_as_asked(client: Client, accepted: str | None, coding: str | None) -> None:
    headers = {"accept-encoding": accepted} if accepted else {"accept-encoding": ""}
    answer = infer(client, "cross_entropy", INPUTS, headers)
    assert answer.headers.get("content-encoding") == coding
    assert outputs(answer)["value"] == pytest.approx(VALUE)


def test_what_hardly_shrinks_is_sent_as_it_is(client: Client) -> None:
    noise = torch.randint(0, 2**31, (40_000,), dtype=torch.int32).view(torch.float32)
    tensors = {"predictions": noise, "targets": torch.zeros(40_000)}
    parameters = {**BINARY, "reduction": "none"}
    answer = infer_binary(client, "mae", tensors, {"accept-encoding": "gzip"}, parameters=parameters)
    assert "content-encoding" not in answer.headers
    assert outputs(answer)["value"].shape == (40_000,)


@pytest.mark.parametrize("coding", ["br", "gzip, deflate", "zstd"])
def test_other_codings_are_415(client: Client, coding: str) -> None:
    assert coding in refused(infer(client, "mse", INPUTS, {"content-encoding": coding}), 415)


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("spoil", [lambda b: b[:-5], lambda b: b + b"x", lambda b: b"x" + b, lambda b: b""])
def test_broken_codings_are_400(client: Client, coding: str, spoil: Any) -> None:
    body = spoil(CODERS[coding](orjson.dumps({"inputs": INPUTS})))
    headers = {"content-encoding": coding}
    answer = client.post("/v2/models/cross_entropy/infer", content=body, headers=headers)
    assert coding in refused(answer)


@pytest.mark.parametrize("coding", CODERS)
def test_bombs_end_at_the_limit(coding: str) -> None:
    client = Client(create_app(Settings(device="cpu", max_body_bytes=1_000_000)))
    body = CODERS[coding](bytes(100_000_000))
    with within_cpu_s(2):
        answer = client.post("/v2/models/mse/infer", content=body, headers={"content-encoding": coding})
    assert "LOSSD_MAX_BODY_BYTES" in refused(answer, 413)
    plain = client.post("/v2/models/mse/infer", content=bytes(1_000_001))
    assert "LOSSD_MAX_BODY_BYTES" in refused(plain, 413)


@pytest.mark.parametrize("length", ["-1", "x", "", "1.0", "999999", "9" * 5000, "\u0663", "+5", "0x10", " "])
def test_lengths_of_the_json_that_are_none(client: Client, length: str) -> None:
    body, _ = packed([binary(name, tensor) for name, tensor in CALL.items()], CALL)
    headers = {HEADER: length.encode()}
    answer = client.post("/v2/models/cross_entropy/infer", content=body, headers=headers)
    assert HEADER in refused(answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": None}, f"/inputs/0 logits: Expected the header {HEADER} with a binary input; got none."),
        ({"tail": b"xx"}, "/inputs Expected 20 bytes after the JSON, the sum of binary_data_size; got 22."),
        ({"cut": 3}, "/inputs/1 targets: Expected 8 bytes after the JSON and the inputs before; got 5."),
        ({"size": 8}, "/inputs/0 logits: Expected binary_data_size 12 (FP32 [1, 3]); got 8."),
        ({"size": -1}, "/inputs/0/parameters/binary_data_size Expected a number of bytes; got -1."),
        ({"size": True}, "/inputs/0/parameters/binary_data_size Expected a number of bytes; got true."),
        (
            {"input": {"data": [1, 2, 3]}},
            "/inputs/0 logits: Expected either data or binary_data_size; got both.",
        ),
        ({"input": {"datatype": "BYTES"}}, "/inputs/0/datatype logits: Expected one of BOOL, UINT8"),
        (
            {"input": {"name": "logit"}},
            "/inputs/0/name Expected one of logits, targets, sample_weight, grad_output; got",
        ),
        ({"input": {"name": "targets"}}, "Expected the input targets once"),
        ({"input": {"shape": [1, -3]}}, "/inputs/0/shape logits: Expected a list of integers of at least 0"),
        (
            {"input": {"shape": [True, 3]}},
            "/inputs/0/shape logits: Expected a list of integers of at least 0",
        ),
        ({"input": {"shape": [1e30]}}, "/inputs/0/shape logits: Expected a list of integers of at least 0"),
        ({"input": {"shape": [2**62, 4]}}, "Expected binary_data_size"),
        ({"input": {"shape": [1] * 40}}, "/inputs/0/shape logits: Expected at most 32 dimensions"),
        ({"input": {"shape": None}}, "/inputs/0/shape logits: Expected a list of integers"),
    ],
)
def test_binary_inputs_that_do_not_fit(client: Client, change: dict[str, Any], message: str) -> None:
    inputs = [binary(name, tensor) for name, tensor in CALL.items()]
    if "size" in change:
        inputs[0]["parameters"]["binary_data_size"] = change["size"]
    inputs[0] |= change.get("input", {})
    body, length = packed(inputs, CALL)
    body = body[: len(body) - change.get("cut", 0)] + change.get("tail", b"")
    headers = {HEADER: str(length)} if change.get("length", 0) is not None else {}
    answer = client.post("/v2/models/cross_entropy/infer", content=body, headers=headers)
    assert message in refused(answer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": None}, "/inputs Expected an array of inputs; got nothing."),
        ({"inputs": {}}, "/inputs Expected an array of inputs; got {}."),
        (
            {"inputs": []},
            "/inputs logits: Expected a tensor; got nothing. /inputs targets: Expected a tensor",
        ),
        ({"inputs": [1]}, "/inputs/0 Expected an object; got 1."),
        ({"inputs": [*INPUTS, INPUTS[0]]}, "/inputs/2/name Expected the input logits once; got it again."),
        (
            {"inputs": [{}]},
            "/inputs/0/name Expected one of logits, targets, sample_weight, grad_output; got nothing.",
        ),
        ({"inputs": [{**INPUTS[0], "data": None}, INPUTS[1]]}, "/inputs/0/data logits: Expected data, or"),
        ({"inputs": [INPUTS[0], {**INPUTS[1], "data": [0.5]}]}, "targets: Expected integers from -92"),
        ({"inputs": [INPUTS[0], {**INPUTS[1], "datatype": "INT8", "data": [300]}]}, "got 300 at element 0"),
        ({"inputs": [INPUTS[0], {**INPUTS[1], "datatype": "UINT8", "data": [-1]}]}, "got -1 at element 0"),
        ({"inputs": [INPUTS[0], {**INPUTS[1], "datatype": "BOOL", "data": [2]}]}, "got 2 at element 0"),
        (
            {"inputs": [INPUTS[0], {**INPUTS[1], "data": [3]}]},
            "/inputs/1 targets: Expected integers from 0 to C - 1",
        ),
        ({"inputs": [INPUTS[0], {**INPUTS[1], "shape": [1, 1]}]}, "Expected dimensions"),
        ({"inputs": INPUTS, "outputs": {}}, "/outputs Expected an array of outputs; got {}."),
        ({"inputs": INPUTS, "outputs": [1]}, "/outputs/0 Expected an object; got 1."),
        (
            {"inputs": INPUTS, "outputs": [{"name": "values"}]},
            "/outputs/0/name Expected one of value, grad.logits",
        ),
        (
            {"inputs": INPUTS, "outputs": [{"name": "value"}] * 2},
            "/outputs/1/name Expected the output value once",
        ),
        ({"inputs": INPUTS, "outputs": [{"name": "grad.targets"}]}, "/outputs/0 Expected one of logits"),
        ({"inputs": INPUTS, "outputs": [{"name": "value", "parameters": {"binary_data": 1}}]}, "got 1."),
        ({"inputs": INPUTS, "parameters": []}, "/parameters Expected an object; got []."),
        ({"inputs": INPUTS, "parameters": {"reductoin": 1}}, "/parameters/reductoin Expected one of"),
        (
            {"inputs": INPUTS, "parameters": {"reduction": "max"}},
            '/parameters/reduction Expected "mean" or "sum"',
        ),
        (
            {"inputs": INPUTS, "parameters": {"gradients": "x"}},
            "/parameters/gradients Expected one of logits; got 'x'.",
        ),
        ({"inputs": INPUTS, "parameters": {"gradients": 1}}, "/parameters/gradients Expected true, false or"),
        ({"inputs": INPUTS, "parameters": {"dtype": "int8"}}, '/parameters/dtype Expected "float32"'),
        (
            {"inputs": INPUTS, "parameters": {"timeout": -1}},
            "/parameters/timeout Expected a number of microseconds",
        ),
        (
            {"inputs": INPUTS, "parameters": {"label_smoothing": 2}},
            "/parameters/label_smoothing Expected a number",
        ),
        (
            {"inputs": INPUTS, "parameters": {"weight": "[1, x]"}},
            "/parameters/weight Expected a list of numbers",
        ),
        (
            {"inputs": INPUTS, "parameters": {"weight": "[1]"}},
            "/parameters/weight Expected a list of dimensions [C]",
        ),
        ({"inputs": INPUTS, "id": 3}, "/id Expected a string; got 3."),
    ],
)
def test_requests_that_do_not_fit(client: Client, fields: dict[str, Any], message: str) -> None:
    sent = {name: value for name, value in fields.items() if value is not None}
    answer = client.post("/v2/models/cross_entropy/infer", content=orjson.dumps(sent))
    assert message in refused(answer)


@pytest.mark.parametrize(
    "body", [b"", b"[", b"\xff", b"[]", b"3", b"null", b'{"inputs": NaN}', b"[" * 100_000]
)
def test_bodies_that_are_no_request(client: Client, body: bytes) -> None:
    assert refused(client.post("/v2/models/mse/infer", content=body))


def test_unknown_members_are_ignored(client: Client) -> None:
    inputs = [{**item, "x": [[1], 2]} for item in INPUTS]
    assert infer(client, "cross_entropy", inputs, x=[1, [2]], y={}).status_code == 200


def test_all_faults_are_told_and_the_text_holds_the_first(client: Client) -> None:
    inputs = [{"name": f"x{place}"} for place in range(8)]
    answer = infer(client, "cross_entropy", inputs)
    assert refused(answer).endswith("And 5 more.")
    assert len(answer.json()["errors"]) == 10


def test_a_timeout_is_a_deadline(client: Client) -> None:
    tensors = {"embeddings": torch.ones(1024, 64), "targets": torch.arange(1024) % 8}
    answer = infer_binary(client, "batch_all_triplet", tensors, parameters={"timeout": 1})
    assert "Expected an answer within" in refused(answer, 504)
    assert infer(client, "cross_entropy", INPUTS, parameters={"timeout": 0}).status_code == 200


def test_a_full_queue_is_429() -> None:
    app = create_app(Settings(device="cpu", max_queue=1))

    async def while_one_is_accepted() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://lossd") as http:
            big = torch.zeros(1000, 1000)
            inputs = {"predictions": big, "targets": big}
            body, length = packed([binary(n, t) for n, t in inputs.items()], inputs)
            path = "/v2/models/mse/infer"
            first = asyncio.create_task(http.post(path, content=body, headers={HEADER: str(length)}))
            await asyncio.sleep(0)
            answer = await http.post(path, content=b"{}")
            while answer.status_code != 429 and not first.done():
                await asyncio.sleep(0)
                answer = await http.post(path, content=b"{}")
            await first
            return answer

    answer = asyncio.run(while_one_is_accepted())
    assert "LOSSD_MAX_QUEUE" in refused(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1


def test_answers_carry_id_and_timing(client: Client) -> None:
    for answer in (
        infer(client, "cross_entropy", INPUTS, {"x-request-id": "mine"}),
        infer(client, "cross_entropy", [], {"x-request-id": "mine"}),
    ):
        assert answer.headers["x-request-id"] == "mine"
        assert "decode;dur=" in answer.headers["server-timing"]
