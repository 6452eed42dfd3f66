"""Probe the engine on a GPU: numbers, waits, bits, where time goes, memory, faults; ``python -m benchmarks.gpu.probe cuda OUT.md``.

With ``cpu`` for the device it is a rehearsal.
"""

import os
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.backward import differentiable, gradients
from service.engine.bind import bind
from service.engine.call import Call, Evaluation, Request, Sent
from service.engine.device import near_work
from service.engine.evaluate import evaluate, options
from service.engine.fuse import evaluate_alike, evaluate_together
from service.engine.reduce import reduce
from service.engine.stack import Stack, stacked
from service.engine.transfer import pinned, to_device, to_host
from service.losses import CATALOGUE
from tests.conformance.cases import variants
from tests.conformance.compare import outputs
from tests.conformance.work import all_grown

DEVICE = torch.device("cuda:0" if sys.argv[1] == "cuda" else sys.argv[1])
CUDA = DEVICE.type == "cuda"
LOSSES = [*CATALOGUE.values()]
OUT: list[str] = []
START = time.perf_counter()
FAULTS: Mapping[str, str] = {
    "an index beyond a tensor": "torch.zeros(4, device='cuda')[torch.tensor([9], device='cuda')].sum().item()",
    "a wrong class in cross entropy": "torch.nn.functional.cross_entropy(torch.zeros(2, 3, device='cuda'), torch.tensor([7, 0], device='cuda')).item()",
    "no memory for a product": "torch.cuda.set_per_process_memory_fraction(1e-4); a = torch.zeros(512, 512, device='cuda'); (a @ a).sum().item()",
    "no memory on the whole card": "torch.zeros(3)\nx = torch.zeros(torch.cuda.mem_get_info()[0] - (1 << 24), dtype=torch.uint8, device='cuda'); a = torch.zeros(512, 512, device='cuda'); (a @ a).sum().item()",
    "a grid that is too large": "torch.zeros(1, device='cuda').expand(2**33).cumsum(0)[0].item()",
    "a tensor of 2^33 bytes that is freed": "torch.zeros(2**33, dtype=torch.uint8, device='cuda').sum().item()",
}
"""Faults on a device, one program each; `FAULT` shows whether a small kernel still runs afterwards."""
FAULT = """
import torch
torch.zeros(1, device="cuda").item()
try:
    exec({program!r})
    print("no error")
except BaseException as error:
    print(type(error).__mro__[:3], str(error)[:160].replace(chr(10), " "))
try:
    torch.ones(8, device="cuda").sum().item(); torch.cuda.synchronize(); print("alive")
except BaseException as error:
    print("dead:", type(error).__name__, str(error)[:80].replace(chr(10), " "))
"""


def say(text: str) -> None:
    """Print a line, and write all lines so far, so that an interrupted run keeps its results."""
    OUT.append(text)
    print(f"{time.perf_counter() - START:6.1f}s {text}", flush=True)
    with open(sys.argv[2], "w") as file:
        file.write("\n".join(OUT) + "\n")


def wait() -> None:
    """Wait for the device."""
    if CUDA:
        torch.cuda.synchronize()


def median_us(what: Callable[[], object], count: int = 50) -> float:
    """Return the median time of a function in microseconds, including the wait for the device."""
    for _ in range(min(5, count)):
        what()
    seconds: list[float] = []
    for _ in range(count):
        wait()
        start = time.perf_counter()
        what()
        wait()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds)


def worst(there: Evaluation, here: Evaluation) -> float:
    """Return the largest error relative to the largest number of its tensor."""
    errors = [0.0]
    wanted = outputs(here)
    for name, tensor in outputs(there).items():
        a, b = tensor.double(), wanted[name].double()
        if (
            a.shape != b.shape
            or not torch.equal(a.isnan(), b.isnan())
            or not torch.equal(a.isinf(), b.isinf())
        ):
            return float("inf")
        finite = b.isfinite()
        if finite.any():
            errors.append(float((a - b)[finite].abs().max()) / max(1.0, float(b[finite].abs().max())))
    return max(errors)


def equal(a: Evaluation, b: Evaluation) -> bool:
    """Return whether two evaluations have the same bits."""
    others = outputs(b)
    return all(
        torch.equal(tensor.nan_to_num(), others[name].nan_to_num()) for name, tensor in outputs(a).items()
    )


class Numbers:
    """The results of comparing each variant of each loss with the CPU, alone and together, twice."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.first: dict[str, float] = {}
        self.waits: dict[str, set[str]] = {}
        self.moved: set[str] = set()
        self.apart: set[str] = set()
        self.cases = 0

    def compare(self, calls: list[Call], told: str, most: float) -> None:
        """Compare one call with the CPU, then three as one."""
        name = calls[0].loss.name
        here = [evaluate(call) for call in calls]
        self.cases += 1
        start = time.perf_counter()
        there = evaluate(calls[0], DEVICE)
        self.first.setdefault(name, time.perf_counter() - start)
        again, waited = watched(calls[0])
        self.waits.setdefault(name, set()).update(waited)
        if (error := worst(there, here[0])) > most:
            self.wrong.append(f"{name} alone {told}: {error:.1e}")
        if not equal(there, again):
            self.moved.add(name)
        together = list(evaluate_together(stacked(calls), DEVICE))
        if (error := max(worst(a, b) for a, b in zip(together, here, strict=True))) > most:
            self.wrong.append(f"{name} together {told}: {error:.1e}")
        if not equal(together[0], there):
            self.apart.add(name)

    def report(self) -> None:
        """Write the results."""
        say(
            f"{self.cases} cases of {len(LOSSES)} losses; {len(self.wrong)} beyond 1e-9 (float64) or 1e-4 (float32) of the CPU's"
        )
        for one in self.wrong[:40]:
            say(f"- {one}")
        say(f"two runs differ in their bits: {sorted(self.moved)}")
        say(
            f"alone and together differ in their bits: {len(self.apart)} losses, such as {sorted(self.apart)[:12]}"
        )
        waiting = {name: sorted(found) for name, found in self.waits.items() if found}
        own = {
            name: places
            for name, places in waiting.items()
            if any("engine/" not in place for place in places)
        }
        say(f"waits (torch's sync debug mode): {own}")
        engine = sorted({place for places in waiting.values() for place in places if "engine/" in place})
        say(f"waits of the engine: {engine} in {len(waiting)} losses")
        slow = sorted(self.first.items(), key=lambda item: -item[1])
        told = [(name, round(1e3 * s)) for name, s in slow[:8]]
        say(
            f"first calls took {sum(self.first.values()):.1f} s together; slowest {told} ms; "
            f"median {1e3 * statistics.median(self.first.values()):.1f} ms"
        )


def watched(call: Call) -> tuple[Evaluation, set[str]]:
    """Evaluate a call, and return where the host waited."""
    if CUDA:
        torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = evaluate(call, DEVICE)
    if CUDA:
        torch.cuda.set_sync_debug_mode("default")
    places = {
        f"{w.filename.split('/service/')[-1]}:{w.lineno}" for w in seen if "synchroniz" in str(w.message)
    }
    # the only necessary wait is for the results
    return found, {place for place in places if "torch/cuda/streams.py" not in place}


def numbers() -> None:
    """Compare each variant of each loss with the CPU."""
    say("## Numbers")
    seen = Numbers()
    for loss in LOSSES:
        for variant in variants(loss):
            for dtype, most in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
                told = f"{dict(variant.params)} row {variant.row} {dtype}"
                try:
                    seen.compare([variant.call(seed, dtype=dtype) for seed in range(3)], told, most)
                except Exception as error:
                    seen.wrong.append(f"{loss.name} {told}: {type(error).__name__}: {str(error)[:150]}")
                    if "CUDA error" in str(error):
                        say(f"**the context broke** at {seen.wrong[-1]}")
                        return
    seen.report()


def cross_entropy(rows: int, classes: int) -> Call:
    """Return a call of random logits."""
    rng = torch.Generator().manual_seed(0)
    logits, targets = (
        torch.randn(rows, classes, generator=rng),
        torch.randint(classes, (rows,), generator=rng),
    )
    loss = CATALOGUE["cross_entropy"]
    return bind(
        Request(loss=loss, inputs={"logits": Sent(logits), "targets": Sent(targets)}, params=loss.defaults)
    )


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
            median_us(lambda c=call, t=terms: reduce(c, t, *options(c, DEVICE), axes=0)),
            median_us(lambda g=gradient: to_host([g, g.sum()])),
        ]
        say(f"| [{rows}, {classes}] | " + " | ".join(f"{us:.0f}" for us in took) + " |")


def copies() -> None:
    """Time the ways in and out."""
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
    """Compute in one thread and in several, each with a stream, inputs pinned by them or before."""
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
    """Return the calls a second of some threads."""

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
    """Time calls that are alike as one, by how many they are, and find up to where the CPU is faster."""
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
    from tests.conformance import work

    say(
        "## CPU and device by work, all losses, seconds of a call\n| units | losses | CPU, median ms | device, median ms | device faster in | slowest on the device, ms |\n"
        + "| --- " * 6
        + "|"
    )
    for least in (0, 1 << 13, 1 << 15, 1 << 17, 1 << 19, 1 << 21):
        found: list[tuple[float, float, str]] = []
        end = time.perf_counter() + (8 if CUDA else 1)
        for loss in LOSSES[:: 3 if least else 1]:
            if time.perf_counter() > end:
                break
            try:
                work.UNITS = least
                call = (
                    next(iter(all_grown(loss))).call if least else variants(loss)[0].call(dtype=torch.float32)
                )
                if call.work < least or call.work > 8 * max(least, 1 << 12):
                    continue
                few = 3 if least < 1 << 17 else 1
                found.append(
                    (
                        median_us(lambda c=call: evaluate(c), few),
                        median_us(lambda c=call: evaluate(c, DEVICE), 3),
                        loss.name,
                    )
                )
            except Exception as error:
                say(f"- {loss.name} at {least}: {type(error).__name__} {str(error)[:100]}")
        if found:
            cpu, device = (
                statistics.median(times) / 1e3
                for times in ([c for c, _, _ in found], [d for _, d, _ in found])
            )
            slow = [
                (name, round(d / 1e3, 1), round(c / 1e3, 1))
                for c, d, name in sorted(found, key=lambda row: -row[1])[:6]
            ]
            say(
                f"| {least} | {len(found)} | {cpu:.2f} | {device:.2f} | {sum(d < c for c, d, _ in found)} | {slow} |"
            )


def graphs() -> None:
    """Capture each loss as a CUDA graph, as calls of one kind would be replayed."""
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


def captured(stack: Stack, there: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return the times of a step by torch, and replayed."""
    like = stack.like

    def terms(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        return {n: p for n, p in like.loss.terms(inputs, like.params)._asdict().items() if p is not None}

    def step() -> object:
        leaves = differentiable(there, like)
        found = torch.func.vmap(terms)(leaves)
        made = Terms(found["loss"], found.get("divisor"), found.get("mean_terms"), found["aux"])
        reduced = reduce(like, made, None, None, axes=1)
        return reduced.value, gradients(like, made, reduced.slope, leaves)

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


def memory() -> None:
    """Write the memory held at the end."""
    if CUDA:
        stats = torch.cuda.memory.host_memory_stats()
        pinned = {name: size for name, size in stats.items() if name.endswith((".current", ".peak"))}
        say(f"## Memory\nreserved {torch.cuda.memory_reserved() >> 20} MiB, pinned {pinned}")


def faults() -> None:
    """Provoke each fault in a separate process, and check whether the device still computes."""
    if not CUDA:
        return
    say("## Faults")
    running = {
        what: subprocess.Popen(
            [sys.executable, "-c", FAULT.format(program=program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for what, program in FAULTS.items()
        if "whole card" not in what
    }
    for what, process in running.items():
        say(f"- {what}: {' | '.join(process.communicate(timeout=40)[0].splitlines())}")
    [(what, program)] = [(what, program) for what, program in FAULTS.items() if "whole card" in what]
    alone = subprocess.run(
        [sys.executable, "-c", FAULT.format(program=program)], capture_output=True, text=True
    )
    say(f"- {what}: {' | '.join(alone.stdout.splitlines())}")
    # the option of the image
    program = "from service.engine import device as d; from service.losses import CATALOGUE; import torch; d.warm_up(torch.device('cuda:0'), list(CATALOGUE.values())[:40]); print(torch.cuda.memory_reserved() >> 20, 'MiB')"
    env = {**os.environ, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    alone = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    say(f"- expandable segments: {alone.stdout.strip() or alone.stderr[-300:]}")


def main() -> None:
    """Run all probes, even if some fail."""
    torch.set_num_threads(1)
    for part in (numbers, steps, copies, threads, together, crossover, graphs, memory, faults):
        try:
            part()
        except Exception:
            say(f"**{part.__name__} broke**\n```\n{traceback.format_exc()[-1500:]}\n```")
    say("done")


if __name__ == "__main__":
    main()
