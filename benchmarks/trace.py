"""Print the number of Python calls for a request, from the door to its answer, and how often the module changes.

A move is a call in another module than the call before it. ``--calls`` also prints the calls.
"""

import asyncio
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import httpx

from service.app import create_app
from service.settings import Settings
from service.telemetry.recorder import SOON_S

HUBER = {"inputs": {"predictions": [0.5, 1.0, 2.0], "targets": [0.0, 1.0, 4.0]}}
ITEMS = [{"loss": loss, **HUBER} for loss in ("huber", "mse", "l1", "log_cosh")]
REQUESTS = {
    "one huber call": ("/v1/losses/huber", HUBER),
    "a batch of four": ("/v1/batch", {"items": ITEMS}),
}
WARM = 3
"""Requests before the one that counts, so that everything that is made only once exists."""


@dataclass
class Trace:
    """The calls of the service's functions in order, each as module and name."""

    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def modules(self) -> int:
        """The number of modules with calls."""
        return len({module for module, _ in self.calls})

    @property
    def moves(self) -> int:
        """The number of calls in another module than the call before."""
        return sum(one[0] != other[0] for one, other in zip(self.calls, self.calls[1:], strict=False))

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """Record a call."""
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("service."):
            self.calls.append((module, frame.f_code.co_qualname))


def main() -> None:
    """Trace the requests and print a line for each."""
    print("| from the door to the answer | calls | modules | moves |\n| --- | --- | --- | --- |")
    for what, trace in asyncio.run(traces()).items():
        print(f"| {what} | {len(trace.calls)} | {trace.modules} | {trace.moves} |")
        if "--calls" in sys.argv:
            print(*(f"{module}: {name}" for module, name in trace.calls), sep="\n")


async def traces() -> Mapping[str, Trace]:
    """Return the trace of each request."""
    found: dict[str, Trace] = {}
    transport = httpx.ASGITransport(create_app(Settings(device="cpu")))
    with traced() as trace:
        async with httpx.AsyncClient(transport=transport, base_url="http://lossd") as client:
            for what, (path, body) in REQUESTS.items():
                for _ in range(WARM + 1):
                    # the requests before are reported meanwhile
                    await asyncio.sleep(10 * SOON_S)
                    trace.calls.clear()
                    (await client.post(path, json=body)).raise_for_status()
                found[what] = Trace([*trace.calls])
    return found


@contextmanager
def traced() -> Generator[Trace]:
    """Trace this thread and the threads it starts."""
    trace = Trace()
    threading.setprofile(trace.note)
    sys.setprofile(trace.note)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


if __name__ == "__main__":
    main()
