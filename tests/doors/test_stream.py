"""The contract of POST /v1/batch as NDJSON, over a socket of a real server."""

import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.client import Client

HEADERS = {"content-type": "application/x-ndjson"}
ITEM = b'{"id": %d, "loss": "mse", "inputs": {"predictions": [%d, 0], "targets": [0, 0]}}'


def lines(client: Client, *sent: bytes) -> list[dict[str, Any]]:
    answer = client.post("/v1/batch", content=b"\n".join(sent), headers=HEADERS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_each_line_has_its_result_in_order(client: Client) -> None:
    found = lines(client, *(ITEM % (i, i) for i in range(20)))
    assert [result["id"] for result in found] == list(range(20))
    assert [result["value"] for result in found] == [i * i / 2 for i in range(20)]


def test_a_bad_line_is_told_by_its_number_and_the_stream_goes_on(client: Client) -> None:
    bad = b'{"id": "x", "loss": "mse", "inputs": {"predictions": [1, [2]], "targets": [0, 0]}}'
    found = lines(
        client, ITEM % (1, 2), b"{", b"", b"[]", bad, b'{"loss": "nope"}', b"\xff", ITEM % (8, 2), b""
    )
    assert [result["status"] for result in found] == ["ok", *["error"] * 5, "ok"]
    assert [result.get("line") for result in found] == [None, 2, 4, 5, 6, 7, None]
    assert [result["error"]["status"] for result in found[1:-1]] == [400, 422, 422, 404, 400]
    assert found[3]["id"] == "x"
    assert found[3]["error"]["errors"][0]["pointer"] == "/inputs/predictions/1"


def test_a_line_over_the_limit_is_an_error_of_its_own() -> None:
    client = Client(create_app(Settings(device="cpu", max_line_bytes=100)))

    async def chunks() -> Any:
        yield ITEM % (1, 2) + b"\n" + b" " * 60
        for _ in range(5):
            yield b" " * 60
        yield b"1\n" + ITEM % (3, 2)

    answer = client.post("/v1/batch", content=chunks(), headers=HEADERS)
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [result.get("line") for result in found] == [None, 2, None]
    assert "LOSSD_MAX_LINE_BYTES" in found[1]["error"]["detail"]
    assert found[2]["value"] == 2


def test_an_empty_stream_has_no_results(client: Client) -> None:
    assert lines(client, b"") == []


@contextmanager
def streaming(server: str) -> Generator[socket.socket]:
    """Open a stream of chunks to a server."""
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        yield connection


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@pytest.mark.server
def test_results_leave_while_the_upload_runs(server: str) -> None:
    with streaming(server) as connection:
        for number in range(3):
            connection.sendall(chunk(ITEM % (number, 2) + b"\n"))
            received = b""
            while b'"id":%d,' % number not in received:
                received += connection.recv(65536)


@pytest.mark.server
def test_a_client_that_does_not_read_is_not_read_from(server: str) -> None:
    """Its upload stalls, and others are answered meanwhile."""
    block = chunk(b"".join(ITEM % (i, 2) + b"\n" for i in range(500)))
    stalled = threading.Event()

    def upload(connection: socket.socket) -> None:
        try:
            for _ in range(4000):
                connection.sendall(block)
        except TimeoutError:
            stalled.set()
        except OSError:
            pass

    with streaming(server) as connection:
        connection.settimeout(3)
        uploading = threading.Thread(target=upload, args=(connection,))
        uploading.start()
        assert httpx.get(f"{server}/healthz").status_code == 200
        assert stalled.wait(60)
        uploading.join()
    assert httpx.get(f"{server}/healthz").status_code == 200
