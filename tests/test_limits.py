"""Limits on the cost of a client, before and during a request, on a real server."""

import socket
import time
import zlib
from collections.abc import Generator
from contextlib import ExitStack, suppress

import httpx
import pytest

from benchmarks import servers
from benchmarks.bodies import request
from tests.scrape import scrape, value
from tests.waiting import WAIT_S, until

pytestmark = pytest.mark.server
LIMITS = {
    "LOSSD_DEVICE": "cpu",
    "LOSSD_IDLE_S": "1",
    "LOSSD_UPLOAD_S": "3",
    "LOSSD_MAX_CONNECTIONS": "20",
    "LOSSD_MAX_HEADER_BYTES": "4096",
    "LOSSD_MAX_INFLIGHT_BYTES": "1000000",
}
MSE = b"POST /v1/losses/mse HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CALL = {"inputs": {"predictions": [1], "targets": [3]}}


@pytest.fixture(scope="module")
def limited() -> Generator[str]:
    with servers.lossd(env=LIMITS) as running:
        yield running.url


def connect(url: str, receive_buffer: int | None = None) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(WAIT_S)
    connection.connect((host, int(port)))
    return connection


def held(url: str) -> float:
    """Return the bytes that a server holds for requests."""
    return value(scrape(url), "lossd_inflight_bytes")


def everything(connection: socket.socket) -> bytes:
    """Return everything a server sends until it closes."""
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
    return received


def answer(url: str, sent: bytes) -> bytes:
    """Return all that a server answers to some bytes, after which it closes."""
    with connect(url) as connection:
        connection.sendall(sent)
        return everything(connection)


@pytest.mark.parametrize(
    "begun",
    [MSE, MSE[:30], MSE + b"content-length: 100\r\n\r\n{", MSE + b"transfer-encoding: chunked\r\n\r\n5\r\n{"],
)
def test_what_is_begun_and_not_gone_on_with_is_a_408(limited: str, begun: bytes) -> None:
    start = time.monotonic()
    told = answer(limited, begun)
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in told
    assert b"LOSSD_IDLE_S" in told
    assert time.monotonic() - start < WAIT_S


def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(limited: str) -> None:
    assert answer(limited, b"") == b""


def test_a_body_that_drips_is_a_408_in_the_end(limited: str) -> None:
    with connect(limited) as connection:
        connection.sendall(MSE + b"content-length: 1000\r\n\r\n")
        start = time.monotonic()
        connection.settimeout(0.3)
        while True:
            try:
                assert connection.recv(12) == b"HTTP/1.1 408"
                break
            except TimeoutError:
                connection.sendall(b" ")
    assert 2 < time.monotonic() - start < WAIT_S


def test_a_stream_may_take_any_time_as_long_as_it_goes_on(limited: str) -> None:
    head = b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
    line = b'{"loss": "mse", "inputs": {"predictions": [1], "targets": [3]}}\n'
    with connect(limited) as connection:
        connection.sendall(head)
        for _ in range(12):
            connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            time.sleep(0.4)
        connection.sendall(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = everything(connection)
    assert received.count(b'"value":4.0') == 12
    assert received.endswith(b'{"status":"alive"}')


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\na: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 1500 + b"\r\n",
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\na: " + b"a" * 5000,
    ],
)
def test_a_head_over_the_limit_is_a_431(limited: str, head: bytes) -> None:
    told = answer(limited, head)
    assert told.startswith(b"HTTP/1.1 431 ")
    assert b"LOSSD_MAX_HEADER_BYTES" in told


def test_what_is_no_http_is_a_400_in_json(limited: str) -> None:
    told = answer(limited, b"\x00\x01\x02\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 400 ")
    for header in (b"application/problem+json", b"x-request-id: ", b"server-timing: decode", b"date: "):
        assert header in told


def test_one_connection_over_the_limit_is_a_503(limited: str) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(limited))
        told = answer(limited, b"")
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"LOSSD_MAX_CONNECTIONS" in told


def test_bytes_over_the_limit_are_a_429_and_small_calls_pass(limited: str) -> None:
    with connect(limited) as first, connect(limited) as second:
        first.sendall(MSE + b"content-length: 900001\r\n\r\n" + b" " * 900_000)
        until(lambda: held(limited) >= 900_000)
        assert httpx.post(f"{limited}/v1/losses/mse", json=CALL).status_code == 200
        # the server refuses it by its head, and may close before it has been sent
        with suppress(BrokenPipeError, ConnectionResetError):
            second.sendall(MSE + b"content-length: 900001\r\n\r\n" + b" " * 900_000)
        told = second.recv(1 << 16)
        while b'"errors"' not in told:
            told += second.recv(1 << 16)
    assert told.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in told.lower()
    assert b"LOSSD_MAX_INFLIGHT_BYTES" in told
    until(lambda: value(scrape(limited), "lossd_rejected_total", reason="bytes") > 0)


def test_what_a_body_inflates_to_counts(limited: str) -> None:
    bomb = zlib.compress(bytes(3_000_000))
    head = (
        b"POST /v2/models/mse/infer HTTP/1.1\r\nhost: x\r\ncontent-encoding: deflate\r\nconnection: close\r\n"
    )
    with connect(limited) as holder:
        holder.sendall(MSE + b"content-length: 900001\r\n\r\n" + b" " * 900_000)
        until(lambda: held(limited) >= 900_000)
        told = answer(limited, head + b"content-length: %d\r\n\r\n" % len(bomb) + bomb)
    assert told.startswith(b"HTTP/1.1 429 ")


def test_a_stream_holds_what_it_has_of_a_line(limited: str) -> None:
    stream = (
        b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n"
    )
    with connect(limited) as holder:
        holder.sendall(MSE + b"content-length: 900001\r\n\r\n" + b" " * 900_000)
        until(lambda: held(limited) >= 900_000)
        line = b" " * 900_000 + b"\n" + b"{}"
        told = answer(limited, stream + b"content-length: %d\r\n\r\n" % len(line) + line)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b"LOSSD_MAX_INFLIGHT_BYTES" in told
    assert b'"line":2' in told


def test_only_streams_may_take_any_time(limited: str) -> None:
    """A media type of a stream on another path changes nothing."""
    head = b"POST /v2/models/mse/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n"
    with connect(limited) as connection:
        connection.sendall(head + b"content-length: 1000\r\n\r\n")
        connection.settimeout(0.3)
        for _ in range(30):
            try:
                assert connection.recv(12) == b"HTTP/1.1 408"
                return
            except TimeoutError:
                connection.sendall(b" ")
    raise AssertionError("it may take any time")


def test_trailers_are_bounded(limited: str) -> None:
    head = MSE + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    told = answer(limited, head + b"a: b\r\n" * 2000 + b"\r\n")
    assert told.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in told


def test_an_answer_that_nobody_reads_is_dropped(limited: str) -> None:
    body = request(600, 1000)
    head = b"POST /v1/losses/cross_entropy HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with connect(limited, receive_buffer=1 << 16) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        time.sleep(4)
        received = bytearray()
        with suppress(ConnectionError):
            while piece := connection.recv(1 << 16):
                received += piece
    assert received.startswith(b"HTTP/1.1 200 ")
    assert len(received) < 8_000_000, "what the kernel had is all that there was"


def test_answers_that_are_not_read_are_on_the_account(limited: str) -> None:
    """While they are more than the limit, no further work is begun."""
    body = request(600, 1000)
    head = b"POST /v1/losses/cross_entropy HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with connect(limited, receive_buffer=1 << 16) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
        refused = httpx.post(f"{limited}/v1/losses/mse", json=CALL)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "LOSSD_MAX_INFLIGHT_BYTES" in refused.json()["detail"]
    for _ in range(100):
        if httpx.post(f"{limited}/v1/losses/mse", json=CALL).status_code == 200:
            return
        time.sleep(0.1)
    raise AssertionError("what the dropped answer held is not given back")


def test_every_refusal_is_counted(limited: str) -> None:
    answer(limited, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    answer(limited, b"\x00\r\n\r\n")
    answer(limited, MSE)
    told = httpx.get(f"{limited}/metrics").text
    counts = dict(
        line.rsplit(" ", 1) for line in told.splitlines() if line.startswith("lossd_rejected_total{")
    )
    for reason in ("headers", "broken", "stalled"):
        assert float(counts[f'lossd_rejected_total{{reason="{reason}"}}']) > 0
