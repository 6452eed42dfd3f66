"""The problems that operations may answer, by status: what each kind says of itself."""

from functools import cache

from service.problems import Invalid, Problem, Unreadable


@cache
def problems() -> dict[int, str]:
    """Return what each status means."""
    found: dict[int, list[str]] = {}
    for kind in Problem.__subclasses__():
        found.setdefault(kind.status, []).append(_summary(kind))
    return {status: " ".join(found[status]) for status in sorted(found)}


@cache
def errors() -> dict[int, str]:
    """Return what each status means below ``/v2``, where what is not valid is a 400 too."""
    found = {status: told for status, told in problems().items() if status != Invalid.status}
    found[Unreadable.status] = f"{_summary(Unreadable)} {_summary(Invalid)}"
    return found


def _summary(kind: type[Problem]) -> str:
    """Return the first line of a kind's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]
