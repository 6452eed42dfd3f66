"""The problems of operations by status, with the summary of each kind."""

from functools import cache

from service.problems import Invalid, Problem, Unreadable


@cache
def problems() -> dict[int, str]:
    """Return the meaning of each status."""
    found: dict[int, list[str]] = {}
    for kind in Problem.__subclasses__():
        found.setdefault(kind.status, []).append(_summary(kind))
    return {status: " ".join(found[status]) for status in sorted(found)}


@cache
def errors() -> dict[int, str]:
    """Return the meaning of each status below ``/v2``, where an invalid request is a 400 too."""
    found = {status: meaning for status, meaning in problems().items() if status != Invalid.status}
    found[Unreadable.status] = f"{_summary(Unreadable)} {_summary(Invalid)}"
    return found


def _summary(kind: type[Problem]) -> str:
    """Return the first line of a kind's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]
