"""Print one table: CPU time and memory of losses at large sizes, next to the formula as one would write it.

``python -m benchmarks.scale [name …]`` measures every loss, or those named, each in a separate process.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from math import inf, isclose
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.formulas import PLAIN
from service.catalogue.sample import draw_inputs
from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE

Inputs = Mapping[str, Tensor]
LABELS = 64
"""Classes in a labelled batch of embeddings."""


@dataclass(frozen=True)
class Group:
    """Losses measured at one size, with their goals."""

    size: str
    sizes: Mapping[str, int | tuple[int, ...]]
    names: str
    seconds: float | None = None
    gigabytes: float | None = None


BATCH = {"N": 4096, "D": 256}
GROUPS = (
    Group("4,096 x 256, cosines", BATCH, "supcon ntxent multi_similarity circle info_nce clip siglip", 3, 2),
    Group("4,096 x 256, distances", BATCH, "batch_all_triplet batch_hard_triplet nca lifted_structure", 6, 2),
    Group(
        "[8, 21, 512, 512]",
        {"N": 8, "C": 21, "...": (512, 512)},
        "dice jaccard tversky generalized_dice lovasz_softmax dice_ce dice_focal",
        gigabytes=3,
    ),
    Group("1,000,000 pairs", {"...": (1_000_000,)}, "iou giou diou ciou eiou siou wiou", seconds=1),
    Group(
        "a list of 10,000",
        {"N": 1, "L": 10_000},
        "listnet listmle ranknet pairwise_hinge lambdarank lambda_loss approx_ndcg ndcg",
    ),
)


@dataclass(frozen=True)
class Cost:
    """The time of one evaluation, its value, and the peak memory of its process."""

    value: float
    seconds: float
    gigabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:.2g} s, {self.gigabytes:.1f} GB"


def main(wanted: list[str]) -> None:
    """Measure the losses in the catalogue, and print the table."""
    print("float32, one thread, value and gradients, better of two calls; peaks are the whole process's\n")
    print("| loss, size | CPU time, peak memory | goal | plain torch formula |\n| --- | --- | --- | --- |")
    known = set(CATALOGUE)
    for group in GROUPS:
        for name in group.names.split():
            if name in known and (not wanted or name in wanted):
                print(row(name, group), flush=True)


def row(name: str, group: Group) -> str:
    """Measure a loss and its peer on the same inputs; return a line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inputs.pt"
        torch.save(draw(name, group), path)
        ours = in_new_process(partial(cost_of_loss, name, path))
        peer = in_new_process(partial(cost_of_peer, name, path)) if name in PLAIN else "–"
    if isinstance(ours, Cost) and isinstance(peer, Cost):
        assert isclose(ours.value, peer.value, rel_tol=1e-3), f"{name}: {ours.value}, but {peer.value}"
    return f"| `{name}`, {group.size} | {ours} | {verdict(ours, group)} | {peer} |"


def verdict(cost: Cost | str, group: Group) -> str:
    """Return the goals of a group, and whether they are met."""
    goals = {unit: most for unit, most in (("s", group.seconds), ("GB", group.gigabytes)) if most}
    found = {"s": cost.seconds, "GB": cost.gigabytes} if isinstance(cost, Cost) else {}
    met = all(found.get(unit, inf) < most for unit, most in goals.items())
    said = ", ".join(f"< {most} {unit}" for unit, most in goals.items())
    return f"{said}: {'met' if met else 'not met'}" if goals else "–"


def draw(name: str, group: Group) -> dict[str, Tensor]:
    """Return inputs as a client would send them."""
    loss = CATALOGUE[name]
    inputs = draw_inputs(loss, loss.defaults, sizes=group.sizes)
    if group.sizes is BATCH and "targets" in inputs:
        inputs["targets"] = torch.arange(len(inputs["targets"])) % LABELS
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


def in_new_process(measure: Callable[[], Cost]) -> Cost | str:
    """Return the cost of a function in a fresh interpreter, or that the interpreter was killed."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        try:
            return fresh.submit(measure).result()
        except BrokenProcessPool:
            return "killed"


def cost_of_loss(name: str, path: Path) -> Cost:
    """Measure a loss as a request is evaluated: checked, cast, differentiated."""
    loss = CATALOGUE[name]

    def call(inputs: Inputs) -> Tensor:
        sent = {name: Sent(tensor) for name, tensor in inputs.items()}
        return evaluate(bind(Request(loss=loss, inputs=sent, params=loss.defaults))).value

    return cost(call, path)


def cost_of_peer(name: str, path: Path) -> Cost:
    """Measure the plain formula and its gradients by the same inputs."""

    def call(inputs: Inputs) -> Tensor:
        predictions = [
            inputs[role].requires_grad_() for role in CATALOGUE[name].predictions if role in inputs
        ]
        value = PLAIN[name](*inputs.values())
        torch.autograd.grad(value, predictions)
        return value.detach()

    return cost(call, path)


def cost(call: Callable[[Inputs], Tensor], path: Path) -> Cost:
    """Return the better CPU time of two calls, and the peak memory of this process."""
    torch.set_num_threads(1)
    inputs: dict[str, Tensor] = torch.load(path)
    times: list[float] = []
    value = torch.tensor(torch.nan)
    for _ in range(2):
        # for one thread, CPU time is the time of a call on an otherwise idle machine
        start = time.process_time()
        value = call(inputs)
        times.append(time.process_time() - start)
    return Cost(value.item(), min(times), peak_bytes() / 1e9)


def peak_bytes() -> int:
    """Return the peak memory of this process."""
    # on Linux ru_maxrss starts at the parent's value
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1:])
