"""Print the effect of ten times its capacity on a server: its rate, the latency of refusals, and its recovery."""

import asyncio
import statistics
import time
from dataclasses import dataclass, field

from benchmarks import servers
from benchmarks.bodies import PATH, request

CAPACITY = 64
SECONDS = 8.0


@dataclass
class Tally:
    """The seconds that answers took, by their status."""

    seconds: dict[int, list[float]] = field(default_factory=dict[int, list[float]])

    def rate(self, status: int) -> float:
        """Return the answers a second with a status."""
        return len(self.seconds.get(status, ())) / SECONDS

    def percentile(self, status: int, share: float) -> float:
        """Return a percentile of the milliseconds until answers with a status."""
        taken = sorted(self.seconds.get(status, [float("nan")]))
        return 1e3 * taken[min(len(taken) - 1, int(share * len(taken)))]


class Caller(asyncio.Protocol):
    """One connection that sends the next request at once after each answer, ignoring Retry-After."""

    def __init__(self, call: bytes, tally: Tally, until: float) -> None:
        self.call = call
        self.tally = tally
        self.until = until
        self.received = b""
        self.started = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        self.received = b""
        taken = time.perf_counter() - self.started
        self.tally.seconds.setdefault(int(head[9:12]), []).append(taken)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _ask(self) -> None:
        if time.perf_counter() > self.until:
            self.transport.close()
            return
        self.started = time.perf_counter()
        self.transport.write(self.call)


async def load(url: str, connections: int, seconds: float = SECONDS) -> Tally:
    """Call over so many connections at once, without pause."""
    host, port = url.removeprefix("http://").split(":")
    body = request(8, 10)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    tally, until = Tally(), time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    callers: list[Caller] = []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: Caller(head.encode() + body, tally, until), host, int(port)
        )
        callers.append(caller)
    await asyncio.wait([caller.done for caller in callers], timeout=2 * seconds + 5)
    return tally


def main() -> None:
    """Measure at capacity, at ten times of it, and directly after it."""
    print(
        f"LOSSD_MAX_QUEUE = {CAPACITY}; calls [8, 10] with gradients, each connection retries without pause\n"
    )
    print("| connections | answered a second | median, p99 | refused a second | median, p99 |")
    print("| --- | --- | --- | --- | --- |")
    rates: list[float] = []
    with servers.lossd(env={"LOSSD_MAX_QUEUE": str(CAPACITY)}) as server:
        for connections in (CAPACITY, CAPACITY, 10 * CAPACITY, CAPACITY):
            tally = asyncio.run(load(server.url, connections))
            rates.append(tally.rate(200))
            shown = [
                f"{tally.rate(status):.0f} | {tally.percentile(status, 0.5):.1f} ms, {tally.percentile(status, 0.99):.1f} ms"
                for status in (200, 429)
            ]
            print(f"| {connections} | {' | '.join(shown)} |", flush=True)
    best = statistics.mean((rates[1], rates[3]))
    print(f"\nat ten times the capacity: {100 * rates[2] / best:.0f} % of the rate before and after it")


if __name__ == "__main__":
    main()
