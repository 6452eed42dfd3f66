"""Triton's own Python client over HTTP, asyncio."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from tests.inference_protocol.calls import GRADIENT, LOGITS, TARGETS, VALUE, client

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]
aio: Any = client("tritonclient.http.aio")
utils: Any = client("tritonclient.utils")


def run(server: str, body: Callable[[Any], Awaitable[None]]) -> None:
    """Run something with a client."""

    async def with_client() -> None:
        async with aio.InferenceServerClient(server.removeprefix("http://")) as triton:
            await body(triton)

    asyncio.run(with_client())


def the_call(*, binary: bool = True) -> list[Any]:
    inputs = [aio.InferInput("logits", [32, 10], "FP32"), aio.InferInput("targets", [32], "INT64")]
    for made, array in zip(inputs, (LOGITS, TARGETS), strict=True):
        made.set_data_from_numpy(array, binary_data=binary)
    return inputs


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_value_and_gradient(server: str, binary: bool, coding: str | None) -> None:
    async def body(triton: Any) -> None:
        outputs = [aio.InferRequestedOutput("grad.logits", binary_data=binary)]
        codings = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        for _ in range(3):
            result = await triton.infer("cross_entropy", the_call(binary=binary), outputs=outputs, **codings)
            np.testing.assert_allclose(result.as_numpy("grad.logits"), GRADIENT, rtol=1e-5, atol=1e-7)

    run(server, body)


def test_large_tensors(server: str) -> None:
    async def body(triton: Any) -> None:
        numbers = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
        inputs = [aio.InferInput(name, [1_000_000], "FP32") for name in ("predictions", "targets")]
        inputs[0].set_data_from_numpy(numbers)
        inputs[1].set_data_from_numpy(np.zeros_like(numbers))
        outputs = [aio.InferRequestedOutput("value")]
        result = await triton.infer("mae", inputs, outputs=outputs, parameters={"reduction": "none"})
        np.testing.assert_array_equal(result.as_numpy("value"), abs(numbers))

    run(server, body)


def test_requests_at_once(server: str) -> None:
    async def body(triton: Any) -> None:
        results = await asyncio.gather(*(triton.infer("cross_entropy", the_call()) for _ in range(40)))
        assert all(result.as_numpy("value") == pytest.approx(VALUE) for result in results)

    run(server, body)


def test_what_there_is(server: str) -> None:
    async def body(triton: Any) -> None:
        assert await triton.is_server_live()
        assert await triton.is_server_ready()
        assert await triton.is_model_ready("mse")
        assert (await triton.get_model_metadata("mse"))["name"] == "mse"
        assert (await triton.get_model_config("mse"))["name"] == "mse"
        assert len(await triton.get_model_repository_index()) > 200
        assert (await triton.get_inference_statistics("mse"))["model_stats"]

    run(server, body)


def test_errors_are_readable(server: str) -> None:
    async def body(triton: Any) -> None:
        with pytest.raises(
            utils.InferenceServerException, match=r"/inputs targets: Expected a tensor; got nothing"
        ):
            await triton.infer("cross_entropy", the_call()[:1])

    run(server, body)
