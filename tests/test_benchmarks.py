"""The benchmarks compare like with like."""

import pytest
import torch

from benchmarks.formulas import PLAIN
from service.catalogue.sample import draw_inputs
from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_formula_gives_the_value_of_the_loss_beside_it(name: str) -> None:
    loss = CATALOGUE[name]
    sizes = {"N": 6, "D": 5, "C": 3, "L": 7, "...": (8, 8) if "logits" in loss.inputs else (8,)}
    inputs = draw_inputs(loss, loss.defaults, sizes=sizes)
    sent = {role: Sent(tensor) for role, tensor in inputs.items()}
    ours = evaluate(bind(Request(loss=loss, inputs=sent, params=loss.defaults, dtype=torch.float64)))
    torch.testing.assert_close(PLAIN[name](*inputs.values()).double(), ours.value, rtol=1e-6, atol=1e-7)
