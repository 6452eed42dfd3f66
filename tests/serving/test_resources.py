"""Missing resources: a server starts without them and logs it, or exits with a reason."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import WAIT_S, until

pytestmark = pytest.mark.server
CALL = {"inputs": {"predictions": [1], "targets": [3]}}


class Running:
    """A server that has written its log to a file until it was ready."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_bytes().splitlines()]

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines]

    @property
    def url(self) -> str:
        [port, *_] = [m.split("port ")[1].split(",")[0] for m in self.messages if m.startswith("starting on")]
        return f"http://127.0.0.1:{port}"

    @property
    def workers(self) -> list[int]:
        """The processes that serve."""
        ids = [m.split("[")[1].split("]")[0] for m in self.messages if m.startswith("Started server process")]
        return [int(id_) for id_ in ids]


@contextmanager
def serving(
    tmp_path: Path, *arguments: str, before: Callable[[], object] | None = None, **env: str
) -> Generator[Running]:
    """Run a server until the body of the ``with`` is done; ``before`` runs in its process."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", "0", *arguments],
            stdout=out,
            preexec_fn=before,
            env={**os.environ, "LOSSD_DEVICE": "cpu", **env},
        )
    running = Running(process, log)
    count = int(arguments[-1]) if "--workers" in arguments else 1
    try:
        until(lambda: running.messages.count("Application startup complete.") >= count)
        until(lambda: httpx.get(f"{running.url}/readyz", timeout=WAIT_S).status_code == 200)
        yield running
    finally:
        process.terminate()
        process.wait(WAIT_S)


def without_room() -> None:
    """Let no file grow beyond some bytes, as on a disk that is full. Pipes have no such limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


@pytest.mark.parametrize("lacks", ["room", "place"])
def test_workers_that_cannot_share_metrics_serve_without(tmp_path: Path, lacks: str) -> None:
    env = {"TMPDIR": str(tmp_path if lacks == "room" else tmp_path / "missing")}
    before = without_room if lacks == "room" else None
    with serving(tmp_path, "--workers", "2", before=before, **env) as running:
        assert httpx.post(f"{running.url}/v1/losses/mse", json=CALL).json()["value"] == 4
        assert httpx.get(f"{running.url}/metrics").status_code == 503
        reported = [m for m in running.messages if m.startswith("serving without metrics")]
        assert len(reported) == (2 if lacks == "room" else 1), "each worker, or whoever makes the directory"
        assert not [m for m in running.messages if "died" in m]


def test_a_parent_that_is_killed_leaves_neither_workers_nor_their_directory(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2", TMPDIR=str(tmp_path)) as running:
        assert list(tmp_path.glob("lossd-metrics-*"))
        workers = running.workers
        assert len(workers) == 2
        running.process.kill()
        until(lambda: not any(map(lives, workers)))
        assert not list(tmp_path.glob("lossd-metrics-*"))


def lives(process: int) -> bool:
    """Return whether a process runs: one that has ended may wait for a parent that looks."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_worker_that_dies_again_and_again_is_replaced_ever_later(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as running:
        for deaths in range(1, 4):
            until(lambda deaths=deaths: len(running.workers) == 1 + deaths)
            os.kill(running.workers[-1], signal.SIGKILL)
            until(lambda deaths=deaths: len([m for m in running.messages if "died" in m]) == deaths)
        reported = [m.split(" ", 2)[2] for m in running.messages if "died" in m]
    waits = [float(words.split(" in ")[1].split()[0]) for words in reported]
    assert all(words.startswith("died (SIGKILL); replacing it") for words in reported)
    assert waits == sorted(waits)


def test_a_log_that_nobody_reads_stops_nobody(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--port", str(port)],
        stdout=subprocess.PIPE,
        env={**os.environ, "LOSSD_DEVICE": "cpu"},
    )
    assert process.stdout
    try:
        until(lambda: answers(f"{url}/readyz"))
        path, headers = "/" + "x" * 200, {"x-request-id": "y" * 128}
        with httpx.Client(timeout=WAIT_S) as client:
            dropped = 0.0
            for _ in range(10_000):
                assert client.get(f"{url}{path}", headers=headers).status_code == 404
            reported = client.get(f"{url}/metrics").text.splitlines()
        [dropped] = [
            float(line.split()[1]) for line in reported if line.startswith("lossd_log_lines_dropped_total ")
        ]
        assert dropped > 0
        lines: list[dict[str, Any]] = []
        while not lines or not lines[-1]["message"].startswith("dropped "):
            lines.append(json.loads(process.stdout.readline()))
        count = int(lines[-1]["message"].split()[1])
        assert count >= dropped
        assert len([line for line in lines if line.get("status") == 404]) + count >= 10_000
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    """Return whether a server answers with a 200."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).status_code == 200
    return False


@pytest.mark.parametrize(("soft", "hard", "most"), [(100, 400, 272), (100, 100, 50), (100, 1100, 900)])
def test_connections_are_as_many_as_files_may_be_open(
    tmp_path: Path, soft: int, hard: int, most: int
) -> None:
    """The soft limit is raised; under a hard one that is lower, one connection more is refused in words."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with serving(tmp_path, before=limit_files, LOSSD_MAX_CONNECTIONS="900") as running, ExitStack() as stack:
        assert httpx.get(f"{running.url}/v1/limits").json()["max_connections"] == most
        warned = [m for m in running.messages if m.startswith("LOSSD_MAX_CONNECTIONS is lowered from 900 to")]
        assert len(warned) == (most < 900)
        host, port = running.url.removeprefix("http://").split(":")
        address = (host, int(port))
        opened = [stack.enter_context(socket.create_connection(address, WAIT_S)) for _ in range(most)]
        opened[-1].sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert opened[-1].recv(12) == b"HTTP/1.1 200"
        with socket.create_connection(address, WAIT_S) as one_more:
            assert one_more.recv(12) == b"HTTP/1.1 503"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_ends_it_before_anything_starts(workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "service", "serve", "--port", str(taken.getsockname()[1])]
        ended = subprocess.run(
            [*command, "--workers", workers], capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("LOSSD_HOST, LOSSD_PORT: Expected ")
    assert "Traceback" not in ended.stderr
    assert not ended.stdout, "nothing says that it runs"


def test_a_host_that_is_none_of_this_machine_ends_it_with_words() -> None:
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--host", "192.0.2.1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("LOSSD_HOST, LOSSD_PORT: Expected ")
    assert "Traceback" not in ended.stderr


def test_no_connection_takes_the_place_of_a_closed_standard_output(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--port", str(port)],
        preexec_fn=lambda: [os.close(descriptor) for descriptor in (0, 1, 2)],
        env={**os.environ, "LOSSD_DEVICE": "cpu"},
    )
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        with httpx.Client(timeout=WAIT_S) as client:
            assert {client.get(f"http://127.0.0.1:{port}/v2").json()["name"] for _ in range(10)} == {"lossd"}
        links = [os.readlink(f"/proc/{process.pid}/fd/{descriptor}") for descriptor in (0, 1, 2)]
        assert links == ["/dev/null"] * 3
    finally:
        process.terminate()
        process.wait(WAIT_S)


def test_what_is_misspelt_is_told_at_the_start(tmp_path: Path) -> None:
    with serving(tmp_path, LOSSD_MAX_QEUE="3") as running:
        reported = [line for line in running.lines if "LOSSD_MAX_QEUE" in line["message"]]
    assert [line["level"] for line in reported] == ["warning"]
    assert "LOSSD_MAX_QUEUE" in reported[0]["message"]
