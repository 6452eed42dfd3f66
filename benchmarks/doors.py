"""Print one table: the same call through each door, next to plain FastAPI and to a server that only echoes."""

import base64
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import orjson

from benchmarks import servers
from benchmarks.client import Connection
from service.wire.inference.inputs import HEADER

NATIVE = "/v1/losses/cross_entropy"
INFERENCE = "/v2/models/cross_entropy/infer"
SIZES = ((1024, 1000, 15), (32, 10, 300))
"""Rows, classes, turns."""


@dataclass(frozen=True)
class Way:
    """One way to send a call and get its gradient."""

    url: str
    path: str
    body: bytes
    header: str = "content-type: application/json"


def main() -> None:
    """Run the benchmark and print the table."""
    print(
        "cross entropy, float32, gradients back; medians of alternating turns on loopback, one connection\n"
    )
    print("| logits, targets | way | sent | median | beside the echo |\n| --- | --- | --- | --- | --- |")
    with ExitStack() as running:
        urls = [
            running.enter_context(serve()).url
            for serve in (servers.lossd, servers.plain_fastapi, servers.echo)
        ]
        for rows, classes, turns in SIZES:
            ways = ways_of(rows, classes, *urls)
            medians = in_turns(ways, turns)
            limit = medians[list(ways)[-1]]
            for name, way in ways.items():
                sent, seconds = f"{len(way.body) / 1e3:,.0f} kB", medians[name]
                print(
                    f"| [{rows}, {classes}] | {name} | {sent} | {1e3 * seconds:.2f} ms | {seconds / limit:.1f}x |"
                )


def ways_of(rows: int, classes: int, ours: str, peer: str, echo: str) -> Mapping[str, Way]:
    """Return the ways to be measured, the limit last."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, classes)).astype(np.float32)
    targets = rng.integers(classes, size=rows)
    as_json = orjson.dumps(
        {"inputs": {"logits": logits, "targets": targets}}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    binary, length = as_binary({"logits": logits, "targets": targets})
    header = f"{HEADER}: {length}"
    return {
        "`/v1`, JSON": Way(ours, NATIVE, as_json),
        "`/v1`, base64": Way(ours, NATIVE, as_base64({"logits": logits, "targets": targets})),
        "`/v2`, binary": Way(ours, INFERENCE, binary, header),
        "plain FastAPI, JSON": Way(peer, NATIVE, as_json),
        "an echo of the binary call": Way(echo, "/", binary, header),
    }


def as_binary(tensors: Mapping[str, np.ndarray]) -> tuple[bytes, int]:
    """Return a request of the Open Inference Protocol with binary tensors, and the length of its JSON."""
    datatypes = {"float32": "FP32", "int64": "INT64"}
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "shape": tensor.shape,
                    "datatype": datatypes[str(tensor.dtype)],
                    "parameters": {"binary_data_size": tensor.nbytes},
                }
                for name, tensor in tensors.items()
            ],
            "outputs": [
                {"name": name, "parameters": {"binary_data": True}} for name in ("value", "grad.logits")
            ],
        }
    )
    return head + b"".join(tensor.tobytes() for tensor in tensors.values()), len(head)


def as_base64(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return an equivalent native request with packed tensors."""
    packed = {
        name: {
            "dtype": str(tensor.dtype),
            "shape": tensor.shape,
            "data": base64.b64encode(tensor.tobytes()).decode(),
        }
        for name, tensor in tensors.items()
    }
    return orjson.dumps({"inputs": packed, "encoding": "base64"})


def in_turns(ways: Mapping[str, Way], turns: int) -> dict[str, float]:
    """Return the median seconds of a call by each way, the ways taking turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    connections = {url: Connection(url) for url in {way.url for way in ways.values()}}
    for turn in range(turns + 2):
        for name, way in ways.items():
            start = time.perf_counter()
            connections[way.url].post(way.path, way.body, way.header)
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    for connection in connections.values():
        connection.close()
    return {name: statistics.median(taken) for name, taken in times.items()}


if __name__ == "__main__":
    main()
