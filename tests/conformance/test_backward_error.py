"""Backward error: in float32 each loss is as right as if its inputs had been rounded once more."""

from service.catalogue.registry import AnyLoss
from tests.conformance.backward_error import errors
from tests.conformance.cases import every_loss

FEWEST = 12
"""Cases that every loss has: its example, that scaled by powers of ten, and shifted."""


@every_loss
def test_float32_is_within_the_backward_error_of_float64(loss: AnyLoss) -> None:
    found = errors(loss)
    assert len(found) >= FEWEST
    assert [error for error in found if not error.holds] == []
