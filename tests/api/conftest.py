"""One application for the tests of a module: its pool of threads is what takes time to make."""

import pytest

from tests.api.client import Client


@pytest.fixture(scope="module")
def client() -> Client:
    return Client()
