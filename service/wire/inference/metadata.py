"""What the Open Inference Protocol tells of a model: names, datatypes and shapes of its tensors."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from service.catalogue.dims import split
from service.catalogue.domains import Kind
from service.catalogue.registry import AnyLoss

VERSION = "1"
PLATFORM = "lossd_torch"
GRADIENT = "grad."
DATATYPE: Mapping[Kind, str] = {"float": "FP32", "int": "INT64", "bool": "BOOL"}


@cache
def model(loss: AnyLoss) -> dict[str, Any]:
    """Return a model's metadata. A size that calls choose, or a run of them, is -1."""
    inputs = [
        {"name": name, "datatype": DATATYPE[spec.kind], "shape": _shape(spec.forms[0].dims)}
        for name, spec in loss.inputs.items()
    ]
    outputs = [
        {"name": name, "datatype": "FP32", "shape": _shape(dims)}
        for name, dims in outputs_of(loss).items()
        if _always(loss, name)
    ]
    return {
        "name": loss.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }


@cache
def config(loss: AnyLoss) -> dict[str, Any]:
    """Return a model's configuration, in the words of Triton."""
    told = model(loss)
    optional = {name for name, spec in loss.inputs.items() if spec.optional}
    return {
        "name": loss.name,
        "platform": PLATFORM,
        "backend": "lossd",
        "max_batch_size": 0,
        "input": [
            {**_in_config(tensor), **({"optional": True} if tensor["name"] in optional else {})}
            for tensor in told["inputs"]
        ],
        "output": [_in_config(tensor) for tensor in told["outputs"]],
    }


@cache
def outputs_of(loss: AnyLoss) -> Mapping[str, str]:
    """Return the dims of every output that a call can ask for: the value's are one size, 1 unless unreduced."""
    floating = [name for name, spec in loss.inputs.items() if spec.floating] if loss.differentiable else []
    return {
        "value": "N",
        **{f"{GRADIENT}{name}": loss.inputs[name].forms[0].dims for name in floating},
        **{f"aux.{name}": o.forms[0].dims for name, o in loss.outputs.items() if o.role == "aux"},
    }


def _always(loss: AnyLoss, output: str) -> bool:
    """Whether every call has an output, as clients that ask for all that is listed take it."""
    spec = loss.inputs.get(output.removeprefix(GRADIENT)) if output.startswith(GRADIENT) else None
    return spec is None or (spec.kind == "float" and not spec.optional)


def _shape(dims: str) -> list[int]:
    """Return dims as the protocol writes them."""
    return [int(part) if part.isdecimal() else -1 for part in split(dims)]


def _in_config(tensor: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tensor's metadata as a configuration has it."""
    return {
        "name": tensor["name"],
        "data_type": f"TYPE_{tensor['datatype']}",
        "dims": tensor["shape"],
    }
