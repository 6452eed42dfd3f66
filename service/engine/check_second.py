"""Checks of what a request for second derivatives asks for; each returns the faults it finds."""

from collections.abc import Collection
from math import prod

from service.catalogue.dims import show_dims
from service.catalogue.domains import show_number
from service.engine.call import Request
from service.engine.check import fault_at, first_of
from service.engine.fit import Fit
from service.problems import Fault, pointer, quoted


def tangents(request: Request, fit: Fit, present: Collection[str]) -> list[Fault]:
    """Check that tangents belong to inputs that are sent and differentiable, have their shape, and are finite."""
    floating = [name for name in fit.differentiable if name in present]
    faults: list[Fault] = []
    for name, sent in request.tangents.items():
        tensor, shape = sent.tensor, fit.shapes.get(name)
        if name not in floating:
            names = f"one of {', '.join(floating)}" if floating else "no tangents, as there is no gradient"
            detail = f"Expected {names}; got {quoted(name)}."
            faults.append(Fault(pointer("tangents", name), "tangent", detail))
        elif shape is not None and tuple(tensor.shape) != shape and not (sent.any_rank and prod(shape) == 0):
            expected = f"Expected the shape of the input, {list(shape)}; got {list(tensor.shape)}."
            faults.append(Fault(pointer("tangents", name), "shape", expected))
        elif (index := first_of(~tensor.isfinite())) is not None:
            found = show_number(tensor[index])
            faults.append(fault_at(("tangents", name), sent, index, "domain", "finite numbers", found))
    return faults


def hessian(request: Request, fit: Fit, gradients_of: Collection[str]) -> list[Fault]:
    """Check that a diagonal is asked for where it is all that there is: elements depend on their own place alone."""
    if request.hessian is None or fit.unreduced is None:
        return []
    loss = request.loss
    wrong = [n for n in gradients_of if not loss.elementwise(n, fit.row, fit.sizes, request.params)]
    if gradients_of and not wrong:
        return []
    if not wrong:
        return [Fault("/hessian", "hessian", "Expected gradients of at least one input; got none.")]
    name, unreduced = wrong[0], show_dims(loss.unreduced.dims(fit.sizes, request.params))
    got = f"{name} of {show_dims(fit.form(name).dims)} and a loss of {unreduced}"
    if loss.coupled:
        got = f"{loss.name}, whose elements depend on several"
    expected = f"a loss that is elementwise in {name}: each element of it moves one of the loss"
    return [Fault("/hessian", "hessian", f"Expected {expected}; got {got}.")]
