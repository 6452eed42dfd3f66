"""A real server in a separate process, for tests that need one."""

from collections.abc import Generator

import pytest

from benchmarks import servers


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    with servers.lossd(env={"LOSSD_DEVICE": "cpu"}) as running:
        yield running.url
