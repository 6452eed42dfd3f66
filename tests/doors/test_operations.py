"""Alive, ready, limits."""

import asyncio

import pytest
from fastapi import FastAPI

from service.admission.account import Account
from service.admission.lifecycle import Lifecycle
from service.admission.problems import answer_problems
from service.app import create_app
from service.doors import operations
from service.settings import LIMITS, Settings
from tests.client import Client, running


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
    settings = Settings(device="cpu", max_body_bytes=1000, max_queue=7, deadline_s=2.5)
    answer = Client(create_app(settings)).get("/v1/limits")
    limits = answer.json()
    assert limits.keys() == set(LIMITS)
    assert limits == {name: getattr(settings, name) for name in LIMITS}
    assert "1000," in answer.text, "whole numbers are written as such"


@pytest.mark.parametrize(
    ("warm", "failed", "ready", "alive"),
    [(True, False, 200, 200), (False, False, 503, 200), (True, True, 503, 503), (False, True, 503, 503)],
)
def test_readiness_fails_while_cold_and_all_health_once_the_device_has_failed(
    warm: bool, failed: bool, ready: int, alive: int
) -> None:
    lifecycle = Lifecycle(Account(1))
    lifecycle.warm, lifecycle.failed = warm, failed
    app = FastAPI()
    app.include_router(operations.operations_routes(lifecycle, Settings()))
    answer_problems(app)
    client = Client(app)
    assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (ready, alive)
