"""The queue: like calls together, each with its own fate, and no more than the capacity."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor

from service.admission.account import Account
from service.catalogue.declare import loss
from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Prediction, Unreduced
from service.engine.bind import bind
from service.engine.call import Call, Evaluation, Sent
from service.engine.cost import BUDGET, FUSED
from service.engine.evaluate import evaluate
from service.engine.lane import Lane
from service.engine.observer import NOBODY
from service.engine.queue import Queue
from service.engine.stack import Evaluations, stacked
from service.losses import CATALOGUE
from service.problems import Fault, TooLarge, Unavailable
from tests.conformance.cases import variants, with_inputs

CPU = torch.device("cpu")
HOLD = Account(1).open()


def call(loss: str, seed: int = 0) -> Call:
    return variants(CATALOGUE[loss])[0].call(seed)


def run(
    test: Callable[[Queue], Coroutine[Any, Any, None]],
    max_work: int = 2**28,
    fuse: bool = True,
) -> None:
    async def with_queue() -> None:
        lane = Lane("test", 2)
        try:
            queue = Queue(CPU, lane, max_work=max_work, fuse=fuse)
            await asyncio.wait_for(test(queue), 100)
        finally:
            lane.close()

    asyncio.run(with_queue())


def value(result: Any) -> float:
    assert isinstance(result, Evaluation)
    return result.value.item()


def test_jobs_that_arrive_together_give_what_they_give_alone() -> None:
    async def test(queue: Queue) -> None:
        calls = [call(loss, seed) for seed in range(4) for loss in ("mse", "cross_entropy")]
        jobs = [queue.submit(one, HOLD) for one in calls]
        results = await asyncio.gather(*(job.future for job in jobs))
        for one, result in zip(calls, results, strict=True):
            assert value(result) == pytest.approx(evaluate(one).value.item(), rel=1e-12)

    run(test)


def test_one_cancelled_of_three_leaves_the_others() -> None:
    async def test(queue: Queue) -> None:
        jobs = [queue.submit(call("mse", seed), HOLD) for seed in range(3)]
        jobs[1].future.cancel()
        first, last = await asyncio.gather(jobs[0].future, jobs[2].future)
        assert value(first) == pytest.approx(evaluate(call("mse", 0)).value.item())
        assert value(last) == pytest.approx(evaluate(call("mse", 2)).value.item())

    run(test)


def test_a_failure_stays_with_the_call_it_belongs_to() -> None:
    """Torch refuses one call, by itself and with others: these are computed again without it."""
    healthy = [call("cross_entropy", seed) for seed in range(3)]
    beyond = torch.full_like(healthy[1].inputs["targets"], 99)
    calls = [healthy[0], with_inputs(healthy[1], targets=beyond), healthy[2]]

    async def test(queue: Queue) -> None:
        jobs = [queue.submit(one, HOLD) for one in calls]
        [together] = queue.compute_all(stacked(calls))
        results = await asyncio.gather(*(job.future for job in jobs))
        for first, second, third in (results, together):
            assert value(first) == evaluate(healthy[0]).value.item()
            assert isinstance(second, Exception)
            assert value(third) == evaluate(healthy[2]).value.item()

    run(test)


def test_a_poisoned_neighbour_changes_no_bit_of_the_others() -> None:
    loss: AnyLoss = CATALOGUE["cross_entropy"]
    healthy = [variants(loss)[0].call(seed, dtype=torch.float32) for seed in range(3)]
    nan = torch.full_like(healthy[1].inputs["logits"], torch.nan)

    async def test(queue: Queue) -> None:
        [before] = queue.compute_all(stacked(healthy))
        poisoned = healthy[1]._replace(inputs={**healthy[1].inputs, "logits": nan})
        [after] = queue.compute_all(stacked([healthy[0], poisoned, healthy[2]]))
        for place in (0, 2):
            old, new = before[place], after[place]
            assert isinstance(old, Evaluation)
            assert isinstance(new, Evaluation)
            assert torch.equal(old.value, new.value)
            assert torch.equal(old.gradients["logits"], new.gradients["logits"])

    run(test)


def test_large_calls_are_computed_in_threads() -> None:
    large = Call(
        loss=CATALOGUE["mse"],
        inputs={"predictions": torch.ones(100_000), "targets": torch.zeros(100_000)},
        params={},
        work=200_000,
        gradients_of=("predictions",),
    )

    async def test(queue: Queue) -> None:
        jobs = [queue.submit(large, HOLD) for _ in range(4)]
        for result in await asyncio.gather(*(job.future for job in jobs)):
            assert value(result) == 1

    run(test)


def test_a_call_over_the_limit_of_work_is_refused_and_its_neighbours_are_not() -> None:
    small, large = (variants(CATALOGUE["clip"])[0].call(dtype=torch.float32) for _ in range(2))
    large = large._replace(work=small.work + 1)

    async def test(queue: Queue) -> None:
        refused, fine = queue.submit(large, HOLD), queue.submit(small, HOLD)
        [together] = queue.compute_all(stacked([large] * 3))
        for result in (await refused.future, *together):
            assert isinstance(result, TooLarge)
            assert [fault.code for fault in result.faults] == ["work"]
            assert f"at most {small.work} elements of work (LOSSD_MAX_WORK)" in result.detail
            assert result.detail.endswith(f"clip is estimated to take {small.work + 1}.")
        assert value(await fine.future) == evaluate(small).value.item()

    run(test, max_work=small.work)


@loss(title="Asserting", tasks=("regression",))
def asserting(
    predictions: Annotated[Tensor, Prediction("N")], *, asserts: bool = True
) -> Annotated[Tensor, Unreduced("N")]:
    """Fails as a CUDA kernel does that finds an index out of range.

    Formula:
        0

    Args:
        predictions: Anything.
        asserts: Whether it fails so, or otherwise.

    Use when:
        Never.

    Pitfalls:
        All.

    Sources:
        - None.
    """
    raise RuntimeError("CUDA error: device-side assert triggered" if asserts else "shapes do not match")


@pytest.mark.parametrize("work", [1, FUSED + 1])
@pytest.mark.parametrize("alive", [True, False])
def test_a_device_that_a_fault_has_broken_computes_nothing_more(
    alive: bool, work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the fault says: the device itself is asked."""
    monkeypatch.setattr("service.engine.queue.is_alive", lambda device: alive)
    faulty = Call(loss=asserting, inputs={"predictions": torch.ones(2)}, params={"asserts": True}, work=work)
    reasons: list[str] = []

    async def test() -> None:
        lane = Lane("test", 1)
        queue = Queue(CPU, lane, max_work=2**28, on_failure=reasons.append)
        # as one that is no CPU
        queue.on_cpu = False
        first = await queue.submit(faulty, HOLD).future
        then = await queue.submit(call("mse"), HOLD).future
        [last] = queue.compute([call("mse")])
        lane.close()
        assert queue.failed is not alive
        if alive:
            assert isinstance(first, RuntimeError)
            assert value(then) == value(last) == pytest.approx(evaluate(call("mse")).value.item())
        else:
            assert all(isinstance(result, Unavailable) for result in (first, then, last))

    asyncio.run(test())
    assert len(reasons) == (not alive)
    assert alive or "cpu has failed: CUDA error: device-side assert triggered" in reasons[0]


def test_a_problem_of_a_call_asks_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(device: torch.device) -> bool:
        raise AssertionError

    monkeypatch.setattr("service.engine.queue.is_alive", asked)
    monkeypatch.setattr("service.engine.queue.attempt", lambda call, device: TooLarge("", Fault("", "", "")))

    async def test(queue: Queue) -> None:
        queue.on_cpu = False
        [result] = queue.compute([call("mse")])
        assert isinstance(result, TooLarge)

    run(test)


def test_a_thread_that_fails_fails_all_of_its_calls_and_the_queue_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(parts: Any, device: torch.device) -> Any:
        raise LookupError("lost")

    async def test(queue: Queue) -> None:
        queue.on_cpu = False
        with monkeypatch.context() as patch:
            patch.setattr("service.engine.queue.evaluate_alike", fail)
            results = await asyncio.gather(
                *(queue.submit(call("mse", seed), HOLD).future for seed in range(3))
            )
        assert [type(result) for result in results] == [RuntimeError] * 3
        assert all("lost" in str(result) for result in results)
        assert value(await queue.submit(call("mse"), HOLD).future) > 0

    run(test)


EVERY = [
    variants(loss)[0].call(seed, dtype=torch.float32) for loss in CATALOGUE.values() for seed in range(3)
]
"""Three calls of each loss."""


def test_without_fusing_a_call_gives_the_same_bits_whatever_its_company() -> None:
    """As jobs that arrive together, and as a stack, over the whole catalogue."""

    async def test(queue: Queue) -> None:
        jobs = [queue.submit(one, HOLD) for one in EVERY]
        beside = await asyncio.gather(*(job.future for job in jobs))
        stacks = [queue.compute_all(stacked(EVERY[start : start + 3])) for start in range(0, len(EVERY), 3)]
        within = [result for pieces in stacks for results in pieces for result in results]
        for one, *results in zip(EVERY, beside, within, strict=True):
            expected = bits(evaluate(one))
            for result in results:
                assert isinstance(result, Evaluation)
                assert bits(result) == expected, one.loss.name

    run(test, fuse=False)


def bits(evaluation: Evaluation) -> list[bytes]:
    tensors = (evaluation.value, *evaluation.gradients.values(), *evaluation.aux.values())
    return [tensor.contiguous().numpy().tobytes() for tensor in tensors]


def test_without_fusing_nothing_is_computed_together() -> None:
    sizes: list[int] = []

    async def test(queue: Queue) -> None:
        queue.observer = replace(NOBODY, batch=sizes.append)
        calls = [call("mse", seed) for seed in range(4)]
        await asyncio.gather(*(queue.submit(one, HOLD).future for one in calls))
        queue.compute_all(stacked(calls))

    run(test, fuse=False)
    assert sizes == [1] * 8


def test_what_differs_in_anything_but_its_values_is_not_computed_together() -> None:
    """Each gets the same result as alone, in its own dtype: all arrive at once, twice."""
    variant = variants(CATALOGUE["cross_entropy"])[0]
    ones = Sent(torch.ones_like(variant.call(0, reduction="none").inputs["targets"], dtype=torch.float32))
    others = [
        *[
            variant.call(0, dtype=dtype)
            for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
        ],
        *[variant.call(0, reduction=reduction) for reduction in ("sum", "none")],
        variant.call(0, sample_weight=ones),
        variant.call(0, grad_output=Sent(torch.tensor(2.0))),
        variant.call(0, gradients=False),
        bind(variant.request(0)._replace(params={**variant.params, "label_smoothing": 0.5})),
        variants(CATALOGUE["focal"])[0].call(0),
    ]

    async def test(queue: Queue) -> None:
        sizes: list[int] = []
        queue.observer = replace(NOBODY, batch=sizes.append)
        jobs = [queue.submit(one, HOLD) for one in [*others, *others]]
        results = await asyncio.gather(*(job.future for job in jobs))
        assert sizes == [2] * len(others)
        for one, result in zip([*others, *others], results, strict=True):
            alone = evaluate(one)
            assert isinstance(result, Evaluation)
            torch.testing.assert_close(result.value, alone.value)
            assert result.gradients.keys() == alone.gradients.keys()
            for name, gradient in result.gradients.items():
                torch.testing.assert_close(gradient, alone.gradients[name])

    run(test)


def test_the_overhead_of_a_loop_does_not_keep_calls_from_being_computed_together() -> None:
    sizes: list[int] = []

    async def test(queue: Queue) -> None:
        queue.observer = replace(NOBODY, batch=sizes.append)
        like = call("neural_ndcg")
        assert 100 * like.work > BUDGET
        [results] = queue.compute_all(stacked([like] * 100))
        assert isinstance(results, Evaluations)

    run(test)
    assert sizes == [100]
