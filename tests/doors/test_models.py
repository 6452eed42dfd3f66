"""The Open Inference Protocol besides inference: server, models, configuration, statistics."""

import asyncio

import httpx
import pytest
import torch

from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.losses import CATALOGUE
from service.settings import Settings
from tests.client import Client, running
from tests.conformance.cases import every_loss
from tests.infer import as_json, infer, outputs

PATHS = [
    "/v2",
    "/v2/health/live",
    "/v2/models",
    "/v2/models/stats",
    "/v2/models/mse",
    "/v2/models/mse/ready",
    "/v2/models/mse/config",
    "/v2/models/mse/stats",
    "/v2/models/mse/versions/1",
    "/v2/models/mse/versions/1/ready",
    "/v2/models/mse/versions/1/config",
    "/v2/models/mse/versions/1/stats",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_answers_get_and_head(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert client.request("HEAD", path).status_code == 200
    wrong = client.post(path)
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, "application/json")
    assert "GET" in wrong.headers["allow"]
    assert "Expected GET" in wrong.json()["error"]


def test_the_server_tells_its_extensions(client: Client) -> None:
    metadata = client.get("/v2").json()
    assert metadata["name"] == "lossd"
    assert metadata["extensions"] == [
        "binary_tensor_data",
        "model_repository",
        "model_configuration",
        "statistics",
        "parameters",
    ]


def test_a_server_is_ready_once_it_is_warm() -> None:
    app = create_app(Settings(device="cpu"))
    client = Client(app)
    assert client.get("/v2/health/live").json() == {"live": True}
    cold = client.get("/v2/health/ready")
    assert (cold.status_code, cold.headers["content-type"]) == (503, "application/json")
    assert "warming up" in cold.json()["error"]

    async def warmed() -> None:
        async with running(app):
            while (answer := await client.ask("GET", "/v2/health/ready")).status_code == 503:
                await asyncio.sleep(0.01)
        assert answer.json() == {"ready": True}

    asyncio.run(asyncio.wait_for(warmed(), 60))


def test_every_loss_is_a_model(client: Client) -> None:
    names = list(CATALOGUE)
    assert client.get("/v2/models").json() == {"models": names}
    index = client.post("/v2/repository/index").json()
    assert [entry["name"] for entry in index] == names
    assert index[0] == {"name": names[0], "version": "1", "state": "READY", "reason": ""}


@every_loss
def test_metadata_and_configuration_agree(client: Client, loss: AnyLoss) -> None:
    metadata, config = (
        client.get(f"/v2/models/{loss.name}").json(),
        client.get(f"/v2/models/{loss.name}/config").json(),
    )
    assert metadata["name"] == config["name"] == loss.name
    assert [tensor["name"] for tensor in metadata["inputs"]] == list(loss.inputs)
    assert metadata["outputs"][0] == {"name": "value", "datatype": "FP32", "shape": [-1]}
    for kind, key in (("inputs", "input"), ("outputs", "output")):
        for tensor, entry in zip(metadata[kind], config[key], strict=True):
            assert entry["name"] == tensor["name"]
            assert entry["data_type"] == f"TYPE_{tensor['datatype']}"
            assert entry["dims"] == tensor["shape"]
    for entry in config["input"]:
        assert entry.get("optional", False) == loss.inputs[entry["name"]].optional


def test_dims_are_told_as_the_protocol_writes_them(client: Client) -> None:
    metadata = client.get("/v2/models/giou").json()
    assert metadata["inputs"][0] == {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]}
    assert [output["name"] for output in metadata["outputs"]] == [
        "value",
        "grad.boxes",
        "grad.targets",
        "aux.iou",
    ]
    assert client.get("/v2/models/zero_one").json()["outputs"][1:] == []


def test_aliases_name_models(client: Client) -> None:
    assert client.get("/v2/models/BCEWithLogitsLoss").json()["name"] == "binary_cross_entropy_with_logits"


@pytest.mark.parametrize("rest", ["", "/ready", "/config", "/stats"])
def test_unknown_models_and_versions_are_404(client: Client, rest: str) -> None:
    for path in (f"/v2/models/crossentropi{rest}", f"/v2/models/cross_entropy/versions/0{rest}"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
        assert "cross_entropy" in answer.json()["error"]


def test_the_repository_is_fixed(client: Client) -> None:
    assert client.post("/v2/repository/models/mse/load", json={}).status_code == 200
    unload = client.post("/v2/repository/models/mse/unload", json={})
    assert (unload.status_code, unload.headers["content-type"]) == (400, "application/json")
    assert "mse" in unload.json()["error"]
    assert client.post("/v2/repository/models/msee/load", json={}).status_code == 404


def test_unknown_paths_are_told_in_the_protocols_form(client: Client) -> None:
    answer = client.get("/v2/model/mse")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert "/v2/model/mse" in answer.json()["error"]


def test_requests_are_counted() -> None:
    client = Client()
    inputs = [as_json(name, torch.ones(2)) for name in ("predictions", "targets")]
    for _ in range(3):
        outputs(infer(client, "mse", inputs))
    infer(client, "mse", [])
    metadata = client.get("/v2/models/mse/stats").json()
    [counts] = metadata["model_stats"]
    assert (counts["inference_count"], counts["execution_count"]) == (3, 3)
    stats = counts["inference_stats"]
    assert [stats[name]["count"] for name in ("success", "fail", "queue", "cache_hit")] == [3, 1, 3, 0]
    assert 0 < stats["compute_infer"]["ns"] < stats["success"]["ns"]
    [batch] = counts["batch_stats"]
    assert (batch["batch_size"], batch["compute_infer"]["count"]) == (1, 3)
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert [model["name"] for model in everything] == list(CATALOGUE)
    assert next(model for model in everything if model["name"] == "mse") == counts


def test_calls_computed_together_are_one_execution() -> None:
    client = Client()
    inputs = [as_json(name, torch.ones(2)) for name in ("predictions", "targets")]

    async def at_once() -> None:

        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://lossd") as http:
            calls = (http.post("/v2/models/mse/infer", json={"inputs": inputs}) for _ in range(8))
            assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}

    asyncio.run(at_once())
    [counts] = client.get("/v2/models/mse/stats").json()["model_stats"]
    batches = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in counts["batch_stats"]}
    assert counts["inference_count"] == 8
    assert counts["execution_count"] == sum(batches.values()) < 8
    assert sum(size * count for size, count in batches.items()) == 8
