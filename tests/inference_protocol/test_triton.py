"""Triton's own Python client over HTTP, sync."""

from typing import Any

import numpy as np
import pytest

from tests.inference_protocol.calls import GRADIENT, LOGITS, TARGETS, VALUE, client

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]
http: Any = client("tritonclient.http")
utils: Any = client("tritonclient.utils")


@pytest.fixture
def triton(server: str) -> Any:
    triton = http.InferenceServerClient(server.removeprefix("http://"))
    yield triton
    triton.close()


def infer_input(name: str, array: np.ndarray, datatype: str | None = None, *, binary: bool = True) -> Any:
    made = http.InferInput(name, list(array.shape), datatype or utils.np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def the_call(*, binary: bool = True) -> list[Any]:
    return [infer_input("logits", LOGITS, binary=binary), infer_input("targets", TARGETS, binary=binary)]


def asked(*names: str, binary: bool = True) -> list[Any]:
    return [http.InferRequestedOutput(name, binary_data=binary) for name in names]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("returned", [True, False])
def test_value_and_gradient(triton: Any, sent: bool, returned: bool) -> None:
    for _ in range(3):
        outputs = asked("grad.logits", "value", binary=returned)
        result = triton.infer("cross_entropy", the_call(binary=sent), outputs=outputs, request_id="7")
        assert result.as_numpy("value") == pytest.approx(VALUE)
        np.testing.assert_allclose(result.as_numpy("grad.logits"), GRADIENT, rtol=1e-5, atol=1e-7)
        assert result.as_numpy("grad.logits").dtype == np.float32
        assert result.get_response()["id"] == "7"


def test_inputs_in_both_forms(triton: Any) -> None:
    inputs = [infer_input("logits", LOGITS, binary=False), infer_input("targets", TARGETS)]
    assert triton.infer("cross_entropy", inputs).as_numpy("value") == pytest.approx(VALUE)
    inputs = [infer_input("logits", LOGITS), infer_input("targets", TARGETS, binary=False)]
    assert triton.infer("cross_entropy", inputs).as_numpy("value") == pytest.approx(VALUE)


@pytest.mark.parametrize("there", [None, "gzip", "deflate"])
@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
def test_compression(triton: Any, there: str | None, back: str | None) -> None:
    result = triton.infer(
        "cross_entropy",
        the_call(),
        outputs=asked("grad.logits"),
        request_compression_algorithm=there,
        response_compression_algorithm=back,
    )
    np.testing.assert_allclose(result.as_numpy("grad.logits"), GRADIENT, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("binary", [True, False])
def test_integers(triton: Any, dtype: str, binary: bool) -> None:
    inputs = [infer_input("logits", LOGITS), infer_input("targets", TARGETS.astype(dtype), binary=binary)]
    assert triton.infer("cross_entropy", inputs).as_numpy("value") == pytest.approx(VALUE)


def test_float16_comes_back_to_the_bit(triton: Any) -> None:
    half = np.arange(-1000, 1000, dtype=np.float16) / np.float16(64)
    inputs = [infer_input("predictions", half), infer_input("targets", np.zeros_like(half))]
    # of the sum of half the squares the gradient is the error
    result = triton.infer(
        "mse",
        [*inputs, infer_input("sample_weight", np.array([0.5], np.float16))],
        outputs=asked("grad.predictions"),
        parameters={"reduction": "sum", "dtype": "float16"},
    )
    assert result.as_numpy("grad.predictions").tobytes() == half.tobytes()
    widened = triton.infer("mse", inputs, outputs=asked("value")).as_numpy("value")
    assert widened.dtype == np.float32
    assert widened == pytest.approx(float((half.astype(np.float64) ** 2).mean()))


def test_bfloat16_comes_back_to_the_bit(triton: Any) -> None:
    bfloat16 = client("ml_dtypes").bfloat16
    numbers = np.arange(16256, 16640, dtype=np.uint16).view(bfloat16)
    inputs = [
        infer_input("predictions", numbers, "BF16"),
        infer_input("targets", np.zeros_like(numbers), "BF16"),
        infer_input("sample_weight", np.array([0.5], np.float32)),
    ]
    parameters = {"reduction": "sum", "dtype": "bfloat16"}
    result = triton.infer("mse", inputs, outputs=asked("grad.predictions"), parameters=parameters)
    assert result.get_output("grad.predictions")["datatype"] == "BF16"
    assert result.as_numpy("grad.predictions").astype(bfloat16).tobytes() == numbers.tobytes()


@pytest.mark.parametrize("binary", [True, False])
def test_float64_is_computed_in_float64(triton: Any, binary: bool) -> None:
    doubles = np.array([1 / 3, 1e-9])
    inputs = [
        infer_input("predictions", doubles, binary=binary),
        infer_input("targets", np.zeros(2), binary=binary),
    ]
    value = triton.infer("mse", inputs).as_numpy("value")
    assert value.dtype == np.float64
    assert value[0] == (doubles**2).mean()


@pytest.mark.parametrize("binary", [True, False])
def test_booleans(triton: Any, binary: bool) -> None:
    weights = np.array([True, False, True])
    inputs = [
        infer_input("predictions", np.array([1, 2, 3], np.float32)),
        infer_input("targets", np.zeros(3, np.float32)),
        infer_input("sample_weight", weights, binary=binary),
    ]
    assert triton.infer("mse", inputs).as_numpy("value") == 5


@pytest.mark.parametrize("binary", [True, False])
def test_scalars_and_empty_tensors(triton: Any, binary: bool) -> None:
    for array in (np.array(3, np.float32), np.zeros((0,), np.float32), np.zeros((2, 0), np.float32)):
        inputs = [infer_input(name, array, binary=binary) for name in ("predictions", "targets")]
        parameters = {"reduction": "none"}
        result = triton.infer("mse", inputs, parameters=parameters, outputs=asked("value", binary=binary))
        assert result.get_output("value")["shape"] == list(array.shape)
        summed = triton.infer("mse", inputs, parameters={"reduction": "sum"})
        assert summed.as_numpy("value").tolist() == [0]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("returned", [True, False])
def test_nan(triton: Any, sent: bool, returned: bool) -> None:
    predictions = np.array([np.nan, 1], np.float32)
    inputs = [
        infer_input("predictions", predictions, binary=sent),
        infer_input("targets", np.zeros(2, np.float32)),
    ]
    outputs = asked("value", binary=returned)
    value = triton.infer("mse", inputs, outputs=outputs, parameters={"reduction": "none"}).as_numpy("value")
    np.testing.assert_array_equal(value.astype(float), [np.nan, 1])


def test_parameters_and_timeout(triton: Any) -> None:
    parameters = {"reduction": "sum", "weight": str([1.0] * 10), "label_smoothing": 0.0}
    result = triton.infer("cross_entropy", the_call(), parameters=parameters, timeout=5_000_000, priority=1)
    assert result.as_numpy("value") == pytest.approx(32 * VALUE)


def test_health_and_models(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("cross_entropy")
    assert triton.is_model_ready("cross_entropy", "1")
    assert not triton.is_model_ready("cross_entropy", "2")
    assert not triton.is_model_ready("nothing_like_it")
    assert triton.get_server_metadata()["name"] == "lossd"
    metadata, config = triton.get_model_metadata("huber"), triton.get_model_config("huber")
    names = [output["name"] for output in metadata["outputs"]]
    assert (
        names
        == [output["name"] for output in config["output"]]
        == ["value", "grad.predictions", "grad.targets"]
    )
    assert len(triton.get_model_repository_index()) > 200


def test_statistics(triton: Any) -> None:
    triton.infer("cross_entropy", the_call())
    [counts] = triton.get_inference_statistics("cross_entropy")["model_stats"]
    assert counts["inference_count"] >= counts["execution_count"] >= 1
    assert len(triton.get_inference_statistics()["model_stats"]) > 200


def test_the_repository_is_fixed(triton: Any) -> None:
    triton.load_model("mse")
    with pytest.raises(utils.InferenceServerException, match="mse"):
        triton.unload_model("mse")


@pytest.mark.parametrize("binary", [True, False])
def test_errors_are_readable(triton: Any, binary: bool) -> None:
    wrong = infer_input("targets", TARGETS + 9, binary=binary)
    with pytest.raises(
        utils.InferenceServerException, match=r"\[400\] /inputs/1 targets: Expected integers from 0"
    ):
        triton.infer("cross_entropy", [the_call()[0], wrong])
    with pytest.raises(utils.InferenceServerException, match="cross_entropy"):
        triton.infer("cross_entropi", the_call())
    with pytest.raises(utils.InferenceServerException, match=r"value, grad\.logits"):
        triton.infer("cross_entropy", the_call(), outputs=asked("values"))


def test_requests_at_once(server: str) -> None:
    triton = http.InferenceServerClient(server.removeprefix("http://"), concurrency=4)
    results = [triton.async_infer("cross_entropy", the_call()) for _ in range(40)]
    assert all(result.get_result().as_numpy("value") == pytest.approx(VALUE) for result in results)
    triton.close()
