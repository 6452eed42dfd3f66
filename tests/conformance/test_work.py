"""Work: no loss takes more memory or operations than it declares, whichever of its sizes and counts grow."""

import pytest
import torch

from benchmarks.scale import GROUPS, Group
from service.catalogue.registry import AnyLoss
from service.engine.cost import INLINE_S, SECOND, UNIT_BYTES, UNIT_S, computing
from service.engine.queue import units
from service.losses import CATALOGUE
from service.settings import Settings
from tests.conformance.cases import every_loss, variants
from tests.conformance.work import OPERATION_S, all_grown, declared_work, drawn_sizes, measure, with_tangents

MARGIN = 1 << 17
"""Bytes that any call may take beside its work."""
OPERATIONS = 400
"""Operators of torch that any call may use beside its work."""
SLOW = {"hausdorff_er", "neural_ndcg"}
"""Losses whose rounds, as many as there are by default, take longer than others may wait."""


@every_loss
def test_no_call_takes_more_than_the_declared_work_admits(loss: AnyLoss) -> None:
    over: list[str] = []
    for grown in all_grown(loss):
        work, taken = grown.call.work, measure(grown.call)
        operations = max(0, taken.operations - OPERATIONS)
        if taken.bytes > UNIT_BYTES * work + MARGIN or operations * OPERATION_S > work * UNIT_S:
            over.append(f"{grown}: {taken} where {work} units are declared")
    assert not over, "\n".join(over)


@every_loss
def test_second_derivatives_take_no_more_than_the_work_that_they_count_as(loss: AnyLoss) -> None:
    first, over = variants(loss)[0], list[str]()
    for grown in all_grown(loss, 1 << 13):
        if grown.variant != first or len(grown.axes) > 1 or not grown.call.gradients_of:
            continue
        call = with_tangents(grown.call)
        taken = measure(call)
        operations = max(0, taken.operations - SECOND * OPERATIONS)
        if taken.bytes > UNIT_BYTES * call.work + MARGIN or operations * OPERATION_S > call.work * UNIT_S:
            over.append(f"{grown}: {taken} where {call.work} units are declared")
    assert not over, "\n".join(over)


@pytest.mark.parametrize(("dtype", "factor"), [("float16", 1), ("float32", 1), ("float64", 2)])
def test_a_call_in_float64_counts_twice(dtype: str, factor: int) -> None:
    call = variants(CATALOGUE["clip"])[0].call(dtype=getattr(torch, dtype))
    assert units(call) == factor * call.work


@pytest.mark.parametrize(
    ("name", "group"), [(name, group) for group in GROUPS for name in group.names.split()]
)
def test_the_sizes_that_are_benchmarked_are_admitted_by_default(name: str, group: Group) -> None:
    variant = variants(CATALOGUE[name])[0]
    sizes = {n: (size,) if isinstance(size, int) else size for n, size in group.sizes.items()}
    work = declared_work(variant, {**drawn_sizes(variant), **sizes}, variant.params)
    assert work <= Settings.model_fields["max_work"].default


@every_loss
def test_a_small_call_may_be_computed_on_the_event_loop(loss: AnyLoss) -> None:
    small = computing(variants(loss)[0].call().work) <= INLINE_S
    assert small != (loss.name in SLOW)
