"""Print the README's speed claims next to plain FastAPI, measured in turns in one run."""

import os
import platform
import statistics
import time
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F

from benchmarks import bodies, load, servers
from benchmarks.bodies import PATH, packed, request
from benchmarks.client import Connection, calls_a_second

ITEMS = 1000


def main() -> None:
    """Run the benchmarks and print the tables."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(
        "medians of alternating turns on loopback, one client connection by default; cross entropy, float32"
    )
    with servers.lossd() as ours, servers.plain_fastapi() as peer, servers.plain_fastapi("dicts") as dicts:
        beside_peers(ours.url, peer.url, dicts.url)
        beside_itself(ours.url)
    with servers.lossd() as fresh:
        print(f"- a stream of {load.LINES:,} items [8, 10] with gradients: {stream(fresh)}")
    with servers.lossd() as fresh:
        length, times = load.peak_over_body(fresh.url, fresh.process)
        print(
            f"- peak memory of a JSON body of {_size(length)} with gradients: {times:.1f} times the body beyond idle"
        )


def beside_peers(ours: str, peer: str, dicts: str) -> None:
    """Print the comparison with plain FastAPI, with a declared response model and with plain dicts."""
    urls = {"lossd": ours, "peer": peer, "dicts": dicts}
    print(
        "\n| what | lossd | FastAPI, response model | FastAPI, dict | ratios |\n| --- | --- | --- | --- | --- |"
    )
    for rows, classes, turns in ((1024, 1000, 9), (256, 100, 40), (8, 10, 400)):
        body = request(rows, classes)
        times = in_turns(dict.fromkeys(urls.values(), (PATH, body)), turns)
        print(row(f"[{rows}, {classes}] as JSON, gradients back ({_size(len(body))})", times))
    print(
        row(
            f"{ITEMS:,} items [8, 10] with gradients: one batch, {ITEMS:,} calls of the peer",
            batches(ours, peer, dicts),
        )
    )
    beside = [load.median_beside_large_bodies(url) for url in urls.values()]
    print(row("a small call while two clients send 5 MB without pause", beside))
    rates = [max(calls_a_second(url, PATH, request(8, 10)) for _ in range(3)) for url in urls.values()]
    shown = " | ".join(f"{rate:.0f}" for rate in rates)
    print(
        f"| [8, 10], calls a second over 8 connections | {shown} | {rates[0] / rates[1]:.1f}x, {rates[0] / rates[2]:.1f}x |"
    )


def beside_itself(url: str) -> None:
    """Print comparisons with other ways to the same result."""
    print()
    for rows, classes, turns in ((1024, 1000, 9), (256, 100, 40)):
        calls = {"json": (PATH, request(rows, classes)), "base64": (PATH, packed(rows, classes))}
        json, base64 = in_turns({(url, kind): call for kind, call in calls.items()}, turns)
        print(
            f"- [{rows}, {classes}] as base64: {1e3 * base64:.2f} ms, {json / base64:.1f} times as fast as JSON"
        )
    small, large = in_turns({(url, size): (PATH, request(size, size)) for size in (512, 1024)}, 11)
    print(f"- a body four times as large takes {large / small:.1f} times the time")
    print(
        f"- {ITEMS:,} items in one batch: {1e3 * one_batch(url):.1f} ms; a loop of Python over torch in its own process: {1e3 * loop():.1f} ms"
    )


def stream(server: servers.Server) -> str:
    """Describe the times and memory of a stream."""
    first, last, grown = load.stream(server.url, server.process)
    return f"first result after {1e3 * first:.0f} ms, last after {last:.1f} s, memory grew by {grown / 1e6:.0f} MB"


def batches(ours: str, peer: str, dicts: str) -> list[float]:
    """Return the median seconds of one batch, and those of as many calls of each peer."""
    many, single = bodies.batch(ITEMS), request(8, 10)
    connection, *others = (Connection(url) for url in (ours, peer, dicts))
    times: list[list[float]] = [[], [], []]
    for _ in range(6):
        times[0].append(_seconds(connection, "/v1/batch", many))
        for other, taken in zip(others, times[1:], strict=True):
            taken.append(sum(_seconds(other, PATH, single) for _ in range(ITEMS)))
    return [statistics.median(taken[1:]) for taken in times]


def one_batch(url: str) -> float:
    """Return the median seconds of a batch while nothing else runs."""
    connection, many = Connection(url), bodies.batch(ITEMS)
    return statistics.median([_seconds(connection, "/v1/batch", many) for _ in range(12)][2:])


def loop() -> float:
    """Return the median seconds that a program without a server needs for the tensors of the batch."""
    torch.set_num_threads(1)
    calls = [bodies.arrays(8, 10, seed) for seed in range(ITEMS)]
    tensors = [(torch.as_tensor(call["logits"]), torch.as_tensor(call["targets"])) for call in calls]
    times: list[float] = []
    for _ in range(7):
        start = time.perf_counter()
        for logits, targets in tensors:
            leaf = logits.detach().requires_grad_()
            value = F.cross_entropy(leaf, targets)
            (gradient,) = torch.autograd.grad(value, leaf)
            cast(Any, gradient).tolist()
            value.item()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_turns(calls: Mapping[Any, tuple[str, bytes]], turns: int) -> list[float]:
    """Return the median seconds of each call, made in turns. A key is a server's address, or begins with it."""
    addresses = {key: key if isinstance(key, str) else key[0] for key in calls}
    connections = {key: Connection(address) for key, address in addresses.items()}
    times: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(turns + 2):
        for key, (path, body) in calls.items():
            times[key].append(_seconds(connections[key], path, body))
    return [statistics.median(taken[2:]) for taken in times.values()]


def row(what: str, times: list[float]) -> str:
    """Return a line of the table."""
    shown = " | ".join(f"{1e3 * seconds:.2f} ms" for seconds in times)
    return f"| {what} | {shown} | {', '.join(f'{peer / times[0]:.1f}x' for peer in times[1:])} |"


def _seconds(connection: Connection, path: str, body: bytes) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    connection.post(path, body)
    return time.perf_counter() - start


def _size(length: int) -> str:
    """Write a number of bytes for people."""
    return f"{length / 1e6:.1f} MB" if length > 1e6 else f"{length / 1e3:.0f} kB"


if __name__ == "__main__":
    main()
