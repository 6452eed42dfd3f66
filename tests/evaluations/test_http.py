"""Evaluations over HTTP: specs, parts in every format, results, rows, and what is refused."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.settings import Settings
from tests.client import Client

SPEC: dict[str, Any] = {
    "task": "multiclass",
    "num_classes": 3,
    "expect": 4,
    "columns": {"predictions": "logits", "targets": "label", "id": "image", "slices": ["country"]},
    "metrics": ["accuracy", {"loss": "cross_entropy"}],
}
PART: dict[str, list[Any]] = {
    "image": ["x", "y", "z", "w"],
    "logits": [[1.0, 2.0, 3.0], [3.5, 2.0, 1.0], [0.0, 1.0, 0.5], [2.0, 0.25, 1.0]],
    "label": [2, 0, 0, 1],
    "country": ["de", "us", "de", "fr"],
}


@pytest.fixture
def served(tmp_path: Path) -> Client:
    return Client(create_app(Settings(device="cpu", data_dir=tmp_path)))


def put(client: Client, path: str, body: Any, **options: Any) -> httpx.Response:
    return client.request("PUT", f"/v1/evaluations/{path}", json=body, **options)


def as_rows(part: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)]


def send_ndjson(client: Client, path: str, part: dict[str, list[Any]]) -> httpx.Response:
    text = "\n".join(map(json.dumps, as_rows(part)))
    headers = {"content-type": "application/x-ndjson"}
    return client.request("PUT", f"/v1/evaluations/{path}", content=text, headers=headers)


def send_csv(client: Client, path: str, part: dict[str, list[Any]]) -> httpx.Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(part)
    writer.writerows(
        [json.dumps(cell) if isinstance(cell, list) else cell for cell in row]
        for row in zip(*part.values(), strict=True)
    )
    headers = {"content-type": "text/csv; charset=utf-8"}
    return client.request("PUT", f"/v1/evaluations/{path}", content=text.getvalue(), headers=headers)


def packed(values: list[Any], dtype: str) -> dict[str, Any]:
    array = np.array(values, dtype)
    return {
        "dtype": dtype,
        "shape": list(array.shape),
        "data": base64.b64encode(array.tobytes()).decode(),
    }


def errors(response: httpx.Response) -> list[tuple[str, str]]:
    return [(one["pointer"], one["code"]) for one in response.json()["errors"]]


def test_a_spec_is_new_then_there_then_refused_if_it_differs(served: Client) -> None:
    first = put(served, "val", SPEC)
    assert first.status_code == 201
    assert put(served, "val", SPEC).status_code == 200
    other = put(served, "val", {**SPEC, "num_classes": 4, "expect": 7})
    assert other.status_code == 409
    assert errors(other) == [("/metrics/0/params/num_classes", "differs"), ("/expect", "differs")]


def test_the_same_part_in_any_format_is_the_same_part(served: Client) -> None:
    put(served, "val", SPEC)
    first = put(served, "val/parts/p", PART)
    assert (first.status_code, first.json()) == (201, {"rows": 4, "new": 4, "seen": 0})
    again = [
        put(served, "val/parts/p", PART),
        send_ndjson(served, "val/parts/p", PART),
        send_csv(served, "val/parts/p", PART),
        put(
            served,
            "val/parts/p",
            {**PART, "logits": packed(PART["logits"], "float32"), "label": packed(PART["label"], "uint8")},
        ),
    ]
    assert [one.status_code for one in again] == [200] * 4
    assert [one.json() for one in again] == [{"rows": 4, "new": 0, "seen": 4}] * 4


def test_a_row_counts_once_by_its_id(served: Client) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/a", {name: column[:3] for name, column in PART.items()})
    overlapping = put(served, "val/parts/b", {name: column[1:] for name, column in PART.items()})
    assert (overlapping.status_code, overlapping.json()) == (201, {"rows": 3, "new": 1, "seen": 2})
    found = served.get("/v1/evaluations/val").json()
    assert (found["rows"], found["expected"], found["complete"]) == (4, 4, True)
    assert found["results"]["accuracy"]["value"] == 0.5


def test_other_content_under_a_key_is_refused(served: Client) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/p", PART)
    assert put(served, "val/parts/p", {**PART, "label": [2, 0, 0, 0]}).status_code == 409


@pytest.mark.parametrize("send", [send_ndjson, send_csv])
def test_an_id_with_other_content_is_refused_with_its_line(served: Client, send: Any) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/p", PART)
    refused = send(served, "val/parts/q", {**PART, "label": [2, 0, 1, 1]})
    assert refused.status_code == 409
    assert errors(refused) == [("/rows/2/image", "content")]
    assert refused.json()["errors"][0]["line"] == (3 if send is send_ndjson else 4)
    assert served.get("/v1/evaluations/val").json()["rows"] == 4


def test_an_id_with_two_contents_in_one_part_is_refused(served: Client) -> None:
    put(served, "val", SPEC)
    refused = put(served, "val/parts/p", {**PART, "image": ["x", "y", "x", "w"]})
    assert (refused.status_code, errors(refused)) == (409, [("/rows/2/image", "content")])


def test_the_first_content_counts_if_the_spec_says_so(served: Client) -> None:
    put(served, "val", {**SPEC, "duplicates": "first"})
    put(served, "val/parts/p", PART)
    found = put(served, "val/parts/q", {**PART, "label": [0, 1, 1, 0]})
    assert (found.status_code, found.json()) == (201, {"rows": 4, "new": 0, "seen": 4})
    assert served.get("/v1/evaluations/val").json()["results"]["accuracy"]["value"] == 0.5


@pytest.mark.parametrize("send", [send_ndjson, send_csv])
def test_faults_of_rows_have_their_line(served: Client, send: Any) -> None:
    put(served, "val", SPEC)
    refused = send(served, "val/parts/p", {**PART, "label": [2, 7, 0, 1]})
    assert (refused.status_code, errors(refused)) == (422, [("/rows/1/label", "domain")])
    assert refused.json()["errors"][0]["line"] == (2 if send is send_ndjson else 3)


def test_faults_of_columns_point_to_rows(served: Client) -> None:
    put(served, "val", SPEC)
    refused = put(served, "val/parts/p", {**PART, "logits": [[1, 2, 3], [1, "a", 3], [1, 2, 3], [1, 2, 3]]})
    assert (refused.status_code, errors(refused)[0][0]) == (422, "/rows/1/logits/1")
    short = put(served, "val/parts/p", {**PART, "label": [0, 1]})
    assert (short.status_code, errors(short)) == (422, [("/label", "shape")])
    other = put(served, "val/parts/p", {**PART, "colour": [0] * 4})
    assert (other.status_code, errors(other)) == (422, [("/colour", "unknown")])


def test_an_empty_part_is_valid(served: Client) -> None:
    put(served, "val", SPEC)
    empty: dict[str, list[Any]] = {name: [] for name in PART}
    assert put(served, "val/parts/p", empty).json() == {"rows": 0, "new": 0, "seen": 0}
    found = served.get("/v1/evaluations/val?slices=country&interval=0.9").json()
    assert found["results"]["accuracy"]["value"] is None
    assert found["results"]["accuracy"]["undefined"] == {"value": "there are no rows"}
    put(served, "val/parts/q", PART)
    assert served.get("/v1/evaluations/val").json()["rows"] == 4


def test_without_ids_rows_are_those_of_their_part(served: Client) -> None:
    spec = {**SPEC, "columns": {**SPEC["columns"], "id": None}}
    put(served, "val", spec)
    part = {name: column for name, column in PART.items() if name != "image"}
    for key in ("a", "b", "a"):
        put(served, f"val/parts/{key}", part)
    assert served.get("/v1/evaluations/val").json()["rows"] == 8
    rows = served.get("/v1/evaluations/val/rows?worst=cross_entropy&limit=2").json()["rows"]
    assert {row["id"] for row in rows} == {"a/3", "b/3"}


def test_slices_have_their_rows(served: Client) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/p", PART)
    found = served.get("/v1/evaluations/val?slices=country&metrics=accuracy").json()
    assert {name: one["rows"] for name, one in found["slices"].items()} == {
        "country=de": 2,
        "country=fr": 1,
        "country=us": 1,
    }
    assert found["slices"]["country=de"]["results"]["accuracy"]["value"] == 0.5
    assert found["results"].keys() == {"accuracy"}
    refused = served.get("/v1/evaluations/val?slices=colour")
    assert (refused.status_code, errors(refused)) == (422, [("/query/slices", "unknown")])


def test_a_loss_is_the_mean_of_its_samples(served: Client) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/p", PART)
    found = served.get("/v1/evaluations/val").json()["results"]["cross_entropy"]["value"]
    inputs = {"logits": PART["logits"], "targets": PART["label"]}
    expected = served.evaluate("cross_entropy", inputs=inputs, dtype="float64").json()["value"]
    assert found == pytest.approx(expected, rel=1e-14)


def test_weights_count_in_values(served: Client) -> None:
    spec = {**SPEC, "columns": {**SPEC["columns"], "weight": "w"}}
    put(served, "val", spec)
    put(served, "val/parts/p", {**PART, "w": [1, 0, 2, 1]})
    assert served.get("/v1/evaluations/val").json()["results"]["accuracy"]["value"] == 0.25
    refused = put(served, "val/parts/q", {**PART, "w": [1, 0, -2, 1]})
    assert (refused.status_code, errors(refused)) == (422, [("/rows/2/w", "domain")])


def test_a_difference_is_paired_by_ids(served: Client) -> None:
    other = {**PART, "label": [2, 0, 1, 1]}
    for name, part in (("one", PART), ("two", other)):
        put(served, name, SPEC)
        put(served, f"{name}/parts/p", part)
    found = served.get("/v1/evaluations/two?against=one&interval=0.9").json()
    assert found["rows_paired"] == 4
    assert found["difference"]["accuracy"]["value"] == 0.25
    low, high = found["difference"]["accuracy"]["interval"]
    assert 0 <= low <= 0.25 <= high
    same = served.get("/v1/evaluations/one?against=one&interval=0.9").json()["difference"]
    assert same["accuracy"] == {"value": 0.0, "interval": [0.0, 0.0]}


def test_a_difference_needs_equal_signatures_and_common_ids(served: Client) -> None:
    put(served, "one", SPEC)
    put(served, "two", {**SPEC, "metrics": [{"metric": "accuracy", "params": {"top_k": 2}}]})
    put(served, "three", SPEC)
    put(served, "one/parts/p", PART)
    put(served, "three/parts/p", {**PART, "image": ["a", "b", "c", "d"]})
    assert served.get("/v1/evaluations/one?against=two").status_code == 409
    unpaired = served.get("/v1/evaluations/one?against=three")
    assert (unpaired.status_code, errors(unpaired)) == (422, [("/query/against", "unpaired")])
    assert served.get("/v1/evaluations/one?against=four").status_code == 404


def test_the_worst_rows_come_first(served: Client) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/p", PART)
    rows = served.get("/v1/evaluations/val/rows?worst=cross_entropy&limit=2").json()["rows"]
    assert [row["id"] for row in rows] == ["w", "z"]
    assert rows[0]["value"] > rows[1]["value"]
    assert (rows[0]["part"], rows[0]["columns"]["country"]) == ("p", "fr")
    wrong = served.get("/v1/evaluations/val/rows?worst=accuracy&limit=2").json()["rows"]
    assert {row["id"] for row in wrong} == {"w", "z"}
    assert served.get("/v1/evaluations/val/rows").status_code == 422


def test_evaluations_are_listed_in_pages(served: Client) -> None:
    for name in ("c", "a", "b"):
        put(served, name, SPEC)
    first = served.get("/v1/evaluations?limit=2").json()
    assert ([one["name"] for one in first["evaluations"]], first["next"]) == (["a", "b"], "b")
    second = served.get(f"/v1/evaluations?limit=2&cursor={first['next']}").json()
    assert ([one["name"] for one in second["evaluations"]], second["next"]) == (["c"], None)


def test_a_deleted_evaluation_is_gone(served: Client) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/p", PART)
    gone = served.request("DELETE", "/v1/evaluations/val")
    assert (gone.status_code, gone.content) == (204, b"")
    assert served.get("/v1/evaluations/val").status_code == 404
    assert served.request("DELETE", "/v1/evaluations/val").status_code == 404
    assert put(served, "val/parts/p", PART).status_code == 404
    assert put(served, "val", {**SPEC, "expect": 9}).status_code == 201
    assert served.get("/v1/evaluations/val").json()["rows"] == 0


def test_an_evaluation_of_sent_data_is_not_stored(served: Client) -> None:
    put(served, "val", SPEC)
    put(served, "val/parts/p", PART)
    computed = served.post("/v1/evaluations", json={**SPEC, "data": PART}).json()
    stored = served.get("/v1/evaluations/val?slices=country").json()
    assert computed == {name: one for name, one in stored.items() if name != "name"}
    assert len(served.get("/v1/evaluations").json()["evaluations"]) == 1
    twice = {**PART, "image": ["x", "x", "z", "w"]}
    assert served.post("/v1/evaluations", json={**SPEC, "data": twice}).status_code == 409
    refused = served.post("/v1/evaluations", json={**SPEC, "data": {**PART, "label": [2, 7, 0, 1]}})
    assert (refused.status_code, errors(refused)) == (422, [("/data/rows/1/label", "domain")])


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"metrics": ["acuracy"]}, "/metrics/0", "unknown"),
        ({"metrics": []}, "/metrics", "type"),
        ({"metrics": ["accuracy", "accuracy"]}, "/metrics/1", "duplicate"),
        (
            {"metrics": [{"loss": "mmd"}], "columns": {"predictions": "a", "targets": "b"}},
            "/metrics/0/loss",
            "samples",
        ),
        ({"metrics": [{"metric": "accuracy", "params": {"top_k": 0}}]}, "/metrics/0/params/top_k", "value"),
        ({"num_classes": 0}, "/num_classes", "value"),
        ({"colour": 1}, "/colour", "unknown"),
        ({"columns": {"predictions": "a"}}, "/columns/targets", "missing"),
        ({"columns": {**SPEC["columns"], "colour": "c"}}, "/columns/colour", "unknown"),
        ({"columns": {**SPEC["columns"], "id": 3}}, "/columns/id", "type"),
        ({"expect": -1}, "/expect", "value"),
        ({"expires_s": 0}, "/expires_s", "value"),
        ({"duplicates": "last"}, "/duplicates", "value"),
        ({"like": "nobody"}, "/like", "value"),
    ],
)
def test_a_bad_spec_is_refused(served: Client, change: dict[str, Any], pointer: str, code: str) -> None:
    refused = put(served, "val", {**SPEC, **change})
    assert (refused.status_code, errors(refused)) == (422, [(pointer, code)])


def test_bad_names_are_refused(served: Client) -> None:
    assert put(served, "a b", SPEC).status_code == 422
    assert put(served, "x" * 201, SPEC).status_code == 422
    put(served, "val", SPEC)
    assert put(served, "val/parts/a%20b", PART).status_code == 422


def test_other_formats_are_refused(served: Client) -> None:
    put(served, "val", SPEC)
    headers = {"content-type": "application/xml"}
    refused = served.request("PUT", "/v1/evaluations/val/parts/p", content="<a/>", headers=headers)
    assert refused.status_code == 415
    headers = {"content-type": "text/csv"}
    refused = served.request("PUT", "/v1/evaluations/val", content="a,b", headers=headers)
    assert refused.status_code == 415


@pytest.mark.parametrize(
    ("media", "text", "status"),
    [
        ("application/x-ndjson", '{"image": "x"', 400),
        ("application/x-ndjson", "3", 422),
        ("application/x-ndjson", '{"image": "x"}', 422),
        ("application/x-ndjson", '\n\n{"image":"x","logits":[1,2,3],"label":0,"country":"de"}\n\n', 201),
        ("text/csv", "", 422),
        ("text/csv", "image,logits\n", 422),
        ("text/csv", "image,logits,label,country\n", 201),
        ("text/csv", "image,logits,label,country\nx\n", 422),
        ("text/csv", 'image,logits,label,country\nx,"[1,2,3]",,de\n', 422),
        ("text/csv", 'image,logits,label,country\nx,"[1,2,3]",1_0,de\n', 422),
        ("text/csv", '\ufeffimage,logits,label,country\r\n1,"[1,2,3]",+1,de\r\n', 201),
        ("text/csv", 'image,logits,label,country\nx,"[1,2,3]"x,0,de\n', 400),
        ("application/json", "[1]", 422),
        ("application/json", "{", 400),
    ],
)
def test_texts_are_read_or_refused(served: Client, media: str, text: str, status: int) -> None:
    put(served, "val", SPEC)
    headers = {"content-type": media}
    found = served.request("PUT", "/v1/evaluations/val/parts/p", content=text.encode(), headers=headers)
    assert found.status_code == status, found.text


def test_a_broken_byte_of_csv_is_refused(served: Client) -> None:
    put(served, "val", SPEC)
    headers = {"content-type": "text/csv"}
    found = served.request("PUT", "/v1/evaluations/val/parts/p", content=b"image,\xff", headers=headers)
    assert found.status_code == 400


def test_limits_name_their_settings(tmp_path: Path) -> None:
    limited = Settings(
        device="cpu",
        data_dir=tmp_path,
        evaluation_max_bytes=900,
        evaluation_max_metrics=2,
        evaluation_max_slices=2,
    )
    client = Client(create_app(limited))
    many = put(client, "many", {**SPEC, "metrics": ["accuracy", {"loss": "mse"}, {"loss": "l1"}]})
    assert many.status_code == 413 and "LOSSD_EVALUATION_MAX_METRICS" in many.text
    put(client, "val", SPEC)
    assert put(client, "val/parts/p", PART).status_code == 201
    full = put(client, "val/parts/q", {**PART, "image": ["a", "b", "c", "d"]})
    assert full.status_code == 413 and "LOSSD_EVALUATION_MAX_BYTES" in full.text
    slices = client.get("/v1/evaluations/val?slices=country")
    assert slices.status_code == 413 and "LOSSD_EVALUATION_MAX_SLICES" in slices.text


def test_a_folder_that_cannot_be_written_is_a_503_and_the_rest_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    client = Client(create_app(Settings(device="cpu", data_dir=tmp_path / "file" / "data")))
    refused = put(client, "val", SPEC)
    assert refused.status_code == 503 and "LOSSD_DATA_DIR" in refused.text
    assert int(refused.headers["retry-after"]) > 0
    assert client.get("/v1/evaluations").status_code == 503
    assert client.evaluate("mse", inputs={"predictions": [1.0], "targets": [0.0]}).status_code == 200
    assert client.post("/v1/evaluations", json={**SPEC, "data": PART}).status_code == 200


def test_a_database_out_of_reach_is_a_503() -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    client = Client(create_app(Settings(device="cpu", database_url=url)))
    refused = put(client, "val", SPEC)
    assert refused.status_code == 503 and "retry-after" in refused.headers


def test_names_belong_to_keys(tmp_path: Path) -> None:
    from service.admission import keys

    file = tmp_path / "keys"
    one, two = keys.new(file, "one"), keys.new(file, "two")
    client = Client(create_app(Settings(device="cpu", data_dir=tmp_path, api_keys_file=file)))
    of_one, of_two = {"X-API-Key": one}, {"X-API-Key": two}
    assert put(client, "val", SPEC, headers=of_one).status_code == 201
    assert put(client, "val/parts/p", PART, headers=of_one).status_code == 201
    assert client.get("/v1/evaluations/val", headers=of_two).status_code == 404
    assert client.request("DELETE", "/v1/evaluations/val", headers=of_two).status_code == 404
    assert put(client, "val", {**SPEC, "expect": 1}, headers=of_two).status_code == 201
    assert client.get("/v1/evaluations/val", headers=of_two).json()["rows"] == 0
    assert client.get("/v1/evaluations/val", headers=of_one).json()["rows"] == 4
    assert len(client.get("/v1/evaluations", headers=of_one).json()["evaluations"]) == 1
    assert client.get("/v1/evaluations/val").status_code == 401


def test_bodies_may_be_compressed(served: Client) -> None:
    import gzip

    put(served, "val", SPEC)
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    body = gzip.compress(json.dumps(PART).encode())
    found = served.request("PUT", "/v1/evaluations/val/parts/p", content=body, headers=headers)
    assert found.status_code == 201


def test_integers_are_ids_and_slices_too(served: Client) -> None:
    put(served, "val", SPEC)
    numbers = {**PART, "image": [1, 2, 3, 4], "country": [49, 1, 49, 33]}
    put(served, "val/parts/p", numbers)
    assert send_csv(served, "val/parts/p", numbers).status_code == 200
    in_bytes = {name: packed(numbers[name], "int32") for name in ("image", "country")}
    assert put(served, "val/parts/p", {**numbers, **in_bytes}).status_code == 200
    assert "country=49" in served.get("/v1/evaluations/val?slices=country").json()["slices"]
    rows = served.get("/v1/evaluations/val/rows?worst=cross_entropy").json()["rows"]
    assert rows[0]["id"] == "4"
