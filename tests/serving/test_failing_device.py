"""A server whose device has failed ends with a status that says so, and is replaced where there are several."""

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.admission.lifecycle import DEVICE_FAILURE, STARTUP_FAILURE
from tests.waiting import WAIT_S, until

pytestmark = pytest.mark.server


@contextmanager
def serving(fails: str, log: Path, *arguments: str) -> Generator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a server whose device fails until the body of the ``with`` is done, at the latest."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "tests.serving.failing", "serve", "--port", str(port), *arguments]
    environment = {**os.environ, "LOSSD_DEVICE": "cpu", "FAILS": fails}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait(WAIT_S)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=WAIT_S).status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str, loss: str) -> int:
    """Evaluate on a separate connection."""
    predictions = "logits" if loss == "hinge" else "predictions"
    body = {"inputs": {predictions: [1.5, -0.5], "targets": [1, 1]}}
    return httpx.post(f"{url}/v1/losses/{loss}", json=body, timeout=WAIT_S).status_code


def test_a_server_whose_device_fails_answers_and_ends(tmp_path: Path) -> None:
    with serving("hinge", tmp_path / "log") as (url, process):
        until(lambda: ready(url))
        assert ask(url, "mse") == 200
        assert ask(url, "hinge") == 503
        assert process.wait(WAIT_S) == DEVICE_FAILURE
    log = (tmp_path / "log").read_text()
    assert log.count("critical") == 1
    assert "cpu has failed: CUDA error: unspecified launch failure: exiting with status 70" in log


def test_a_worker_whose_device_fails_is_replaced(tmp_path: Path) -> None:
    with serving("hinge", tmp_path / "log", "--workers", "2") as (url, process):
        until(lambda: ready(url))
        assert ask(url, "hinge") == 503
        until(lambda: "died (exit code 70); replacing it" in (tmp_path / "log").read_text())
        until(lambda: ask(url, "mse") == 200)
        assert process.poll() is None


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_device_that_cannot_compute_ends_the_start(workers: str, tmp_path: Path) -> None:
    with serving("warm-up", tmp_path / "log", "--workers", workers) as (_, process):
        assert process.wait(WAIT_S) == STARTUP_FAILURE
    assert "cpu cannot compute the catalogue: CUDA error: no kernel image" in (tmp_path / "log").read_text()
