"""The fields of a request other than its tensors and params."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from annotated_types import Gt, MaxLen
from pydantic import BaseModel, ValidationError

from service.engine.call import Dtype, Hessian, Reduction
from service.problems import Fault, pointer
from service.wire import json
from service.wire.params import CONFIG, of_kinds

Encoding = Literal["json", "base64"]
MOST_NAMES = 256
"""Most names in a list of inputs: a composition has as many."""


class Envelope(BaseModel, frozen=True):
    """The fields of a request other than its tensors and params."""

    model_config = CONFIG

    reduction: Reduction = "mean"
    gradients: bool | Annotated[tuple[str, ...], MaxLen(MOST_NAMES), of_kinds(str)] = True
    dtype: Dtype = "float32"
    encoding: Encoding = "json"
    divide_by: Annotated[float, Gt(0)] | None = None
    hessian: Hessian | None = None


USUAL = Envelope()
EXPECTED = {
    "reduction": '"mean", "sum" or "none"',
    "gradients": f"true, false or a list of at most {MOST_NAMES} input names",
    "dtype": " or ".join(f'"{name}"' for name in get_args(Dtype)),
    "encoding": '"json" or "base64"',
    "divide_by": "a finite number greater than 0",
    "hessian": '"diagonal"',
}


def read_envelope(
    fields: Mapping[str, Any], *where: str, defaults: Envelope = USUAL
) -> tuple[Envelope, list[Fault]]:
    """Validate the options among some fields; invalid ones are reported and replaced by their defaults."""
    sent = {name: json.plain(fields[name], levels=1) for name in EXPECTED if name in fields}
    if not sent:
        return defaults, []
    faults: list[Fault] = []
    try:
        found = Envelope.model_validate(sent)
    except ValidationError as error:
        for name in dict.fromkeys(str(e["loc"][0]) for e in error.errors(include_url=False)):
            detail = f"Expected {EXPECTED[name]}; got {json.show(fields[name])}."
            del sent[name]
            faults.append(Fault(pointer(*where, name), "value", detail))
        found = Envelope.model_validate(sent)
    if defaults is USUAL:
        return found, faults
    return defaults.model_copy(update={name: getattr(found, name) for name in sent}), faults
