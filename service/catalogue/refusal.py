"""Refusals that only the arithmetic can give: a loss raises them where checking beforehand would be computing twice."""

from service.problems import Fault, Invalid, pointer


def refusal(name: str, expected: str, got: str) -> Invalid:
    """Return the problem of an input whose values cannot be used; ``expected`` and ``got`` finish a sentence."""
    return Invalid(Fault(pointer("inputs", name), "domain", f"Expected {expected}; got {got}."))
