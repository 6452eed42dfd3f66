"""Tests that need a real server."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

pytestmark = pytest.mark.server


def test_it_answers_over_a_socket(server: str) -> None:
    answer = httpx.post(f"{server}/v1/losses/mse", json={"inputs": {"predictions": [1], "targets": [3]}})
    assert answer.json()["value"] == 4
    assert answer.headers.get("server") is None


def test_bodies_of_megabytes_in_chunks(server: str) -> None:
    numbers = b"1.5," * 300_000 + b"1.5"
    body = b'{"inputs": {"predictions": [' + numbers + b'], "targets": [' + numbers + b"]}}"

    def chunks() -> object:
        yield from (body[start : start + 65_536] for start in range(0, len(body), 65_536))

    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server}/v1/losses/mse", content=chunks(), headers=headers, timeout=60)  # pyright: ignore
    assert (answer.status_code, answer.json()["value"]) == (200, 0)
    assert len(answer.json()["gradients"]["predictions"]) == 300_001


def test_small_calls_pass_large_ones(server: str) -> None:
    """While megabytes are decoded, the event loop answers others."""
    numbers = b"1.5," * 4_000_000 + b"1.5"
    body = b'{"inputs": {"predictions": [' + numbers + b'], "targets": [' + numbers + b'], "x": 1}}'
    head = f"POST /v1/losses/mse HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as large, httpx.Client() as small:
        small.get(f"{server}/healthz")
        large.sendall(head.encode() + body)
        answered = 0
        large.settimeout(0)
        while True:
            small.get(f"{server}/healthz")
            answered += 1
            try:
                assert large.recv(12).startswith(b"HTTP/1.1 422")
                break
            except BlockingIOError:
                continue
    assert answered > 3


def test_sigterm_ends_it_cleanly() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "service", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_device_that_is_not_there_ends_it_with_words() -> None:
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    ended = subprocess.run(
        command, env={**os.environ, "LOSSD_DEVICE": "cuda:99"}, capture_output=True, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"Expected a device that torch can use")
