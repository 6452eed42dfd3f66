"""The limit of work: on every door, calls over it are refused before they are computed."""

from typing import Any

import httpx
import orjson
import pytest
import torch

from service.app import create_app
from service.doors.stream import MEDIA
from service.settings import Settings
from tests.client import Client
from tests.infer import infer_binary

LIMIT = 30_000
ROWS = {"few": 8, "many": 256, "more": 4096}
"""Rows of 2 numbers: the pairs of many are over the limit in a small body, those of more in a large one."""


@pytest.fixture(scope="module")
def client() -> Client:
    return Client(create_app(Settings(device="cpu", max_work=LIMIT)))


def item(rows: int, loss: str = "clip") -> dict[str, Any]:
    views = torch.ones(rows, 2).tolist()
    return {"loss": loss, "inputs": {"anchor": views, "positive": views}}


def refusal(rows: int) -> str:
    return (
        f"Expected at most {LIMIT} elements of work (LOSSD_MAX_WORK); "
        f"got inputs for which clip is estimated to take {8 * rows + rows * rows}."
    )


def assert_refused(problem: dict[str, Any], rows: int) -> None:
    assert problem["type"] == "urn:lossd:problem:too-large"
    assert problem["detail"] == refusal(rows)
    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [("/inputs", "work")]


@pytest.mark.parametrize("rows", [ROWS["many"], ROWS["more"]])
def test_a_call_of_one_loss_is_413(client: Client, rows: int) -> None:
    for _ in range(2):
        answer = client.evaluate("clip", inputs=item(rows)["inputs"])
        assert answer.status_code == 413
        assert_refused(answer.json(), rows)


@pytest.mark.parametrize("rows", [ROWS["many"], ROWS["more"]])
def test_an_inference_is_413_in_the_form_of_its_protocol(client: Client, rows: int) -> None:
    views = torch.ones(rows, 2)
    answer = infer_binary(client, "clip", {"anchor": views, "positive": views})
    assert answer.status_code == 413
    assert refusal(rows) in answer.json()["error"]


@pytest.mark.parametrize("copies", [1, 3])
def test_items_of_a_batch_are_refused_alone(client: Client, copies: int) -> None:
    items = [item(ROWS["few"]), *[item(ROWS["many"])] * copies, item(ROWS["few"])]
    answer = client.post("/v1/batch", json={"items": items})
    assert answer.status_code == 200
    first, *refused, last = answer.json()["results"]
    assert first["value"] == last["value"]
    for result in refused:
        assert_refused(result["error"], ROWS["many"])


def test_lines_of_a_stream_are_refused_alone(client: Client) -> None:
    lines = [item(ROWS["few"]), item(ROWS["many"]), item(ROWS["few"])]
    body = b"\n".join(map(orjson.dumps, lines))
    answer: httpx.Response = client.post("/v1/batch", content=body, headers={"content-type": MEDIA})
    first, refused, last = map(orjson.loads, answer.content.splitlines())
    assert first["status"] == last["status"] == "ok"
    assert_refused(refused["error"], ROWS["many"])


def test_what_is_within_the_limit_is_computed(client: Client) -> None:
    assert client.evaluate("clip", inputs=item(ROWS["few"])["inputs"]).status_code == 200
