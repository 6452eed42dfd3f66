"""NaN and Infinity as clients of the Open Inference Protocol write them, which JSON does not have."""

MOST_QUOTES = 1 << 18
"""Quotes of a body that is mended: no request of use has as many strings."""


def spelled(body: bytes) -> bytes | None:
    """Return a body whose NaN and Infinity stand in quotes; None where it has none, or a great many strings.

    >>> spelled(b'{"NaN": [NaN, -Infinity]}')
    b'{"NaN": ["NaN", "-Infinity"]}'
    """
    if (b"NaN" not in body and b"Infinity" not in body) or body.count(b'"') > MOST_QUOTES:
        return None
    inside = False
    parts: list[bytes] = []
    for part in body.split(b'"'):
        parts.append(part if inside else _quoted(part))
        # a quote behind an odd number of backslashes does not end a string
        inside = not inside or (len(part) - len(part.rstrip(b"\\"))) % 2 == 1
    return b'"'.join(parts)


def _quoted(part: bytes) -> bytes:
    """Put quotes around the words in what lies between strings."""
    quoted = part.replace(b"NaN", b'"NaN"').replace(b"Infinity", b'"Infinity"')
    return quoted.replace(b'-"Infinity"', b'"-Infinity"')
