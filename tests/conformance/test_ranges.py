"""Declared ranges: no admitted input drives the unreduced loss out of them, in any dtype."""

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.call import HALF, Call
from service.engine.evaluate import evaluate
from service.problems import Invalid
from tests.conformance.cases import MATCHED, every_loss
from tests.conformance.changes import bases, calls, extreme

LAST_PLACES = 4
"""How many units in the last place a loss may be past a bound that is made from params, and rounded itself."""
FEWEST = 10
"""Attacks that every loss has to stand."""


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_no_input_drives_a_loss_out_of_its_range(loss: AnyLoss, dtype: torch.dtype) -> None:
    if loss.range == (None, None):
        pytest.skip("declared without one")
    attacks = [attack for base in bases(loss) for attack in calls(base, loss, extreme(), dtype)]
    assert len(attacks) >= FEWEST
    beyond = {name: values for name, call in attacks if (values := _beyond(call))}
    assert beyond == {}


def _beyond(call: Call) -> list[float]:
    """Return the elements of an unreduced loss that lie outside its range. NaN, and what is refused, lies nowhere."""
    try:
        found = evaluate(call._replace(reduction="none", gradients_of=())).value
    except Invalid:
        assert call.loss.name in MATCHED
        return []
    least, most = call.loss.bounds(call.params)
    epsilon = torch.finfo(torch.float32 if call.dtype in HALF else call.dtype).eps
    slack = LAST_PLACES * epsilon if callable(call.loss.range) else 0.0
    outside = torch.zeros_like(found, dtype=torch.bool)
    # a bound that the dtype cannot hold is the nearest number that it can
    if least is not None:
        outside |= found < found.new_tensor(least - slack * abs(least))
    if most is not None:
        outside |= found > found.new_tensor(most + slack * abs(most))
    return found[outside].tolist()
