"""A CUDA device computes the same as the CPU for all requests, and survives hostile ones."""

import asyncio
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.engine.cost import UNIT_BYTES
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_alike, evaluate_together
from service.engine.queue import units
from service.engine.stack import stacked
from service.losses import CATALOGUE
from service.problems import TooLarge
from service.settings import Settings
from tests.client import Client, running
from tests.conformance.cases import cross_entropy, every_loss, variants
from tests.conformance.compare import assert_same, of_each_divisor, sent
from tests.conformance.work import all_grown

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine"),
    # cuBLAS warns once of a thread that has no context yet
    pytest.mark.filterwarnings("default"),
]
DEVICE = torch.device("cuda:0")
CLOSE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}
DTYPES = pytest.mark.parametrize("dtype", CLOSE, ids=str)
MARGIN = 1 << 22
"""Bytes that a call may take beyond its work: pieces of distances, and at least 512 for each tensor."""
WAITS = {"boundary", "hausdorff_dt", "ctc"}
"""Losses whose distances are measured on the CPU, and whose lengths torch reads there."""


@every_loss
@DTYPES
def test_the_device_computes_what_the_cpu_computes(loss: AnyLoss, dtype: torch.dtype) -> None:
    for variant in variants(loss):
        call = variant.call(dtype=dtype)
        assert_same(evaluate(call, DEVICE), evaluate(call), CLOSE[dtype])


@every_loss
@DTYPES
def test_it_does_under_every_reduction_with_weights(loss: AnyLoss, dtype: torch.dtype) -> None:
    for call in _weighted(loss, dtype):
        assert_same(evaluate(call, DEVICE), evaluate(call), CLOSE[dtype])


@every_loss
@DTYPES
def test_calls_evaluated_together_equal_those_of_the_cpu(loss: AnyLoss, dtype: torch.dtype) -> None:
    calls = [*_weighted(loss, dtype, seeds=3)]
    for first in range(0, len(calls), 3):
        some = calls[first : first + 3]
        for together, alone in zip(
            evaluate_together(stacked(some), DEVICE), map(evaluate, some), strict=True
        ):
            assert_same(together, alone, CLOSE[dtype])


def _weighted(loss: AnyLoss, dtype: torch.dtype, seeds: int = 1) -> Iterator[Call]:
    """Yield calls under each reduction with weights and an upstream gradient."""
    for variant in of_each_divisor(loss):
        for reduction, divide_by in (("mean", None), ("mean", 7.0), ("sum", None), ("none", None)):
            for seed in range(seeds):
                yield sent(variant, seed, reduction, True, True, dtype=dtype, divide_by=divide_by)


@every_loss
def test_the_host_waits_for_no_number_between_the_first_kernel_and_the_results(loss: AnyLoss) -> None:
    seen = {place for call in _weighted(loss, torch.float32) for place in _waits(call)}
    assert not seen or loss.name in WAITS, seen


def _waits(call: Call) -> set[str]:
    """Return where in the service the host waited in a second evaluation."""
    evaluate(call, DEVICE)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            evaluate(call, DEVICE)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # the only necessary wait is for the results
    waits = {f"{w.filename}:{w.lineno}" for w in seen if "synchroniz" in str(w.message)}
    return {place for place in waits if "torch/cuda/streams.py" not in place}


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_call_takes_more_memory_than_the_declared_work_admits(loss: AnyLoss, dtype: torch.dtype) -> None:
    over: list[str] = []
    for grown in all_grown(loss):
        call = grown.call if dtype is torch.float32 else _double(grown.call)
        # once before: libraries keep workspaces
        evaluate(call, DEVICE)
        torch.cuda.synchronize()
        kept = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        evaluate(call, DEVICE)
        taken = torch.cuda.max_memory_allocated() - kept
        if taken > UNIT_BYTES * units(call) + MARGIN:
            over.append(f"{grown}: {taken} bytes where {units(call)} units are declared")
    assert not over, "\n".join(over)


def _double(call: Call) -> Call:
    """Return a call in float64."""
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in call.inputs.items()}
    return call._replace(inputs=inputs, dtype=torch.float64)


def test_threads_that_compute_at_once_do_not_disturb_each_other() -> None:
    calls = [cross_entropy(50 + seed % 7, 30, seed) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda call: evaluate(call, DEVICE), calls)]
    for there, call in zip(found, calls, strict=True):
        assert_same(there, evaluate(call), 2e-4)


def test_a_call_that_does_not_fit_is_refused_and_the_next_is_answered() -> None:
    # of this process only: others may be computing
    torch.cuda.set_per_process_memory_fraction((1 << 30) / torch.cuda.mem_get_info()[1])
    pairs = variants(CATALOGUE["info_nce"])[0].call(dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    rows = {name: Sent(torch.randn(24000, 64, generator=rng)) for name in pairs.inputs}
    big = bind(Request(loss=pairs.loss, inputs=rows, params=pairs.params))
    [found] = evaluate_alike([big], DEVICE)
    assert isinstance(found, TooLarge)
    small = cross_entropy(8, 10)
    assert_same(evaluate(small, DEVICE), evaluate(small), 2e-4)
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_server_computes_small_calls_on_the_cpu_and_large_ones_on_the_device() -> None:
    async def ask() -> dict[int, tuple[str, float]]:
        client = Client(create_app(Settings(device="cuda")))
        found: dict[int, tuple[str, float]] = {}
        async with running(client.app):
            while (await client.ask("GET", "/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
            for size in (10, 200_000):
                answer = (await client.ask("POST", "/v1/losses/mae", json=_errors(size))).json()
                found[size] = answer["device"], answer["value"]
        return found

    found = asyncio.run(ask())
    assert {size: device for size, (device, _) in found.items()} == {10: "cpu", 200_000: "cuda:0"}
    assert [value for _, value in found.values()] == pytest.approx([0.5, 0.5])


def _errors(size: int) -> dict[str, Any]:
    return {"inputs": {"predictions": [0.25, -0.5] * (size // 2), "targets": [0.75, 0.0] * (size // 2)}}


def test_an_index_out_of_range_leaves_the_context_alive() -> None:
    client = Client(create_app(Settings(device="cuda")))
    bad = {"logits": [[1.0, 2.0]], "targets": [7]}
    assert client.evaluate("cross_entropy", inputs=bad).status_code == 422
    good = {"logits": [[1.0, 2.0]], "targets": [1]}
    assert client.evaluate("cross_entropy", inputs=good).json()["device"] == "cuda:0"
