"""Every loss answers the same, to the bit, whichever door it is asked through."""

import base64
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
import torch
from torch import Tensor

from service.catalogue.declare import REQUIRED
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs, draw_params
from service.wire import tensors, written
from service.wire.inference.datatypes import NAMES
from service.wire.inference.inputs import HEADER
from tests.client import Client
from tests.conformance.cases import every_loss
from tests.infer import PLAIN, as_json, binary, outputs, packed


@pytest.fixture(scope="module")
def client() -> Client:
    return Client()


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_both_doors_answer_the_same(client: Client, loss: AnyLoss, reduction: str) -> None:
    params = draw_params(loss)
    sent = _single(draw_inputs(loss, params))
    changed = _changed(loss, params)
    native = _native(client, loss, sent, changed, reduction)
    parameters = {**_written(changed), "reduction": reduction, "gradients": True}
    path = f"/v2/models/{loss.name}/infer"

    body = orjson.dumps({"inputs": [as_json(n, t) for n, t in sent.items()], "parameters": parameters})
    _assert_equal(native, outputs(client.post(path, content=body, headers=PLAIN)))

    parameters["binary_data_output"] = True
    body, length = packed([binary(n, t) for n, t in sent.items()], sent, parameters=parameters)
    _assert_equal(native, outputs(client.post(path, content=body, headers=PLAIN | {HEADER: str(length)})))


@every_loss
def test_all_outputs_that_are_listed_can_be_had_at_once(client: Client, loss: AnyLoss) -> None:
    listed = client.get(f"/v2/models/{loss.name}").json()["outputs"]
    params = draw_params(loss)
    body = {
        "inputs": [as_json(name, tensor) for name, tensor in _single(draw_inputs(loss, params)).items()],
        "outputs": [{"name": output["name"]} for output in listed],
        "parameters": _written(_changed(loss, params)),
    }
    answer = client.post(f"/v2/models/{loss.name}/infer", content=orjson.dumps(body), headers=PLAIN)
    datatypes = {output["name"]: output["datatype"] for output in listed}
    assert {name: NAMES[tensor.dtype] for name, tensor in outputs(answer).items()} == datatypes


def _single(drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return floating inputs in float32."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in drawn.items()}


def _changed(loss: AnyLoss, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that differ from their defaults."""
    declared = loss.params
    return {n: v for n, v in params.items() if declared[n].default is REQUIRED or v != declared[n].default}


def _written(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return params as parameters of the protocol."""
    return {n: orjson.dumps(v).decode() if isinstance(v, tuple) else v for n, v in params.items()}


def _native(
    client: Client, loss: AnyLoss, sent: Mapping[str, Tensor], params: Mapping[str, Any], reduction: str
) -> dict[str, Tensor]:
    """Return the native door's answer, under the names of the other."""
    inputs = {
        name: orjson.loads(b"".join(written.parts(written.write(tensor, "base64"))))
        for name, tensor in sent.items()
    }
    fields = {"inputs": inputs, "params": params, "reduction": reduction, "encoding": "base64"}
    answer = client.evaluate(loss.name, **fields)
    assert answer.status_code == 200, answer.text
    evaluation = answer.json()
    value = evaluation["value"]
    return {
        "value": _unpacked(value) if reduction == "none" else torch.tensor([value], dtype=torch.float32),
        **{f"grad.{name}": _unpacked(tensor) for name, tensor in evaluation["gradients"].items()},
        **{f"aux.{name}": _unpacked(tensor) for name, tensor in evaluation.get("aux", {}).items()},
    }


def _unpacked(tensor: Mapping[str, Any]) -> Tensor:
    raw = bytearray(base64.b64decode(tensor["data"]))
    return torch.frombuffer(raw, dtype=tensors.DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def _assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name].nan_to_num(7), other[name].nan_to_num(7)), name
