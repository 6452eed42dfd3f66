"""Tell metrics, logs and traces of requests, some at a time: in a row, each costs less than half."""

import asyncio

from service.api import logs, metrics
from service.api.exchange import Exchange
from service.api.traces import Traces
from service.engine.queue import Queue

SOON_S = 0.01
"""How long what is over waits for more."""
MOST = 1000
SAMPLE_S = 1.0


class Recorder:
    """Keeps what is over for a moment, and then tells of it; ``inflight_bytes`` are of what is not over."""

    def __init__(self, queue: Queue, traces: Traces | None) -> None:
        self.queue = queue
        self.traces = traces
        self.inflight_bytes = 0
        self._over: list[Exchange] = []

    def add(self, exchange: Exchange) -> None:
        """Keep what is over until it is told of soon."""
        self._over.append(exchange)
        if len(self._over) == 1:
            asyncio.get_running_loop().call_later(SOON_S, self.flush)
        elif len(self._over) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Count, trace and log all that is over."""
        over, self._over = self._over, []
        for exchange in over:
            metrics.record(exchange)
            if self.traces and not exchange.is_probe:
                self.traces.record(exchange)
        logs.record(over)

    def sample(self) -> None:
        """Bring the metrics up to date."""
        self.flush()
        metrics.sample(self.queue, self.inflight_bytes)

    async def keep_sampling(self) -> None:
        """Sample until cancelled, so that other workers find numbers of this one that are not old."""
        while True:
            self.sample()
            await asyncio.sleep(SAMPLE_S)

    def close(self) -> None:
        """Tell of the last, and export what is left."""
        self.flush()
        if self.traces:
            self.traces.close()
