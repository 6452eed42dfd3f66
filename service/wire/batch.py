"""Batches: many items in one document, or one a line. Each is read as a separate request, so that each fails alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from math import fsum, isfinite
from typing import Any

import orjson

from service.catalogue.registry import Catalogues
from service.engine.call import Evaluation
from service.engine.composition import Planner
from service.engine.observer import NOBODY, Observer
from service.engine.stack import Evaluations
from service.problems import Fault, Invalid, Problem, TooLarge
from service.wire import json, native, written
from service.wire.defaults import NONE, read_defaults
from service.wire.document import Document, read_object
from service.wire.items import Batch, Group, Items
from service.wire.text import Body

FIELDS = ("items", "defaults")
TOGETHER = 8
"""Results written at once; none of their tensors is longer than a piece."""

Outcome = Sequence[Evaluation | Problem]
"""The outcomes of some items of a group, in its order."""
Apart = Mapping[int, Mapping[str, Any] | Problem]
"""The answers, by their places, to the items that are not calls of losses: metrics and compositions."""
NONE_APART: Apart = {}


def decode_batch(catalogues: Catalogues, body: Body, most: int, planner: Planner) -> Batch:
    """Read a batch.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: the envelope is not valid. Faults of items become their results.
        TooLarge: there are more than ``most`` items.
    """
    document = read_object(body)
    fields, faults = document.members(document.root, FIELDS)
    defaults, wrong = read_defaults(document, fields.get("defaults"), catalogues.losses)
    items: Any = fields.get("items")
    if not json.is_array(items):
        got = json.show(items) if "items" in fields else "nothing"
        faults.append(Fault("/items", "type", f"Expected an array of items; got {got}."))
    if faults or wrong:
        raise Invalid(*faults, *wrong)
    found = Items(catalogues, defaults, planner)
    for part, some in document.elements(items):
        if (count := len(found) + len(some)) > most:
            got = f"at least {count}" if json.is_span(items) else str(count)
            raise TooLarge(f"Expected at most {most} items (LOSSD_MAX_BATCH_ITEMS); got {got}.")
        for item in some:
            found.add(part, item)
    defaults.refuse_useless()
    return found.arranged()


def decode_lines(catalogues: Catalogues, lines: Sequence[bytes | Problem], planner: Planner) -> Batch:
    """Read lines; each is an item, or the problem that it has."""
    found = Items(catalogues, NONE, planner)
    for line in lines:
        try:
            if isinstance(line, Problem):
                raise line
            document = Document(line)
            found.add(document, document.root)
        except Problem as problem:
            found.refuse(problem)
    return found.arranged()


def batch_parts(
    batch: Batch,
    outcomes: Sequence[Sequence[Outcome]],
    observer: Observer = NOBODY,
    apart: Apart = NONE_APART,
) -> list[bytes]:
    """Write the results of a batch in parts, each of which blocks the interpreter only briefly."""
    found = results(batch, outcomes, lambda place: f"/v1/batch#/items/{place}", observer, apart)
    values: dict[str, list[float]] = {}
    for one in found:
        value = one.get("value")
        if "loss" in one and isinstance(value, int | float) and isfinite(value):
            values.setdefault(one["loss"], []).append(value)
    succeeded = sum(one["status"] == "ok" for one in found)
    totals = {
        "succeeded": succeeded,
        "failed": len(found) - succeeded,
        "summary": {name: {"count": len(v), "mean": _mean(v)} for name, v in values.items()},
    }
    return [*written.joined(chain([b'{"results":['], _each(found), [b"],", orjson.dumps(totals)[1:]]))]


def _each(found: Sequence[dict[str, Any]]) -> Iterator[written.Part]:
    """Yield the JSON of results, separated by commas, a few at a time."""
    for start in range(0, len(found), TOGETHER):
        first, *others = written.parts(found[start : start + TOGETHER])
        *others, last = [first[1:], *others]
        yield from (b"," if start else b"", *others, last[:-1])


def _mean(values: Sequence[float]) -> float:
    """Return the mean of finite numbers, also if their sum overflows.

    >>> _mean([1.7e308, 1.7e308]), _mean([1, 2])
    (1.7e+308, 1.5)
    """
    mean = sum(values) / len(values)
    return mean if isfinite(mean) else fsum(value / len(values) for value in values)


def encode_lines(
    batch: Batch,
    outcomes: Sequence[Sequence[Outcome]],
    numbers: Sequence[int],
    observer: Observer = NOBODY,
    apart: Apart = NONE_APART,
) -> bytes:
    """Write the results of lines, one a line; a bad line is identified by its number, from 1."""
    found = results(batch, outcomes, lambda place: f"/v1/batch#line={numbers[place]}", observer, apart)
    for number, one in zip(numbers, found, strict=True):
        if one["status"] == "error":
            one["line"] = number
    return b"".join([part for one in found for part in (*written.parts(one), b"\n")])


def results(
    batch: Batch,
    outcomes: Sequence[Sequence[Outcome]],
    instance: Callable[[int], str],
    observer: Observer,
    apart: Apart,
) -> list[dict[str, Any]]:
    """Return the members of each item's result; ``instance`` formats the place of an item in its problem."""
    members: list[dict[str, Any]] = [{}] * len(batch.echoes)
    for place, problem in batch.problems.items():
        members[place] = _refused(problem, instance(place))
    for place, found in apart.items():
        refused = isinstance(found, Problem)
        members[place] = _refused(found, instance(place)) if refused else {"status": "ok", **found}
    for group, pieces in zip(batch.groups, outcomes, strict=True):
        places = iter(group.places)
        for answer in _answers(group, pieces, observer):
            place = next(places)
            members[place] = _refused(answer, instance(place)) if isinstance(answer, Problem) else answer
    return [{**echo, **found} for echo, found in zip(batch.echoes, members, strict=True)]


def _answers(
    group: Group, pieces: Sequence[Outcome], observer: Observer
) -> Iterator[dict[str, Any] | Problem]:
    """Yield the members of each answer of a group, or its problem."""
    like = group.like
    for piece in pieces:
        if isinstance(piece, Evaluations):
            for answer in native.answers(like, group.encoding, piece, observer):
                yield {"status": "ok", **answer}
        else:
            for became in piece:
                if isinstance(became, Problem):
                    yield became
                else:
                    answer = native.answer(native.Decoded(like, group.encoding), became, observer)
                    yield {"status": "ok", **answer}


def _refused(problem: Problem, instance: str) -> dict[str, Any]:
    """Return the members of the result of a failed item."""
    return {"status": "error", "error": problem.document(instance)}
