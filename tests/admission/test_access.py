"""Access: requests need a key from the file and stay within its limits; others are refused with a reason."""

import asyncio
import json
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import servers
from service.admission import keys
from service.app import create_app
from service.settings import Settings
from tests.client import Client

BODY = {"inputs": {"predictions": [1], "targets": [3]}}
Headers = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.jsonl"


@pytest.fixture(scope="module")
def key(path: Path) -> str:
    return keys.new(path, "ci")


@pytest.fixture(scope="module")
def guarded(path: Path, key: str) -> Client:
    return Client(create_app(Settings(device="cpu", api_keys_file=path)))


def post(client: Client, headers: Headers) -> httpx.Response:
    return client.post("/v1/losses/mse", json=BODY, headers=headers)


@pytest.mark.parametrize("name", [b"X-API-Key", b"x-api-key"])
def test_a_key_lets_in(guarded: Client, key: str, name: bytes) -> None:
    assert post(guarded, [(name, key.encode())]).json()["value"] == 4


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_a_bearer_lets_in(guarded: Client, key: str, scheme: bytes) -> None:
    assert post(guarded, [(b"authorization", scheme + b" " + key.encode())]).status_code == 200


def test_the_same_key_in_both_headers_lets_in_and_another_scheme_is_left_alone(
    guarded: Client, key: str
) -> None:
    one = (b"x-api-key", key.encode())
    assert post(guarded, [one, (b"authorization", b"Bearer " + key.encode())]).status_code == 200
    assert post(guarded, [one, (b"authorization", b"Basic Z2F0ZXdheQ==")]).status_code == 200


@pytest.mark.parametrize(
    "value",
    [b"", b" ", b"x", b"lossd_", b"\xff\xfe\x00", "schlüssel".encode(), b"k" * 1_000_000, b"null", b"{}"],
)
@pytest.mark.parametrize(
    "form", [(b"x-api-key", b""), (b"authorization", b"Bearer "), (b"authorization", b"")]
)
def test_what_is_no_key_is_refused(guarded: Client, form: tuple[bytes, bytes], value: bytes) -> None:
    refused(post(guarded, [(form[0], form[1] + value)]))


def test_nothing_near_a_key_lets_in(guarded: Client, path: Path, key: str) -> None:
    for near in (key[:-1], key + "a", key.upper(), f"{key},{key}", f"Bearer {key}"):
        refused(post(guarded, [(b"x-api-key", near.encode())]))
    refused(guarded.post(f"/v1/losses/mse?key={key}", json=BODY))
    for kept in keys.read(path):
        refused(post(guarded, [(b"x-api-key", kept.sha256.encode())]))


def test_keys_that_differ_are_refused_even_if_one_is_right(guarded: Client, key: str) -> None:
    right, wrong = key.encode(), b"wrong"
    for headers in (
        [(b"x-api-key", right), (b"authorization", b"Bearer " + wrong)],
        [(b"x-api-key", wrong), (b"authorization", b"Bearer " + right)],
        [(b"x-api-key", wrong), (b"x-api-key", right)],
    ):
        answer = post(guarded, headers)
        refused(answer)
        assert "several different ones" in answer.json()["detail"]


@pytest.mark.parametrize("path_", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_documentation_need_no_key(guarded: Client, path_: str) -> None:
    assert guarded.get(path_).status_code != 401


@pytest.mark.parametrize(
    "path_",
    ["/", "/v1/losses", "/v1/limits", "/metrics", "/nope", "/healthz/", "//healthz", "/healthz/../v1/limits"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_all_else_does(guarded: Client, method: str, path_: str) -> None:
    assert guarded.request(method, path_).status_code == 401


def test_metrics_can_be_opened(path: Path, key: str) -> None:
    client = Client(create_app(Settings(device="cpu", api_keys_file=path, metrics_open=True)))
    assert client.get("/metrics").status_code == 200
    assert client.get("/v1/losses").status_code == 401


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.touch()
    refused(post(Client(create_app(Settings(device="cpu", api_keys_file=empty))), [(b"x-api-key", b"x")]))


def test_where_no_file_is_set_anyone_may_call(client: Client) -> None:
    assert post(client, []).status_code == 200


def test_the_inference_protocol_is_told_in_its_own_form(guarded: Client) -> None:
    answer = guarded.get("/v2/models")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"] == answer.json()["detail"]
    assert guarded.get("/v2/health/live").status_code != 401


def test_the_body_is_not_read_before_the_refusal(guarded: Client) -> None:
    async def ask() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("the body was asked for")

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/losses/mse",
            "headers": [],
            "query_string": b"",
        }
        await guarded.app(scope, receive, send)
        return sent

    assert asyncio.run(ask())[0]["status"] == 401


def test_a_rate_is_kept_to_and_retry_after_is_true(path: Path, key: str) -> None:
    client = Client(create_app(Settings(device="cpu", api_keys_file=path, key_rate=0.5)))
    headers = [(b"x-api-key", key.encode())]
    assert post(client, headers).status_code == 200
    refusal = post(client, headers)
    assert refusal.status_code == 429
    assert refusal.headers["content-type"] == "application/problem+json"
    assert "0.5 requests a second" in refusal.json()["detail"]
    time.sleep(int(refusal.headers["retry-after"]))
    assert post(client, headers).status_code == 200


def test_a_slow_rate_says_how_long(path: Path, key: str) -> None:
    client = Client(create_app(Settings(device="cpu", api_keys_file=path, key_rate=0.01)))
    headers = [(b"x-api-key", key.encode())]
    assert post(client, headers).status_code == 200
    assert 95 <= int(post(client, headers).headers["retry-after"]) <= 100


def test_a_key_may_have_limits_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    usual, slow = keys.new(path, "usual"), keys.new(path, "slow")
    first, second = map(json.loads, path.read_text().splitlines())
    path.write_text("\n".join(map(json.dumps, (first, second | {"rate": 1}))))
    client = Client(create_app(Settings(device="cpu", api_keys_file=path)))
    assert {post(client, [(b"x-api-key", usual.encode())]).status_code for _ in range(5)} == {200}
    assert [post(client, [(b"x-api-key", slow.encode())]).status_code for _ in range(2)] == [200, 429]


def test_pages_of_named_origins_may_call_and_others_not(path: Path, key: str) -> None:
    settings = Settings(device="cpu", api_keys_file=path, cors_origins="https://a.example, https://b.example")
    client = Client(create_app(settings))
    ask = {"origin": "https://b.example", "access-control-request-method": "POST"}
    asked = client.request(
        "OPTIONS", "/v1/losses/mse", headers=ask | {"access-control-request-headers": "authorization"}
    )
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://b.example")
    refusal = client.post("/v1/losses/mse", json=BODY, headers={"origin": "https://b.example"})
    assert refusal.status_code == 401
    assert refusal.headers["access-control-allow-origin"] == "https://b.example", "a page can read why"
    other = client.get("/healthz", headers={"origin": "https://c.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "header",
    [
        "Authorization",
        "Content-Type",
        "Inference-Header-Content-Length",
        "Request-Timeout",
        "X-API-Key",
        "X-Request-ID",
        "traceparent",
    ],
)
def test_pages_may_send_the_headers_that_mean_something(header: str) -> None:
    client = Client(create_app(Settings(device="cpu", cors_origins="*")))
    ask = {"origin": "https://a.example", "access-control-request-method": "POST"}
    asked = client.request(
        "OPTIONS", "/v2/models/mse/infer", headers=ask | {"access-control-request-headers": header}
    )
    assert asked.status_code == 200, asked.text


def test_pages_may_read_the_headers_that_mean_something() -> None:
    client = Client(create_app(Settings(device="cpu", cors_origins="*")))
    answer = client.get("/v2", headers={"origin": "https://a.example"})
    assert set(answer.headers["access-control-expose-headers"].split(", ")) == {
        "Inference-Header-Content-Length",
        "Retry-After",
        "Server-Timing",
        "X-Request-ID",
    }


def test_no_page_may_call_unless_told_so(client: Client) -> None:
    answer = client.get("/healthz", headers={"origin": "https://a.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.fixture(scope="module")
def server(path: Path, key: str) -> Generator[str]:
    env = {"LOSSD_DEVICE": "cpu", "LOSSD_API_KEYS_FILE": str(path), "LOSSD_KEY_CONCURRENCY": "2"}
    with servers.lossd(env=env) as running:
        yield running.url


@pytest.mark.server
def test_a_refused_upload_leaves_the_connection_in_order(server: str, key: str) -> None:
    """A client that has sent megabytes without a key asks again, with one, on the same connection."""
    with connected(server) as connection:
        size = 3_000_000
        connection.sendall(head("x-api-key: wrong", size))
        # the refusal is there before the body is
        assert receive_answer(connection)[0] == 401
        connection.sendall(b"1" * size)
        sent = json.dumps(BODY).encode()
        connection.sendall(head(f"x-api-key: {key}", len(sent)) + sent)
        status, body = receive_answer(connection)
        assert (status, json.loads(body)["value"]) == (200, 4)


@pytest.mark.server
def test_what_a_key_may_do_at_once_is_free_again_when_clients_leave_or_fail(server: str, key: str) -> None:
    headers = {"x-api-key": key}
    for _ in range(3):
        held = [connected(server) for _ in range(2)]
        for connection in held:
            connection.sendall(head(f"x-api-key: {key}", 100) + b"{")
        until(lambda: httpx.get(f"{server}/v1/limits", headers=headers).status_code == 429)
        refusal = httpx.get(f"{server}/v1/limits", headers=headers)
        assert "2 requests at once" in refusal.json()["detail"]
        assert 1 <= int(refusal.headers["retry-after"]) <= 60
        for connection in held:
            connection.close()
        until(lambda: httpx.get(f"{server}/v1/limits", headers=headers).status_code == 200)
    for _ in range(5):
        assert httpx.post(f"{server}/v1/losses/mse", content=b"{", headers=headers).status_code == 400
        assert httpx.get(f"{server}/v1/losses/nope", headers=headers).status_code == 404
    assert httpx.get(f"{server}/v1/limits", headers=headers).status_code == 200


@pytest.mark.server
def test_keys_change_while_it_runs(server: str, path: Path) -> None:
    new = keys.new(path, "late")
    ask = {"authorization": f"Bearer {new}"}
    until(lambda: httpx.get(f"{server}/v1/limits", headers=ask).status_code == 200)


def connected(server: str) -> socket.socket:
    host, port = server.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head(header: str, size: int) -> bytes:
    lines = ["POST /v1/losses/mse HTTP/1.1", "host: x", "content-type: application/json", header]
    return "\r\n".join([*lines, f"content-length: {size}", "", ""]).encode()


def receive_answer(connection: socket.socket) -> tuple[int, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    top, _, body = received.partition(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < length:
        body += connection.recv(65536)
    return int(top.split()[1]), body


def until(holds: Any) -> None:
    for _ in range(100):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to hold")


def refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:lossd:problem:unauthorized"
