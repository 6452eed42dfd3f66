"""Print one table: each of the README's speed claims beside plain FastAPI, measured in turns in one run."""

import os
import platform
import statistics
import time

import numpy as np
import orjson
import torch

from benchmarks import servers
from benchmarks.client import Connection, calls_a_second

PATH = "/v1/losses/cross_entropy"


def main() -> None:
    """Run the benchmarks and print the table."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(
        "medians of alternating turns on loopback, one client connection unless said; cross entropy, float32\n"
    )
    print("| what | lossd | plain FastAPI | ratio |\n| --- | --- | --- | --- |")
    with servers.lossd() as ours, servers.plain_fastapi() as peer:
        for rows, classes, turns in ((1024, 1000, 9), (256, 100, 40), (8, 10, 400)):
            body = request(rows, classes)
            what = f"[{rows}, {classes}] as JSON, gradients back ({_size(len(body))})"
            print(row(what, *in_turns(body, ours, peer, turns)))
        what = "1,000 items [8, 10] with gradients: one batch, 1,000 calls of the peer"
        print(row(what, *batch_beside_calls(ours, peer)))
        small = request(8, 10)
        rates = [max(calls_a_second(url, PATH, small) for _ in range(3)) for url in (ours, peer)]
        ratio = rates[0] / rates[1]
        print(
            f"| [8, 10], calls a second over 8 connections | {rates[0]:.0f} | {rates[1]:.0f} | {ratio:.1f}x |"
        )


def batch(items: int) -> bytes:
    """Return a batch of small items."""
    rng = np.random.default_rng(0)
    some = [
        {
            "inputs": {
                "logits": rng.standard_normal((8, 10)).astype(np.float32),
                "targets": rng.integers(10, size=8),
            }
        }
        for _ in range(items)
    ]
    body = {"items": some, "defaults": {"loss": "cross_entropy"}}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def batch_beside_calls(ours: str, peer: str, items: int = 1000) -> tuple[float, float]:
    """Return the median seconds of one batch, and those of as many calls of the peer."""
    many, single = batch(items), request(8, 10)
    here, there = Connection(ours), Connection(peer)
    batches: list[float] = []
    loops: list[float] = []
    for turn in range(6):
        start = time.perf_counter()
        here.post("/v1/batch", many)
        middle = time.perf_counter()
        for _ in range(items):
            there.post(PATH, single)
        if turn:
            batches.append(middle - start)
            loops.append(time.perf_counter() - middle)
    return statistics.median(batches), statistics.median(loops)


def request(rows: int, classes: int) -> bytes:
    """Return a request body that both servers take."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, classes)).astype(np.float32)
    inputs = {"logits": logits, "targets": rng.integers(classes, size=rows)}
    return orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY)


def in_turns(body: bytes, ours: str, peer: str, turns: int) -> tuple[float, float]:
    """Return the median seconds of a call to each server, the servers taking turns."""
    times: dict[str, list[float]] = {ours: [], peer: []}
    connections = {url: Connection(url) for url in times}
    for turn in range(turns + 2):
        for url, taken in times.items():
            start = time.perf_counter()
            connections[url].post(PATH, body)
            if turn >= 2:
                taken.append(time.perf_counter() - start)
    return statistics.median(times[ours]), statistics.median(times[peer])


def row(what: str, ours: float, peer: float) -> str:
    """Return a line of the table."""
    return f"| {what} | {1e3 * ours:.2f} ms | {1e3 * peer:.2f} ms | {peer / ours:.1f}x |"


def _size(length: int) -> str:
    """Write a number of bytes for people."""
    return f"{length / 1e6:.1f} MB" if length > 1e6 else f"{length / 1e3:.0f} kB"


if __name__ == "__main__":
    main()
