"""POST /v1/metrics/{name} and the catalogue of metrics over HTTP."""

import base64
import gzip
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service.catalogue.metric import AnyMetric
from service.metrics import METRICS
from service.wire.describe_metric import metric_example
from tests.client import Client

SCORES = {"predictions": [[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], "targets": [1, 0, 0, 0]}


def measure(client: Client, metric: str, **body: Any) -> httpx.Response:
    return client.post(f"/v1/metrics/{metric}", json=body)


def faults(answer: httpx.Response) -> dict[str, str]:
    """Return the sentences of a 422 by pointer."""
    assert answer.status_code == 422, answer.text
    return {one["pointer"]: one["detail"] for one in answer.json()["errors"]}


def packed(values: Any, dtype: str) -> dict[str, Any]:
    """Return numbers as a packed tensor."""
    array = np.array(values, dtype)
    return {
        "dtype": dtype,
        "shape": list(array.shape),
        "data": base64.b64encode(array.tobytes()).decode(),
    }


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


def test_no_schema_of_params_has_like_which_is_a_member_of_the_request(client: Client) -> None:
    document = client.get("/openapi.json?losses=").json()["components"]["schemas"]
    for name in METRICS:
        assert "like" not in client.get(f"/v1/metrics/{name}").json()["params"]["properties"]
    wrong = [
        name for name, one in document.items() if name.endswith("Params") and "like" in one["properties"]
    ]
    assert not wrong
    example = metric_example(METRICS["mean_average_precision"])
    assert measure(client, "mean_average_precision", **example, like="voc2012").status_code == 200
    found = faults(measure(client, "mean_average_precision", **example, params={"like": "voc2012"}))
    assert [*found] == ["/params/like"]


@pytest.mark.parametrize(
    ("mask", "at", "expected"),
    [
        ({"size": [4, 4]}, "/counts", "Expected a value; got nothing."),
        ({"size": [4, 4], "counts": [1, "x"]}, "/counts/1", 'Expected an integer; got "x".'),
        ({"size": [4, 4], "counts": 5}, "/counts", "Expected a string or a list; got 5."),
        ({"size": [4], "counts": "x"}, "/size", "Expected at least 2 values; got 1."),
        ({"size": [4, 4], "counts": "x", "y": 1}, "/y", "Expected no member of this name; got 1."),
        ([[1, 2, 3, None, 5, 6]], "/0/3", "Expected a number; got null."),
        ("x", "", 'Expected an object or a list; got "x".'),
    ],
)
def test_a_mask_has_one_fault_at_the_place_that_is_wrong(
    client: Client, mask: Any, at: str, expected: str
) -> None:
    objects = {"labels": [1], "masks": [mask], "size": [4, 4]}
    body = {"inputs": {"predictions": [{**objects, "scores": [0.5]}], "targets": [{"labels": []}]}}
    found = faults(measure(client, "mean_average_precision", **body, params={"iou_type": "segm"}))
    assert found == {f"/inputs/predictions/0/masks/0{at}": expected}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_empty_arrays_are_a_shard_without_samples(metric: AnyMetric, client: Client) -> None:
    example = metric_example(metric)
    empty = {name: [] for name in example["inputs"]}
    variants: list[dict[str, Any]] = [{}]
    if "num_classes" in metric.params:
        tasks = [{"task": task} for task in ("multiclass", "binary", "multilabel")]
        variants += [{"num_classes": 3}, *(tasks if "task" in metric.params else [])]
        variants += [{"num_classes": 3, "task": "multiclass"}] if "task" in metric.params else []
    for variant in variants:
        body = {"inputs": empty, "params": {**example.get("params", {}), **variant}, "interval": 0.9}
        answer = measure(client, metric.name, **body, replicates=2, sample_weight=[], slices={"a": []})
        assert answer.status_code == 200, (variant, answer.text)
        found = answer.json()
        assert found["samples"] == 0
        if found["value"] is None:
            assert found["undefined"]["value"]
        if "num_classes" in variant and isinstance(found["value"], dict) and "per_class" in found["value"]:
            assert found["value"]["per_class"] == [None] * 3


def test_all_faults_that_do_not_depend_on_each_other_come_together(client: Client) -> None:
    body = {
        "inputs": {"predictions": [[0.1, "x"], [0.2, None]], "targets": [0, 1.5]},
        "params": {"beta": -1, "zz": 1},
        "sample_weight": [-1, 1, 2],
        "interval": 7,
        "slices": {"a": ["x"], "b": [0.5, "y"]},
        "like": "foo",
    }
    found = faults(measure(client, "f1", **body))
    assert {*found} == {
        *("/inputs/predictions/0/1", "/inputs/targets/1", "/params/beta", "/params/zz", "/sample_weight/0"),
        *("/sample_weight", "/interval", "/slices/a", "/slices/b/0", "/like"),
    }
    assert found["/slices/a"] == "Expected 2 values, one a sample; got 1."


def test_conditions_are_checked_beside_faults_of_weights_and_slices(client: Client) -> None:
    found = faults(
        measure(client, "f1", inputs={"predictions": [1, 0], "targets": [1, 0]}, sample_weight=[1], slices=1)
    )
    assert {*found} == {"/params/task", "/sample_weight", "/slices"}


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_probabilities_that_do_not_sum_to_1_are_named_with_their_sum(client: Client, metric: str) -> None:
    inputs = {"predictions": [[0.5, 0.5], [0.5, 0.25]], "targets": [0, 1]}
    found = faults(measure(client, metric, inputs=inputs))
    assert found["/inputs/predictions/1/0"].endswith("got numbers that sum to 0.75.")


def test_queries_may_be_packed_and_written_as_floats(client: Client) -> None:
    inputs = {"predictions": [0.1, 0.9, 0.5, 0.2], "targets": [1, 0, 1, 2]}
    expected = measure(client, "ndcg", inputs={**inputs, "queries": [1, 1, 2, 2]}).json()["value"]
    for queries in ([1.0, 1.0, 2.0, 2.0], packed([1, 1, 2, 2], "int64"), packed([1, 1, 2, 2], "float32")):
        assert measure(client, "ndcg", inputs={**inputs, "queries": queries}).json()["value"] == expected
    for queries, at in (
        ([1.5, 1, 1, 1], "/0"),
        ([1e300, 1, 1, 1], "/0"),
        (packed([1.5, 1, 1, 1], "float64"), "/0"),
        (packed([[1, 1], [1, 1]], "int64"), "/0"),
        (packed(1, "int64"), ""),
        ({**packed([1, 1], "int64"), "shape": [4]}, "/data"),
        ({"a": 1}, ""),
    ):
        found = faults(measure(client, "ndcg", inputs={**inputs, "queries": queries}))
        assert f"/inputs/queries{at}" in found, found


def test_members_of_objects_may_be_packed(client: Client) -> None:
    one = {"boxes": [[0, 0, 4, 4], [2, 2, 9, 9]], "labels": [1.0, 2], "scores": [0.5, 0.25]}
    true = {"boxes": [[0, 0, 4, 5], [2, 2, 9, 9]], "labels": [1, 2], "area": [20, 49], "iscrowd": [0, 1]}
    plain = measure(client, "mean_average_precision", inputs={"predictions": [one], "targets": [true]})
    dtypes = {"boxes": "float32", "labels": "int64", "scores": "float64", "area": "int32", "iscrowd": "bool"}
    some, other = (
        {name: packed(values, dtypes[name]) for name, values in each.items()} for each in (one, true)
    )
    sent = measure(client, "mean_average_precision", inputs={"predictions": [some], "targets": [other]})
    assert plain.status_code == 200 and sent.json() == plain.json()
    broken = {**some, "scores": {**some["scores"], "data": "AAAA"}}
    found = faults(
        measure(client, "mean_average_precision", inputs={"predictions": [broken], "targets": [other]})
    )
    assert [*found] == ["/inputs/predictions/0/scores/data"]


def test_a_confusion_matrix_says_how_many_classes_it_has_at_most(client: Client) -> None:
    inputs = {"predictions": [1, 0], "targets": [1, 1]}
    found = faults(
        measure(client, "confusion_matrix", inputs=inputs, params={"task": "multiclass", "num_classes": 2049})
    )
    assert found == {
        "/params/num_classes": "Expected a 64-bit integer of at least 1 and of at most 2048, or null; got 2049."
    }
    schema = client.get("/v1/metrics/confusion_matrix").json()["params"]["properties"]["num_classes"]
    assert schema["maximum"] == 2048


SAMPLES = {"predictions": [1] * 50, "targets": [0] * 50}
NUMBERED = {"task": "multiclass", "num_classes": 65536}


@pytest.mark.parametrize(
    ("metric", "body"),
    [
        ("f1", {"inputs": SAMPLES, "params": NUMBERED, "interval": 0.95}),
        ("f1", {"inputs": SAMPLES, "params": NUMBERED, "slices": {"a": [*range(50)]}}),
        (
            "auroc",
            {"inputs": {"predictions": [[0.0] * 30000] * 4, "targets": [0, 1, 2, 3]}, "interval": 0.95},
        ),
        (
            "mae",
            {
                "inputs": {"predictions": [1.0] * 5000, "targets": [0.0] * 5000},
                "slices": {"a": [*range(5000)]},
                "interval": 0.95,
            },
        ),
        (
            "mean_iou",
            {
                "inputs": {"predictions": [[[65535, 0]]], "targets": [[[0, 1]]]},
                "interval": 0.95,
            },
        ),
        (
            "mean_average_precision",
            {
                "inputs": {
                    "predictions": [{"labels": [], "scores": [], "boxes": []}],
                    "targets": [{"labels": [*range(3000)], "boxes": [[0, 0, 1, 1]] * 3000}],
                },
                "interval": 0.95,
            },
        ),
    ],
)
def test_classes_slices_and_replicates_count_as_work(
    client: Client, metric: str, body: dict[str, Any]
) -> None:
    answer = measure(client, metric, **body)
    assert answer.status_code == 413 and "LOSSD_MAX_WORK" in answer.json()["detail"]
    if "interval" in body and "slices" not in body:
        assert (
            measure(client, metric, inputs=body["inputs"], params=body.get("params", {})).status_code == 200
        )


def test_sets_that_differ_in_number_have_neither_weights_nor_slices(client: Client) -> None:
    inputs = {"predictions": [[0.0], [1.0], [3.0]], "targets": [[0.0], [2.0]]}
    more = {"sample_weight": [1, 1, 1], "slices": {"a": ["x", "y", "y"]}}
    found = faults(measure(client, "frechet_distance", inputs=inputs, **more))
    sentence = "Expected none, as the sets are not paired; got 3 predictions and 2 targets."
    assert found == {"/sample_weight": sentence, "/slices": sentence}
    assert measure(client, "frechet_distance", inputs=inputs, interval=0.9).status_code == 200
    equal = {"predictions": inputs["predictions"], "targets": [[0.0], [2.0], [1.0]]}
    assert measure(client, "frechet_distance", inputs=equal, **more).status_code == 200


def test_arrays_have_no_interval(client: Client) -> None:
    inputs = {"predictions": [0.2, 0.8, 0.6], "targets": [0, 1, 0]}
    matrix = measure(
        client, "confusion_matrix", inputs=inputs, params={"task": "binary"}, interval=0.9
    ).json()
    assert "interval" not in matrix
    assert measure(client, "roc_curve", inputs=inputs, interval=0.9).json()["interval"].keys() == {
        "equal_error_rate"
    }


def test_a_request_is_counted_under_its_metric(client: Client) -> None:
    measure(client, "accuracy_score", inputs=SCORES)
    measure(client, "nothing", inputs=SCORES)
    text = client.get("/metrics").text
    assert 'loss="accuracy",route="/v1/metrics/{name}",status="200"' in text
    assert 'loss="unknown",route="/v1/metrics/{name}",status="404"' in text


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


def test_the_interval_of_a_share_is_continuous_in_the_weights(client: Client) -> None:
    inputs = {"predictions": [1] * 10, "targets": [1] * 10}
    params = {"task": "binary"}

    def interval(weights: list[float]) -> Any:
        body = {"inputs": inputs, "params": params, "interval": 0.95, "sample_weight": weights}
        return client.post("/v1/metrics/accuracy", json=body).json().get("interval")

    equal, nearly, half = (
        interval([1.0] * 10),
        interval([1.0] * 9 + [1.0001]),
        interval([1.0] * 5 + [0.0] * 5),
    )
    assert equal == pytest.approx([0.7224672, 1], abs=1e-6) and equal[1] == 1
    assert nearly == pytest.approx(equal, abs=1e-6)
    short = {"predictions": [1] * 5, "targets": [1] * 5}
    alone = measure(client, "accuracy", inputs=short, params=params, interval=0.95).json()["interval"]
    assert half == alone
    assert interval([0.0] * 10) is None
