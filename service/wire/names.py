"""Names that clients choose: of evaluations, parts, and metrics in results."""

import re

from service.problems import Fault, Invalid, quoted

NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
NAMED = "1 to 200 letters, digits, '.', '_' or '-', but neither '.' nor '..'"


def valid_name(name: str, what: str) -> str:
    """Return the name of an evaluation or the key of a part.

    Raises:
        Invalid: it has other characters, or too many.
    """
    # clients remove dots alone from paths
    if NAME.fullmatch(name) and name not in (".", ".."):
        return name
    raise Invalid(Fault("", "name", f"Expected {NAMED} as {what}; got {quoted(name)}."))
