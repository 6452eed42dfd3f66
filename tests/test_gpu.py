"""The same on a CUDA device, where there is one."""

import pytest
import torch

from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.engine.evaluate import evaluate
from service.settings import Settings
from tests.client import Client
from tests.conformance.cases import every_loss, variants

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine"),
]


@every_loss
def test_the_device_computes_what_the_cpu_computes(loss: AnyLoss) -> None:
    for variant in variants(loss):
        call = variant.call()
        here, there = evaluate(call), evaluate(call, torch.device("cuda:0"))
        torch.testing.assert_close(there.value, here.value, equal_nan=True)
        torch.testing.assert_close(dict(there.gradients), dict(here.gradients), equal_nan=True)


def test_an_index_out_of_range_leaves_the_context_alive() -> None:
    client = Client(create_app(Settings(device="cuda")))
    bad = {"logits": [[1.0, 2.0]], "targets": [7]}
    assert client.evaluate("cross_entropy", inputs=bad).status_code == 422
    good = {"logits": [[1.0, 2.0]], "targets": [1]}
    assert client.evaluate("cross_entropy", inputs=good).json()["device"] == "cuda:0"
