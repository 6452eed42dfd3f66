"""Shutdown of a server: running requests finish, new ones are refused; a worker that dies is replaced."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.waiting import WAIT_S, until

pytestmark = pytest.mark.server
CALL = {"inputs": {"predictions": [1], "targets": [3]}}
PATIENT = {"LOSSD_DRAIN_S": "1000", "LOSSD_IDLE_S": "1000"}
"""Limits that end nothing within a test."""
LINE = b'{"loss": "mse", "inputs": {"predictions": [1], "targets": [3]}}\n'


@contextmanager
def serving(*arguments: str, **env: str) -> Generator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a server until the body of the ``with`` is done, at the latest."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), *arguments]
    environment = {**os.environ, "LOSSD_DEVICE": "cpu", **env}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: status(f"{url}/readyz") == 200)
        yield url, process
    finally:
        # so that nothing is waited for: its workers end with it
        process.kill()
        process.wait(WAIT_S)


def status(url: str) -> int | None:
    """Return the status of a GET; None where nobody answers."""
    try:
        return httpx.get(url, timeout=WAIT_S).status_code
    except httpx.TransportError:
        return None


@contextmanager
def streaming(url: str) -> Generator[socket.socket]:
    """Have a request under way, which has had its first result."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        connection.sendall(
            b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        send_line(connection)
        yield connection


def send_line(connection: socket.socket) -> None:
    """Send an item, and wait for its result."""
    connection.sendall(b"%x\r\n%s\r\n" % (len(LINE), LINE))
    received = b""
    while b'"value":4.0' not in received:
        piece = connection.recv(65536)
        assert piece
        received += piece


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_begun_is_finished_and_nothing_new_taken(workers: str) -> None:
    with serving("--workers", workers) as (url, process), streaming(url) as connection:
        process.send_signal(signal.SIGTERM)
        until(lambda: status(f"{url}/readyz") == 503)
        # of two workers, the one without work ends at once
        until(lambda: len(_workers(process.pid)) <= 1)
        assert status(f"{url}/healthz") == 200
        assert status(f"{url}/readyz") == status(f"{url}/v2/health/ready") == 503
        refused = httpx.post(f"{url}/v1/losses/mse", json=CALL, timeout=WAIT_S)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        send_line(connection)
        connection.sendall(b"0\r\n\r\n")
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            piece = connection.recv(65536)
            assert piece
            rest += piece
        assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_sigterm_ends_it_at_once(workers: str) -> None:
    """It would drain for far longer than the test waits."""
    with serving("--workers", workers, **PATIENT) as (url, process), streaming(url):
        process.send_signal(signal.SIGTERM)
        until(lambda: status(f"{url}/readyz") == 503)
        until(lambda: len(_workers(process.pid)) <= 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize("last", [b"", b"connection: close\r\n"])
def test_an_answer_that_is_being_read_arrives(last: bytes) -> None:
    numbers = b"[" + b",".join([b"[0.123456789,-1.5,2.25]"] * 600_000) + b"]"
    body = b'{"inputs": {"predictions": %b, "targets": %b}, "reduction": "none"}' % (numbers, numbers)
    head = b"POST /v1/losses/huber HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with serving() as (url, process):
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            connection.settimeout(WAIT_S)
            connection.connect((host, int(port)))
            connection.sendall(head + last + b"content-length: %d\r\n\r\n" % len(body) + body)
            received = bytearray(connection.recv(1 << 16))
            process.send_signal(signal.SIGTERM)
            until(lambda: status(f"{url}/readyz") == 503)
            while piece := connection.recv(1 << 16):
                received += piece
        assert process.wait(WAIT_S) == 0
    answered, _, rest = bytes(received).partition(b"\r\n\r\n")
    [length] = [line for line in answered.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
    assert len(rest) == int(length[16:]) > 10_000_000


def test_what_is_not_finished_in_time_is_cut_off() -> None:
    with serving(**PATIENT | {"LOSSD_DRAIN_S": "1"}) as (url, process), streaming(url):
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def test_what_is_cut_off_is_told_so() -> None:
    with serving(**PATIENT | {"LOSSD_DRAIN_S": "0.5"}) as (url, process):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
            head = b"POST /v1/losses/mse HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            connection.sendall(head + b"content-length: 100\r\nexpect: 100-continue\r\n\r\n")
            # the request is being worked on
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"{")
            process.send_signal(signal.SIGTERM)
            refusal = b""
            while piece := connection.recv(65536):
                refusal += piece
        assert process.wait(WAIT_S) == 0
    assert refusal.startswith(b"HTTP/1.1 503 ")
    assert b"connection: close" in refusal


def test_a_worker_that_is_killed_is_replaced() -> None:
    with serving("--workers", "2") as (url, process):
        workers = _workers(process.pid)
        os.kill(workers[0], signal.SIGKILL)
        with httpx.Client(timeout=WAIT_S) as client:
            fresh = {"connection": "close"}
            statuses = {
                client.post(f"{url}/v1/losses/mse", json=CALL, headers=fresh).status_code for _ in range(50)
            }
        assert statuses == {200}
        until(lambda: len(_workers(process.pid)) == 2 and workers[0] not in _workers(process.pid))
        assert httpx.post(f"{url}/v1/losses/mse", json=CALL, timeout=WAIT_S).json()["value"] == 4


def _workers(parent: int) -> list[int]:
    """Return the processes that serve for a parent."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in _command(child)]


def _command(process: str) -> bytes:
    """Return the command line of a process; nothing where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
