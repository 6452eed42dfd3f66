"""No cache grows with what clients send: each has a cap, or only keys that we declare."""

import asyncio
import functools
import gc
import importlib
import pkgutil
import sys
from collections import deque
from typing import Any

import orjson
from starlette.types import Message

import service
from tests.client import Client

DECLARED = {
    "service.catalogue.dims": ("split", "names", "_read"),
    "service.catalogue.search": ("_weights", "_phrases"),
    "service.document.openapi": ("_evaluate_operation", "_request_schemas"),
    "service.document.openapi_metrics": ("_measure_operation", "_schemas"),
    "service.document.problems": ("problems", "errors"),
    "service.document.served": ("document_routes.<locals>.<lambda>",),
    "service.doors.losses": ("catalogue_routes.<locals>.entry",),
    "service.doors.metrics": ("metric_catalogue_routes.<locals>.entry",),
    "service.engine.rowwise": ("as_metric",),
    "service.pages.reference": ("reference_routes.<locals>.<lambda>", "_file"),
    "service.wire.describe": ("entry", "example", "example_inputs"),
    "service.wire.describe_metric": ("metric_entry", "metric_example"),
    "service.wire.inference.metadata": ("model", "config", "outputs_of"),
    "service.wire.listed": ("_adapter",),
    "service.wire.params": ("params_model",),
}
"""Caches without a cap, which are keyed by losses, routes, statuses, and names of keys."""
MOST = 4096
"""The largest cap there is."""


def caches() -> dict[str, Any]:
    """Return all caches of the service that `functools` keeps, by their names."""
    kind = type(functools.cache(lambda: None))
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # starting a server exempts existing objects from garbage collection
    gc.unfreeze()
    found: list[Any] = [thing for thing in gc.get_objects() if type(thing) is kind]
    return {
        f"{cache.__module__}.{cache.__qualname__}": cache
        for cache in found
        if cache.__module__.startswith("service.")
    }


def containers() -> dict[str, int]:
    """Return the lengths of all that can grow among the variables of the service's modules."""
    return {
        f"{name}.{variable}": len(value)
        for name, module in list(sys.modules.items())
        if name.startswith("service.")
        for variable, value in vars(module).items()
        if isinstance(value, (dict, list, set, deque)) and not variable.startswith("__")
    }


def test_every_cache_has_a_cap_or_is_keyed_by_what_is_declared(client: Client) -> None:
    client.get("/openapi.json")
    declared = {f"{module}.{name}" for module, names in DECLARED.items() for name in names}
    unbounded = {name for name, cache in caches().items() if cache.cache_parameters()["maxsize"] is None}
    assert unbounded <= declared
    capped = [
        cache.cache_parameters()["maxsize"] for name, cache in caches().items() if name not in unbounded
    ]
    assert max(capped) <= MOST


def test_what_clients_make_up_makes_nothing_grow_for_good(client: Client) -> None:
    """Each request has a shape, a loss, a param, an id and gradients that no other has.

    Caches outside `functools` are variables of modules, if there are any.
    """

    async def all_of(start: int, count: int) -> None:
        for number in range(start, start + count):
            zeros = [0] * (1 + number // 4)
            body = {"inputs": {"predictions": zeros, "targets": zeros}, "gradients": False}
            odd = {"params": {f"p{number}": number}, "gradients": [f"g{number}"], "id": f"i{number}"}
            item = {"loss": f"l{number}", "inputs": {}, **odd}
            path, document = [
                ("/v1/losses/mse", body),
                ("/v1/losses/mse", {**body, **odd}),
                ("/v1/batch", {"items": [item, {"loss": "mse", **body, "id": number}]}),
                (f"/v2/models/m{number}/infer", {"inputs": [], "id": f"i{number}"}),
            ][number % 4]
            await post(client, path, orjson.dumps(document))

    asyncio.run(all_of(0, 40))
    before = containers()
    asyncio.run(all_of(40, 400))
    assert {name: count for name, count in containers().items() if count > before.get(name, 0)} == {}


async def post(client: Client, path: str, body: bytes) -> None:
    """Send a request as a server does, in a fraction of a client's time."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message: Message) -> None:
        pass

    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await client.app(scope, receive, send)
