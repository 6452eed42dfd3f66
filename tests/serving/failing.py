"""A server whose device fails when it is asked for ``hinge``, or when it is warmed up: `FAILS` says which.

Run as a program it is the ``lossd`` command. Workers import it again, so that their devices fail as well.
"""

import os
from typing import Any

import torch

from service import cli
from service.engine import device, queue
from service.engine.call import Call, Evaluation

FAILS = os.environ.get("FAILS")
healthy = queue.attempt


def attempt(call: Call, on: torch.device) -> Evaluation | Exception:
    """Fail as a device does after a fault in a kernel."""
    if call.loss.name == "hinge":
        return RuntimeError("CUDA error: unspecified launch failure")
    return healthy(call, on)


def warm_up(on: torch.device, losses: object) -> None:
    """Fail as a device does for which torch has no kernels."""
    if FAILS == "warm-up":
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


class Queue(queue.Queue):
    """Takes the CPU for a device that can fail."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_cpu = False


if FAILS:
    # not where the tests are collected
    queue.attempt = attempt
    queue.is_alive = lambda device: False
    device.warm_up = warm_up
    queue.Queue = Queue

if __name__ == "__main__":
    cli.main()
