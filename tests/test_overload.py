"""Ten times a server's capacity: it refuses the rest, answers what it has accepted, and recovers at once."""

import asyncio

import httpx
import pytest

from benchmarks import servers
from benchmarks.overload import load

pytestmark = pytest.mark.server
CAPACITY = 8


def test_over_the_capacity_some_are_answered_and_the_rest_refused() -> None:
    with servers.lossd(env={"LOSSD_DEVICE": "cpu", "LOSSD_MAX_QUEUE": str(CAPACITY)}) as server:
        tally = asyncio.run(load(server.url, 10 * CAPACITY, seconds=3))
        call = {"inputs": {"predictions": [1], "targets": [3]}}
        answer = httpx.post(f"{server.url}/v1/losses/mse", json=call)
        assert (answer.status_code, answer.json()["value"]) == (200, 4), "the queue is empty again"
        scraped = httpx.get(f"{server.url}/metrics").text
    assert tally.seconds.keys() == {200, 429}
    assert len(tally.seconds[200]) > CAPACITY
    rejected = next(
        line for line in scraped.splitlines() if line.startswith('lossd_rejected_total{reason="queue"}')
    )
    assert float(rejected.split()[-1]) >= len(tally.seconds[429])


def test_a_refusal_tells_what_to_do() -> None:
    """While the only accepted request is running, the next one gets a Retry-After."""
    head = b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
    with servers.lossd(env={"LOSSD_DEVICE": "cpu", "LOSSD_MAX_QUEUE": "1"}) as server:
        host, port = server.url.removeprefix("http://").split(":")

        async def hold_and_ask() -> httpx.Response:
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head)
            await writer.drain()
            async with httpx.AsyncClient(base_url=server.url) as client:
                client.headers["x-request-id"] = "mine"
                while (answer := await client.post("/v1/losses/mse", json={})).status_code != 429:
                    pass
                assert (await client.get("/healthz")).status_code == 200
            writer.close()
            return answer

        refused = asyncio.run(hold_and_ask())
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-request-id"] == "mine"
    assert "LOSSD_MAX_QUEUE" in refused.json()["detail"]


def test_two_small_requests_that_would_take_minutes_stop_nobody() -> None:
    """They end with their deadline, and the server on SIGTERM."""
    inputs = {"logits": [[[[0.5]], [[0.1]]]], "targets": [[[1]]]}
    long = {"inputs": inputs, "params": {"iterations": 20_000}}
    call = {"inputs": {"predictions": [1], "targets": [3]}}

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            late = [
                client.post("/v1/losses/soft_cldice", json=long, headers={"request-timeout": "0.2"})
                for _ in range(8)
            ]
            waiting = asyncio.gather(*late)
            while not waiting.done():
                assert (await client.post("/v1/losses/mse", json=call)).status_code == 200
            assert {answer.status_code for answer in await waiting} == {504}
            medium = {"inputs": {"predictions": [0.5] * 20_000, "targets": [1] * 20_000}}
            assert (await client.post("/v1/losses/mse", json=medium)).status_code == 200

    # to end it waits for a while only
    with servers.lossd(env={"LOSSD_DEVICE": "cpu"}) as server:
        asyncio.run(ask(server.url))
