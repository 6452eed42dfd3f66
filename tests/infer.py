"""Requests of the Open Inference Protocol as its clients write them, and their answers as tensors."""

from collections.abc import Mapping
from math import prod
from typing import Any

import httpx
import orjson
import torch
from torch import Tensor

from service.wire.inference.datatypes import DATATYPES, NAMES
from service.wire.inference.inputs import HEADER
from service.wire.written import raw_bytes
from tests.client import Client

PLAIN = {"accept-encoding": "identity"}


def infer(
    client: Client, model: str, inputs: list[Any], headers: Any = None, **fields: Any
) -> httpx.Response:
    """Ask a model by JSON alone."""
    body = orjson.dumps({"inputs": inputs, **fields})
    return client.post(f"/v2/models/{model}/infer", content=body, headers=PLAIN | (headers or {}))


def infer_binary(
    client: Client, model: str, tensors: Mapping[str, Tensor], headers: Any = None, **fields: Any
) -> httpx.Response:
    """Ask a model with tensors as bytes after the JSON."""
    body, length = packed([binary(name, tensor) for name, tensor in tensors.items()], tensors, **fields)
    sent = PLAIN | {HEADER: str(length)} | (headers or {})
    return client.post(f"/v2/models/{model}/infer", content=body, headers=sent)


def packed(inputs: list[Any], tensors: Mapping[str, Tensor], **fields: Any) -> tuple[bytes, int]:
    """Return a body, and how many bytes of it are JSON."""
    head = orjson.dumps({"inputs": inputs, **fields})
    return head + b"".join(bytes(raw_bytes(tensor)) for tensor in tensors.values()), len(head)


def binary(name: str, tensor: Tensor) -> dict[str, Any]:
    """Describe an input whose bytes lie behind the JSON."""
    return {
        **described(name, tensor),
        "parameters": {"binary_data_size": tensor.numel() * tensor.dtype.itemsize},
    }


def as_json(name: str, tensor: Tensor) -> dict[str, Any]:
    """Describe an input with its numbers, flat."""
    return {**described(name, tensor), "data": tensor.reshape(-1).tolist()}


def described(name: str, tensor: Tensor) -> dict[str, Any]:
    return {"name": name, "shape": list(tensor.shape), "datatype": NAMES[tensor.dtype]}


def outputs(answer: httpx.Response) -> dict[str, Tensor]:
    """Return the tensors of an answer by name, in its order."""
    assert answer.status_code == 200, answer.text
    body = answer.content
    split = int(answer.headers.get(HEADER, len(body)))
    found: dict[str, Tensor] = {}
    for output in orjson.loads(body[:split])["outputs"]:
        dtype, shape = DATATYPES[output["datatype"]], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            numbers = [torch.nan if number is None else number for number in output["data"]]
            tensor = torch.tensor(numbers, dtype=dtype).reshape(shape)
        else:
            assert size == prod(shape) * dtype.itemsize
            piece = bytearray(body[split : split + size])
            split += size
            tensor = (
                torch.frombuffer(piece, dtype=dtype).reshape(shape)
                if size
                else torch.zeros(shape, dtype=dtype)
            )
        found[output["name"]] = tensor
    assert split == len(body)
    return found
