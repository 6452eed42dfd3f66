"""Request bodies of the benchmarks: cross entropy of random logits, as JSON, as base64, as items."""

import base64
from typing import Any

import numpy as np
import orjson

PATH = "/v1/losses/cross_entropy"


def arrays(rows: int, classes: int, seed: int = 0) -> dict[str, Any]:
    """Return the inputs of one call."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, classes)).astype(np.float32)
    return {"logits": logits, "targets": rng.integers(classes, size=rows)}


def request(rows: int, classes: int) -> bytes:
    """Return a JSON body that all servers accept."""
    return _written({"inputs": arrays(rows, classes)})


def packed(rows: int, classes: int) -> bytes:
    """Return the same tensors as base64, with base64 in the answer too."""
    inputs = {
        name: {
            "dtype": str(array.dtype),
            "shape": array.shape,
            "data": base64.b64encode(array.tobytes()).decode(),
        }
        for name, array in arrays(rows, classes).items()
    }
    return _written({"inputs": inputs, "encoding": "base64"})


def batch(items: int) -> bytes:
    """Return a batch of small items."""
    some = [{"inputs": arrays(8, 10, seed)} for seed in range(items)]
    return _written({"items": some, "defaults": {"loss": "cross_entropy"}})


def line() -> bytes:
    """Return a line of a stream."""
    return _written({"loss": "cross_entropy", "inputs": arrays(8, 10)}) + b"\n"


def _written(body: Any) -> bytes:
    """Write JSON."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
