"""The problems of operations by status, with the summary of each kind."""

from functools import cache
from typing import Any

from service.document.schemas import reference
from service.problems import Invalid, Problem, Unreadable

RETRY_AFTER = {
    "description": "With a 429: seconds after which to retry.",
    "schema": {"type": "integer", "format": "int64"},
}


def responses() -> dict[str, Any]:
    """Return the shared error responses, of ``/v1`` and ``/v2``."""
    return {
        "Problem": _response(problems(), "application/problem+json", "Problem"),
        "InferenceError": _response(errors(), "application/json", "InferenceError"),
    }


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


def _response(meanings: dict[int, str], media: str, schema: str) -> dict[str, Any]:
    """Describe an error response."""
    lines = [f"- {status}: {meaning}" for status, meaning in meanings.items()]
    return {
        "description": "\n".join(["An error. By status:", "", *lines]),
        "headers": {"Retry-After": RETRY_AFTER},
        "content": {media: {"schema": reference(schema)}},
    }


def _summary(kind: type[Problem]) -> str:
    """Return the first line of a kind's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]
