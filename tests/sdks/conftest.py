"""One server with keys for all clients."""

import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from typing import NamedTuple

import pytest

from benchmarks import servers

# a program for a client that is yet to be generated
collect_ignore = ["generated"]


class Keyed(NamedTuple):
    """A server that wants a key, and one that it takes."""

    url: str
    key: str

    @property
    def env(self) -> Mapping[str, str]:
        return {"LOSSD_URL": self.url, "LOSSD_KEY": self.key}


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Generator[Keyed]:
    keys = {"LOSSD_API_KEYS_FILE": str(tmp_path_factory.mktemp("keys") / "keys.jsonl")}
    command = [sys.executable, "-m", "service", "key", "new", "--name", "sdks"]
    made = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True, check=True)
    with servers.lossd(env={"LOSSD_DEVICE": "cpu", **keys}) as running:
        yield Keyed(running.url, made.stdout.split()[0])


@pytest.fixture(scope="session")
def open_server() -> Generator[str]:
    """A server that wants no key, as READMEs assume."""
    with servers.lossd(env={"LOSSD_DEVICE": "cpu"}) as running:
        yield running.url
