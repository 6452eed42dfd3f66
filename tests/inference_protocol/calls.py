"""The call that every client makes, and its expected result."""

import warnings
from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((32, 10)).astype(np.float32)
TARGETS = RNG.integers(10, size=32)


def _softmax(rows: np.ndarray) -> np.ndarray:
    raised = np.exp(rows - rows.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


SHARES = _softmax(LOGITS.astype(np.float64))
VALUE = float(-np.log(SHARES[np.arange(32), TARGETS]).mean())
GRADIENT = (SHARES - np.eye(10)[TARGETS]) / 32


def client(module: str) -> Any:
    """Return a client's module; skip, saying so, where it is not installed. Its warnings are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            module, reason=f"no {module}: make test-clients installs it", exc_type=ImportError
        )
