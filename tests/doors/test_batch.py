"""The contract of POST /v1/batch."""

from typing import Any

import orjson
import pytest

from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.settings import Settings
from service.wire import describe
from tests.client import Client
from tests.conformance.cases import every_loss
from tests.waiting import within_cpu_s

JSON = {"content-type": "application/json"}
GOOD = {"loss": "mse", "inputs": {"predictions": [1, 2], "targets": [0, 0]}}


def batch(client: Client, *items: Any, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/batch", json={"items": items, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_items_are_answered_in_order_with_their_ids(client: Client) -> None:
    other = {"id": "b", "loss": "HuberLoss", "inputs": {"predictions": [3], "targets": [0]}}
    body = batch(client, {**GOOD, "id": "a"}, other, {**GOOD, "id": 7}, GOOD, {**GOOD, "id": "a"})
    assert [item.get("id") for item in body["results"]] == ["a", "b", 7, None, "a"]
    assert [item["value"] for item in body["results"]] == [2.5, 2.5, 2.5, 2.5, 2.5]
    assert [item["loss"] for item in body["results"]] == ["mse", "huber", "mse", "mse", "mse"]
    assert (body["succeeded"], body["failed"]) == (5, 0)
    assert body["summary"] == {"mse": {"count": 4, "mean": 2.5}, "huber": {"count": 1, "mean": 2.5}}


def test_a_bad_item_fails_alone_with_pointers_into_it(client: Client) -> None:
    bad = {"id": "x", "loss": "mse", "inputs": {"predictions": [1, 2], "targets": [0]}}
    body = batch(
        client, GOOD, bad, {"loss": "msee", "inputs": {}}, 3, {"inputs": {}}, {**GOOD, "id": [1]}, GOOD
    )
    assert [item["status"] for item in body["results"]] == ["ok"] + ["error"] * 5 + ["ok"]
    errors = [item["error"] for item in body["results"] if item["status"] == "error"]
    assert [error["status"] for error in errors] == [422, 404, 422, 422, 422]
    assert errors[0]["errors"][0]["pointer"] == "/inputs/targets"
    assert errors[0]["instance"] == "/v1/batch#/items/1"
    assert "mse" in errors[1]["detail"]
    assert errors[3]["errors"][0]["pointer"] == "/loss"
    assert errors[4]["errors"][0]["pointer"] == "/id"
    assert (body["succeeded"], body["failed"]) == (2, 5)
    assert body["results"][0]["value"] == body["results"][-1]["value"] == 2.5


def test_all_faults_of_an_item_with_an_unknown_loss_are_told(client: Client) -> None:
    item = {"id": [1], "loss": "msee", "inputs": {}, "input": {}, "reduction": "avg"}
    error = batch(client, item)["results"][0]["error"]
    assert error["status"] == 404
    assert {(fault["pointer"], fault["code"]) for fault in error["errors"]} == {
        ("/loss", "unknown"),
        ("/id", "type"),
        ("/input", "unknown"),
        ("/reduction", "value"),
    }
    assert "mse" in error["errors"][0]["detail"]


def test_an_item_of_a_thousand_unknown_members_is_told_of_some(client: Client) -> None:
    item = {"loss": "msee"} | {f"x{number}": 0 for number in range(1000)}
    assert len(batch(client, item)["results"][0]["error"]["errors"]) == 100


def test_defaults_are_what_an_item_does_not_say(client: Client) -> None:
    item = {"inputs": GOOD["inputs"]}
    body = batch(
        client,
        item,
        {**item, "gradients": True},
        defaults={"loss": "mse", "gradients": False, "reduction": "sum"},
    )
    assert [result["value"] for result in body["results"]] == [5, 5]
    assert [result["gradients"] for result in body["results"]] == [{}, {"predictions": [2, 4]}]


@pytest.mark.parametrize("others", [1, 3])
def test_null_is_the_same_as_nothing(client: Client, others: int) -> None:
    # openapi-generator's Java clients send this for each member that is not set
    unset = dict.fromkeys(
        (
            "id",
            "reduction",
            "sample_weight",
            "gradients",
            "grad_output",
            "dtype",
            "encoding",
            "tangents",
            "hessian",
        )
    )
    item = {"loss": "huber", "inputs": {"predictions": [5], "targets": [0]}}
    defaults = {"params": {"delta": 3}, "gradients": False, "dtype": "float64"}
    body = batch(
        client, *[{**unset, **item, "params": {}}] * others, {**item, "params": None}, defaults=defaults
    )
    assert body["results"] == batch(client, *[item] * (others + 1), defaults=defaults)["results"]
    assert [(result["value"], result["gradients"]) for result in body["results"]] == [(10.5, {})] * (
        others + 1
    )
    assert "id" not in body["results"][0]
    plain = batch(client, item, defaults=dict.fromkeys(("loss", "params", "gradients", "dtype")))
    assert plain["results"] == batch(client, item)["results"]


def test_the_summary_counts_finite_numbers_only(client: Client) -> None:
    item: dict[str, Any] = {"loss": "mse", "inputs": {"predictions": [1e39], "targets": [0]}}
    body = batch(client, item, {**GOOD, "reduction": "none"}, GOOD)
    assert body["results"][0]["nonfinite"]["value"] == 1
    assert body["summary"] == {"mse": {"count": 1, "mean": 2.5}}


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1.7e308, 1.7e308], 1.7e308), ([1.7e308, 1.7e308, 0], 1.7e308 / 3 * 2), ([1, 2], 1.5)],
)
def test_the_mean_of_the_summary_is_finite_where_the_values_are(
    client: Client, values: list[float], mean: float
) -> None:
    items = [{"loss": "l1", "inputs": {"predictions": [value], "targets": [0]}} for value in values]
    body = batch(client, *items, defaults={"dtype": "float64", "gradients": False})
    assert body["summary"] == {"l1": {"count": len(values), "mean": pytest.approx(mean, rel=1e-15)}}


def test_an_array_hidden_in_one_item_is_found(client: Client) -> None:
    hidden = {"loss": "mse", "inputs": {"predictions": [1, [2]], "targets": [0, 0]}}
    body = batch(client, GOOD, hidden)
    assert body["results"][1]["error"]["errors"][0]["pointer"] == "/inputs/predictions/1"
    assert body["results"][0]["status"] == "ok"


@pytest.mark.parametrize("string", [r"\u005b", "[", r"\"[", r"\\"])
@pytest.mark.parametrize("hidden", ["[1, [2]]", "[[], [1, 2]]", "[[1], 2]"])
def test_a_hidden_array_is_found_whatever_strings_hold(client: Client, string: str, hidden: str) -> None:
    item = f'{{"id": "{string}", "loss": "mse", "inputs": {{"predictions": {hidden}, "targets": [0, 0]}}}}'
    good = item.replace(hidden, "[1, 2]")
    for items in ([item], [item, good], [good, item], [item, item]):
        body = f'{{"items": [{", ".join(items)}]}}'
        results = client.post("/v1/batch", content=body, headers=JSON).json()["results"]
        assert [one["status"] for one in results] == ["error" if one is item else "ok" for one in items]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ('"order 12345678901234567890 of 2"', "ok"),
        ("18446744073709551615", "ok"),
        ("-9223372036854775808", "ok"),
        ("1.5", "ok"),
        ("18446744073709551616", "error"),
        ("123456789012345678901234", "error"),
        ("1e300", "error"),
        ("9007199254740993.0", "error"),
        ("true", "error"),
    ],
)
@pytest.mark.parametrize("beside", ["[1, 2]", "[123456789012345678901234, 2]"])
def test_ids_come_back_as_they_were_sent_or_are_refused(
    client: Client, sent: str, status: str, beside: str
) -> None:
    other = f'{{"loss": "mse", "inputs": {{"predictions": {beside}, "targets": [0, 0]}}}}'
    body = f'{{"items": [{{"id": {sent}, {other[1:]}, {other}]}}'
    answer = client.post("/v1/batch", content=body, headers=JSON)
    first = answer.json()["results"][0]
    assert first["status"] == status
    if status == "ok":
        assert f'"id":{sent},' in answer.text
    else:
        assert [fault["pointer"] for fault in first["error"]["errors"]] == ["/id"]


def test_params_of_an_item_go_over_those_of_the_defaults(client: Client) -> None:
    item = {"loss": "focal", "inputs": {"logits": [[2, 1]], "targets": [[1, 0]]}}
    alone = [
        client.evaluate("focal", inputs=item["inputs"], params=params).json()["value"]
        for params in ({"gamma": 3}, {"gamma": 3, "alpha": 0.5}, {"gamma": 1})
    ]
    sent = [
        item,
        {**item, "params": {}},
        {**item, "params": {"alpha": 0.5}},
        {**item, "params": {"gamma": 1}},
    ]
    body = batch(client, *sent, defaults={"params": {"gamma": 3}})
    assert [one["value"] for one in body["results"]] == pytest.approx([alone[0], *alone])


@pytest.mark.parametrize(
    ("defaults", "pointers"),
    [
        ({"loss": "huber", "params": {"delta": -1}}, ["/defaults/params/delta"]),
        ({"params": {"delta": -1}}, ["/defaults/params/delta"]),
        ({"loss": "huber", "params": {"gamma": 1}}, ["/defaults/params/gamma"]),
        ({"params": {f"x{n}": 1 for n in range(100)}}, [f"/defaults/params/x{n}" for n in range(100)]),
        ({"params": {"delta": [1] * 300_000}}, ["/defaults/params/delta"]),
        ({"gradients": ["predictions"] * 100_000}, ["/defaults/gradients"]),
        ({"gradients": ["x"] * 257}, ["/defaults/gradients"]),
    ],
)
def test_faults_of_defaults_are_told_once(
    client: Client, defaults: dict[str, Any], pointers: list[str]
) -> None:
    items = [{"loss": "huber", "inputs": GOOD["inputs"]}] * 1000
    answer = client.post("/v1/batch", json={"items": items, "defaults": defaults})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert len(answer.content) < 100_000


def test_a_default_that_some_items_can_use_is_a_fault_of_the_others(client: Client) -> None:
    huber = {"loss": "huber", "inputs": GOOD["inputs"]}
    body = batch(client, huber, GOOD, {**huber, "params": {"delta": 3}}, defaults={"params": {"delta": 2}})
    assert [one["status"] for one in body["results"]] == ["ok", "error", "ok"]
    assert [one["pointer"] for one in body["results"][1]["error"]["errors"]] == ["/params/delta"]


def test_an_answer_of_faults_has_a_bound(client: Client) -> None:
    bad = {"loss": "mse", "inputs": {}} | {f"x{number}": 0 for number in range(60)}
    body = batch(client, *[bad] * 300)
    counts = [len(one["error"]["errors"]) for one in body["results"]]
    assert counts[0] == 62
    assert sum(counts) < 1000 + 62 + 300
    assert "61 more" in body["results"][-1]["error"]["detail"]


@every_loss
def test_items_give_what_they_give_alone(client: Client, loss: AnyLoss) -> None:
    """Like items are computed together, beside one that is refused and one of NaN."""
    item = {"dtype": "float64", **describe.example(loss)}
    alone = client.evaluate(loss.name, **item).json()
    body = batch(client, *[{**item, "loss": loss.name}] * 3, {**item, "loss": loss.name, "inputs": {}})
    assert [result["status"] for result in body["results"]] == ["ok", "ok", "ok", "error"]
    for result in body["results"][:3]:
        assert result["value"] == pytest.approx(alone["value"], rel=1e-12, abs=1e-12)
        assert result["gradients"].keys() == alone["gradients"].keys()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/items"),
        ({"items": {}}, "/items"),
        ({"items": [], "defaults": 1}, "/defaults"),
        ({"items": [], "default": {}}, "/default"),
        ({"items": [], "defaults": {"inputs": {}}}, "/defaults/inputs"),
        ({"items": [], "defaults": {"reduction": "meen"}}, "/defaults/reduction"),
        ({"items": [], "defaults": {"loss": 1}}, "/defaults/loss"),
        ({"items": [], "defaults": {"params": [1]}}, "/defaults/params"),
    ],
)
def test_what_holds_the_items_must_fit(client: Client, body: dict[str, Any], pointer: str) -> None:
    answer = client.post("/v1/batch", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_an_empty_batch_is_answered(client: Client) -> None:
    assert batch(client) == {"results": [], "succeeded": 0, "failed": 0, "summary": {}}


def test_more_items_than_the_limit_are_a_413() -> None:
    client = Client(create_app(Settings(device="cpu", max_batch_items=2)))
    answer = client.post("/v1/batch", json={"items": [GOOD] * 3})
    assert (answer.status_code, "LOSSD_MAX_BATCH_ITEMS" in answer.json()["detail"]) == (413, True)


def test_only_post(client: Client) -> None:
    assert client.get("/v1/batch").headers["allow"] == "POST"


@pytest.mark.parametrize("lines", [False, True])
def test_of_many_unknown_losses_only_the_first_are_compared_with_the_known(
    client: Client, *, lines: bool
) -> None:
    items = [{"id": n, "loss": f"unknown_{n}", "inputs": {}} for n in range(900)]
    with within_cpu_s(1):
        if lines:
            content = b"\n".join(map(orjson.dumps, items))
            headers = {"content-type": "application/x-ndjson"}
            answer = client.post("/v1/batch", content=content, headers=headers)
            found = [orjson.loads(line) for line in answer.text.splitlines()]
        else:
            found = client.post("/v1/batch", json={"items": items}).json()["results"]
    # the last line of a stream, which has no end, is read after the others
    first, last = found[0]["error"], found[-2]["error"]
    assert "the closest names are" in first["detail"]
    assert last["detail"] == "There is no loss 'unknown_898'."
    assert last["errors"][0]["detail"] == "Expected the name of a loss; got 'unknown_898'."
