"""Nothing of a request stays: no cache without a bound holds values from clients, in any field."""

import asyncio
import gc
import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson
import pytest
from starlette.types import ASGIApp, Message, Scope

from service.app import create_app
from service.settings import Settings

LENGTH = 200_000
"""Characters of a made-up value."""
TIMES = 8
MOST_KEPT = LENGTH
"""Bytes that may be there after all of them: far less than one copy of each."""

INPUTS = {"predictions": [1, 2], "targets": [0, 0]}
ITEM = {"loss": "mse", "inputs": INPUTS}
HEADERS = (
    "x-request-id",
    "traceparent",
    "request-timeout",
    "content-type",
    "accept-encoding",
    "authorization",
)


class Ask(NamedTuple):
    """A request."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012


def call(**fields: Any) -> Ask:
    return Ask("POST", "/v1/losses/mse", {"inputs": INPUTS, **fields})


def batch(item: dict[str, Any], **fields: Any) -> Ask:
    return Ask("POST", "/v1/batch", {"items": [item, item], **fields})


def line(item: dict[str, Any]) -> Ask:
    return Ask("POST", "/v1/batch", item, {"content-type": "application/x-ndjson"})


def infer(**fields: Any) -> Ask:
    inputs = [{"name": n, "shape": [2], "datatype": "FP32", "data": v} for n, v in INPUTS.items()]
    return Ask("POST", "/v2/models/mse/infer", {"inputs": inputs, **fields})


def names(value: str) -> list[str]:
    """Return a long list of names that nobody else has."""
    return [f"{value[:8]}{place}" for place in range(len(value) // 16)]


FIELDS: dict[str, Callable[[str], Ask]] = {
    "an input's name": lambda v: call(inputs={v: [1]}),
    "an input": lambda v: call(inputs={"predictions": v, "targets": v}),
    "a packed input": lambda v: call(inputs={**INPUTS, "targets": {"dtype": v, "shape": [1], "data": v}}),
    "a shape": lambda v: call(inputs={**INPUTS, "targets": {"dtype": "bool", "shape": names(v), "data": ""}}),
    "a field's name": lambda v: call(**{v: 1}),
    "a param's name": lambda v: call(params={v: 1}),
    "a param": lambda v: Ask("POST", "/v1/losses/huber", {"inputs": INPUTS, "params": {"delta": v}}),
    "a list of a param": lambda v: Ask(
        "POST",
        "/v1/losses/cross_entropy",
        {"inputs": {"logits": [[1, 2]], "targets": [0]}, "params": {"weight": names(v)}},
    ),
    "gradients": lambda v: call(gradients=v),
    "a gradient": lambda v: call(gradients=[v]),
    "a list of gradients": lambda v: call(gradients=names(v)),
    "some gradients": lambda v: call(gradients=[v[:5000] + str(place) for place in range(30)]),
    "a reduction": lambda v: call(reduction=v),
    "a dtype": lambda v: call(dtype=v),
    "an encoding": lambda v: call(encoding=v),
    "a weight": lambda v: call(sample_weight=v),
    "a tensor": lambda v: call(inputs={name: list(map(ord, v)) for name in INPUTS}),
    "an id": lambda v: batch({**ITEM, "id": v}),
    "a loss": lambda v: batch({**ITEM, "loss": v}),
    "a short loss": lambda v: batch({**ITEM, "loss": v[:7000]}),
    "a default loss": lambda v: batch({"inputs": INPUTS}, defaults={"loss": v}),
    "a default param": lambda v: batch(ITEM, defaults={"params": {v: v}}),
    "a default gradient": lambda v: batch(ITEM, defaults={"gradients": [v]}),
    "an item's option": lambda v: batch({**ITEM, "reduction": v[:7000]}),
    "an item's params": lambda v: batch({**ITEM, "params": {v[:7000]: 1}}),
    "a line": lambda v: line({**ITEM, "id": v, "loss": v, "params": {v: v}, "gradients": names(v)}),
    "a line's loss": lambda v: line({**ITEM, "loss": v}),
    "an inference's id": lambda v: infer(id=v),
    "an inference's parameters": lambda v: infer(parameters={v: v, "gradients": v, "dtype": v}),
    "an inference's output": lambda v: infer(outputs=[{"name": v, "parameters": {v: v}}]),
    "an inference's input": lambda v: infer(
        inputs=[{"name": v, "datatype": v, "shape": names(v), "data": v}]
    ),
    "a path": lambda v: Ask("GET", f"/v1/losses/{v[:8000]}"),
    "a model": lambda v: Ask("POST", f"/v2/models/{v[:8000]}/infer"),
    "a query": lambda v: Ask("GET", f"/v1/losses?q={v[:8000]}&task={v[:8000]}"),
    "another path": lambda v: Ask("GET", f"/{v[:8000]}"),
    "another method": lambda v: Ask(v[:8000], "/v1/losses/mse"),
    **{
        name: lambda v, name=name: Ask("POST", "/v1/losses/mse", {"inputs": INPUTS}, {name: v[:8000]})
        for name in HEADERS
    },
}


@pytest.fixture(scope="module")
def app() -> Iterator[ASGIApp]:
    """An application whose every allocation is known from its begin."""
    tracemalloc.start()
    yield create_app(Settings(device="cpu"))
    tracemalloc.stop()


async def answered(app: ASGIApp, ask: Ask) -> int:
    """Send a request as a server would, since clients remember addresses; return the status of its answer."""
    path, _, query = ask.path.partition("?")
    body = b"" if ask.body is None else ask.body
    body = body if isinstance(body, bytes) else orjson.dumps(body) + b"\n"
    headers = {"content-type": "application/json", "content-length": str(len(body)), **ask.headers}
    scope: Scope = {
        "type": "http",
        "method": ask.method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    status = asyncio.Future[int]()
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> Message:
        for message in messages:
            return message
        await asyncio.Event().wait()
        return {}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            status.set_result(message["status"])

    await app(scope, receive, send)
    return status.result()


@pytest.mark.parametrize("field", FIELDS)
def test_memory_returns_whatever_is_made_up(app: ASGIApp, field: str) -> None:
    async def send(first: int) -> int:
        for place in range(first, first + TIMES):
            begin = f"{place:x}".rjust(6, "z")
            assert await answered(app, FIELDS[field](begin * (LENGTH // len(begin)))) < 500
        # finished requests are buffered until the metrics are scraped
        assert await answered(app, Ask("GET", "/metrics")) == 200
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def grown() -> int:
        await send(0)
        before = await send(TIMES)
        return await send(2 * TIMES) - before

    assert asyncio.run(grown()) < MOST_KEPT


LARGE = 4_000_000
"""Bytes of a body that is read in a thread."""
GZIP = {"content-encoding": "gzip"}
REFUSED: dict[str, Ask] = {
    f"{name} by {path}{' in gzip' if headers else ''}": Ask(
        "POST", path, gzip.compress(text, 1) if headers else text, headers
    )
    for name, text in {
        "blanks": b" " * LARGE,
        "no JSON": b'{"inputs":{"predictions":[' + b"1," * (LARGE // 2) + b"]}}",
        "no inputs": b'{"inputs":{"predictions":[' + b"1," * (LARGE // 2) + b'[1]],"targets":[1]}}',
    }.items()
    for path in ("/v1/losses/mse", "/v1/batch", "/v2/models/mse/infer")
    for headers in ({}, GZIP)
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_body_is_freed_at_once(app: ASGIApp, name: str) -> None:
    """Not when the garbage collector runs, which counts objects, not bytes."""

    async def kept() -> int:
        assert 400 <= await answered(app, REFUSED[name]) < 500
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        assert 400 <= await answered(app, REFUSED[name]) < 500
        # a thread lets go of what it has run a moment later
        await asyncio.sleep(0.1)
        return tracemalloc.get_traced_memory()[0] - before

    gc.disable()
    try:
        assert asyncio.run(kept()) < LARGE // 10
    finally:
        gc.enable()
