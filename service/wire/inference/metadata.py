"""Model metadata of the Open Inference Protocol: names, datatypes and shapes of tensors."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from service.catalogue.dims import split
from service.catalogue.domains import Kind
from service.catalogue.registry import AnyLoss

VERSION = "1"
PLATFORM = "lossd_torch"
GRADIENT = "grad."
DIVISOR = "divisor"
DATATYPE: Mapping[Kind, str] = {"float": "FP32", "int": "INT64", "bool": "BOOL"}


@cache
def model(loss: AnyLoss) -> dict[str, Any]:
    """Return a model's metadata. Variable sizes, and runs of sizes, are -1."""
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
    """Return a model's configuration in Triton's format."""
    metadata = model(loss)
    optional = {name for name, spec in loss.inputs.items() if spec.optional}
    return {
        "name": loss.name,
        "platform": PLATFORM,
        "backend": "lossd",
        "max_batch_size": 0,
        "input": [
            {**_in_config(tensor), **({"optional": True} if tensor["name"] in optional else {})}
            for tensor in metadata["inputs"]
        ],
        "output": [_in_config(tensor) for tensor in metadata["outputs"]],
    }


@cache
def outputs_of(loss: AnyLoss) -> Mapping[str, str]:
    """Return the dims of every output that can be requested; the reduced value has one element."""
    floating = [name for name, spec in loss.inputs.items() if spec.floating] if loss.differentiable else []
    return {
        "value": "N",
        **{f"{GRADIENT}{name}": loss.inputs[name].forms[0].dims for name in floating},
        **{f"aux.{name}": o.forms[0].dims for name, o in loss.outputs.items() if o.role == "aux"},
        DIVISOR: "1",
    }


def _always(loss: AnyLoss, output: str) -> bool:
    """Return whether every call has an output: some clients request everything that is listed."""
    spec = loss.inputs.get(output.removeprefix(GRADIENT)) if output.startswith(GRADIENT) else None
    if output == DIVISOR:
        # no call has it under the reduction none
        return False
    return spec is None or (spec.kind == "float" and not spec.optional)


def _shape(dims: str) -> list[int]:
    """Write dims in the protocol's format."""
    return [int(part) if part.isdecimal() else -1 for part in split(dims)]


def _in_config(tensor: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a tensor's metadata to the configuration format."""
    return {
        "name": tensor["name"],
        "data_type": f"TYPE_{tensor['datatype']}",
        "dims": tensor["shape"],
    }
