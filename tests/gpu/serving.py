"""Serve on the pretended device, and print as JSON which device computed each call; run it as a separate process."""

import asyncio
import json
from typing import Any
from unittest import mock

import torch

from service.app import create_app
from service.engine import device as devices
from service.settings import Settings
from tests.client import Client, running
from tests.gpu import pretend

NEAR = 1 << 10
"""Units of work up to which the CPU computes."""


def errors(size: int) -> dict[str, Any]:
    """Return a call with a few units of work for each element."""
    numbers = torch.randn(2, size, generator=torch.Generator().manual_seed(size)).tolist()
    return {"inputs": {"predictions": numbers[0], "targets": numbers[1]}}


def composed(size: int) -> dict[str, Any]:
    """Return a composition whose loss is large, and whose penalty is an expression."""
    inputs = {"predictions": "2 * predictions", "targets": "targets"}
    terms = {"error": {"loss": "mse", "inputs": inputs}, "l2": {"expression": "mean(predictions ** 2)"}}
    return {**errors(size), "terms": terms, "total": "error * 2 + l2"}


async def ask() -> dict[str, Any]:
    """Send small and large calls, alone and together, through each door."""
    there = Client(create_app(Settings(device="auto")))
    here = Client(create_app(Settings(device="cpu")))
    found: dict[str, Any] = {}
    async with running(there.app), running(here.app):
        for client in (there, here):
            while (await client.ask("GET", "/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        for what, path, body in requests():
            answers = [(await client.ask("POST", path, json=body)).json() for client in (there, here)]
            found[what] = [[(one.get("device"), one["value"]) for one in items(answer)] for answer in answers]
    return found


def requests() -> list[tuple[str, str, Any]]:
    """Return the path and the body of each request."""
    mask = (torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    of_mask = {
        "inputs": {"logits": (mask - 0.3).tolist(), "targets": mask.tolist()},
        "params": {"mode": "binary"},
    }
    batch = [{"loss": "mse", **errors(100)} for _ in range(30)]
    return [
        ("small", "/v1/losses/mse", errors(100)),
        ("large", "/v1/losses/mse", errors(2000)),
        ("larger than is read on the loop", "/v1/losses/mse", errors(60000)),
        ("a few together", "/v1/batch", {"items": batch[:3]}),
        ("many together", "/v1/batch", {"items": batch}),
        (
            "few and large together",
            "/v1/batch",
            {"items": [{"loss": "mse", **errors(40000)}] * 2 + batch[:2]},
        ),
        ("distances of contours", "/v1/losses/boundary", of_mask),
        ("a composition", "/v1/compose", composed(2000)),
        ("compositions together", "/v1/batch", {"items": [composed(2000)] * 3}),
    ]


def items(answer: Any) -> list[Any]:
    """Return the results in an answer."""
    return answer.get("results", [answer])


def main() -> None:
    """Print the devices as JSON."""
    device, _ = pretend.install()

    def choose(name: str, worker: int = 0) -> torch.device:
        return torch.device("cpu") if name == "cpu" else device

    def near_work(device: torch.device, losses: Any) -> int:
        return NEAR

    with mock.patch.object(devices, "choose", choose), mock.patch.object(devices, "near_work", near_work):
        print(json.dumps(asyncio.run(ask())))


if __name__ == "__main__":
    main()
