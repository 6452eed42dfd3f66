"""Query parameters and media types of requests for evaluations."""

from collections.abc import Mapping, Sequence

from service.engine.bootstrap import MOST_REPLICATES, REPLICATES, Asked
from service.evaluations.results import Selection, selected
from service.evaluations.spec import Spec
from service.problems import Fault, Invalid, UnsupportedMedia, pointer, quoted
from service.wire.evaluation_parts import Media

RESULTS = ("metrics", "slices", "interval", "replicates", "seed", "against")
ROWS = ("worst", "limit")
LIST = ("limit", "cursor")
PAGE, MOST_ON_PAGE = 100, 1000
ROWS_SHOWN, MOST_ROWS_SHOWN = 20, 1000
MEDIA: Mapping[str, Media] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
}
MOST_DIGITS = 16


def media_of(headers: Mapping[bytes, bytes], known: Sequence[Media] = ("json", "ndjson", "csv")) -> Media:
    """Return the media type of a body, JSON by default.

    Raises:
        UnsupportedMedia: it is another one, or not in UTF-8.
    """
    written = headers.get(b"content-type", b"application/json").decode("latin-1")
    media, *parameters = (part.strip().lower() for part in written.split(";"))
    charset = next(
        (one.partition("=")[2].strip('"') for one in parameters if one.startswith("charset=")), "utf-8"
    )
    found = MEDIA.get(media)
    if found is not None and found in known and charset in ("utf-8", "utf8", "us-ascii"):
        return found
    names = " or ".join(name for name, one in MEDIA.items() if one in known and name != "application/jsonl")
    raise UnsupportedMedia(f"Expected Content-Type: {names} in UTF-8; got {quoted(written)}.")


def selection_of(query: Mapping[str, str], spec: Spec, most_slices: int) -> Selection:
    """Return what of an evaluation a query asks for.

    Raises:
        Invalid: it names unknown metrics or columns, or the interval is none; lists every fault.
    """
    names = query.get("metrics")
    measures = selected(spec, None if names is None else _names(names))
    slices = tuple(dict.fromkeys(_names(query.get("slices", ""))))
    return Selection(measures, slices_of(spec, slices), _interval(query), most_slices)


def slices_of(spec: Spec, names: Sequence[str]) -> tuple[str, ...]:
    """Return columns of slices.

    Raises:
        Invalid: the spec has no slices of a column.
    """
    known = f"one of {', '.join(spec.slices)}" if spec.slices else "no columns, as the spec has no slices"
    if unknown := [name for name in names if name not in spec.slices]:
        details = [f"Expected {known}; got {quoted(name)}." for name in unknown]
        raise Invalid(*(Fault(pointer("query", "slices"), "unknown", detail) for detail in details))
    return tuple(names)


def count_of(query: Mapping[str, str], usual: int, most: int) -> int:
    """Return the number of things to list.

    Raises:
        Invalid: it is no number of things, or too large.
    """
    return _whole(query, "limit", usual, 1, most)


def required(query: Mapping[str, str], name: str, expected: str) -> str:
    """Return a parameter that must be there.

    Raises:
        Invalid: it is not.
    """
    if found := query.get(name):
        return found
    raise Invalid(Fault(pointer("query", name), "missing", f"Expected {expected}; got nothing."))


def _interval(query: Mapping[str, str]) -> Asked | None:
    """Return the interval that a query asks for."""
    replicates = _whole(query, "replicates", REPLICATES, 1, MOST_REPLICATES)
    seed = _whole(query, "seed", 0, 0, 2**53)
    if (text := query.get("interval")) is None:
        return None
    try:
        level = float(text)
    except ValueError:
        level = 0.0
    if not 0 < level < 1:
        detail = f"Expected a number between 0 and 1; got {quoted(text)}."
        raise Invalid(Fault(pointer("query", "interval"), "value", detail))
    return Asked(level, replicates, seed)


def _whole(query: Mapping[str, str], name: str, usual: int, least: int, most: int) -> int:
    """Return an integer in a range."""
    if (text := query.get(name)) is None:
        return usual
    if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS and least <= int(text) <= most:
        return int(text)
    detail = f"Expected an integer from {least} to {most}; got {quoted(text)}."
    raise Invalid(Fault(pointer("query", name), "value", detail))


def _names(text: str) -> list[str]:
    """Return names that commas separate."""
    return [name for name in text.split(",") if name]
