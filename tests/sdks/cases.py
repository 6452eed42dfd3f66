"""Write cases.json, the requests and exact answers that every client is tested against.

``python -m tests.sdks.cases > clients/cases.json``. The losses here round the same way on every processor:
none takes an exponential or a logarithm, whose last bit depends on the vector instructions.
"""

import base64
import json
from math import inf, nan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Invalid

TINY, HUGE = 2.0**-149, 3.4028234663852886e38

CASES: dict[str, dict[str, Any]] = {
    "float32 mean": {"loss": "mse", "inputs": {"predictions": [0.1, -2.5, 3.3], "targets": [0.3, 1.0, -0.7]}},
    "float64 mean": {
        "loss": "mse",
        "dtype": "float64",
        "inputs": {"predictions": [0.1, -2.5, 1e-300], "targets": [1 / 3, 1.0, -0.7]},
    },
    "float64 inputs in float32": {
        "loss": "l1",
        "sent as": "float64",
        "inputs": {"predictions": [0.1, 1e39], "targets": [0.3, 1.0]},
        "reduction": "none",
    },
    "every dimension": {
        "loss": "mse",
        "reduction": "none",
        "inputs": {"predictions": [[[0.5, 1.5]], [[-0.0, TINY]]], "targets": [[[0.1, 0.2]], [[0.3, HUGE]]]},
    },
    "params": {
        "loss": "huber",
        "params": {"delta": 3.0},
        "reduction": "sum",
        "inputs": {"predictions": [0.0, 5.0], "targets": [1.0, 0.0]},
    },
    "integers and a divisor": {
        "loss": "multi_margin",
        "params": {"margin": 0.5},
        "inputs": {"logits": [[0.1, 0.2, 0.3], [2.0, -1.0, 0.5]], "targets": [2, 1]},
    },
    "booleans": {"loss": "l1", "inputs": {"predictions": [0.3, -0.7], "targets": [True, False]}},
    "a class that is not there": {
        "loss": "multi_margin",
        "inputs": {"logits": [[0.1, 0.2, 0.3]], "targets": [3]},
    },
    "weights": {
        "loss": "mse",
        "dtype": "float64",
        "sample_weight": [0.5, 2.0, 0.0],
        "inputs": {"predictions": [0.1, 0.2, 9.0], "targets": [0.3, 0.7, 1.0]},
    },
    "a divisor that is known": {
        "loss": "mse",
        "dtype": "float64",
        "divide_by": 7.5,
        "sample_weight": [0.5, 2.0],
        "inputs": {"predictions": [0.1, 0.2], "targets": [0.3, 0.7]},
    },
    "an upstream gradient": {
        "loss": "mse",
        "reduction": "none",
        "grad_output": [2.0, -0.5],
        "inputs": {"predictions": [0.1, 0.2], "targets": [0.3, 0.7]},
    },
    "a gradient of the targets": {
        "loss": "l1",
        "gradients": ["targets"],
        "inputs": {"predictions": [0.1, 0.2], "targets": [0.3, -0.7]},
    },
    "no gradients": {
        "loss": "mse",
        "gradients": False,
        "inputs": {"predictions": [0.1, 0.2], "targets": [0.3, 0.7]},
    },
    "NaN and infinities in float32": {
        "loss": "mse",
        "reduction": "none",
        "inputs": {"predictions": [nan, inf, -inf, 1.0], "targets": [0.0, 0.0, 0.0, 2.0]},
    },
    "NaN and infinities in float64": {
        "loss": "l1",
        "dtype": "float64",
        "reduction": "none",
        "inputs": {"predictions": [nan, inf, -inf, 1e308], "targets": [0.0, 1.0, 0.0, -1e308]},
    },
    "an empty tensor": {
        "loss": "mse",
        "reduction": "none",
        "inputs": {"predictions": [], "targets": []},
    },
    "an empty tensor of rank 3": {
        "loss": "l1",
        "dtype": "float64",
        "reduction": "sum",
        "inputs": {"predictions": [[[], []]], "targets": [[[], []]]},
    },
    "one number": {"loss": "mse", "inputs": {"predictions": 0.1, "targets": 0.3}},
    "half precision": {
        "loss": "mse",
        "dtype": "float16",
        "reduction": "none",
        "inputs": {"predictions": [0.1, 100.0], "targets": [0.3, 0.7]},
    },
    "boxes with a diagnostic": {
        "loss": "giou",
        "inputs": {
            "boxes": [[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 2.5, 3.0]],
            "targets": [[1.0, 1.0, 3.0, 3.0], [4.0, 4.0, 5.0, 6.0]],
        },
    },
    "größe ∂ 損失 🎯 \"quoted\" \\": {
        "loss": "mse",
        "inputs": {"predictions": [1.0], "targets": [3.0]},
    },
}  # fmt: skip


def main() -> None:
    cases = [_case(name, **fields) for name, fields in CASES.items()]
    print(json.dumps(cases, indent=1, ensure_ascii=False))


def _case(name: str, *, loss: str, inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a case: the request as sent, and its answer or problem."""
    dtype = fields.get("dtype", "float32")
    sent_as = fields.pop("sent as", "float32" if dtype == "float16" else dtype)
    tensors = {
        key: _tensor(value, sent_as)
        for key, value in {**inputs, **fields}.items()
        if key in inputs or key in ("sample_weight", "grad_output")
    }
    packed = {key: _packed(tensor) for key, tensor in tensors.items()}
    options = {key: packed.get(key, value) for key, value in fields.items()}
    request = {"inputs": {key: packed[key] for key in inputs}, **options}
    return {"name": name, "loss": loss, "request": request, **_answer(loss, inputs, tensors, fields)}


def _answer(
    loss: str, inputs: dict[str, Any], tensors: dict[str, Tensor], fields: dict[str, Any]
) -> dict[str, Any]:
    """Return the answer of the engine to a case."""
    declared, sent = CATALOGUE[loss], {key: Sent(tensor) for key, tensor in tensors.items()}
    wanted = fields.get("gradients", True)
    request = Request(
        loss=declared,
        inputs={key: sent[key] for key in inputs},
        params={**declared.defaults, **fields.get("params", {})},
        gradients=wanted if isinstance(wanted, bool) else tuple(wanted),
        reduction=fields.get("reduction", "mean"),
        sample_weight=sent.get("sample_weight"),
        grad_output=sent.get("grad_output"),
        dtype=_dtype(fields.get("dtype", "float32")),
        divide_by=fields.get("divide_by"),
    )
    try:
        found = evaluate(bind(request))
    except Invalid as invalid:
        return {"faults": [{"pointer": fault.pointer, "code": fault.code} for fault in invalid.faults]}
    answer = {
        "value": _packed(found.value),
        "gradients": {key: _packed(tensor) for key, tensor in found.gradients.items()},
        "aux": {key: _packed(tensor) for key, tensor in found.aux.items()},
        "divisor": None if found.divisor is None else found.divisor.item(),
    }
    return {"answer": answer}


def _tensor(value: Any, floating: str) -> Tensor:
    tensor = torch.from_numpy(np.array(value))
    return tensor.to(_dtype(floating)) if tensor.is_floating_point() else tensor


def _dtype(name: str) -> torch.dtype:
    return getattr(torch, name)


def _packed(tensor: Tensor) -> dict[str, Any]:
    # bfloat16 has no numpy type; a fresh flat tensor has strides that may be viewed as bytes
    raw = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.flatten()).view(torch.uint8)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {
        "dtype": dtype,
        "shape": list(tensor.shape),
        "data": base64.b64encode(raw.numpy().tobytes()).decode(),
    }


if __name__ == "__main__":
    main()
