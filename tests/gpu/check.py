"""Find, without a GPU, what would break or wait on one: every loss is computed on the pretended device.

``python -m tests.gpu.check [loss …]`` prints a table, and exits with 1 where a loss mixes devices, gives other numbers
than the CPU, or makes the host wait or brings tensors to the device itself.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from service.catalogue.dims import expand
from service.catalogue.domains import Facts
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import _sizes, _tuples  # pyright: ignore[reportPrivateUsage]
from service.engine.call import Call, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from service.losses import CATALOGUE
from service.problems import Invalid
from tests.conformance.cases import Variant, variants
from tests.conformance.compare import assert_same
from tests.gpu import pretend

WAIT = {"boundary", "hausdorff_dt", "ctc", "wasserstein_1d", "cross_entropy"}
"""Losses whose own function makes the host wait."""
UPLOAD = WAIT | {
    "charbonnier", "cross_entropy", "generalized_wasserstein_dice", "laplacian_pyramid", "linear_cross_entropy",
    "logit_adjusted_cross_entropy", "mmd", "ms_ssim", "multi_margin", "multi_quantile", "multilabel_soft_margin", "nll", "oks",
    "softmax_focal", "binary_cross_entropy_with_logits",
}  # fmt: skip
"""Losses that bring params, which are lists of numbers, to the device."""
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


@dataclass
class Row:
    """What was seen of one loss."""

    faults: list[str] = field(default_factory=list[str])
    alone: Counter[str] = field(default_factory=Counter[str])
    together: Counter[str] = field(default_factory=Counter[str])
    kernels: int = 0
    kernels_together: int = 0
    atomic: set[str] = field(default_factory=set[str])
    cases: int = 0


def main(names: list[str]) -> int:
    """Check losses, all by default."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    device, log = pretend.install()
    rows = {name: check(CATALOGUE[name], device, log) for name in names or CATALOGUE}
    print(
        "| loss | kernels alone | together | waits and uploads of its own | atomics |\n| --- | --- | --- | --- | --- |"
    )
    for name, row in rows.items():
        own = sorted(where for where in row.alone | row.together if "engine/" not in where)
        row.faults += _unknown(name, own)
        print(
            f"| {name} | {row.kernels} | {row.kernels_together} | {'; '.join(own)} | {', '.join(sorted(row.atomic))} |"
        )
        for fault in sorted(set(row.faults))[:5]:
            print(f"    FAULT {fault}")
    engine = Counter(where for row in rows.values() for where in row.alone if "engine/" in where)
    print("of the engine, in how many losses:", dict(engine))
    bad = [name for name, row in rows.items() if row.faults]
    print(f"{len(rows)} losses, {sum(row.cases for row in rows.values())} cases; with a fault: {bad}")
    return len(bad)


def _unknown(name: str, own: list[str]) -> list[str]:
    """Return the waits and uploads of a loss that is known for none."""
    uploads = [where for where in own if where.startswith("upload")]
    waits = [where for where in own if where not in uploads]
    return [
        *([f"waits: {waits}"] if waits and name not in WAIT else []),
        *([f"uploads: {uploads}"] if uploads and name not in UPLOAD else []),
    ]


def check(loss: AnyLoss, device: torch.device, log: pretend.Log) -> Row:
    """Compute a loss alone and together, on the CPU and on the device."""
    row = Row()
    for told, make in cases(loss):
        row.cases += 1
        calls = [make(seed) for seed in range(3)]
        here = [evaluate(call) for call in calls]
        close = CLOSE[calls[0].dtype]
        log.clear()
        try:
            assert_same(evaluate(calls[0], device), here[0], close)
        except Exception as error:
            row.faults.append(f"alone, {told}: {type(error).__name__}: {str(error)[:300]}")
        _keep_most(row.alone, log)
        row.kernels = max(row.kernels, log.kernels.total())
        row.atomic |= log.kernels.keys() & pretend.ATOMIC
        if not loss.fuses:
            continue
        log.clear()
        try:
            for one, expected in zip(evaluate_together(stacked(calls), device), here, strict=True):
                assert_same(one, expected, close)
        except Exception as error:
            row.faults.append(f"together, {told}: {type(error).__name__}: {str(error)[:300]}")
        _keep_most(row.together, log)
        row.kernels_together = max(row.kernels_together, log.kernels.total())
    return row


def _keep_most(counts: Counter[str], log: pretend.Log) -> None:
    """Keep the most that was seen of each wait and upload."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
