"""Find errors and waits of a GPU without one: every loss is computed on the pretended device.

``python -m tests.gpu.check [loss …]`` prints a table, and exits with 1 where a loss mixes devices, gives other numbers
than the CPU, or makes the host wait or brings tensors to the device itself.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from service.catalogue.dims import expand
from service.catalogue.domains import Facts
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import _sizes, _tuples  # pyright: ignore[reportPrivateUsage]
from service.engine.call import Call, Evaluation, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from service.losses import CATALOGUE
from service.problems import Invalid
from service.wire import describe
from tests.conformance.cases import Variant, variants
from tests.conformance.compare import assert_same
from tests.gpu import pretend

WAIT = {"ctc", *(loss.name for loss in CATALOGUE.values() if loss.on_cpu)}
"""Losses that make the host wait, because it computes their distances or reads their lengths."""
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


@dataclass
class Row:
    """The findings about one loss."""

    faults: list[str] = field(default_factory=list[str])
    alone: Counter[str] = field(default_factory=Counter[str])
    together: Counter[str] = field(default_factory=Counter[str])
    kernels: int = 0
    atomic: set[str] = field(default_factory=set[str])
    cases: int = 0


def main(names: list[str]) -> int:
    """Check losses, all by default."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    device, log = pretend.install()
    rows = {name: check(CATALOGUE[name], device, log) for name in names or CATALOGUE}
    print("| loss | kernels | its waits and uploads | atomics |\n| --- | --- | --- | --- |")
    for name, row in rows.items():
        own = sorted(where for where in row.alone | row.together if "engine/" not in where)
        row.faults += _unknown(name, own) + _of_engine(row)
        print(f"| {name} | {row.kernels} | {'; '.join(own)} | {', '.join(sorted(row.atomic))} |")
        for fault in sorted(set(row.faults))[:5]:
            print(f"    FAULT {fault}")
    engine = Counter(where for row in rows.values() for where in row.alone if "engine/" in where)
    print("of the engine, in how many losses:", dict(engine))
    bad = [name for name, row in rows.items() if row.faults]
    print(f"{len(rows)} losses, {sum(row.cases for row in rows.values())} cases; with a fault: {bad}")
    return len(bad)


def _unknown(name: str, own: list[str]) -> list[str]:
    """Return the unexpected waits and uploads of a loss."""
    uploads = [where for where in own if where.startswith("upload")]
    waits = [where for where in own if where not in uploads]
    return [
        *([f"waits: {waits}"] if waits and name not in WAIT else []),
        *([f"uploads: {uploads}"] if uploads and name not in WAIT else []),
    ]


def _of_engine(row: Row) -> list[str]:
    """Return the waits of the engine except the one for results, and its uploads except those of inputs and weights."""
    counts = {
        where: times
        for where, times in (row.alone | row.together).items()
        if "engine/" in where or "backward" in where
    }
    most = {"copy to the host": 1, "upload": 2}
    return [
        f"{times} times {where}"
        for where, times in counts.items()
        if times
        > next((n for what, n in most.items() if where.startswith(what) and "transfer.py" in where), 0)
    ]


def check(loss: AnyLoss, device: torch.device, log: pretend.Log) -> Row:
    """Compute a loss alone and together, on the CPU and on the device."""
    row = Row()
    for told, make in cases(loss):
        row.cases += 1
        calls = [make(seed) for seed in range(3)]
        here = [evaluate(call) for call in calls]
        close = CLOSE[calls[0].dtype]
        for counts, compute in ((row.alone, _alone), (row.together, _together)):
            try:
                for found, expected in zip(_watched(calls, device, log, compute), here, strict=False):
                    assert_same(found, expected, close)
            except Exception as error:
                row.faults.append(f"{compute.__name__}, {told}: {type(error).__name__}: {str(error)[:300]}")
            _keep_most(counts, log)
            row.kernels = max(row.kernels, log.kernels.total())
            row.atomic |= log.kernels.keys() & pretend.ATOMIC
    return row


def _alone(calls: list[Call], device: torch.device) -> Sequence[Evaluation]:
    return [evaluate(calls[0], device)]


def _together(calls: list[Call], device: torch.device) -> Sequence[Evaluation]:
    return evaluate_together(stacked(calls), device)


def _watched(
    calls: list[Call],
    device: torch.device,
    log: pretend.Log,
    compute: Callable[[list[Call], torch.device], Sequence[Evaluation]],
) -> Sequence[Evaluation]:
    """Compute calls; once more where constants were brought to the device, which must stay there."""
    log.clear()
    found = compute(calls, device)
    if any("constants.py" in place for place in log.uploads):
        log.clear()
        found = compute(calls, device)
    return found


def _keep_most(counts: Counter[str], log: pretend.Log) -> None:
    """Keep the maximum of each wait and upload."""
    for what, found in (("", log.waits), ("upload @ ", log.uploads)):
        for where, times in found.items():
            counts[what + where] = max(times, counts[what + where])


def cases(loss: AnyLoss) -> Iterator[tuple[str, Callable[[int], Call]]]:
    """Yield calls of a loss: each variant, with lists of numbers for what takes them, and options."""
    default, *others = variants(loss)
    for variant in [default, *others, *_listed(default)]:
        told = f"{dict(variant.params)} row {variant.row} optional {variant.optional}"
        for dtype in (torch.float64, torch.float32):
            for reduction in ("mean", "none"):
                yield (
                    f"{told} {dtype} {reduction}",
                    lambda seed, v=variant, d=dtype, r=reduction: v.call(seed, dtype=d, reduction=r),
                )
    for dtype in (torch.float16, torch.bfloat16):
        yield f"defaults {dtype}", lambda seed, d=dtype: default.call(seed, dtype=d)
    yield "weighted, with an upstream gradient", lambda seed: _weighted(default, seed)
    if loss.differentiable:
        yield "second derivatives", lambda seed: _with_tangents(default, seed)
    yield "divided by a number", lambda seed: default.call(seed, divide_by=7.0)


def _listed(default: Variant) -> Iterator[Variant]:
    """Yield a call for each param that may be a list of numbers, and is none by default."""
    loss = default.loss
    for name, param in loss.params.items():
        if param.values is None or default.params.get(name) is not None:
            continue
        sizes = _sizes(loss, default.params)
        facts = Facts(sizes, default.params, {})
        drawn = param.values.domain.draw(
            expand(param.values.dims, sizes), facts, torch.Generator().manual_seed(0)
        )
        for row in range(loss.rows):
            listed = Variant(loss, {**default.params, name: _tuples(drawn)}, row, default.optional)
            try:
                listed.call()
            except Invalid:
                continue
            yield listed


def _weighted(default: Variant, seed: int) -> Call:
    """Return a call with weights and an upstream gradient."""
    shape = evaluate(default.call(seed, reduction="none")).value.shape
    rng = torch.Generator().manual_seed(seed)
    return default.call(
        seed,
        sample_weight=Sent(torch.rand(shape[:1], generator=rng, dtype=torch.float64)),
        grad_output=Sent(torch.rand((), generator=rng, dtype=torch.float64)),
    )


def _with_tangents(default: Variant, seed: int) -> Call:
    """Return a call with tangents, and the diagonal if there is one."""
    call = default.call(seed)
    rng = torch.Generator().manual_seed(seed)
    tangents = {
        n: torch.randn(call.inputs[n].shape, generator=rng, dtype=torch.float64) for n in call.gradients_of
    }
    elementwise = {*call.gradients_of} <= {*describe.elementwise(default.loss)}
    return call._replace(tangents=tangents, hessian="diagonal" if elementwise else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
