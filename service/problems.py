"""Everything that can be wrong with a request, as exceptions that know an HTTP status and no more of HTTP.

Problem
├── Unreadable         400  the body is not JSON
├── ForeignOrigin      400  a CORS preflight that is not allowed
├── Unauthorized       401  no key, or an unknown one
├── NotFound           404  no such loss, no such path
├── MethodNotAllowed   405
├── Stalled            408  the rest of the request did not arrive
├── Conflict           409  what is there already differs from what is sent
├── TooLarge           413  over a configured limit, or over the device's memory
├── UnsupportedMedia   415
├── HeadersTooLarge    431
├── Invalid            422  readable, but not a valid request: carries every `Fault`
├── Busy               429  the server is at a limit
├── Throttled          429  the key is at a limit of its own
├── Internal           500  a bug of ours
├── Unavailable        503  starting or draining, or the database does not answer
└── Late               504  over the deadline
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

MOST_FAULTS = 100
"""Most faults in a problem: a body of megabytes could have millions."""
MOST_CHARACTERS = 100
"""Most characters of a client's name that a problem repeats."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong, and where.

    ``pointer`` is a JSON Pointer (RFC 6901) into the request, ``line`` its line if it has any, and ``column`` that of an
    expression in characters, both from 1.
    """

    pointer: str
    code: str
    detail: str
    line: int | None = None
    column: int | None = None

    @property
    def members(self) -> dict[str, Any]:
        """The members of its document."""
        found: dict[str, Any] = {"pointer": self.pointer, "code": self.code, "detail": self.detail}
        if self.line is not None:
            found["line"] = self.line
        if self.column is not None:
            found["column"] = self.column
        return found


class Problem(Exception):
    """A request that cannot be answered. Subclasses define ``status``, ``slug`` and ``title`` (RFC 9457)."""

    status = 500
    slug = "internal"
    title = "The server failed"

    def __init__(self, detail: str, *faults: Fault) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults

    def document(self, instance: str) -> dict[str, Any]:
        """Return the members of a problem document; ``instance`` is the path of the request."""
        return {
            "type": f"urn:lossd:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "errors": [fault.members for fault in self.faults],
        }


class Unreadable(Problem):
    """The body is not readable; the detail says where."""

    status, slug, title = 400, "unreadable", "The body could not be read"


class ForeignOrigin(Problem):
    """The CORS preflight asks for an origin, method or header that is not allowed; LOSSD_CORS_ORIGINS lists the origins."""

    status, slug, title = 400, "foreign-origin", "The cross-origin request is not allowed"

    def __init__(self, *faults: Fault) -> None:
        super().__init__(
            "Expected a preflight for an allowed origin, method and headers; got another.",
            *faults[:MOST_FAULTS],
        )


class Unauthorized(Problem):
    """The key is missing or unknown, and the server requires one."""

    status, slug, title = 401, "unauthorized", "A key is required"


class NotFound(Problem):
    """There is no such path, loss, model or version; the detail names the closest."""

    status, slug, title = 404, "not-found", "Not found"


class MethodNotAllowed(Problem):
    """The path does not support this method; the Allow header lists those it does."""

    status, slug, title = 405, "method-not-allowed", "The method is not allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"Expected {self.allowed}; got {method}.")


class Conflict(Problem):
    """What is there already differs from what is sent; the detail says in what."""

    status, slug, title = 409, "conflict", "What is there already differs"

    def __init__(self, detail: str, *faults: Fault) -> None:
        super().__init__(detail, *faults[:MOST_FAULTS])


class TooLarge(Problem):
    """The body or the call is over a limit; the detail states limit, size and setting."""

    status, slug, title = 413, "too-large", "The request is too large"


class Stalled(Problem):
    """The rest of the request did not arrive."""

    status, slug, title = 408, "stalled", "The rest of the request did not arrive"


class HeadersTooLarge(Problem):
    """The request line and headers are over a limit; the detail names its setting."""

    status, slug, title = 431, "headers-too-large", "The headers are too large"


class UnsupportedMedia(Problem):
    """The format or coding of the body is not supported."""

    status, slug, title = 415, "unsupported-media-type", "The body's format is not supported"


class Invalid(Problem):
    """The body is readable, but the request is not valid; every fault is listed."""

    status, slug, title = 422, "invalid", "The request is not valid"

    def __init__(self, *faults: Fault) -> None:
        least = "At least " if len(faults) >= MOST_FAULTS else ""
        count = "One thing" if len(faults) == 1 else f"{least}{len(faults[:MOST_FAULTS])} things"
        super().__init__(f"{count} in the request must be changed.", *faults[:MOST_FAULTS])


class Busy(Problem):
    """The server is at a limit; Retry-After says when to retry.

    ``limit`` names the limit, ``retry_after`` is in seconds.
    """

    status, slug, title = 429, "busy", "The server is busy"

    def __init__(self, limit: str, most: str, retry_after: int) -> None:
        super().__init__(f"Expected at most {most}; retry in {retry_after} s.")
        self.limit = limit
        self.most = most
        self.retry_after = retry_after


class Throttled(Problem):
    """The key is at a limit; Retry-After says when to retry.

    ``limit`` is ``rate`` or ``concurrency``.
    """

    status, slug, title = 429, "throttled", "The key is over its limit"

    def __init__(self, limit: str, most: str, retry_after: int) -> None:
        super().__init__(f"Expected at most {most} with this key; retry in {retry_after} s.")
        self.limit = limit
        self.retry_after = retry_after


class Late(Problem):
    """The deadline passed before the answer was ready."""

    status, slug, title = 504, "late", "The deadline has passed"


class Internal(Problem):
    """A bug of the server, whatever the input."""


class Unavailable(Problem):
    """The server cannot answer now: it is starting or shutting down, or its database does not answer.

    ``retry_after`` is in seconds.
    """

    status, slug, title = 503, "unavailable", "The service cannot answer now"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


def pointer(*keys: str | int) -> str:
    """Return the JSON Pointer for ``keys``; very long keys are cut.

    >>> pointer("inputs", "a/b", 3)
    '/inputs/a~1b/3'
    """
    cut = (str(key)[:MOST_CHARACTERS] for key in keys)
    return "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in cut)


def under(faults: Iterable[Fault], *keys: str | int) -> list[Fault]:
    """Return faults of a part of a request with their pointers into the whole."""
    return [replace(fault, pointer=pointer(*keys) + fault.pointer) for fault in faults]


def quoted(name: str) -> str:
    """Quote a name from a client, shortened.

    >>> quoted("nane")
    "'nane'"
    """
    return repr(name if len(name) <= MOST_CHARACTERS else f"{name[:MOST_CHARACTERS]}...")
