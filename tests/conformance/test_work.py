"""Work: no loss takes more memory or operations than it declares, whichever of its sizes and counts grow."""

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.cost import UNIT_BYTES, UNIT_S, units
from service.losses import CATALOGUE
from tests.conformance.cases import every_loss, variants
from tests.conformance.work import OPERATION_S, all_grown, measure

MARGIN = 1 << 17
"""Bytes that any call may take beside its work."""
OPERATIONS = 400
"""Operators of torch that any call may use beside its work."""


@every_loss
def test_no_call_takes_more_than_the_declared_work_admits(loss: AnyLoss) -> None:
    over: list[str] = []
    for grown in all_grown(loss):
        work, taken = grown.call.work, measure(grown.call)
        operations = max(0, taken.operations - OPERATIONS)
        if taken.bytes > UNIT_BYTES * work + MARGIN or operations * OPERATION_S > work * UNIT_S:
            over.append(f"{grown}: {taken} where {work} units are declared")
    assert not over, "\n".join(over)


@pytest.mark.parametrize(("dtype", "factor"), [("float16", 1), ("float32", 1), ("float64", 2)])
def test_a_call_in_float64_counts_twice(dtype: str, factor: int) -> None:
    call = variants(CATALOGUE["clip"])[0].call(dtype=getattr(torch, dtype))
    assert units(call) == factor * call.work
