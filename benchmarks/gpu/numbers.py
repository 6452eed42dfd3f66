"""Probe the results of a GPU: compare every variant of every loss with the CPU, and find waits and unstable bits."""

import statistics
import time
import warnings

import torch

from benchmarks.gpu.report import CUDA, DEVICE, LOSSES, say
from service.engine.call import Call, Evaluation
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from tests.conformance.cases import variants
from tests.conformance.compare import outputs


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
