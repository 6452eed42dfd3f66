"""The native JSON door: a request body to a valid call, an evaluation to a response body."""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Call, Evaluation
from service.engine.observer import NOBODY, Observer
from service.engine.stack import Evaluations
from service.wire import written
from service.wire.document import read_object
from service.wire.envelope import Encoding
from service.wire.request import FIELDS, read
from service.wire.text import Body


class Decoded(NamedTuple):
    """A valid call, and the format of its answer."""

    call: Call
    encoding: Encoding


def decode_held(loss: AnyLoss, held: list[Body]) -> Decoded:
    """Read the request body in a list, taking it out, so that nothing else keeps its memory."""
    return decode(loss, held.pop())


def decode(loss: AnyLoss, body: Body) -> Decoded:
    """Read a request body.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: the body does not fit the loss; lists every fault.
    """
    document = read_object(body)
    found = read(document, loss, *document.given(document.root, FIELDS))
    # free the body before the tensors are checked
    del document, body
    return Decoded(bind(found.request, found.faults), found.encoding)


def answer_parts(decoded: Decoded, evaluation: Evaluation, observer: Observer = NOBODY) -> list[bytes]:
    """Write an answer in parts, each of which blocks the interpreter only briefly."""
    return [*written.joined(written.parts(answer(decoded, evaluation, observer)))]


def answer(decoded: Decoded, evaluation: Evaluation, observer: Observer = NOBODY) -> dict[str, Any]:
    """Return the members of an answer; tensors are in a form that `written.parts` takes."""
    call, encoding = decoded
    options, counts = _options(call.reduction, call.dtype, evaluation.device), _nonfinite(evaluation)
    body: dict[str, Any] = {
        "loss": call.loss.name,
        "value": written.write(evaluation.value, encoding if call.reduction == "none" else "json"),
        "gradients": written.write_named(evaluation.gradients, encoding),
    }
    if evaluation.divisor is not None:
        body["divisor"] = divisor = evaluation.divisor.item()
        if not math.isfinite(divisor):
            counts["divisor"] = 1
    body |= options
    if evaluation.aux:
        body["aux"] = written.write_named(evaluation.aux, encoding)
    if evaluation.tangent is not None:
        body["tangent"] = written.write(evaluation.tangent, encoding if call.reduction == "none" else "json")
    for name, tensors in _second(evaluation).items():
        body[name] = written.write_named(tensors, encoding)
    if counts:
        body["nonfinite"] = counts
        observer.nonfinite(call.loss.name)
    return body


def answers(
    like: Call,
    encoding: Encoding,
    evaluations: Evaluations,
    observer: Observer = NOBODY,
) -> list[dict[str, Any]]:
    """Return the members of the answer to each of several calls evaluated together."""
    values = written.write_each(evaluations.value, encoding if like.reduction == "none" else "json")
    gradients = _each_named(evaluations.gradients, len(values), encoding)
    shared = _options(like.reduction, like.dtype, evaluations.device)
    divisor = {} if evaluations.divisor is None else {"divisor": evaluations.divisor}
    divisors = _each_named(divisor, len(values), "json")
    found: list[dict[str, Any]] = [
        {"loss": like.loss.name, "value": value, "gradients": named, **divided, **shared}
        for value, named, divided in zip(values, gradients, divisors, strict=True)
    ]
    if evaluations.aux:
        for one, named in zip(found, _each_named(evaluations.aux, len(values), encoding), strict=True):
            one["aux"] = named
    if evaluations.tangent is not None:
        tangents = written.write_each(evaluations.tangent, encoding if like.reduction == "none" else "json")
        for one, tangent in zip(found, tangents, strict=True):
            one["tangent"] = tangent
    for name, tensors in _second(evaluations).items():
        for one, named in zip(found, _each_named(tensors, len(values), encoding), strict=True):
            one[name] = named
    for name, tensor in (*_outputs(evaluations), *divisor.items()):
        if count_nonfinite(tensor):
            for one, count in zip(found, _count_each(tensor), strict=True):
                if count:
                    one.setdefault("nonfinite", {})[name] = count
    for _ in filter(lambda one: "nonfinite" in one, found):
        observer.nonfinite(like.loss.name)
    return found


def _each_named(named: Mapping[str, Tensor], count: int, encoding: str) -> Iterable[dict[str, Any]]:
    """Return the part of each call from stacked tensors by name."""
    if not named:
        return [{} for _ in range(count)]
    columns = [written.write_each(tensor, encoding) for tensor in named.values()]
    return [dict(zip(named, row, strict=True)) for row in zip(*columns, strict=True)]


@lru_cache(maxsize=64)
def _options(reduction: str, dtype: torch.dtype, device: torch.device) -> Mapping[str, str]:
    """Return the options that an answer repeats; torch takes microseconds to name a dtype or a device."""
    return {"reduction": reduction, "dtype": str(dtype).removeprefix("torch."), "device": str(device)}


def _nonfinite(evaluation: Evaluation) -> dict[str, int]:
    """Count the non-finite elements of each output that has any."""
    counts: dict[str, int] = {}
    for name, tensor in _outputs(evaluation):
        if count := count_nonfinite(tensor):
            counts[name] = count
    return counts


def _outputs(found: Evaluation | Evaluations) -> Iterator[tuple[str, Tensor]]:
    """Yield the outputs by their names in ``nonfinite``."""
    yield "value", found.value
    for name, tensor in found.gradients.items():
        yield f"gradients.{name}", tensor
    for name, tensor in found.aux.items():
        yield f"aux.{name}", tensor
    if found.tangent is not None:
        yield "tangent", found.tangent
    for kind, tensors in _second(found).items():
        for name, tensor in tensors.items():
            yield f"{kind}.{name}", tensor


def _second(found: Evaluation | Evaluations) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the second derivatives that there are, by the names of their members."""
    both = {"hessian_product": found.hessian_product, "hessian": found.hessian}
    return {name: tensors for name, tensors in both.items() if tensors}


def count_nonfinite(tensor: Tensor) -> int:
    """Count the non-finite elements."""
    # any such element makes the sum non-finite, which is much faster to check
    return 0 if math.isfinite(tensor.sum().item()) else int((~tensor.isfinite()).sum())


def _count_each(stack: Tensor) -> list[int]:
    """Count the non-finite elements of each of several stacked tensors."""
    counts: Any = (~stack.isfinite()).reshape(len(stack), -1).sum(1)
    return counts.tolist()
