"""Start the service and its peers as real processes, and stop them again."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

END_S = 40
"""Seconds for a server to end, longer than it drains, as the machine may be busy."""


@dataclass(frozen=True)
class Server:
    """A server that runs: its base address, and its process."""

    url: str
    process: int


@contextmanager
def lossd(
    *,
    env: dict[str, str] | None = None,
    log: Path | None = None,
    python: str = sys.executable,
    cwd: Path | None = None,
) -> Generator[Server]:
    """Serve lossd, its log in a file or nowhere, until the body of the ``with`` is done.

    ``python`` and ``cwd`` are the interpreter and the checkout of another version.
    """
    port = free_port()
    command = [python, "-m", "service", "serve", "--port", str(port)]
    with _running(command, port, "/readyz", env, log, cwd) as server:
        yield server


@contextmanager
def plain_fastapi(app: str = "app") -> Generator[Server]:
    """Serve one of the peers on the same server, with the same event loop and parser."""
    with _uvicorn(f"benchmarks.peer:{app}", "/openapi.json") as server:
        yield server


@contextmanager
def echo() -> Generator[Server]:
    """Serve an application that echoes each body: the limit of the same server."""
    with _uvicorn("benchmarks.echo:app", "/") as server:
        yield server


@contextmanager
def _uvicorn(app: str, path: str) -> Generator[Server]:
    """Serve an application; ``path`` answers once it is ready."""
    port = free_port()
    options = ["--port", str(port), "--no-access-log", "--log-level", "warning"]
    with _running([sys.executable, "-m", "uvicorn", app, *options], port, path, None) as server:
        yield server


@contextmanager
def _running(
    command: list[str],
    port: int,
    path: str,
    env: dict[str, str] | None,
    log: Path | None = None,
    cwd: Path | None = None,
) -> Generator[Server]:
    """Run a server until the body of the ``with`` is done."""
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **(env or {})}, stdout=out, stderr=subprocess.DEVNULL, cwd=cwd
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{url}{path}", process)
        yield Server(url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        finally:
            # a hung server is a failure, but must not be left running
            process.kill()


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


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
