"""Print what a composition costs beside the same torch program written by hand: ``python -m benchmarks.compose``.

A cross entropy, a soft dice on probabilities and a penalty, with gradients, from decoded tensors to results; and what the wire
adds. Times are CPU times of one thread, which other processes do not affect; the least of some runs, taken in turns.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from service.engine.call import CPU, Sent
from service.engine.compose import CompositionCall, compose
from service.engine.composition import Planner, forms
from service.engine.expression import Expressions
from service.engine.lane import Lane
from service.engine.memory import keep_freed_memory
from service.engine.queue import Queue
from service.losses import CATALOGUE
from service.wire.compose import composition_parts, decode_composition
from service.wire.written import parts, write

SIZES = ((8, 10), (256, 100), (1024, 1000), (8192, 1000))
TURNS = 7
TERMS: dict[str, Any] = {
    "ce": {"loss": "cross_entropy", "inputs": {"logits": "z", "targets": "y"}},
    "fit": {"loss": "mse", "inputs": {"predictions": "softmax(z, dim=1)", "targets": "t"}, "weight": 0.5},
    "l2": {"expression": "mean(z ** 2)", "weight": 1e-4},
}


def main() -> None:
    """Print a row for each size."""
    torch.set_num_threads(1)
    keep_freed_memory()
    planner = Planner(Expressions(4096), 1 << 27)
    queue = Queue(CPU, Lane("bench", 1), max_work=1 << 27)
    print("| logits | by hand ms | composed ms | ratio | with the wire ms |")
    print("| --- | --- | --- | --- | --- |")
    for rows, classes in SIZES:
        hand, ours, whole = _measured(rows, classes, planner, queue)
        print(f"| [{rows}, {classes}] | {hand:.3f} | {ours:.3f} | {ours / hand:.2f} | {whole:.3f} |")


def _measured(rows: int, classes: int, planner: Planner, queue: Queue) -> list[float]:
    """Return the milliseconds by hand, composed from tensors, and from a body to an answer."""
    z, y, t = torch.randn(rows, classes), torch.randint(classes, (rows,)), torch.rand(rows, classes)
    inputs = {"z": Sent(z), "t": Sent(t), "y": Sent(y)}
    sent = {name: write(one.tensor, "base64") for name, one in inputs.items()}
    body = b"".join(parts({"inputs": sent, "terms": TERMS, "encoding": "base64"}))
    composition = decode_composition(CATALOGUE, body, planner).asked.plan.composition

    def composed() -> None:
        compose(CompositionCall(planner.plan(composition, forms(inputs)), inputs), queue.compute_part)

    def served() -> None:
        found = decode_composition(CATALOGUE, body, planner)
        composition_parts(found, compose(found.asked, queue.compute_part))

    return _least((lambda: _by_hand(z, y, t), composed, served))


def _by_hand(z: Tensor, y: Tensor, t: Tensor) -> None:
    """Compute value, terms and gradient as one writes them in torch."""
    leaf = z.detach().requires_grad_()
    terms = (
        functional.cross_entropy(leaf, y),
        functional.mse_loss(torch.softmax(leaf, 1), t),
        (leaf**2).mean(),
    )
    total = terms[0] + 0.5 * terms[1] + 1e-4 * terms[2]
    torch.autograd.grad(total, leaf)


def _least(runs: tuple[Callable[[], None], ...]) -> list[float]:
    """Return the least milliseconds of each run, measured in turns."""
    best = [float("inf")] * len(runs)
    for _ in range(TURNS):
        for place, run in enumerate(runs):
            count, start = 0, time.thread_time()
            while count < 3 or time.thread_time() - start < 0.05:
                run()
                count += 1
            best[place] = min(best[place], 1e3 * (time.thread_time() - start) / count)
    return best


if __name__ == "__main__":
    main()
