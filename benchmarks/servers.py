"""Start the service and its peers as real processes, and stop them again."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx


@contextmanager
def lossd(*, env: dict[str, str] | None = None, log: Path | None = None) -> Generator[str]:
    """Serve lossd, its log in a file or nowhere; yield its base address once it is ready."""
    port = _free_port()
    with _running(
        [sys.executable, "-m", "service", "serve", "--port", str(port)], port, "/readyz", env, log
    ) as url:
        yield url


@contextmanager
def plain_fastapi() -> Generator[str]:
    """Serve the peer on the same server, with the same event loop and parser."""
    port = _free_port()
    options = ["--port", str(port), "--no-access-log", "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peer:app", *options]
    with _running(command, port, "/openapi.json", None) as url:
        yield url


@contextmanager
def _running(
    command: list[str], port: int, path: str, env: dict[str, str] | None, log: Path | None = None
) -> Generator[str]:
    """Run a server until the body of the ``with`` is done."""
    import os

    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(command, stdout=out, env={**os.environ, **(env or {})})
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{url}{path}", process)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once a GET succeeds."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(url)


def _free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
