"""Fixtures for all tests."""

import pytest

from tests.client import Client
from tests.live import server

__all__ = ["server"]


@pytest.fixture(scope="module")
def client() -> Client:
    """One application for the tests of a module: its pool of threads is what takes time to make."""
    return Client()
