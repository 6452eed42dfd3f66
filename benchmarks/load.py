"""Load that no single call shows: small calls next to large ones, a long stream, the memory of a large body."""

import statistics
import threading
import time
from pathlib import Path

from benchmarks.bodies import PATH, line, request
from benchmarks.client import Connection, Stream

LINES = 40_000
BLOCK = 200
"""Lines that a stream sends at once."""


def median_beside_large_bodies(url: str, *, seconds: float = 8.0) -> float:
    """Return the median seconds of a small call while two clients send 5 MB bodies without pause."""
    large, small = request(480, 1000), request(8, 10)
    end = time.perf_counter() + seconds

    def send_large() -> None:
        connection = Connection(url)
        while time.perf_counter() < end:
            connection.post(PATH, large)

    clients = [threading.Thread(target=send_large) for _ in range(2)]
    for client in clients:
        client.start()
    times: list[float] = []
    connection = Connection(url)
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection.post(PATH, small)
        times.append(time.perf_counter() - start)
    for client in clients:
        client.join()
    return statistics.median(times)


def stream(url: str, process: int) -> tuple[float, float, float]:
    """Stream items; return the seconds to the first result and to the last, and the bytes that memory grew by."""
    before = resident(process)
    connection = Stream(url, "/v1/batch")
    start = time.perf_counter()
    first: list[float] = []

    def read() -> None:
        for _ in connection.lines(LINES):
            if not first:
                first.append(time.perf_counter() - start)

    reading = threading.Thread(target=read)
    reading.start()
    block = line() * BLOCK
    most = before
    for _ in range(LINES // BLOCK):
        connection.send(block)
        most = max(most, resident(process))
    connection.end()
    reading.join()
    return first[0], time.perf_counter() - start, max(most, resident(process)) - before


def peak_over_body(url: str, process: int) -> tuple[int, float]:
    """Return the bytes of a large body, and the server's peak memory beyond idle as a multiple of it."""
    body = request(8192, 1000)
    before = resident(process)
    Connection(url).post(PATH, body)
    return len(body), (peak(process) - before) / len(body)


def resident(process: int) -> int:
    """Return the resident memory of a process in bytes."""
    return _status(process, "VmRSS")


def peak(process: int) -> int:
    """Return the peak resident memory of a process in bytes."""
    return _status(process, "VmHWM")


def _status(process: int, name: str) -> int:
    """Return one of the sizes that Linux reports for a process, in bytes."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
