"""Nobody stops the others: each kind of work has its lane, and all of it ends and is given back when it should."""

import asyncio
import os
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from service.admission import keys
from service.app import create_app
from service.settings import Settings
from tests.client import Client
from tests.doors.waits import BEGUN, ENDED, GO_ON, QUICK, SLOW, catalogue

MSE = {"inputs": {"predictions": [1], "targets": [3]}}
MEDIUM = {"inputs": {"predictions": [0.5] * 20_000, "targets": [1] * 20_000}}
THREADS = os.cpu_count() or 1
LATE = {"request-timeout": "0.2"}


def app(**settings: Any) -> ASGIApp:
    return create_app(Settings(device="cpu", **settings), catalogue())


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Generator[None]:
    """Let all that works end after a test."""
    GO_ON.clear()
    yield
    GO_ON.set()
    for semaphore in (BEGUN, ENDED):
        while semaphore.acquire(blocking=False):
            pass


def waiting(units: int) -> dict[str, Any]:
    return {"inputs": {"predictions": [1]}, "params": {"units": units}}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


async def begun(count: int = 1) -> None:
    """Wait until so many calls are worked on."""
    for _ in range(count):
        assert await asyncio.to_thread(BEGUN.acquire, timeout=30)


async def ended() -> None:
    """Wait until a call is worked on no more."""
    assert await asyncio.to_thread(ENDED.acquire, timeout=30)


def post(client: Client, loss: str, body: Any, **headers: str) -> asyncio.Task[httpx.Response]:
    return asyncio.ensure_future(client.ask("POST", f"/v1/losses/{loss}", json=body, headers=headers))


async def is_answered(client: Client, body: Any) -> None:
    answer = await post(client, "mse", body)
    assert answer.status_code == 200, answer.text


def test_others_are_answered_while_all_slow_threads_work() -> None:
    async def test() -> None:
        client = Client(app())
        slow = [post(client, "stubborn", waiting(SLOW)) for _ in range(2 * THREADS)]
        await begun(THREADS)
        for body in (MSE, MEDIUM):
            await is_answered(client, body)
        batch = await client.ask("POST", "/v1/batch", json={"items": [{"loss": "mse", **MSE}]})
        assert batch.json()["succeeded"] == 1
        GO_ON.set()
        assert {answer.status_code for answer in await asyncio.gather(*slow)} == {200}

    run(test())


def test_small_calls_are_answered_while_all_threads_work() -> None:
    async def test() -> None:
        client = Client(app())
        busy = [post(client, "stubborn", waiting(units)) for units in (QUICK, SLOW) for _ in range(THREADS)]
        await begun(2 * THREADS)
        await is_answered(client, MSE)
        GO_ON.set()
        await asyncio.gather(*busy)

    run(test())


@pytest.mark.parametrize("door", ["evaluate", "batch", "stream", "infer"])
def test_what_takes_long_does_not_fill_the_quick_lane_whatever_door_it_comes_by(door: str) -> None:
    """Small in bytes, it is only seen to take long once it is read."""

    def ask(client: Client) -> Coroutine[Any, Any, httpx.Response]:
        item = {"loss": "stubborn", **waiting(SLOW)}
        if door == "evaluate":
            return client.ask("POST", "/v1/losses/stubborn", json=waiting(SLOW))
        if door == "batch":
            return client.ask("POST", "/v1/batch", json={"items": [item]})
        if door == "stream":
            headers = {"content-type": "application/x-ndjson"}
            return client.ask(
                "POST",
                "/v1/batch",
                content=httpx.Request("POST", "http://x", json=item).content,
                headers=headers,
            )
        tensor = {"name": "predictions", "shape": [1], "datatype": "FP32", "data": [1]}
        body = {"inputs": [tensor], "parameters": {"units": SLOW}}
        return client.ask("POST", "/v2/models/stubborn/infer", json=body)

    async def test() -> None:
        client = Client(app())
        slow = [asyncio.ensure_future(ask(client)) for _ in range(2 * THREADS)]
        await begun(THREADS)
        await is_answered(client, MEDIUM)
        GO_ON.set()
        assert {answer.status_code for answer in await asyncio.gather(*slow)} == {200}

    run(test())


def test_a_loop_ends_when_its_deadline_has_passed() -> None:
    async def test() -> None:
        client = Client(app())
        calls = [post(client, "endless", waiting(SLOW), **LATE) for _ in range(2)]
        await begun(2)
        await is_answered(client, MSE)
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {504}
        for _ in calls:
            await ended()

    run(test())


def test_a_loop_of_a_batch_or_an_inference_ends_too() -> None:
    async def test() -> None:
        client = Client(app())
        item = {"loss": "endless", **waiting(SLOW)}
        answer = await client.ask("POST", "/v1/batch", json={"items": [item]}, headers=LATE)
        assert answer.status_code == 504
        await ended()
        tensor = {"name": "predictions", "shape": [1], "datatype": "FP32", "data": [1]}
        body = {"inputs": [tensor], "parameters": {"timeout": 200_000, "units": SLOW}}
        assert (await client.ask("POST", "/v2/models/endless/infer", json=body)).status_code == 504
        await ended()

    run(test())


def test_a_loop_ends_when_its_client_has_left() -> None:
    async def test() -> None:
        client = Client(app())
        call = post(client, "endless", waiting(SLOW))
        await begun()
        call.cancel()
        await ended()

    run(test())


def test_a_key_has_its_place_back_when_its_work_has_ended_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    one, other = keys.new(path, "one"), keys.new(path, "other")

    async def test() -> None:
        client = Client(app(api_keys_file=path, key_concurrency=1))
        late = await post(client, "stubborn", waiting(SLOW), **LATE, **{"x-api-key": one})
        assert late.status_code == 504
        refused = await post(client, "mse", MSE, **{"x-api-key": one})
        assert (refused.status_code, "with this key" in refused.json()["detail"]) == (429, True)
        assert (await post(client, "mse", MSE, **{"x-api-key": other})).status_code == 200
        GO_ON.set()
        await ended()
        while (await post(client, "mse", MSE, **{"x-api-key": one})).status_code != 200:
            await asyncio.sleep(0.01)

    run(test())


def test_a_place_in_the_queue_is_given_back_when_the_work_has_ended_and_not_before() -> None:
    async def test() -> None:
        client = Client(app(max_queue=1))
        assert (await post(client, "stubborn", waiting(SLOW), **LATE)).status_code == 504
        assert (await post(client, "mse", MSE)).status_code == 429
        GO_ON.set()
        await ended()
        while (await post(client, "mse", MSE)).status_code != 200:
            await asyncio.sleep(0.01)

    run(test())


def test_what_no_thread_has_begun_is_given_back_at_once() -> None:
    async def test() -> None:
        client = Client(app(max_queue=THREADS + 1))
        slow = [post(client, "stubborn", waiting(SLOW)) for _ in range(THREADS)]
        await begun(THREADS)
        assert (await post(client, "stubborn", waiting(SLOW), **LATE)).status_code == 504
        await is_answered(client, MSE)
        GO_ON.set()
        await asyncio.gather(*slow)

    run(test())


def test_two_applications_in_one_process_do_not_share_their_threads_or_places() -> None:
    async def test() -> None:
        busy, free = Client(app(max_queue=1)), Client(app(max_queue=1))
        call = post(busy, "stubborn", waiting(SLOW))
        await begun()
        assert (await post(busy, "mse", MSE)).status_code == 429
        await is_answered(free, MSE)
        GO_ON.set()
        await call

    run(test())
