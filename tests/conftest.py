"""Fixtures for all tests."""

import atexit
import os
import shutil
from tempfile import mkdtemp

import pytest
import torch

from tests.client import Client
from tests.live import server

# as a server does: more threads only slow small tensors
torch.set_num_threads(1)
__all__ = ["server"]

# evaluations of tests that name no other folder
_data = mkdtemp(prefix="lossd-")
atexit.register(shutil.rmtree, _data, ignore_errors=True)
os.environ.setdefault("LOSSD_DATA_DIR", _data)

# as the service runs: threads within an operation cost more than they save where tensors are small
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def client() -> Client:
    """One application for the tests of a module, as starting its threads takes time."""
    return Client()
