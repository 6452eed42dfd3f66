"""Stores of each kind."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.evaluations import postgres
from tests.evaluations.postgres import Postgres


@pytest.fixture(scope="session")
def postgresql() -> Generator[Postgres]:
    """One PostgreSQL server for all tests of a process."""
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/evaluations.sqlite"
    server: Postgres = request.getfixturevalue("postgresql")
    return server.url
