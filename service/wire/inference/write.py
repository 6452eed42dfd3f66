"""An evaluation to an Open Inference Protocol answer: JSON, and raw bytes after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.engine.call import Evaluation
from service.wire import written
from service.wire.inference.datatypes import NAMES
from service.wire.inference.metadata import DIVISOR, GRADIENT, VERSION
from service.wire.inference.read import DecodedInference


@dataclass(frozen=True, slots=True)
class Encoded:
    """An answer: its JSON in parts, and the bytes of its ``binary`` tensors, without copies."""

    heads: Sequence[bytes]
    tensors: Sequence[memoryview]

    @property
    def binary(self) -> bool:
        """Whether any tensor is binary."""
        return bool(self.tensors)


def encode(decoded: DecodedInference, evaluation: Evaluation) -> Encoded:
    """Write an answer."""
    outputs: list[dict[str, Any]] = []
    behind: list[memoryview] = []
    for name, tensor in _computed(decoded, evaluation).items():
        output: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "datatype": NAMES[tensor.dtype]}
        if decoded.outputs.get(name, decoded.binary):
            behind.append(written.raw_bytes(tensor))
            output["parameters"] = {"binary_data_size": behind[-1].nbytes}
        else:
            output["data"] = written.write(tensor.reshape(-1), "json")
        outputs.append(output)
    head = {
        "model_name": decoded.call.loss.name,
        "model_version": VERSION,
        **({} if decoded.identity is None else {"id": decoded.identity}),
        "outputs": outputs,
    }
    return Encoded([*written.joined(written.parts(head))], behind)


def _computed(decoded: DecodedInference, evaluation: Evaluation) -> dict[str, Tensor]:
    """Return the requested outputs in their order, else all but the divisor. A reduced value has the shape [1].

    The divisor has the dtype of the arithmetic: float16 ends at 65504.
    """
    value, divisor = evaluation.value, evaluation.divisor
    found = {
        "value": value if decoded.call.reduction == "none" else value.reshape(1),
        **{f"{GRADIENT}{name}": tensor for name, tensor in evaluation.gradients.items()},
        **{f"aux.{name}": tensor for name, tensor in evaluation.aux.items()},
    }
    if not decoded.outputs:
        return found
    if divisor is not None:
        double = decoded.call.dtype is torch.float64
        found[DIVISOR] = (divisor if double else divisor.float()).reshape(1)
    return {name: found[name] for name in decoded.outputs}
