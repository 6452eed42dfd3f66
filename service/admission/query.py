"""Query parameters: unknown ones are refused, because ignoring them would mislead."""

from collections import Counter
from urllib.parse import parse_qsl

from starlette.types import Scope

from service.problems import Fault, Invalid, pointer, quoted


def read_query(scope: Scope, *known: str) -> dict[str, str]:
    """Return the query parameters of a request.

    Raises:
        Invalid: one is unknown or repeated.
    """
    if not (text := scope.get("query_string")):
        return {}
    sent = parse_qsl(text.decode("latin-1"), keep_blank_values=True)
    times = Counter(name for name, _ in sent)
    expected = f"one of the query parameters {', '.join(known)}" if known else "no query parameters"
    faults = [
        Fault(pointer("query", name), "unknown", f"Expected {expected}; got {quoted(name)}.")
        if name not in known
        else Fault(pointer("query", name), "duplicate", f"Expected the parameter once; got it {count} times.")
        for name, count in times.items()
        if name not in known or count > 1
    ]
    if faults:
        raise Invalid(*faults)
    return dict(sent)
