"""Probe where a call spends its time on a GPU, and from which size on a GPU is faster than a CPU."""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.report import CUDA, DEVICE, LOSSES, median_us, say, wait
from service.catalogue.declare import Terms
from service.catalogue.registry import AnyLoss
from service.engine.backward import gradients
from service.engine.call import Call
from service.engine.device import near_work
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_alike
from service.engine.reduce import reduce, reducible
from service.engine.stack import Stack, stacked
from service.engine.transfer import pinned, to_device, to_host
from tests.conformance import work
from tests.conformance.cases import cross_entropy, variants


def steps() -> None:
    """Time the steps of a call."""
    say("## Steps of a call, cross entropy, float32, medians in µs")
    say(
        "| logits | evaluate, CPU | evaluate | pinned before | together 2 | to device | terms | reduce | to host |\n"
        + "| --- " * 9
        + "|"
    )
    for rows, classes in ((8, 10), (256, 100), (1024, 1000), (8192, 1000)):
        call = cross_entropy(rows, classes)
        there = to_device(call.inputs, DEVICE)
        terms = call.loss.terms(differentiable(there, call), call.params)
        gradient = torch.zeros_like(there["logits"])
        ready = pinned(call, DEVICE)
        took = [
            median_us(lambda c=call: evaluate(c), 20),
            median_us(lambda c=call: evaluate(c, DEVICE)),
            median_us(lambda c=ready: evaluate(c, DEVICE)),
            median_us(lambda c=ready: evaluate_alike([c, c], DEVICE)),
            median_us(lambda c=call: to_device(c.inputs, DEVICE)),
            median_us(lambda c=call, t=there: c.loss.terms(differentiable(t, c), c.params)),
            median_us(lambda c=call, t=terms: reduce(c, t, None, None, axes=0)),
            median_us(lambda g=gradient: to_host([g, g.sum()])),
        ]
        say(f"| [{rows}, {classes}] | " + " | ".join(f"{us:.0f}" for us in took) + " |")


def copies() -> None:
    """Time copies to and from the device."""
    if not CUDA:
        return
    say(
        "## Copies, GB/s\n| MB | pinned in | pageable in | into pinned | pin_memory() | pinned out |\n"
        + "| --- " * 6
        + "|"
    )
    for size in (1 << 16, 1 << 22, 1 << 26):
        page, pin = torch.empty(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8).pin_memory()
        there = torch.empty(size, dtype=torch.uint8, device=DEVICE)
        ways: list[Callable[[], object]] = [
            lambda t=there, p=pin: t.copy_(p, non_blocking=True),
            lambda t=there, p=page: t.copy_(p),
            lambda p=pin, q=page: p.copy_(q),
            lambda q=page: q.pin_memory(),
            lambda t=there, p=pin: p.copy_(t, non_blocking=True),
        ]
        say(
            f"| {size / 1e6:.2f} | "
            + " | ".join(f"{size / median_us(way, 20) / 1e3:.1f}" for way in ways)
            + " |"
        )


def small_copies() -> None:
    """Time copies of small tensors, whose bytes do not matter."""
    if not CUDA:
        return
    small = torch.zeros(8, device=DEVICE)
    say(
        f"a kernel's launch from Python: {median_us(lambda: [small.add_(1) for _ in range(100)]) / 100:.1f} µs"
    )
    say(
        "## Small tensors, µs\n| tensors | pinned each | pageable each | packed, pinned | packed, pageable | out each | out packed |\n"
        + "| --- " * 7
        + "|"
    )
    for count in (1, 2, 4):
        some = [torch.zeros(256) for _ in range(count)]
        theirs = [torch.zeros(256, device=DEVICE) for _ in range(count)]
        took = [
            median_us(lambda s=some: [t.pin_memory().to(DEVICE, non_blocking=True) for t in s]),
            median_us(lambda s=some: [t.to(DEVICE) for t in s]),
            median_us(lambda s=some: torch.cat(s).pin_memory().to(DEVICE, non_blocking=True).chunk(2)),
            median_us(lambda s=some: torch.cat(s).to(DEVICE).chunk(2)),
            median_us(lambda s=theirs: to_host(s)),
            median_us(lambda s=theirs: torch.cat(s).cpu().chunk(2)),
        ]
        say(f"| {count} | " + " | ".join(f"{us:.1f}" for us in took) + " |")


def threads() -> None:
    """Compare one thread with several, each with its stream, with inputs pinned in advance or by the threads."""
    say(
        "## Calls a second by threads\n| logits | 1 | 2 | 4 | 1, pinned before | 2 | 4 |\n"
        + "| --- " * 7
        + "|"
    )
    for rows, classes, count in ((8, 10, 400), (1024, 1000, 100), (8192, 1000, 30)):
        call = cross_entropy(rows, classes)
        rates = [rate(call, number, count, pin) for pin in (False, True) for number in (1, 2, 4)]
        say(f"| [{rows}, {classes}] | " + " | ".join(f"{one:.0f}" for one in rates) + " |")


def rate(call: Call, number: int, count: int, pin: bool) -> float:
    """Return the calls a second of this number of threads."""

    def work() -> None:
        for _ in range(count // number):
            evaluate(ready, DEVICE)

    ready = pinned(call, DEVICE) if pin else call

    with ThreadPoolExecutor(number) as pool:
        for running in [pool.submit(work) for _ in range(number)]:
            running.result()
        wait()
        start = time.perf_counter()
        for running in [pool.submit(work) for _ in range(number)]:
            running.result()
        wait()
        return count // number * number / (time.perf_counter() - start)


def together() -> None:
    """Time like calls as one, by their number, and find the size up to which the CPU is faster."""
    say(f"## Calls together, ms, and ms a call\nthe CPU computes up to {near_work(DEVICE, LOSSES)} units")
    for rows, classes in ((8, 10), (64, 100), (256, 1000)):
        call = pinned(cross_entropy(rows, classes), DEVICE)
        found: list[str] = []
        for count in (1, 4, 16, 64, 256):
            if count * call.work > 1 << 24:
                break
            ms = (
                median_us(lambda c=count, one=call: evaluate_alike([one] * c, DEVICE), 10 if CUDA else 1)
                / 1e3
            )
            found.append(f"{count}: {ms:.1f}, {ms / count:.3f}")
        say(f"- [{rows}, {classes}], {call.work} units: {'; '.join(found)}")


def crossover() -> None:
    """Time each loss on the CPU and on the device, as its work grows."""
    say("## CPU and device by work, seconds of a call")
    say(
        "| units | losses | CPU, median ms | device, median ms | device faster in | slowest on the device, ms |\n"
        + "| --- " * 6
        + "|"
    )
    for least in (0, 1 << 13, 1 << 15, 1 << 17, 1 << 19, 1 << 21):
        found: list[tuple[float, float, str]] = []
        end = time.perf_counter() + (8 if CUDA else 1)
        for loss in LOSSES[:: 3 if least else 1]:
            if time.perf_counter() < end and (call := _grown(loss, least)) is not None:
                here = median_us(lambda c=call: evaluate(c), 3 if least < 1 << 17 else 1)
                found.append((here, median_us(lambda c=call: evaluate(c, DEVICE), 3), loss.name))
        if found:
            _say_row(least, found)


def _grown(loss: AnyLoss, least: int) -> Call | None:
    """Return a call with about this much work, if one can be drawn."""
    if not least:
        return variants(loss)[0].call(dtype=torch.float32)
    work.UNITS = least
    call = next((grown.call for grown in work.all_grown(loss)), None)
    return call if call is not None and least <= call.work <= 8 * least else None


def _say_row(least: int, found: list[tuple[float, float, str]]) -> None:
    """Write a row of times in microseconds."""
    cpu = statistics.median(here for here, _, _ in found) / 1e3
    device = statistics.median(there for _, there, _ in found) / 1e3
    faster = sum(there < here for here, there, _ in found)
    slowest = sorted(found, key=lambda row: -row[1])[:6]
    slow = [(name, round(there / 1e3, 1), round(here / 1e3, 1)) for here, there, name in slowest]
    say(f"| {least} | {len(found)} | {cpu:.2f} | {device:.2f} | {faster} | {slow} |")


def graphs() -> None:
    """Time each loss as a captured CUDA graph, as like calls could be replayed."""
    if not CUDA:
        return
    refused: dict[str, list[str]] = {}
    gains: list[tuple[float, float]] = []
    for loss in LOSSES:
        if loss.joins:
            continue
        call = variants(loss)[0].call(dtype=torch.float32)
        stack = stacked([call, call])
        try:
            gains.append(captured(stack, to_device(stack.inputs, DEVICE)))
        except Exception as error:
            reason = str(error).split("\n")[0][:80]
            refused.setdefault(reason, []).append(loss.name)
            torch.cuda.synchronize()
    eager, replayed = (statistics.median(gain[i] for gain in gains) for i in (0, 1))
    say(
        f"## Graphs\n{len(gains)} losses captured, medians: {eager:.0f} µs by torch, {replayed:.0f} µs replayed; not captured: {refused}"
    )


def differentiable(inputs: Mapping[str, Tensor], call: Call) -> Mapping[str, Tensor]:
    """Return the inputs; those whose gradients the call asks for are leaves."""
    return {n: t.detach().requires_grad_() if n in call.gradients_of else t for n, t in inputs.items()}


def captured(stack: Stack, there: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return the times of a step, by torch and replayed."""
    like = stack.like

    def terms(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        return {n: p for n, p in like.loss.terms(inputs, like.params)._asdict().items() if p is not None}

    def step() -> object:
        leaves = differentiable(there, like)
        found = torch.func.vmap(terms)(leaves)
        made = Terms(found["loss"], found.get("divisor"), found.get("mean_terms"), found["aux"])
        reduced = reduce(like, made, None, None, axes=1)
        return reduced.value, gradients(like, reducible(like, made), reduced.slope, leaves)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.autograd.set_multithreading_enabled(False):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.autograd.set_multithreading_enabled(False), torch.cuda.graph(graph):
        step()
    return median_us(step, 7), median_us(graph.replay, 7)
