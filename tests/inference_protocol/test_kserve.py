"""KServe's Python client over REST."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from tests.inference_protocol.calls import GRADIENT, LOGITS, TARGETS, VALUE, client

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]
kserve: Any = client("kserve")


def run(body: Callable[[Any], Awaitable[None]]) -> None:
    """Run something with a client."""

    async def with_client() -> None:
        rest = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2"))
        await body(rest)
        await rest.close()

    asyncio.run(with_client())


def request(*, binary: bool, **parameters: Any) -> Any:
    inputs = [kserve.InferInput("logits", [32, 10], "FP32"), kserve.InferInput("targets", [32], "INT64")]
    for made, array in zip(inputs, (LOGITS, TARGETS), strict=True):
        made.set_data_from_numpy(array, binary_data=binary)
    parameters["binary_data_output"] = binary
    return kserve.InferRequest("cross_entropy", inputs, parameters=parameters)


@pytest.mark.parametrize("binary", [True, False])
def test_value_and_gradient(server: str, binary: bool) -> None:
    async def body(rest: Any) -> None:
        response = await rest.infer(server, request(binary=binary, gradients=True), "cross_entropy")
        value, gradient = response.outputs
        assert value.as_numpy() == pytest.approx(VALUE)
        np.testing.assert_allclose(gradient.as_numpy(), GRADIENT, rtol=1e-5, atol=1e-7)

    run(body)


@pytest.mark.parametrize("binary", [True, False])
def test_empty_tensors_and_nan(server: str, binary: bool) -> None:
    async def body(rest: Any) -> None:
        for array in (np.zeros(0, np.float32), np.array([np.nan, 1], np.float32)):
            inputs = [
                kserve.InferInput(name, list(array.shape), "FP32") for name in ("predictions", "targets")
            ]
            inputs[0].set_data_from_numpy(array, binary_data=binary)
            inputs[1].set_data_from_numpy(np.zeros_like(array), binary_data=binary)
            parameters = {"reduction": "none", "binary_data_output": binary}
            response = await rest.infer(
                server, kserve.InferRequest("mse", inputs, parameters=parameters), "mse"
            )
            np.testing.assert_array_equal(response.outputs[0].as_numpy().astype(np.float32), array)

    run(body)


def test_health(server: str) -> None:
    async def body(rest: Any) -> None:
        assert await rest.is_server_live(server)
        assert await rest.is_server_ready(server)
        assert await rest.is_model_ready(server, "mse")

    run(body)


def test_errors_are_readable(server: str) -> None:
    async def body(rest: Any) -> None:
        with pytest.raises(httpx.HTTPStatusError, match="reductoin"):
            await rest.infer(server, request(binary=True, reductoin="sum"), "cross_entropy")

    run(body)
