"""Print whether memory stays flat: 200,000 mixed requests, then 200 that run out of memory.

``python -m benchmarks.soak [requests]``; the server is warmed up with a tenth of them before memory is measured.
"""

import base64
import http.client
import random
import sys
import time
from math import prod

import orjson

from benchmarks import bodies, servers
from benchmarks.load import resident
from service.losses import CATALOGUE
from service.wire import describe

REQUESTS = 200_000
FAILURES = 200
STEPS = 10


def main(requests: int) -> None:
    """Run the requests, and print the memory on the way."""
    chooser = random.Random(0)
    calls = mixed()
    # admit enough work that the allocator refuses it
    with servers.lossd(env={"LOSSD_MAX_WORK": str(1 << 60)}) as server:
        address = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=60)
        run(connection, calls, requests // STEPS, chooser)
        before = resident(server.process)
        print(f"warm: {before / 1e6:.0f} MB", flush=True)
        start = time.perf_counter()
        for step in range(1, STEPS + 1):
            run(connection, calls, requests // STEPS, chooser)
            rate = step * requests / STEPS / (time.perf_counter() - start)
            now = resident(server.process)
            print(
                f"{step * requests // STEPS:,} requests: {now / 1e6:.0f} MB, {rate:.0f} a second", flush=True
            )
        for count in (FAILURES // 4, FAILURES):
            statuses = fail(connection, count)
            print(f"{count} failures ({statuses}): {resident(server.process) / 1e6:.0f} MB", flush=True)


def mixed() -> list[tuple[str, bytes, int]]:
    """Return calls with their weights: all losses, batches, streams, large bodies, invalid ones."""
    json = "application/json"
    calls = [
        (f"/v1/losses/{loss.name}", json, orjson.dumps(describe.example(loss)), 10)
        for loss in CATALOGUE.values()
    ]
    calls += [
        (bodies.PATH, json, bodies.request(8, 10), 1000),
        (bodies.PATH, json, bodies.packed(32, 10), 300),
        (bodies.PATH, json, bodies.request(256, 100), 60),
        (bodies.PATH, json, bodies.request(512, 500), 2),
        ("/v1/batch", json, bodies.batch(20), 60),
        ("/v1/batch", "application/x-ndjson", bodies.line() * 20, 60),
        (bodies.PATH, json, b'{"inputs": {"logits": [[1, 2], [3]], "targets": [0, 7]}}', 200),
        (bodies.PATH, json, b"{", 100),
        ("/v1/losses/nope", json, b"{}", 100),
        ("/v2/models/mse/infer", json, INFERENCE, 300),
    ]
    return [(f"{path}\n{media}", body, weight) for path, media, body, weight in calls]


INFERENCE = orjson.dumps(
    {
        "inputs": [
            {"name": name, "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}
            for name in ("predictions", "targets")
        ]
    }
)


def run(
    connection: http.client.HTTPConnection,
    calls: list[tuple[str, bytes, int]],
    count: int,
    chooser: random.Random,
) -> None:
    """Make a number of calls, drawn by their weights."""
    for target, body, _ in chooser.choices(calls, [weight for _, _, weight in calls], k=count):
        path, media = target.split("\n")
        connection.request("POST", path, body, {"content-type": media})
        answer = connection.getresponse()
        answer.read()
        assert answer.status < 500, (path, answer.status)


def fail(connection: http.client.HTTPConnection, count: int) -> dict[int, int]:
    """Request pairs that fit into no memory; return the count of each status."""
    rows = 1 << 18
    inputs = {"embeddings": zeros("float16", [rows, 4], 2), "targets": zeros("uint8", [rows], 1)}
    body = orjson.dumps({"inputs": inputs})
    statuses: dict[int, int] = {}
    for _ in range(count):
        connection.request("POST", "/v1/losses/supcon", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    return statuses


def zeros(dtype: str, shape: list[int], itemsize: int) -> dict[str, object]:
    """Return a packed tensor of zeros."""
    data = base64.b64encode(bytes(prod(shape) * itemsize)).decode()
    return {"dtype": dtype, "shape": shape, "data": data}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS)
