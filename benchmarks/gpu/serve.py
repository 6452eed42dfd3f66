"""Time the server on the CPU and on the GPU of one machine, in turns; ``python -m benchmarks.gpu.serve cuda OUT.md``."""

import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from benchmarks import bodies, servers
from benchmarks.client import JSON, Connection, calls_a_second
from service.wire.inference.inputs import HEADER

ROUTE = "/v2/models/cross_entropy/infer"


def inference(rows: int, classes: int) -> tuple[bytes, str]:
    """Return a binary request for the gradient, and its headers."""
    arrays = bodies.arrays(rows, classes)
    inputs = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": "FP32" if array.dtype == np.float32 else "INT64",
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    asked = {"inputs": inputs, "parameters": {"binary_data_output": True, "gradients": True}}
    head = orjson.dumps(asked)
    body = head + b"".join(array.tobytes() for array in arrays.values())
    return body, f"content-type: application/octet-stream\r\n{HEADER}: {len(head)}"


def pairs(rows: int) -> bytes:
    """Return a body for a loss of all pairs of rows, without gradient."""
    rng = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        name: rng.standard_normal((rows, 128)).astype(np.float32) for name in ("anchor", "positive")
    }
    return orjson.dumps({"inputs": inputs, "gradients": False}, option=orjson.OPT_SERIALIZE_NUMPY)


def kinds() -> dict[str, tuple[str, bytes, str, int]]:
    """Return the requests: path, body, header and count."""
    binary, header = inference(1024, 1000)
    large, large_header = inference(8192, 1000)
    return {
        "[8, 10] JSON": (bodies.PATH, bodies.request(8, 10), JSON, 300),
        "[256, 100] JSON": (bodies.PATH, bodies.request(256, 100), JSON, 100),
        "[1024, 1000] JSON, 11 MB": (bodies.PATH, bodies.request(1024, 1000), JSON, 15),
        "[1024, 1000] base64": (bodies.PATH, bodies.packed(1024, 1000), JSON, 30),
        "[1024, 1000] /v2 binary, 4 MB each way": (ROUTE, binary, header, 60),
        "[8192, 1000] /v2 binary, 33 MB each way": (ROUTE, large, large_header, 15),
        "batch of 1,000 [8, 10]": ("/v1/batch", bodies.batch(1000), JSON, 20),
        "info_nce of 4,096 rows of 128": ("/v1/losses/info_nce", pairs(4096), JSON, 5),
    }


def main() -> None:
    """Write a table of both servers."""
    device, path = sys.argv[1:3]
    names = ["cpu", device]
    lines = ["## Server, medians in ms", "| what | " + " | ".join(names) + " |", "| --- | --- | --- |"]
    with ExitStack() as stack:
        running: list[servers.Server] = []
        for name in names:
            start = time.perf_counter()
            log = Path(f"{path}.{name}.log")
            env = {**os.environ, "LOSSD_DEVICE": name}
            running.append(stack.enter_context(servers.lossd(env=env, log=log)))
            lines.append(f"| ready after ({name}) | {time.perf_counter() - start:.1f} s |  |")
        try:
            measure(running, lines)
        finally:
            for server, name in zip(running, names, strict=True):
                text = httpx.get(f"{server.url}/metrics").text
                wanted = ("lossd_device_memory", "lossd_oom", "lossd_build")
                told = [line for line in text.splitlines() if line.startswith(wanted)]
                lines.append(f"\n{name}: " + "; ".join(told))
            Path(path).write_text("\n".join(lines) + "\n")
    print("done")


def measure(running: list[servers.Server], lines: list[str]) -> None:
    """Send each kind to the servers in turns, then many small calls at once, then one call of each loss."""
    for what, (route, body, head, turns) in kinds().items():
        took: list[list[float]] = [[] for _ in running]
        connections = [Connection(server.url) for server in running]
        for _ in range(turns + 1):
            for place, connection in enumerate(connections):
                start = time.perf_counter()
                connection.post(route, body, head)
                took[place].append(time.perf_counter() - start)
        for connection in connections:
            connection.close()
        cells = [f"{1e3 * statistics.median(times[1:]):.2f} (first {1e3 * times[0]:.0f})" for times in took]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    binary, header = inference(1024, 1000)
    small = bodies.request(8, 10)
    for clients in (1, 8, 64):
        lines.append(throughput(running, "[8, 10]", bodies.PATH, small, JSON, clients))
    for clients in (1, 4, 16):
        lines.append(throughput(running, "[1024, 1000] /v2 binary", ROUTE, binary, header, clients))
    lines.append(first_calls(running[-1].url))


def throughput(
    running: list[servers.Server], what: str, path: str, body: bytes, header: str, clients: int
) -> str:
    """Measure a row: the calls a second that each server answers."""
    rates = [
        calls_a_second(server.url, path, body, header, connections=clients, seconds=2.0) for server in running
    ]
    row = (
        f"| {what} calls a second, {clients} connections | "
        + " | ".join(f"{rate:.0f}" for rate in rates)
        + " |"
    )
    print(row, flush=True)
    return row


def first_calls(url: str) -> str:
    """Call each loss once, which a warm-up should have made fast."""
    seconds: list[tuple[float, str]] = []
    with httpx.Client(base_url=url, timeout=30) as client:
        for name in [one["name"] for one in client.get("/v1/losses").json()["losses"]]:
            example = client.get(f"/v1/losses/{name}").json()["example"]
            start = time.perf_counter()
            status = client.post(f"/v1/losses/{name}", json=example.get("request", example)).status_code
            seconds.append((time.perf_counter() - start, name if status == 200 else f"{name} {status}"))
    seconds.sort(reverse=True)
    median = 1e3 * statistics.median(took for took, _ in seconds)
    slowest = [(name, round(1e3 * took)) for took, name in seconds[:8]]
    return f"\nfirst calls of {len(seconds)} losses: median {median:.1f} ms, slowest {slowest}"


if __name__ == "__main__":
    main()
