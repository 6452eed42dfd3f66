"""Work: no loss makes tensors that are much larger than it declares, whichever of its sizes grow."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from service.catalogue.dims import Sizes, match
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.engine.evaluate import evaluate
from service.problems import Invalid
from tests.conformance.cases import Variant, every_loss, variants

GROWTH = 40
"""How much larger than in the drawn example a size is made."""
MOST = 8
"""Elements of one tensor for each element of work: windows and padding make for more than one."""


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor has that an operation makes; views make none."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            for tensor in made if isinstance(made, tuple | list) else (made,):
                if isinstance(tensor, Tensor):
                    self.elements = max(self.elements, tensor.numel())
        return made


@every_loss
def test_no_tensor_is_larger_than_the_declared_work_says(loss: AnyLoss) -> None:
    default = variants(loss)[0].params
    for row in loss.rows_for(default):
        variant = Variant(loss, default, row, optional=any(spec.optional for spec in loss.inputs.values()))
        for call in _grown(variant):
            with Largest() as largest:
                evaluate(call)
            shapes = {name: tuple(tensor.shape) for name, tensor in call.inputs.items()}
            assert largest.elements <= MOST * call.work, shapes


def _grown(variant: Variant) -> Iterator[Call]:
    """Yield the drawn call with each size, and each two, made larger, as far as the declaration allows."""
    drawn = _sizes(variant)
    for dims in combinations_with_replacement(drawn, 2):
        sizes = {**drawn, **{dim: _larger(drawn[dim]) for dim in dims}}
        inputs = draw_inputs(
            variant.loss, variant.params, sizes=sizes, row=variant.row, optional=variant.optional
        )
        sent = {name: Sent(tensor) for name, tensor in inputs.items()}
        try:
            yield bind(Request(loss=variant.loss, inputs=sent, params=variant.params))
        except Invalid:
            # a size that a list among the params fixes, or that has a bound
            continue


def _larger(size: Sequence[int]) -> Sequence[int]:
    """Grow a size, of several the last one."""
    return (*size[:-1], GROWTH * size[-1]) if size else size


def _sizes(variant: Variant) -> Sizes:
    """Return the sizes of the drawn call."""
    sizes: Mapping[str, tuple[int, ...]] = {}
    for name, tensor in variant.call().inputs.items():
        found = match(variant.loss.inputs[name].form(variant.row).dims, tensor.shape, sizes)
        assert found is not None
        sizes = found
    return sizes
