"""Whatever is sent to the inference door is answered, soon, and never with a 500."""

import asyncio
import copy
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from service.wire.inference.inputs import HEADER
from tests.client import Client
from tests.infer import PLAIN, as_json, binary, packed
from tests.waiting import within_cpu_s

PATH = "/v2/models/cross_entropy/infer"
JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 1e308, 2**63, -(2**63), 2**64 - 1, 3),
    *("", "x", "logits", "FP32", "BF16", "value", "grad.targets", "NaN", "\u0000", "[1, 2]", "null"),
    *([], [[]], [1, 2, 3], [None], [True], ["a"], [[1], [2, 3]], [1.5, [2]], {}, {"name": "value"}),
    *([0], [0, 3], [2**40, 2**40, 0], [-1], [1] * 40, {"binary_data_size": 4}, {"binary_data_size": -4}),
]
LENGTHS = ["0", "1", "-5", "9999999999", "99999999999999999999", "1e3", "", "NaN", "10, 20"]


def requests(rounds: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Yield requests with a few things in each turned into others."""
    rng = random.Random(0)
    tensors = {"logits": torch.randn(2, 3), "targets": torch.tensor([0, 2]), "sample_weight": torch.ones(2)}
    asked = [{"name": "value", "parameters": {"binary_data": True}}, {"name": "grad.logits"}]
    parameters = {"reduction": "sum", "label_smoothing": 0.1, "weight": "[1, 2, 3]", "gradients": "logits"}
    for _ in range(rounds):
        described: list[Any] = [
            rng.choice([binary, as_json])(name, tensor) for name, tensor in tensors.items()
        ]
        document: dict[str, Any] = {
            "id": "a",
            "parameters": dict(parameters),
            "inputs": described,
            "outputs": copy.deepcopy(asked),
        }
        for _ in range(rng.randint(0, 2)):
            _spoil(rng, document)
        behind = {
            name: tensors[name]
            for item in described
            if isinstance(item, dict) and "data" not in item and (name := str(item.get("name"))) in tensors
        }
        body, length = packed(document.pop("inputs", []), behind, **document)
        body = body[: rng.choice([len(body)] * 4 + [length, len(body) - 3])] + rng.choice(
            [b""] * 6 + [b"\xff"]
        )
        yield body, {HEADER: rng.choice([str(length)] * 12 + LENGTHS)} if rng.random() < 0.9 else {}


def _spoil(rng: random.Random, node: Any) -> None:
    """Replace, remove or repeat something, somewhere below a node."""
    while isinstance(node, dict | list) and node:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        if rng.random() < 0.3 or not isinstance(node[key], dict | list):
            if rng.random() < 0.2:
                del node[key]
            elif isinstance(node, list) and rng.random() < 0.2:
                node.append(copy.deepcopy(node[key]))
            else:
                node[key] = copy.deepcopy(rng.choice(JUNK))
            return
        node = node[key]


def test_spoilt_requests_are_answered_or_refused(client: Client) -> None:
    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://lossd") as http:
            found: list[int] = []
            for body, headers in requests(3000):
                answer = await http.post(PATH, content=body, headers=PLAIN | headers)
                assert answer.status_code in (200, 400), (body, headers, answer.text)
                if answer.status_code == 400:
                    assert answer.json()["error"]
                found.append(answer.status_code)
            return found

    found = asyncio.run(statuses())
    assert found.count(200) > 300
    assert found.count(400) > 300


MANY = 10**6
LARGE: dict[str, bytes] = {
    "a million inputs": b'{"inputs": [' + b",".join([b'{"name":"a"}'] * MANY) + b"]}",
    "a million numbers for inputs": b'{"inputs": [' + b",".join([b"1"] * MANY) + b"]}",
    "a million outputs": b'{"inputs": [], "outputs": [' + b",".join([b'{"name":"value"}'] * MANY) + b"]}",
    "a million parameters": b'{"inputs": [], "parameters": {'
    + b",".join(b'"triton_%d":1' % n for n in range(MANY // 2))
    + b"}}",
    "a million sizes": b'{"inputs": [{"name": "logits", "datatype": "FP32", "shape": ['
    + b",".join([b"1"] * MANY)
    + b"]}]}",
    "deep data": b'{"inputs": [{"name": "logits", "datatype": "FP32", "shape": [1], "data": '
    + b"[" * 900
    + b"1"
    + b"]" * 900
    + b"}]}",
    "a million quotes and a NaN": b'{"inputs": [' + b",".join([b'"a"'] * MANY) + b", NaN]}",
    "a million NaN": b'{"inputs": [{"name": "logits", "datatype": "FP32", "shape": [3], "data": ['
    + b",".join([b"NaN"] * MANY)
    + b"]}]}",
    "a million digits": b'{"inputs": [{"name": "targets", "datatype": "INT64", "shape": [1], "data": ['
    + b"9" * MANY
    + b"]}]}",
    "a parameter of a million digits": b'{"inputs": [], "parameters": {"label_smoothing": "'
    + b"9" * MANY
    + b'"}}',
    "a million backslashes": b'{"id": NaN, "inputs": "' + b"\\" * MANY + b'"}',
    "names of a megabyte": b'{"inputs": [{"name": "'
    + b"a" * MANY
    + b'"}], "outputs": [{"name": "'
    + b"b" * MANY
    + b'"}]}',
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_large_nonsense_is_refused_soon(client: Client, body: bytes) -> None:
    with within_cpu_s(5):
        answer = client.post(PATH, content=body, headers=PLAIN)
    assert (answer.status_code, len(answer.content) < 100_000) == (400, True), answer.text[:500]
