"""One line of JSON a request with caller, route and duration, and none of its data."""

import json
import logging
import re
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import servers
from service.admission import keys
from service.admission.access import warn_if_open
from service.settings import Settings
from service.telemetry.logs import JsonLines

INPUTS = {"predictions": [1], "targets": [0]}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True)
class Logged:
    """A server, its log, and a key."""

    url: str
    log: Path
    key: str

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """Return the line of a request, which is there soon after its answer."""
        for _ in range(100):
            found = [line for line in self.lines() if line.get("request_id") == request_id]
            if found:
                [line] = found
                return line
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Generator[Logged]:
    folder = tmp_path_factory.mktemp("logs")
    key = keys.new(folder / "keys", "ci")
    env = {"LOSSD_DEVICE": "cpu", "LOSSD_API_KEYS_FILE": str(folder / "keys")}
    with servers.lossd(env=env, log=folder / "log") as running:
        yield Logged(running.url, folder / "log", key)


def post(logged: Logged, path: str, request_id: str, **options: Any) -> httpx.Response:
    headers = {"x-api-key": logged.key, "x-request-id": request_id, **options.pop("headers", {})}
    return httpx.post(f"{logged.url}{path}", headers=headers, **options)


@pytest.mark.server
def test_a_request_has_one_line(logged: Logged) -> None:
    body = b'{"inputs": {"predictions": [1234.5], "targets": [0]}}'
    answer = post(
        logged,
        "/v1/losses/MSELoss",
        "r1",
        content=body,
        headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
    )
    line = logged.line_of("r1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("time"))
    assert 0 < line.pop("duration_ms") < 10_000
    assert line == {
        "level": "info",
        "message": "POST /v1/losses/{name} 200",
        "logger": "lossd.requests",
        "request_id": "r1",
        "trace_id": TRACE,
        "method": "POST",
        "route": "/v1/losses/{name}",
        "path": "/v1/losses/MSELoss",
        "status": 200,
        "bytes_in": len(body),
        "bytes_out": len(answer.content),
        "loss": "mse",
        "key": "ci",
    }


@pytest.mark.server
def test_what_clients_make_up_cannot_break_or_flood_it(logged: Logged) -> None:
    post(logged, "/v1/losses/%0a%22%7b%1b%e2%80%ae" + "x" * 9000, "r2", json={})
    line = logged.line_of("r2")
    assert line["path"] == ("/v1/losses/%0a%22%7b%1b%e2%80%ae" + "x" * 9000)[:200]
    assert (line["status"], line["loss"]) == (404, "unknown")
    post(logged, "/v1/losses/mse?token=secret", "r3", json={"inputs": {"predictions": "hidden"}})
    logged.line_of("r3")
    text = logged.log.read_text()
    assert "secret" not in text and "hidden" not in text and logged.key not in text


@pytest.mark.server
def test_a_refusal_has_one_too(logged: Logged) -> None:
    post(logged, "/v1/losses/mse", "r4", json={}, headers={"x-api-key": "wrong-one"})
    line = logged.line_of("r4")
    assert line["status"] == 401
    assert "key" not in line
    assert "wrong-one" not in logged.log.read_text()


@pytest.mark.server
def test_a_refusal_says_its_reason_whoever_refused(logged: Logged) -> None:
    zeros = {"dtype": "float32", "shape": [0, 2**20], "data": ""}
    large = {"inputs": {"scores": zeros, "targets": zeros}, "reduction": "sum"}
    assert post(logged, "/v1/losses/lambdarank", "r7", json=large).status_code == 413
    assert logged.line_of("r7")["rejected"] == "size"
    long = {"inputs": {"predictions": [0.5] * 500_000, "targets": [0] * 500_000}}
    late = {"request-timeout": "0.001"}
    assert post(logged, "/v1/losses/mse", "r8", json=long, headers=late).status_code == 504
    assert logged.line_of("r8")["rejected"] == "deadline"
    post(logged, "/v1/losses/mse", "r9", json={"inputs": INPUTS})
    assert "rejected" not in logged.line_of("r9")


@pytest.mark.server
def test_so_has_a_client_that_leaves(logged: Logged) -> None:
    host, port = logged.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        lines = ["POST /v1/losses/mse HTTP/1.1", "host: x", f"x-api-key: {logged.key}", "x-request-id: r5"]
        connection.sendall("\r\n".join([*lines, "content-length: 100", "", "{"]).encode())
        time.sleep(0.2)
    line = logged.line_of("r5")
    assert (line["status"], line["client_left"], line["loss"], line["bytes_in"]) == (499, True, "mse", 1)


@pytest.mark.server
def test_probes_are_not_told_and_the_start_is(logged: Logged) -> None:
    httpx.get(f"{logged.url}/healthz", headers={"x-request-id": "probe"})
    post(logged, "/v1/batch", "r6", json={"items": []})
    logged.line_of("r6")
    assert not [line for line in logged.lines() if line.get("request_id") == "probe"]
    messages = [line["message"] for line in logged.lines()]
    assert [
        m
        for m in messages
        if m.startswith("starting on 127.0.0.1, port ") and m.endswith("device cpu, keys: 1")
    ]
    assert {line["logger"] for line in logged.lines()} == {"uvicorn.error", "lossd", "lossd.requests"}


def test_an_exception_is_one_line_with_its_stack(capfd: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.Logger("any"), JsonLines()
    logger.addHandler(handler)
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        logger.exception("it broke: %s", "\n")
    handler.flush()
    [line] = capfd.readouterr().out.splitlines()
    parsed = json.loads(line)
    assert (parsed["level"], parsed["message"]) == ("error", "it broke: \n")
    assert parsed["exception"].startswith("Traceback")
    assert parsed["exception"].endswith("RuntimeError: first\nsecond")


@pytest.mark.parametrize(
    ("host", "guarded", "warned"),
    [
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("0.0.0.0", True, False),
    ],
)
def test_a_server_that_anyone_may_reach_and_use_says_so(
    caplog: pytest.LogCaptureFixture, host: str, guarded: bool, warned: bool
) -> None:
    warn_if_open(Settings(host=host, api_keys_file=Path("keys") if guarded else None))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
