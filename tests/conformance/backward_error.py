"""How far each loss is from float64 in float32, its inputs scaled, shifted and made equal.

A loss may err as if each of its inputs had been rounded once more, and its terms too: by a multiple of
u·(Σ|l| + Σ|x·∂l/∂x|). ``python -m tests.conformance.backward_error`` prints what errs by more, worst first.
"""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.engine.call import Call, Reduction
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from tests.conformance.changes import bases, calls, near_and_far

UNIT = 2.0**-24
"""The unit roundoff u of float32."""
MOST = 256
"""How many times the backward error a value may be off."""
ALLOWANCE = 4 * UNIT
"""Additional error of an element if a loss declares 1 as its unit."""
SLACK = 0.05
"""How far a gradient may be off, as a share of its largest element."""
TINY = torch.finfo(torch.float32).tiny
LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Error:
    """What a loss gave at a case: ``value`` and ``gradient`` are errors over what is admitted, so at most 1.

    ``strict`` is that of the value without the allowance; ``outside`` is how far the loss leaves its range.
    """

    case: str
    found: float
    truth: float
    value: float
    strict: float
    gradient: float
    outside: float

    @property
    def holds(self) -> bool:
        """Whether all is as it should be."""
        return self.value <= 1 and self.gradient <= 1 and self.outside <= 0

    @property
    def worst(self) -> float:
        """The larger of the two errors, infinite outside the range."""
        return torch.inf if self.outside > 0 else max(self.value, self.gradient)


def errors(loss: AnyLoss) -> list[Error]:
    """Measure a loss at all cases that its domains admit, under the mean, and the sum where it is another one."""
    plain = {output.role for output in loss.outputs.values()} <= {"loss", "aux"}
    reductions: list[Reduction] = ["mean"] if plain else ["mean", "sum"]
    return [
        _measured(f"{name}, {reduction}", call._replace(reduction=reduction))
        for base in bases(loss)
        for name, call in calls(base, loss, near_and_far(), torch.float32)
        for reduction in reductions
    ]


def _measured(case: str, call: Call) -> Error:
    """Compare a float32 call with float64 on the same inputs."""
    exact = {n: t.double() if t.is_floating_point() else t for n, t in call.inputs.items()}
    true = call._replace(inputs=exact, dtype=torch.float64)
    here, truth = evaluate(call), evaluate(true)
    terms = call.loss.terms(exact, call.params)
    if call.reduction == "mean":
        summed = terms.loss if terms.mean_terms is None else terms.mean_terms
        total = terms.loss.numel() if terms.divisor is None else terms.divisor.sum().item()
    else:
        summed, total = terms.loss, 1.0
    size = summed.abs().sum().item() / total if total else 0.0
    size += sum(_product(exact[n], g) for n, g in truth.gradients.items())
    backward = MOST * UNIT * size + TINY * (1 + summed.numel())
    allowance = ALLOWANCE * summed.numel() / total if call.loss.unit and total else 0.0
    off = _distance(here.value, truth.value)
    return Error(
        case,
        here.value.item(),
        truth.value.item(),
        off / (backward + allowance),
        off / backward,
        max(
            (
                _slope_error(exact[n], here.gradients[n], g, backward + allowance)
                for n, g in truth.gradients.items()
            ),
            default=0.0,
        ),
        _outside(call),
    )


def _product(inputs: Tensor, gradient: Tensor) -> float:
    """Return Σ|x·∂l/∂x| over finite terms."""
    return (inputs * gradient).abs().nan_to_num(0, 0, 0).sum().item()


def _distance(found: Tensor, truth: Tensor) -> float:
    """Return the error of a value: 0 if the true value is beyond float32, infinity if only the value is."""
    if not truth.isfinite() or truth.abs() > LARGEST:
        return 0.0
    return (found.double() - truth).abs().nan_to_num(torch.inf).item()


def _slope_error(inputs: Tensor, found: Tensor, truth: Tensor, admitted: float) -> float:
    """Return a gradient's error relative to the allowed one: of its largest element, or of the value's error."""
    if not truth.isfinite().all() or (truth.abs() > LARGEST).any() or not truth.numel():
        return 0.0
    off = (found.double() - truth).abs().nan_to_num(torch.inf)
    share = off.max().item() / (SLACK * truth.abs().max().item() + TINY)
    return min(share, (inputs * off).abs().nan_to_num(torch.inf).sum().item() / admitted)


def _outside(call: Call) -> float:
    """Return by how much an unreduced loss leaves its declared range."""
    least, most = call.loss.bounds(call.params)
    found = evaluate(call._replace(reduction="none", gradients_of=())).value
    found = found[found.isfinite()]
    ends = torch.tensor([-torch.inf if least is None else least, torch.inf if most is None else most])
    beyond = torch.cat([ends[0] - found.reshape(-1), found.reshape(-1) - ends[1]])
    return beyond.max().clamp(min=0).item() if beyond.numel() else 0.0


def report(names: list[str]) -> str:
    """Return a line for each loss over the bound, worst first, and how many there are."""
    found = {name: errors(CATALOGUE[name]) for name in names or CATALOGUE}
    strict = sum(any(e.strict > 1 for e in each) for each in found.values())
    wrong = {name: [e for e in each if not e.holds] for name, each in found.items()}
    lines: list[tuple[float, str]] = []
    for name, each in found.items():
        bad = [error for error in each if not error.holds or error.strict > 1]
        if bad:
            worst = max(bad, key=lambda error: (not error.holds, error.worst, error.strict))
            lines.append(
                (
                    max(worst.worst, worst.strict),
                    f"{name:28} value {worst.value:9.3g}  strict {worst.strict:9.3g}  gradient {worst.gradient:9.3g}"
                    f"  {'outside' if worst.outside > 0 else '       '}  {worst.found:.7g} for {worst.truth:.7g}"
                    f"  ({worst.case}; {len(bad)} of {len(each)})",
                )
            )
    head = f"{len(found)} losses: {sum(map(bool, wrong.values()))} wrong, {strict} over the bound without allowances"
    return "\n".join([head, *(line for _, line in sorted(lines, reverse=True))])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(report(sys.argv[1:]))
