"""POST /v1/metrics/{name} and the catalogue of metrics over HTTP."""

import gzip
from typing import Any

import httpx
import orjson
import pytest

from tests.client import Client

SCORES = {"predictions": [[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], "targets": [1, 0, 0, 0]}


def measure(client: Client, metric: str, **body: Any) -> httpx.Response:
    return client.post(f"/v1/metrics/{metric}", json=body)


def faults(answer: httpx.Response) -> dict[str, str]:
    """Return the sentences of a 422 by pointer."""
    assert answer.status_code == 422, answer.text
    return {one["pointer"]: one["detail"] for one in answer.json()["errors"]}


def test_the_contract_s_example_has_its_members(client: Client) -> None:
    answer = measure(
        client,
        "f1",
        inputs=SCORES,
        slices={"country": ["de", "us", "de", "us"]},
        interval=0.95,
        sample_weight=[1, 2, 1, 1],
    ).json()
    assert answer["metric"] == "f1" and answer["samples"] == 4
    assert answer["value"].keys() == answer["interval"].keys() == {"macro", "micro", "weighted", "per_class"}
    assert {name: one["samples"] for name, one in answer["slices"].items()} == {
        "country=de": 2,
        "country=us": 2,
    }
    assert answer["signature"] == "f1|beta:1|undefined:null|v1"


def test_an_interval_is_the_same_each_time_and_changes_with_the_seed(client: Client) -> None:
    body = {"inputs": {"predictions": [1.0, 2.0, 4.0, 9.0], "targets": [1.5, 2.5, 3.0, 7.0]}, "interval": 0.9}
    one, again = measure(client, "mae", **body).json(), measure(client, "mae", **body).json()
    other = measure(client, "mae", **body, seed=1, replicates=100).json()
    assert one["interval"] == again["interval"] != other["interval"]
    low, high = one["interval"]
    assert low <= one["value"] <= high


def test_a_slice_has_the_value_of_its_samples_alone(client: Client) -> None:
    values = {"predictions": [1.0, 2.0, 4.0, 9.0], "targets": [1.5, 2.5, 3.0, 7.0]}
    found = measure(
        client, "mae", inputs=values, slices={"half": [True, True, False, False]}, interval=0.9
    ).json()
    alone = {name: column[:2] for name, column in values.items()}
    assert found["slices"]["half=true"]["value"] == measure(client, "mae", inputs=alone).json()["value"]


def test_names_are_found_by_alias_and_close_ones_are_offered(client: Client) -> None:
    assert measure(client, "F1", inputs=SCORES).json()["metric"] == "f1"
    missing = measure(client, "acuracy", inputs=SCORES)
    assert missing.status_code == 404 and "accuracy" in missing.json()["detail"]
    assert client.get("/v1/metrics/nothing-like-it").status_code == 404


def test_the_list_can_be_searched(client: Client) -> None:
    listed = client.get("/v1/metrics").json()["metrics"]
    assert [one["name"] for one in listed] == sorted(one["name"] for one in listed)
    found = client.get("/v1/metrics", params={"q": "accuracy", "task": "classification"}).json()["metrics"]
    assert found[0]["name"] == "accuracy"
    assert "classification" in faults(client.get("/v1/metrics?task=cooking"))["/query/task"]
    assert "/query/page" in faults(client.get("/v1/metrics?page=2"))
    entry = client.get("/v1/metrics/accuracy")
    assert (
        client.get("/v1/metrics/accuracy", headers={"If-None-Match": entry.headers["etag"]}).status_code
        == 304
    )


@pytest.mark.parametrize(
    ("body", "pointer", "sentence"),
    [
        ({"interval": 1}, "/interval", "Expected a number between 0 and 1; got 1."),
        ({"interval": "95"}, "/interval", 'Expected a number between 0 and 1; got "95".'),
        ({"interval": 0.9, "replicates": 0}, "/replicates", "Expected an integer from 1 to 10000; got 0."),
        ({"interval": 0.9, "seed": -1}, "/seed", "Expected an integer of at least 0; got -1."),
        ({"like": "keras"}, "/like", 'Expected "sklearn" or'),
        ({"slices": ["de"]}, "/slices", "Expected an object; got"),
        ({"slices": {"a": ["x"]}}, "/slices/a", "Expected 4 values, one a sample; got 1."),
        ({"slices": {"a": "x"}}, "/slices/a", "Expected a list with one value a sample; got"),
        (
            {"slices": {"a": ["x", "y", 1.5, None]}},
            "/slices/a/2",
            "Expected a string or an integer or a boolean; got 1.5.",
        ),
        ({"sample_weight": [1, 1, 1]}, "/sample_weight", "Expected [4], a weight a sample; got [3]."),
        (
            {"sample_weight": [1, 1, -1, 1]},
            "/sample_weight/2",
            "Expected finite numbers of at least 0; got -1.",
        ),
        ({"params": []}, "/params", "Expected an object; got []. An empty object is {}"),
        ({"params": {"beta": -1}}, "/params/beta", "Expected a number"),
        ({"dtype": "float32"}, "/dtype", "Expected one of inputs"),
        ({"inputs": None}, "/inputs", "Expected an object of tensors and lists; got nothing."),
        (
            {"inputs": {**SCORES, "targets": [1, 0, 2, 0]}},
            "/inputs/targets/2",
            "Expected integers from 0 to C - 1",
        ),
        ({"inputs": {**SCORES, "targets": [1, 0]}}, "/inputs/targets", "Expected dimensions [N]"),
        ({"inputs": {**SCORES, "targets": ["a", "b", "c", "d"]}}, "/inputs/targets", "Expected"),
    ],
)
def test_bad_members_are_refused_with_a_pointer(
    client: Client, body: dict[str, Any], pointer: str, sentence: str
) -> None:
    found = faults(measure(client, "f1", **{"inputs": SCORES, **body}))
    [where] = [one for one in found if one.startswith(pointer)]
    assert found[where].startswith(sentence), found


def test_a_body_may_be_compressed_and_must_be_json(client: Client) -> None:
    text = orjson.dumps({"inputs": SCORES})
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    zipped = client.post("/v1/metrics/f1", content=gzip.compress(text), headers=headers)
    assert zipped.json() == measure(client, "f1", inputs=SCORES).json()
    assert (
        client.post("/v1/metrics/f1", content=text, headers={"Content-Type": "text/csv"}).status_code == 415
    )
    assert (
        client.post(
            "/v1/metrics/f1", content=text[:-1], headers={"Content-Type": "application/json"}
        ).status_code
        == 400
    )
    assert client.request("PUT", "/v1/metrics/f1").headers["allow"] == "GET, HEAD, POST"


def test_work_beyond_the_limit_is_refused_before_it_is_done(client: Client) -> None:
    many = {"predictions": [0.5] * 200_000, "targets": [0.0] * 200_000}
    answer = measure(client, "mae", inputs=many, interval=0.9, replicates=10_000)
    assert answer.status_code == 413 and "LOSSD_MAX_WORK" in answer.json()["detail"]


def test_a_long_list_is_read_in_runs_with_the_same_pointers(client: Client) -> None:
    texts = [f"text number {n}" for n in range(60_000)]
    found = measure(client, "f1", inputs=SCORES, slices={"a": [*texts, 1.5]})
    assert faults(found)["/slices/a/60000"] == "Expected a string or an integer or a boolean; got 1.5."
    broken = orjson.dumps({"slices": {"a": texts}}).replace(b'"text number 50000"', b'"text number 50000" x')
    answer = client.post("/v1/metrics/f1", content=broken, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and "line 1 column" in answer.json()["detail"]


def test_items_of_a_batch_may_name_a_metric_and_fail_alone(client: Client) -> None:
    loss = {"loss": "mse", "inputs": {"predictions": [1.0, 3.0], "targets": [0.0, 0.0]}}
    items = [
        {"id": "a", **loss},
        {"id": "b", "metric": "F1", "inputs": SCORES, "interval": 0.9, "slices": {"k": ["x", "x", "y", "y"]}},
        {"id": 3, "metric": "f1", "inputs": {**SCORES, "targets": [1, 0]}},
        {"metric": "no_such_metric", "inputs": SCORES},
        {"metric": "mae", "inputs": loss["inputs"], "gradients": False},
        {"metric": 7},
        {"id": "c", **loss},
    ]
    answer = client.post("/v1/batch", json={"items": items, "defaults": {"gradients": False}}).json()
    a, b, wrong, unknown, foreign, number, c = answer["results"]
    assert (a["value"], c["value"], answer["succeeded"], answer["failed"]) == (5, 5, 3, 4)
    alone = measure(
        client, "f1", **{name: items[1][name] for name in ("inputs", "interval", "slices")}
    ).json()
    assert b == {"id": "b", "status": "ok", **alone}
    assert wrong["id"] == 3 and wrong["error"]["errors"][0]["pointer"] == "/inputs/targets"
    assert unknown["error"]["status"] == 404 and unknown["error"]["errors"][0]["pointer"] == "/metric"
    assert foreign["error"]["errors"][0]["pointer"] == "/gradients"
    assert number["error"]["errors"][0]["detail"] == "Expected the name of a metric; got 7."
    assert answer["summary"] == {"mse": {"count": 2, "mean": 5}}


def test_lines_of_a_stream_may_name_a_metric(client: Client) -> None:
    lines = [{"id": n, "metric": "accuracy", "inputs": SCORES} for n in range(3)] + [{"metric": "accuracy"}]
    answer = client.post(
        "/v1/batch",
        content=b"\n".join(map(orjson.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    *good, bad = map(orjson.loads, answer.text.splitlines())
    assert [(one["id"], one["value"]) for one in good] == [(0, 0.75), (1, 0.75), (2, 0.75)]
    assert bad["line"] == 4 and bad["error"]["status"] == 422


def test_an_item_over_the_work_limit_is_refused_alone(client: Client) -> None:
    many = {"predictions": [0.5] * 100_000, "targets": [0.0] * 100_000}
    items = [
        {"metric": "mae", "inputs": many, "interval": 0.9, "replicates": 10_000},
        {"metric": "accuracy", "inputs": SCORES},
    ]
    over, fine = client.post("/v1/batch", json={"items": items}).json()["results"]
    assert over["error"]["status"] == 413 and fine["value"] == 0.75
