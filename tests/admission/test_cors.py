"""Origins are normalised to what browsers send, or refused."""

import pytest

from service.admission.cors import parse_origin
from service.app import create_app
from service.settings import Settings
from tests.client import Client


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://app.example/", "https://app.example"),
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://localhost:3000/", "http://localhost:3000"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://one.example, https://two.example/", "https://two.example"),
    ],
)
def test_a_page_of_an_origin_may_call_however_the_origin_is_written(written: str, sent: str) -> None:
    client = Client(create_app(Settings(device="cpu", cors_origins=written)))
    assert client.get("/healthz", headers={"origin": sent}).headers["access-control-allow-origin"] == sent


@pytest.mark.parametrize(
    "written",
    [
        "app.example",
        "localhost:3000",
        "//app.example",
        "https://",
        "https://app.example/path",
        "https://app.example//",
        "https://app.example?q",
        "https://app.example#f",
        "https://user@app.example",
        "https://app.example:99999",
        "https://app.example:x",
        "https://*.example",
        "https://exämple.example",
        "https://one.example https://two.example",
        "https://one.example, two.example",
    ],
)
def test_what_no_page_sends_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="LOSSD_CORS_ORIGINS: Expected origins"):
        create_app(Settings(device="cpu", cors_origins=written))


def test_none_and_any_are_origins_too() -> None:
    assert parse_origin(" , ") == []
    assert parse_origin("*, null") == ["*", "null"]


def test_a_refused_preflight_is_a_problem_that_says_why() -> None:
    client = Client(create_app(Settings(device="cpu", cors_origins="https://app.example")))
    headers = {
        "origin": "https://other.example",
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "content-type, x-mine",
    }
    answer = client.request("OPTIONS", "/v1/losses/mse", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    told = {one["pointer"]: one["detail"] for one in answer.json()["errors"]}
    assert list(told) == [
        "/headers/Origin",
        "/headers/Access-Control-Request-Method",
        "/headers/Access-Control-Request-Headers",
    ]
    assert "LOSSD_CORS_ORIGINS" in told["/headers/Origin"]
    assert told["/headers/Access-Control-Request-Headers"].endswith("got 'x-mine'.")
    assert answer.headers["x-request-id"]
    good = {**headers, "origin": "https://app.example", "access-control-request-method": "POST"}
    good["access-control-request-headers"] = "content-type, content-encoding"
    assert client.request("OPTIONS", "/v1/losses/mse", headers=good).status_code == 200
