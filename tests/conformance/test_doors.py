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
from service.wire import tensors
from service.wire.inference.inputs import HEADER
from tests.api.client import Client
from tests.api.infer import PLAIN, as_json, binary, outputs, packed
from tests.conformance.cases import every_loss


@pytest.fixture(scope="module")
def client() -> Client:
    return Client()


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_both_doors_answer_the_same(client: Client, loss: AnyLoss, reduction: str) -> None:
    params = draw_params(loss)
    drawn = draw_inputs(loss, params)
    sent = {n: t.float() if t.is_floating_point() else t for n, t in drawn.items()}
    changed = {
        n: v for n, v in params.items() if loss.params[n].default is REQUIRED or v != loss.params[n].default
    }
    native = _native(client, loss, sent, changed, reduction)
    written = {n: orjson.dumps(v).decode() if isinstance(v, tuple) else v for n, v in changed.items()}
    parameters = {**written, "reduction": reduction, "gradients": True}
    path = f"/v2/models/{loss.name}/infer"

    body = orjson.dumps({"inputs": [as_json(n, t) for n, t in sent.items()], "parameters": parameters})
    _assert_equal(native, outputs(client.post(path, content=body, headers=PLAIN)))

    parameters["binary_data_output"] = True
    body, length = packed([binary(n, t) for n, t in sent.items()], sent, parameters=parameters)
    _assert_equal(native, outputs(client.post(path, content=body, headers=PLAIN | {HEADER: str(length)})))


def _native(
    client: Client, loss: AnyLoss, sent: Mapping[str, Tensor], params: Mapping[str, Any], reduction: str
) -> dict[str, Tensor]:
    """Return what the native door gives, under the names of the other."""
    inputs = {name: tensors.write(tensor, "base64") for name, tensor in sent.items()}
    fields = {"inputs": inputs, "params": params, "reduction": reduction, "encoding": "base64"}
    answer = client.evaluate(loss.name, **fields)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    value = told["value"]
    return {
        "value": _unpacked(value) if reduction == "none" else torch.tensor([value], dtype=torch.float32),
        **{f"grad.{name}": _unpacked(tensor) for name, tensor in told["gradients"].items()},
        **{f"aux.{name}": _unpacked(tensor) for name, tensor in told.get("aux", {}).items()},
    }


def _unpacked(tensor: Mapping[str, Any]) -> Tensor:
    raw = bytearray(base64.b64decode(tensor["data"]))
    return torch.frombuffer(raw, dtype=tensors.DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def _assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name].nan_to_num(7), other[name].nan_to_num(7)), name
