"""A call that needs more memory, or greater numbers, than there are."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated

import pytest
import torch
from annotated_types import Ge
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Unreduced
from service.engine import memory
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.engine.evaluate import attempt, evaluate
from service.engine.fuse import evaluate_alike
from service.losses import CATALOGUE
from service.problems import Invalid, TooLarge

CPU = torch.device("cpu")


def calling(compute: Callable[[], Tensor]) -> Call:
    """Return a call that computes this."""
    loss = replace(greedy, function=lambda predictions, size: compute())
    return Call(loss=loss, inputs={"predictions": torch.zeros(2)}, params=greedy.defaults, work=1)


def test_what_cannot_be_allocated_is_too_large_after_a_second_try() -> None:
    tries: list[int] = []

    def compute() -> Tensor:
        tries.append(1)
        return torch.empty(10**15)

    message = r"fits the \d+ bytes that are free of cpu .LOSSD_DEVICE.; got one that takes 4000000000000000 bytes more"
    with pytest.raises(TooLarge, match=message) as raised:
        evaluate(calling(compute))
    assert [fault.code for fault in raised.value.faults] == ["device_memory"]
    assert len(tries) == 2


def test_what_fits_once_memory_was_given_back_is_computed() -> None:
    tries: list[int] = []

    def compute() -> Tensor:
        tries.append(1)
        return torch.ones(10**15 if len(tries) == 1 else 3)

    assert evaluate(calling(compute)).value == 1


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (
            "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79 GiB",
            22011707392,
        ),
        ("CUDA error: out of memory", None),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", None),
    ],
)
def test_what_a_gpu_asked_for_is_told_in_bytes(message: str, size: int | None) -> None:
    def compute() -> Tensor:
        raise torch.OutOfMemoryError(message)

    expected = f"takes {size} bytes more" if size else "more than can be counted"
    with pytest.raises(TooLarge, match=expected):
        evaluate(calling(compute))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"):
        evaluate(calling(lambda: torch.add(torch.zeros(2), torch.zeros(3))))


@loss(title="Greedy", tasks=("regression",))
def greedy(
    predictions: Annotated[Tensor, Prediction("N")], *, size: Annotated[int, Ge(0)] = 10**15
) -> Annotated[Tensor, Unreduced("N")]:
    """Asks for memory that there is not, on top of some that there is.

    Formula:
        0

    Args:
        predictions: Anything.
        size: Elements that are asked for.

    Use when:
        Never.

    Pitfalls:
        All.

    Sources:
        - None.
    """
    return predictions * torch.ones(1_000_000).sum() + torch.empty(size).sum()


def test_two_hundred_refusals_alone_and_together_leave_memory_as_it_was() -> None:
    call = bind(Request(loss=greedy, inputs={"predictions": Sent(torch.zeros(2))}, params=greedy.defaults))
    for _ in range(10):
        attempt(call, CPU)
    before = memory.used(CPU)["resident"]
    for _ in range(100):
        for result in (attempt(call, CPU), *evaluate_alike([call, call], CPU)):
            assert isinstance(result, TooLarge)
            assert memory.is_refusal(result)
    assert memory.used(CPU)["resident"] - before < 16 << 20


def test_params_beyond_what_arithmetic_has_are_the_clients_mistake() -> None:
    loss = CATALOGUE["tukey_biweight"]
    inputs = {name: Sent(torch.zeros(2)) for name in ("predictions", "targets")}
    call = bind(Request(loss=loss, inputs=inputs, params={**loss.defaults, "c": 1e300}, dtype=torch.float64))
    with pytest.raises(Invalid) as raised:
        evaluate(call)
    assert raised.value.faults[0].code == "range"


@pytest.mark.parametrize("shape", [(10**15,), (1 << 40, 1 << 40)], ids=["no memory", "no such size"])
def test_torch_refuses_in_words_that_are_known(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(*shape)
    assert [words for words in memory.EXHAUSTED if words in str(refused.value)] != []


def test_another_error_of_torch_is_not_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.add(torch.ones(2), torch.ones(3))
    assert not memory.is_exhausted(refused.value)


def test_calls_that_do_not_fit_together_wait_for_each_other() -> None:
    room = memory.Room(10)
    inside: list[int] = []
    together: list[int] = []

    def work(size: int) -> None:
        with room.of(size):
            inside.append(size)
            together.append(sum(inside))
            time.sleep(0.002)
            inside.remove(size)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, size) for size in (6, 3, 10, 4, 6, 1) * 5]:
            done.result()
    assert max(together) == 10


def test_a_call_that_takes_more_than_there_is_is_tried_alone() -> None:
    room = memory.Room(10)
    with room.of(11):
        pass
    with room.of(10):
        pass
