"""Print what a batch adds to the arithmetic of its items: 1,000 like items of every loss, the worst loss first.

``python -m benchmarks.batch [--only NAME]`` decodes, checks, computes and encodes in this process, as the door does, and
evaluates the same tensors as one fused call for comparison. Items are like the catalogue's examples. Times are CPU times
of one thread, which other processes do not affect.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson
import torch

from service.catalogue.registry import AnyLoss, Catalogues
from service.catalogue.sample import draw_inputs, draw_params
from service.doors.batch import outcomes_of, parts_of
from service.engine.composition import Planner
from service.engine.evaluate import CPU
from service.engine.expression import Expressions
from service.engine.fuse import evaluate_alike
from service.engine.lane import Lane
from service.engine.queue import Queue
from service.engine.stack import Stack
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.settings import Settings
from service.wire import batch
from service.wire.describe import DIGITS

BOTH = Catalogues(CATALOGUE, METRICS)
PLANNER = Planner(Expressions(4096), 1 << 27)
ITEMS = 1000
DRAWS = 20
"""Items that are drawn; the others repeat them."""
TURNS = 2
GOAL = 30.0
"""Most microseconds that a batch may add to an item."""


@dataclass(frozen=True)
class Cost:
    """Microseconds for each item: the whole batch, and the arithmetic alone."""

    loss: str
    whole: float
    arithmetic: float

    @property
    def added(self) -> float:
        """The difference."""
        return self.whole - self.arithmetic


def main() -> None:
    """Measure the losses and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="the one loss to measure")
    only: str | None = parser.parse_args().only
    torch.set_num_threads(1)
    losses = [CATALOGUE[only]] if only else list(CATALOGUE.values())
    costs = sorted(map(cost, losses), key=lambda cost: -cost.added)
    print(f"{ITEMS:,} like items of each loss's example size, JSON, gradients back; CPU time an item\n")
    print("| loss | the batch | one fused call | added |\n| --- | --- | --- | --- |")
    for one in costs:
        print(f"| `{one.loss}` | {one.whole:.1f} µs | {one.arithmetic:.1f} µs | {one.added:.1f} µs |")
    met = sum(one.added <= GOAL for one in costs)
    print(f"\n{met} of {len(costs)} losses add at most {GOAL:g} µs an item")


def cost(loss: AnyLoss) -> Cost:
    """Measure a batch, and the same tensors as one fused call, in turns."""
    settings = Settings()
    queue = Queue(CPU, Lane("compute", 1), max_work=settings.max_work)
    body = body_of(loss)

    def whole() -> None:
        asked = batch.decode_batch(BOTH, body, ITEMS, PLANNER)
        outcomes = outcomes_of([queue.compute_all(part) for part in parts_of(asked)])
        batch.batch_parts(asked, outcomes)

    [stack] = parts_of(batch.decode_batch(BOTH, body, ITEMS, PLANNER))
    assert isinstance(stack, Stack), f"the items of {loss.name} are not alike"

    def arithmetic() -> None:
        evaluate_alike([stack])

    return Cost(loss.name, *(1e6 * seconds / ITEMS for seconds in in_turns(whole, arithmetic)))


def body_of(loss: AnyLoss) -> bytes:
    """Return a batch of items that differ in their numbers."""
    params = draw_params(loss)
    drawn = [inputs_of(loss, seed) for seed in range(DRAWS)]
    items = [{"inputs": drawn[place % DRAWS]} for place in range(ITEMS)]
    changed = {name: value for name, value in params.items() if value != loss.params[name].default}
    defaults = {"loss": loss.name, "params": changed}
    return orjson.dumps({"items": items, "defaults": defaults}, option=orjson.OPT_SERIALIZE_NUMPY)


def inputs_of(loss: AnyLoss, seed: int) -> dict[str, np.ndarray]:
    """Draw the inputs of an item, with the sizes and digits of the loss's example."""
    drawn = draw_inputs(loss, draw_params(loss), seed=seed)
    return {
        name: (tensor.round(decimals=DIGITS) if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in drawn.items()
    }


def in_turns(*works: Callable[[], None]) -> list[float]:
    """Return the shortest CPU time of each, in seconds, after a turn that does not count."""
    least = [float("inf") for _ in works]
    for turn in range(TURNS + 1):
        for place, work in enumerate(works):
            start = time.process_time()
            work()
            if turn:
                least[place] = min(least[place], time.process_time() - start)
    return least


if __name__ == "__main__":
    main()
