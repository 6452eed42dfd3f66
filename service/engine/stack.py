"""Many calls as one: their tensors, and their results, stacked on a new first axis."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, overload

import torch
from torch import Tensor

from service.engine.call import CPU, Call, Evaluation


@dataclass(frozen=True, slots=True)
class Stack:
    """Calls that differ only in the values of their tensors. ``like`` is one of them, for everything they share."""

    like: Call
    inputs: Mapping[str, Tensor]
    sample_weight: Tensor | None = None
    grad_output: Tensor | None = None
    tangents: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def work(self) -> int:
        """The estimated cost of all calls together."""
        return self.like.overhead + len(self) * (self.like.work - self.like.overhead)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, place: int) -> Call:
        return self.like._replace(
            inputs={name: tensor[place] for name, tensor in self.inputs.items()},
            sample_weight=None if self.sample_weight is None else self.sample_weight[place],
            grad_output=None if self.grad_output is None else self.grad_output[place],
            tangents={name: tensor[place] for name, tensor in self.tangents.items()},
        )

    def __iter__(self) -> Iterator[Call]:
        return map(self.__getitem__, range(len(self)))

    def pieces(self, most: int) -> "list[Stack]":
        """Split it into pieces of at most this many calls."""
        starts = range(0, len(self), most)
        return [self] if len(starts) == 1 else [self._part(slice(start, start + most)) for start in starts]

    def _part(self, calls: slice) -> "Stack":
        """Return some of the calls."""
        return Stack(
            self.like,
            {name: tensor[calls] for name, tensor in self.inputs.items()},
            None if self.sample_weight is None else self.sample_weight[calls],
            None if self.grad_output is None else self.grad_output[calls],
            {name: tensor[calls] for name, tensor in self.tangents.items()},
        )


Part = Call | Stack
"""One call, or several like ones."""
P = TypeVar("P", bound=Part)


def with_tensors(part: P, inputs: Mapping[str, Tensor], **others: Tensor | Mapping[str, Tensor]) -> P:
    """Return calls with other inputs, and perhaps another sample weight, upstream gradient or other tangents."""
    if isinstance(part, Call):
        return part._replace(inputs=inputs, **others)
    return replace(part, inputs=inputs, **others)


def stacked(parts: Sequence[Part]) -> Stack:
    """Stack like parts in their order."""
    [*stacks] = map(_as_stack, parts)
    if len(stacks) == 1:
        return stacks[0]
    first = stacks[0]
    return Stack(
        first.like,
        {name: torch.cat([stack.inputs[name] for stack in stacks]) for name in first.inputs},
        _join([stack.sample_weight for stack in stacks]),
        _join([stack.grad_output for stack in stacks]),
        {name: torch.cat([stack.tangents[name] for stack in stacks]) for name in first.tangents},
    )


def _as_stack(part: Part) -> Stack:
    """Return one call as a stack of one."""
    if isinstance(part, Stack):
        return part
    weight, upstream = part.sample_weight, part.grad_output
    return Stack(
        part,
        {name: tensor[None] for name, tensor in part.inputs.items()},
        None if weight is None else weight[None],
        None if upstream is None else upstream[None],
        {name: tensor[None] for name, tensor in part.tangents.items()},
    )


def _join(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate a tensor of several like stacks; None if they have none."""
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(there) if there else None


@dataclass(frozen=True, slots=True)
class Evaluations(Sequence[Evaluation]):
    """The results of a `Stack`: an `Evaluation` with the calls along the first axis of each tensor."""

    value: Tensor
    gradients: Mapping[str, Tensor]
    aux: Mapping[str, Tensor]
    divisor: Tensor | None = None
    device: torch.device = CPU
    tangent: Tensor | None = None
    hessian_product: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    hessian: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __len__(self) -> int:
        return len(self.value)

    @overload
    def __getitem__(self, index: int) -> Evaluation: ...
    @overload
    def __getitem__(self, index: slice) -> "Evaluations": ...
    def __getitem__(self, index: int | slice) -> "Evaluation | Evaluations":
        # past the end, the tensor raises the IndexError that ends an iteration
        kind = Evaluations if isinstance(index, slice) else Evaluation
        return kind(
            self.value[index],
            {name: tensor[index] for name, tensor in self.gradients.items()},
            {name: tensor[index] for name, tensor in self.aux.items()},
            None if self.divisor is None else self.divisor[index],
            self.device,
            None if self.tangent is None else self.tangent[index],
            {name: tensor[index] for name, tensor in self.hessian_product.items()},
            {name: tensor[index] for name, tensor in self.hessian.items()},
        )
