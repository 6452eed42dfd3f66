"""Alive, ready, limits."""

import asyncio

from service.app import create_app
from service.settings import Settings
from tests.api.client import Client, running


def test_a_server_is_ready_once_it_is_warm() -> None:
    app = create_app(Settings(device="cpu"))
    client = Client(app)
    assert client.get("/healthz").json() == {"status": "alive"}
    cold = client.get("/readyz")
    assert (cold.status_code, cold.headers["content-type"]) == (503, "application/problem+json")

    async def warmed() -> None:
        async with running(app):
            while (answer := await client.ask("GET", "/readyz")).status_code == 503:
                await asyncio.sleep(0.01)
        assert answer.json() == {"status": "ready"}

    asyncio.run(asyncio.wait_for(warmed(), 60))


def test_limits_stand_under_their_settings_names() -> None:
    client = Client(
        create_app(
            Settings(
                device="cpu",
                max_body_bytes=1000,
                max_queue=7,
                max_batch_items=9,
                max_work=11,
                max_line_bytes=5,
                deadline_s=2.5,
            )
        )
    )
    limits = {
        "max_body_bytes": 1000,
        "max_batch_items": 9,
        "max_work": 11,
        "max_line_bytes": 5,
        "max_queue": 7,
        "deadline_s": 2.5,
    }
    answer = client.get("/v1/limits")
    assert answer.json() == limits
    assert "1000," in answer.text, "whole numbers are written as such"
