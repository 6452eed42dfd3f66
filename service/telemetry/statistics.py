"""Model statistics of the Open Inference Protocol: requests, calls computed as one, and their time."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.wire.inference.metadata import VERSION

STAGES = {"queue": "queue", "compute_input": "decode", "compute_infer": "compute", "compute_output": "encode"}
"""The protocol's names for the stages of a request."""
COMPUTED = ("compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class Duration:
    """A number of events and their total time."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += round(1e9 * seconds)

    def document(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


Durations = defaultdict[str, Duration]


def _durations() -> Durations:
    return defaultdict(Duration)


@dataclass(slots=True)
class ModelStatistics:
    """The statistics of one model. ``executions`` counts calls computed as one by the number of requests in them."""

    last_ms: int = 0
    requests: int = 0
    times: Durations = field(default_factory=_durations)
    executions: dict[int, Durations] = field(default_factory=dict[int, Durations])

    def succeed(self, stages: Mapping[str, float], seconds: float, together: int, *, leads: bool) -> None:
        """Count an answer; of the requests computed ``together``, the one that ``leads`` counts the execution."""
        self.last_ms = time.time_ns() // 1_000_000
        self.requests += 1
        self.times["success"].add(seconds)
        for name, stage in STAGES.items():
            self.times[name].add(stages[stage])
        if leads:
            execution = self.executions.setdefault(together, _durations())
            for name in COMPUTED:
                execution[name].add(stages[STAGES[name]])

    def fail(self, seconds: float) -> None:
        """Count a failure."""
        self.times["fail"].add(seconds)

    def document(self, name: str) -> dict[str, Any]:
        """Return the statistics in the protocol's format."""
        names = ("success", "fail", *STAGES, "cache_hit", "cache_miss")
        batches = [
            {"batch_size": size, **{name: times[name].document() for name in COMPUTED}}
            for size, times in sorted(self.executions.items())
        ]
        return {
            "name": name,
            "version": VERSION,
            "last_inference": self.last_ms,
            "inference_count": self.requests,
            "execution_count": sum(times["compute_infer"].count for times in self.executions.values()),
            "inference_stats": {name: self.times[name].document() for name in names},
            "response_stats": {},
            "batch_stats": batches,
            "memory_usage": [],
        }
