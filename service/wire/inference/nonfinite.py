"""NaN and Infinity in JSON, as clients of the Open Inference Protocol write them although JSON forbids it."""

MOST_QUOTES = 1 << 18
"""Most quotes in a body that is repaired: no sensible request has as many strings."""


def spelled(body: bytes) -> bytes | None:
    """Return a body with its NaN and Infinity quoted; None if it has none, or too many strings.

    >>> spelled(b'{"NaN": [NaN, -Infinity]}')
    b'{"NaN": ["NaN", "-Infinity"]}'
    """
    if (b"NaN" not in body and b"Infinity" not in body) or body.count(b'"') > MOST_QUOTES:
        return None
    inside = False
    parts: list[bytes] = []
    for part in body.split(b'"'):
        parts.append(part if inside else _quoted(part))
        # a quote after an odd number of backslashes does not end a string
        inside = not inside or (len(part) - len(part.rstrip(b"\\"))) % 2 == 1
    return b'"'.join(parts)


def _quoted(part: bytes) -> bytes:
    """Quote the words in a part outside strings."""
    quoted = part.replace(b"NaN", b'"NaN"').replace(b"Infinity", b'"Infinity"')
    return quoted.replace(b'-"Infinity"', b'"-Infinity"')
