"""How a server ends: it waits for what is worked on, whoever has left, and then for nothing."""

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import pytest

from benchmarks import servers
from service.admission.account import Account
from service.admission.lifecycle import Lifecycle
from service.problems import Unavailable

SERVE = """
import uvicorn
from service.app import create_app
from service.settings import Settings
from tests.doors.waits import catalogue

uvicorn.run(create_app(Settings(device="cpu", drain_s=1), catalogue()), port={port}, log_level="warning")
"""


def test_a_request_is_waited_for_until_nobody_works_on_it() -> None:
    lifecycle, account = Lifecycle(broken=lambda: False), Account(1)
    hold = account.open()
    lifecycle.begin(hold)
    with hold.used():
        # it is answered
        hold.leave()
        assert lifecycle.active == 1
    assert lifecycle.active == 0


def test_a_server_that_ends_begins_nothing() -> None:
    lifecycle = Lifecycle(broken=lambda: False)
    lifecycle.draining = True
    with pytest.raises(Unavailable, match="shutting down"):
        lifecycle.begin(Account(1).open())
    assert lifecycle.active == 0


@contextmanager
def serving() -> Generator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve losses that do not end."""
    port = servers.free_port()
    process = subprocess.Popen([sys.executable, "-c", SERVE.format(port=port)])
    try:
        while True:
            try:
                assert process.poll() is None
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                continue
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


@pytest.mark.server
def test_what_nothing_can_end_does_not_keep_a_server_that_is_told_to() -> None:
    """A thread that works for a client that has left would work for a minute."""
    with serving() as (url, process):
        body = {"inputs": {"predictions": [1]}}
        late = httpx.post(f"{url}/v1/losses/stubborn", json=body, headers={"request-timeout": "0.2"})
        assert late.status_code == 504
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
