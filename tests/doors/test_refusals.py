"""Each kind of invalid request gets an answer with the place of the fault and the expected value."""

import base64
from typing import Any

import orjson
import pytest
from fastapi import FastAPI

from service.admission.problems import answer_problems
from service.app import create_app
from service.losses import CATALOGUE
from service.settings import Settings
from tests.client import Client, behind_front
from tests.waiting import within_cpu_s

LOGITS = [[2.0, 1.0, 0.1], [0.3, 0.2, 0.9]]
GOOD = {"logits": LOGITS, "targets": [0, 1]}
JSON = {"content-type": "application/json"}
HUGE = {"dtype": "float32", "shape": [2**62, 2**62], "data": "AAAA"}


@pytest.mark.parametrize(
    ("body", "pointer", "code", "detail"),
    [
        (
            {"inputs": {**GOOD, "targets": [0, 3]}},
            "/inputs/targets/1",
            "domain",
            "from 0 to C - 1, or ignore",
        ),
        ({"inputs": {**GOOD, "targets": [0, 0.5]}}, "/inputs/targets/1", "kind", "integers; got 0.5."),
        ({"inputs": {**GOOD, "targets": [0]}}, "/inputs/targets", "shape", "(N = 2, C = 3); got [1]."),
        ({"inputs": {**GOOD, "targets": [0, "a"]}}, "/inputs/targets/1", "type", 'a number; got "a".'),
        ({"inputs": {**GOOD, "targets": [0, None]}}, "/inputs/targets/1", "type", "a number; got null."),
        (
            {"inputs": {**GOOD, "logits": [[1, 2, 3], [4, 5]]}},
            "/inputs/logits/1",
            "ragged",
            "3; got length 2.",
        ),
        (
            {"inputs": {**GOOD, "logits": [[1, 2], [3], [4, 5, 6]]}},
            "/inputs/logits/1",
            "ragged",
            "an array of length 2; got length 1.",
        ),
        (
            {"inputs": {**GOOD, "logits": [[1, 2, 3], [4, 5, [6]]]}},
            "/inputs/logits/1/2",
            "ragged",
            "a number; got [6].",
        ),
        ({"inputs": {**GOOD, "logits": [[1, 2, 3], 4]}}, "/inputs/logits/1", "ragged", "length 3; got 4."),
        ({"inputs": {"logits": LOGITS}}, "/inputs/targets", "missing", "a tensor; got nothing."),
        ({"inputs": {**GOOD, "targets": None}}, "/inputs/targets", "missing", "a tensor; got null."),
        (
            {"inputs": {**GOOD, "target": [0]}},
            "/inputs/target",
            "unknown",
            "one of logits, targets; got 'target'.",
        ),
        ({"inputs": [1]}, "/inputs", "type", "an object; got [1]."),
        ({}, "/inputs", "missing", "an object of tensors; got nothing."),
        ({"inputs": GOOD, "extra": 1}, "/extra", "unknown", "got 'extra'."),
        ({"inputs": GOOD, "reduction": "avg"}, "/reduction", "value", '"mean", "sum" or "none"; got "avg".'),
        ({"inputs": GOOD, "dtype": "int8"}, "/dtype", "value", 'got "int8".'),
        ({"inputs": GOOD, "encoding": 1}, "/encoding", "value", "got 1."),
        ({"inputs": None}, "/inputs", "missing", "an object of tensors; got nothing."),
        ({"inputs": GOOD, "gradients": "logits"}, "/gradients", "value", 'input names; got "logits".'),
        ({"inputs": GOOD, "gradients": ["x"]}, "/gradients/0", "gradient", "got 'x'."),
        (
            {"inputs": GOOD, "gradients": ["targets"]},
            "/gradients/0",
            "gradient",
            "one of logits; got 'targets'.",
        ),
        ({"inputs": GOOD, "params": {"weigth": 1}}, "/params/weigth", "unknown", "got 'weigth'."),
        (
            {"inputs": GOOD, "params": {"label_smoothing": 2}},
            "/params/label_smoothing",
            "value",
            "a number of at least 0 and of at most 1; got 2.",
        ),
        ({"inputs": GOOD, "params": {"ignore_index": 1.5}}, "/params/ignore_index", "value", "got 1.5."),
        (
            {"inputs": GOOD, "params": {"label_smoothing": True}},
            "/params/label_smoothing",
            "value",
            "got true.",
        ),
        ({"inputs": GOOD, "params": {"weight": [1, 2]}}, "/params/weight", "shape", "[C] (C = 3); got [2]."),
        ({"inputs": GOOD, "params": {"weight": [1, 2, -1]}}, "/params/weight/2", "domain", "got -1."),
        ({"inputs": GOOD, "sample_weight": [1, -1]}, "/sample_weight/1", "domain", "at least 0; got -1."),
        ({"inputs": GOOD, "sample_weight": [1, 1, 1]}, "/sample_weight", "shape", "from the left; got [3]."),
        ({"inputs": GOOD, "grad_output": [1.0, 1.0]}, "/grad_output", "shape", "the value, []; got [2]."),
        ({"inputs": {**GOOD, "logits": HUGE}}, "/inputs/logits/data", "length", "got 4 characters."),
        (
            {"inputs": {**GOOD, "logits": {"dtype": "float32", "shape": [1], "data": "A*AAAA=="}}},
            "/inputs/logits/data",
            "base64",
            "Expected base64",
        ),
        (
            {"inputs": {**GOOD, "logits": {"dtype": "float8", "shape": [1], "data": "AAAA"}}},
            "/inputs/logits/dtype",
            "dtype",
            'got "float8".',
        ),
        (
            {"inputs": {**GOOD, "logits": {"dtype": "float32", "shape": [-1], "data": ""}}},
            "/inputs/logits/shape",
            "shape",
            "got [-1].",
        ),
        ({"inputs": {**GOOD, "logits": {"shape": [1]}}}, "/inputs/logits", "type", 'got {"shape":[1]}.'),
        ({"inputs": {**GOOD, "logits": "x"}}, "/inputs/logits", "type", 'got "x".'),
    ],
)
def test_invalid_requests(client: Client, body: dict[str, Any], pointer: str, code: str, detail: str) -> None:
    answer = client.evaluate("cross_entropy", **body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 422
    assert problem["instance"] == "/v1/losses/cross_entropy"
    [error] = problem["errors"]
    assert (error["pointer"], error["code"]) == (pointer, code)
    assert error["detail"].startswith("Expected ")
    assert detail in error["detail"], error["detail"]


def test_all_faults_are_told_together(client: Client) -> None:
    body = {
        "inputs": {"logits": [[1, 2], [3]], "targets": [0.5], "foo": 1},
        "params": {"label_smoothing": -1},
        "reduction": 3,
        "bar": None,
    }
    errors = client.evaluate("cross_entropy", **body).json()["errors"]
    pointers = {error["pointer"] for error in errors}
    assert pointers >= {"/inputs/logits/1", "/inputs/foo", "/params/label_smoothing", "/reduction", "/bar"}


def test_packed_elements_are_told_by_their_index(client: Client) -> None:
    targets = {"dtype": "uint8", "shape": [2], "data": "AAk="}
    [error] = client.evaluate("cross_entropy", inputs={**GOOD, "targets": targets}).json()["errors"]
    assert error["pointer"] == "/inputs/targets"
    assert error["detail"].endswith("got 9 at [1].")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"inputs": {"logits": [NaN]}}', 400),
        (b'{"inputs": {"logits": [Infinity]}}', 400),
        (b'{"inputs": {"logits": [1e400]}}', 400),
        (b'{"inputs": "\xff"}', 400),
        (b"{} x", 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'{"inputs": {"logits": ' + b"[" * 500 + b"1" + b"]" * 500 + b', "targets": 0}}', 422),
        (b"[]", 422),
        (b"null", 422),
        (b"1", 422),
        (b'"x"', 422),
        (b'{"inputs": {"logits": 1, "logits": 1, "targets": 1}}', 422),
        (b'{"inputs": {"logits": [' + b"[1]," * 100_000 + b'[1, 2]], "targets": [0]}}', 422),
        (b'{"inputs": {"logits": {"dtype": "float32", "shape": ' + b"[" * 300 + b"]" * 300 + b"}}}", 422),
        (b'{"inputs": {"logits": [[1e308, -1e308]], "targets": [9223372036854775808]}}', 422),
    ],
)
def test_hostile_bodies_are_refused_at_once(client: Client, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    with within_cpu_s(1):
        answer = client.post("/v1/losses/cross_entropy", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("label", [b"-9223372036854775809", b"-9223372036854776000.0"])
def test_an_integer_just_below_64_bits_is_no_other(client: Client, label: bytes) -> None:
    """As a float it equals the smallest 64-bit integer, which is a different number."""
    least = b"-9223372036854775808"
    for first, status in ((least, 200), (label, 422)):
        for targets in (b"[%b, 1]" % first, b"[%b, 1.0]" % first):
            body = (
                b'{"inputs": {"embeddings": [[1, 2], [3, 5]], "targets": %b}, "reduction": "sum"}' % targets
            )
            answer = client.post("/v1/losses/batch_all_triplet", content=body, headers=JSON)
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize("name", [r"\u0000", r"a\u0000b", r"inputs\u0000", r"\ud83d\ude00", ""])
def test_whatever_a_member_is_called_it_is_refused(client: Client, name: str) -> None:
    body = f'{{"inputs": {{"predictions": [1], "targets": [1]}}, "{name}": 1}}'
    [error] = client.post("/v1/losses/mse", content=body, headers=JSON).json()["errors"]
    assert (error["pointer"], error["code"]) == (orjson.loads(f'"/{name}"'), "unknown")
    batch = client.post(
        "/v1/batch", content=f'{{"items": [{{"loss": "mse", {body[1:]}]}}', headers=JSON
    ).json()
    assert [one["pointer"] for one in batch["results"][0]["error"]["errors"]] == [error["pointer"]]


@pytest.mark.parametrize("unit", [b"[1],", b"[],", b"[[1]],", b"{},", b'"a",', b"[1,[2]],"])
@pytest.mark.parametrize("field", [b'"params":{"weight":[%b1]}', b'"gradients":[%b1]'])
def test_a_million_of_anything_is_refused_soon(client: Client, field: bytes, unit: bytes) -> None:
    good = b'{"inputs":{"logits":[[1,2]],"targets":[1]},'
    body = good + field % (unit * 1_000_000) + b"}"
    with within_cpu_s(2):
        answer = client.post("/v1/losses/cross_entropy", content=body, headers=JSON)
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 1)


def test_unreadable_bodies_are_told_where(client: Client) -> None:
    answer = client.post(
        "/v1/losses/mse", content=b'{\n "inputs": x}', headers={"content-type": "application/json"}
    )
    assert "line 2 column 12" in answer.json()["detail"]


def test_a_body_is_not_repeated_in_the_answer(client: Client) -> None:
    names = {f"{'k' * 10_000}{i}": 1 for i in range(200)}
    answer = client.evaluate("mse", inputs={**names, "predictions": "x" * 10_000}, gradients=["y" * 10_000])
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert answer.json()["detail"].startswith("At least 100 things")
    assert len(answer.content) < 50_000


@pytest.mark.parametrize("field", ["params", "gradients", "reduction", "sample_weight", "x"])
@pytest.mark.parametrize("nested", ["[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900])
def test_deep_nesting_is_refused_wherever_it_is(client: Client, field: str, nested: str) -> None:
    body = f'{{"inputs": {{"predictions": [1, {nested}], "targets": [1, 2]}}, "{field}": {nested}}}'
    answer = client.post("/v1/losses/mse", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(("loss", "rounds"), [("soft_cldice", "iterations"), ("hausdorff_er", "erosions")])
def test_rounds_without_end_are_refused_before_they_begin(client: Client, loss: str, rounds: str) -> None:
    masks = {"logits": [[[0.5] * 64] * 64], "targets": [[[1] * 64] * 64]}
    answer = client.evaluate(loss, inputs=masks, params={"mode": "binary", rounds: 10**9})
    assert (answer.status_code, "LOSSD_MAX_WORK" in answer.json()["detail"]) == (413, True)


def test_a_call_over_the_memory_is_413(client: Client) -> None:
    """Pairs of items: a square of a size that a few bytes can ask for."""
    lists = {"dtype": "float32", "shape": [0, 2**20], "data": ""}
    answer = client.evaluate("lambdarank", inputs={"scores": lists, "targets": lists}, reduction="sum")
    assert answer.status_code in (200, 413), answer.text


def test_the_instance_is_a_uri_reference(client: Client) -> None:
    assert client.get("/v1/losses/a%20b%3Fc%C3%A9").json()["instance"] == "/v1/losses/a%20b%3Fc%C3%A9"


@pytest.mark.parametrize("path", ["/healthz", "/v1/limits", "/v1/losses", "/v1/losses/mse", "/openapi.json"])
def test_what_can_be_got_has_a_head(client: Client, path: str) -> None:
    answer = client.request("HEAD", path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


def test_unknown_losses_suggest_the_closest(client: Client) -> None:
    for method in ("GET", "POST"):
        answer = client.request(method, "/v1/losses/hubber")
        assert answer.status_code == 404
        assert "huber" in answer.json()["detail"]
    far = client.get(f"/v1/losses/{'x' * 60_000}")
    assert far.status_code == 404
    assert "the closest names are " in far.json()["detail"]
    assert len(far.json()["detail"]) < 300


def test_unknown_paths_and_methods_are_problems(client: Client) -> None:
    unknown = client.get("/nope")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    wrong = client.request("DELETE", "/v1/losses/mse")
    assert wrong.status_code == 405
    assert {"GET", "POST"} <= set(wrong.headers["allow"].replace(" ", "").split(","))
    assert wrong.json()["status"] == 405
    assert client.post("/healthz").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/v1/losses/", "/v1/limits/", "/healthz/", "/v2/", "/v2/models/mse/", "/docs/"]
)
def test_a_slash_too_many_leads_on(client: Client, path: str) -> None:
    answer = client.get(f"{path}?a=b%20c")
    assert (answer.status_code, answer.content) == (308, b"")
    assert answer.headers["location"] == f"{path[:-1]}?a=b%20c"
    assert client.get(path).headers["location"] == path[:-1]
    assert client.get(f"{path}/").status_code == client.get(f"/nope{path}").status_code == 404


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "/v1/losses/%2F%2Fevil.example/"])
def test_nobody_is_led_to_another_host(client: Client, path: str) -> None:
    location = client.get(path).headers.get("location", "")
    assert not location.startswith(("//", "/\\"))


def test_a_query_that_nothing_reads_is_refused(client: Client) -> None:
    refused = client.get("/v1/losses?tsk=detection&q=iou").json()["errors"]
    assert [(one["pointer"], one["code"]) for one in refused] == [("/query/tsk", "unknown")]
    assert refused[0]["detail"] == "Expected one of the query parameters task, q; got 'tsk'."
    again = client.get("/v1/losses?q=iou&q=box").json()["errors"]
    assert [(one["pointer"], one["code"]) for one in again] == [("/query/q", "duplicate")]
    body = {"inputs": {"predictions": [1], "targets": [0]}}
    for path in ("/v1/losses/mse", "/v1/batch"):
        answer = client.post(f"{path}?reduction=sum", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/reduction")
    for path in ("/v1/losses/mse", "/v1/limits"):
        assert client.get(f"{path}?x").status_code == 422
    assert client.get("/healthz?x=1").status_code == 200


def test_a_task_that_no_loss_has_is_told_with_those_there_are(client: Client) -> None:
    answer = client.get("/v1/losses", params={"task": "cooking"})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/query/task"
    for task in {task for loss in CATALOGUE.values() for task in loss.tasks}:
        assert task in error["detail"]
    found = client.get("/v1/losses", params={"task": "Metric-Learning"}).json()["losses"]
    assert found and all("metric_learning" in loss["tasks"] for loss in found)
    assert len(client.get("/v1/losses?task=&q=").json()["losses"]) == len(CATALOGUE)


@pytest.mark.parametrize("where", ["params", "inputs", "defaults", "defaults.params"])
def test_phps_empty_array_gets_a_hint(client: Client, where: str) -> None:
    item: dict[str, Any] = {"loss": "mse", "inputs": {"predictions": [1], "targets": [0]}}
    if where in item or where == "params":
        errors = client.evaluate("mse", **{"inputs": item["inputs"], where: []}).json()["errors"]
    else:
        defaults: Any = [] if where == "defaults" else {"params": []}
        errors = client.post("/v1/batch", json={"items": [item], "defaults": defaults}).json()["errors"]
    assert errors[0]["pointer"] == f"/{where.replace('.', '/')}"
    assert errors[0]["detail"].startswith("Expected an object; got []. An empty object is {}: in PHP,")


@pytest.mark.parametrize("size", [60, 90_000, 3_000_000])
def test_base64_in_lines_is_told_so(client: Client, size: int) -> None:
    data = base64.encodebytes(bytes(4 * size)).decode()
    tensor = {"dtype": "float32", "shape": [size], "data": data}
    answer = client.evaluate("mse", inputs={"predictions": tensor, "targets": tensor})
    assert answer.status_code == 422
    for error in answer.json()["errors"]:
        assert (error["pointer"].rpartition("/")[2], error["code"]) == ("data", "base64")
        assert "without line breaks; got a line break" in error["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "br"},
    ],
)
def test_other_media_are_415(client: Client, headers: dict[str, str]) -> None:
    answer = client.post("/v1/losses/mse", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (415, 415)


@pytest.mark.parametrize("media", ["application/json; charset=UTF-8", "application/vnd.api+json", None])
def test_json_media_types_are_read(client: Client, media: str | None) -> None:
    body = b'{"inputs": {"predictions": [1], "targets": [0]}}'
    answer = client.post("/v1/losses/mse", content=body, headers={"content-type": media} if media else {})
    assert answer.status_code == 200


def test_bodies_over_the_limit_are_413() -> None:
    client = Client(create_app(Settings(device="cpu", max_body_bytes=100)))
    headers = {"content-type": "application/json"}

    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 20

    for content in (b" " * 101, chunks()):
        answer = client.post("/v1/losses/mse", content=content, headers=headers)
        assert answer.status_code == 413
        assert "100 bytes (LOSSD_MAX_BODY_BYTES)" in answer.json()["detail"]
    exact = b'{"inputs": {"predictions": [1], "targets": [0]}}'.ljust(100)
    assert client.post("/v1/losses/mse", content=exact, headers=headers).status_code == 200


def test_every_answer_carries_an_id_and_its_timing(client: Client) -> None:
    for path in ("/healthz", "/nope", "/v1/losses", "/v1/losses/mse"):
        answer = client.get(path)
        assert answer.headers["x-request-id"]
        stages = [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]
        assert stages[:4] == ["decode", "queue", "compute", "encode"]
    kept = client.get("/healthz", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    traced = client.get("/healthz", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert traced.headers["x-request-id"] == trace
    for wrong in ("x" * 200, "a b", "\u00e9", ""):
        sent = client.get("/healthz", headers={"x-request-id": wrong.encode("latin-1")})
        assert sent.headers["x-request-id"] != wrong
    for void in (f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{trace}-00f067aa0ba902b7-01", "x"):
        assert client.get("/healthz", headers={"traceparent": void}).headers["x-request-id"] not in void


def test_a_bug_is_a_500_without_a_stack() -> None:
    app = FastAPI()
    answer_problems(app)

    async def broken(request: Any) -> Any:
        raise RuntimeError("secret")

    app.add_route("/broken", broken)
    answer = behind_front(app).get("/broken")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("where", ["", "inputs", "params"])
def test_names_without_end_are_refused_unread(client: Client, where: str) -> None:
    names = ", ".join(f'"k{place}": 1' for place in range(300_000))
    body = f'{{"{where}": {{{names}}}}}' if where else f"{{{names}}}"
    answer = client.post("/v1/losses/mse", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == (f"/{where}" if where else "")
    assert "at most 10000 names" in answer.text


def test_null_is_the_same_as_nothing(client: Client) -> None:
    options = (
        "params",
        "reduction",
        "sample_weight",
        "gradients",
        "grad_output",
        "dtype",
        "encoding",
        "tangents",
        "hessian",
    )
    answer = client.evaluate("cross_entropy", inputs=GOOD, **dict.fromkeys(options))
    assert answer.status_code == 200, answer.text
    assert answer.json() == client.evaluate("cross_entropy", inputs=GOOD).json()
