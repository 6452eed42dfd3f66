"""Report finished requests to metrics, logs and traces in small batches, which halves the cost of each."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from time import perf_counter, time

from starlette.types import Scope

from service.engine.queue import Queue
from service.telemetry import logs
from service.telemetry.finished import Finished
from service.telemetry.metrics import Metrics
from service.telemetry.stages import CLIENT_GONE, Stages
from service.telemetry.traces import Traces

logger = logging.getLogger("lossd")
SOON_S = 0.01
"""Seconds that finished requests are buffered before they are reported."""
MOST = 1000
SAMPLE_S = 1.0


class Recorder:
    """Buffers finished requests, then reports them; ``inflight_bytes`` returns the bytes that requests hold."""

    def __init__(
        self, queue: Queue, inflight_bytes: Callable[[], int], metrics: Metrics, traces: Traces | None
    ) -> None:
        self.queue = queue
        self.metrics = metrics
        self.traces = traces
        self.inflight_bytes = inflight_bytes
        self._over: list[Finished] = []
        self._shed: Counter[tuple[str, str]] = Counter()

    def finish(self, scope: Scope) -> None:
        """Buffer the record of a request that ends now."""
        stages: Stages = scope["state"]["stages"]
        headers: Mapping[bytes, bytes] = scope["state"]["headers"]
        self.add(
            Finished(
                method=scope["method"],
                path=scope.get("raw_path") or scope["path"].encode("utf-8", "replace"),
                route=scope["state"]["match"].route,
                status=stages.status if stages.finished else CLIENT_GONE,
                ended=time(),
                seconds=perf_counter() - stages.start,
                bytes_in=stages.bytes_in,
                bytes_out=stages.bytes_out,
                stages=stages,
                traceparent=headers.get(b"traceparent", b""),
                tracestate=headers.get(b"tracestate", b""),
            )
        )

    def add(self, finished: Finished) -> None:
        """Buffer a finished request; it is reported soon."""
        self._over.append(finished)
        if len(self._over) == 1:
            asyncio.get_running_loop().call_later(SOON_S, self.flush)
        elif len(self._over) >= MOST:
            self.flush()

    def shed(self, route: str, reason: str) -> None:
        """Count a request that was refused before it was parsed; these are logged once a second."""
        self._shed[route, reason] += 1

    def flush(self) -> None:
        """Report the buffered requests."""
        over, self._over = self._over, []
        for finished in over:
            self.metrics.count_request(finished)
            if self.traces and not finished.route.probe:
                self.traces.record(finished)
        logs.log_request(over)

    def sample(self) -> None:
        """Bring the metrics up to date."""
        self.flush()
        shed, self._shed = self._shed, Counter()
        for (route, reason), count in shed.items():
            self.metrics.record_shed(route, reason, count)
            logger.warning("refused %s requests to %s: %s", count, route, reason)
        self.metrics.sample(self.queue, self.inflight_bytes())

    async def keep_sampling(self) -> None:
        """Sample until cancelled, so that scrapes of other workers find fresh values of this one."""
        while True:
            self.sample()
            await asyncio.sleep(SAMPLE_S)

    def close(self) -> None:
        """Report the last requests and export the remaining traces."""
        self.flush()
        if self.traces:
            self.traces.close()
