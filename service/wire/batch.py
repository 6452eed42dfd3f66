"""Batches: many items in one document, or one a line, each read as a request of its own: a bad one fails alone."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import fsum, isfinite
from typing import Any, NamedTuple

import orjson
import torch

from service.catalogue.registry import AnyLoss, Catalogue, UnknownLoss
from service.engine.bind import bind_alike
from service.engine.call import Evaluation
from service.engine.fuse import likeness
from service.engine.stack import Evaluations, Part, Stack, stacked
from service.problems import MOST_FAULTS, Fault, Invalid, NotFound, Problem, TooLarge, quoted
from service.wire import json, native
from service.wire.alike import Taken, stacks, take

FIELDS = ("items", "defaults")
DEFAULTS = ("loss", "params", *native.EXPECTED)
ITEM = ("id", "loss", *native.FIELDS)
NO_DEFAULTS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Group:
    """Valid items that are alike: their places, the calls that they make, and how their answers are written."""

    places: Sequence[int]
    part: Part
    encoding: native.Encoding


@dataclass(frozen=True, slots=True)
class Batch:
    """What items ask for: each is in a group, or has a problem. ``echoes`` hold the ids of those that have one."""

    echoes: Sequence[Mapping[str, Any]]
    groups: Sequence[Group]
    problems: Mapping[int, Problem]


Outcome = Sequence[Evaluation | Problem]
"""What became of the items of a group, in its order, or of a few of them."""


class Read(NamedTuple):
    """An item that was read: its id where it has one, and the reader of the rest, or the problem with it.

    ``brackets`` is how many of them its JSON has if no array hides where a number belongs.
    """

    echo: Mapping[str, Any]
    reader: native.Reader | Problem
    brackets: int


def decode(catalogue: Catalogue, body: json.Body, most: int) -> Batch:
    """Read a batch.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: what holds the items does not fit; faults of an item are its own.
        TooLarge: there are more than ``most`` items.
    """
    document = json.parse(body)
    if not json.is_object(document):
        raise Invalid(Fault("", "type", f"Expected a JSON object; got {json.show(document)}."))
    fields, faults = json.members(document, FIELDS)
    defaults, default_faults = _defaults(fields.get("defaults"))
    items: Any = fields.get("items")
    if not json.is_array(items):
        got = json.show(items) if "items" in fields else "nothing"
        faults.append(Fault("/items", "type", f"Expected an array of items; got {got}."))
    if faults or default_faults:
        raise Invalid(*faults, *default_faults)
    if (count := json.length(items)) > most:
        raise TooLarge(f"Expected at most {most} items (LOSSD_MAX_BATCH_ITEMS); got {count}.")
    others = 1 + json.brackets(fields.get("defaults"))
    return _decode_items(catalogue, [*items], defaults, json.count_brackets(body) - others)


def decode_lines(catalogue: Catalogue, lines: Sequence[bytes | Problem]) -> Batch:
    """Read lines, each of which is an item, or could not be had."""
    taken = [_take_line(catalogue, line) for line in lines]
    return _arrange(taken, lambda place: _read_line(catalogue, lines[place]))


def encode(batch: Batch, outcomes: Sequence[Sequence[Outcome]], device: torch.device) -> bytes:
    """Write what became of the items, in their order; each group's outcomes are in pieces."""
    written = results(batch, outcomes, lambda place: f"/v1/batch#/items/{place}", device)
    values: dict[str, list[float]] = {}
    for one in written:
        value = one.get("value")
        if isinstance(value, int | float) and isfinite(value):
            values.setdefault(one["loss"], []).append(value)
    succeeded = sum(one["status"] == "ok" for one in written)
    body = {
        "results": written,
        "succeeded": succeeded,
        "failed": len(written) - succeeded,
        "summary": {name: {"count": len(v), "mean": _mean(v)} for name, v in values.items()},
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _mean(values: Sequence[float]) -> float:
    """Return the mean of finite numbers, which is finite also where their sum is not.

    >>> _mean([1.7e308, 1.7e308]), _mean([1, 2])
    (1.7e+308, 1.5)
    """
    mean = sum(values) / len(values)
    return mean if isfinite(mean) else fsum(value / len(values) for value in values)


def encode_lines(
    batch: Batch, outcomes: Sequence[Sequence[Outcome]], numbers: Sequence[int], device: torch.device
) -> bytes:
    """Write what became of lines, a line each; a bad one is told by its number, from 1."""
    written = results(batch, outcomes, lambda place: f"/v1/batch#line={numbers[place]}", device)
    for number, one in zip(numbers, written, strict=True):
        if one["status"] == "error":
            one["line"] = number
    return b"".join(
        [orjson.dumps(one, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE) for one in written]
    )


def results(
    batch: Batch, outcomes: Sequence[Sequence[Outcome]], instance: Callable[[int], str], device: torch.device
) -> list[dict[str, Any]]:
    """Return the members of each item's result; ``instance`` tells by its place which item a problem is with."""
    members: list[dict[str, Any]] = [{}] * len(batch.echoes)
    for place, problem in batch.problems.items():
        members[place] = _refused(problem, instance(place))
    for group, pieces in zip(batch.groups, outcomes, strict=True):
        places = iter(group.places)
        for answer in _answers(group, pieces, device):
            place = next(places)
            members[place] = _refused(answer, instance(place)) if isinstance(answer, Problem) else answer
    return [{**echo, **found} for echo, found in zip(batch.echoes, members, strict=True)]


def _answers(
    group: Group, pieces: Sequence[Outcome], device: torch.device
) -> Iterator[dict[str, Any] | Problem]:
    """Yield the members of each answer of a group, or the problem that there was."""
    like = group.part.like if isinstance(group.part, Stack) else group.part
    for piece in pieces:
        if isinstance(piece, Evaluations):
            for answer in native.answers(like, group.encoding, piece, device):
                yield {"status": "ok", **answer}
        else:
            for became in piece:
                if isinstance(became, Problem):
                    yield became
                else:
                    answer = native.answer(native.Decoded(like, group.encoding), became, device)
                    yield {"status": "ok", **answer}


def _refused(problem: Problem, instance: str) -> dict[str, Any]:
    """Return the members of the result of an item that has a problem."""
    return {"status": "error", "error": problem.document(instance)}


def _defaults(value: Any) -> tuple[Mapping[str, Any], list[Fault]]:
    """Read what items have that do not say otherwise."""
    if value is None:
        return {}, []
    if not json.is_object(value):
        return {}, [Fault("/defaults", "type", f"Expected an object; got {json.show(value)}.")]
    found, faults = json.members(value, DEFAULTS, "defaults")
    if "loss" in found and not isinstance(found["loss"], str):
        detail = f"Expected the name of a loss; got {json.show(found['loss'])}."
        faults.append(Fault("/defaults/loss", "type", detail))
    if "params" in found and not json.is_object(found["params"]):
        detail = f"Expected an object; got {json.show(found['params'])}."
        faults.append(Fault("/defaults/params", "type", detail))
    return found, faults + native.read_envelope(found, "defaults")[1]


def _decode_items(
    catalogue: Catalogue, items: Sequence[Any], defaults: Mapping[str, Any], brackets: int
) -> Batch:
    """Read items whose JSON has so many brackets."""

    @cache
    def read(place: int) -> Read:
        return _read(catalogue, items[place], defaults)

    taken = [take(item, _loss(catalogue, item, defaults)) for item in items]
    if brackets == sum(one.brackets if one else read(place).brackets for place, one in enumerate(taken)):
        return _arrange(taken, read)

    # an array hides where a number belongs
    def read_closely(place: int) -> Read:
        reader = read(place).reader
        if isinstance(reader, native.Reader):
            reader.refuse_hidden_arrays()
        return read(place)

    return _arrange([None] * len(items), read_closely)


def _loss(catalogue: Catalogue, item: Any, defaults: Mapping[str, Any]) -> AnyLoss | None:
    """Return the loss that an item names, if it does and there is one."""
    return catalogue.find(item.get("loss", defaults.get("loss"))) if json.is_object(item) else None


def _read(catalogue: Catalogue, item: Any, defaults: Mapping[str, Any]) -> Read:
    """Read one item up to the point where all are known."""
    if not json.is_object(item):
        problem = Invalid(Fault("", "type", f"Expected an object; got {json.show(item)}."))
        return Read({}, problem, json.brackets(item))
    fields, faults = json.members(item, ITEM)
    echo: dict[str, Any] = {}
    if "id" in fields:
        identity = fields.pop("id")
        if isinstance(identity, str | int | float) and not isinstance(identity, bool):
            echo["id"] = identity
        else:
            detail = f"Expected a string or a number; got {json.show(identity)}."
            faults.append(Fault("/id", "type", detail))
    inherited = {name: value for name, value in defaults.items() if name not in fields}
    fields |= inherited
    name = fields.pop("loss", None)
    try:
        if not isinstance(name, str):
            got = "nothing" if name is None else json.show(name)
            raise Invalid(*faults, Fault("/loss", "missing", f"Expected the name of a loss; got {got}."))
        reader = native.Reader(catalogue[name], fields, faults)
    except UnknownLoss as error:
        closest, got = ", ".join(error.closest), quoted(error.name)
        detail = f"Expected the name of a loss, such as {closest}; got {got}."
        known = [Fault("/loss", "unknown", detail), *faults, *native.read_envelope(fields)[1]]
        return Read(echo, NotFound(str(error), *known[:MOST_FAULTS]), json.brackets(item))
    except Invalid as problem:
        return Read(echo, problem, json.brackets(item))
    if reader.faults:
        # what has a fault is not read to its end
        reader.refuse_hidden_arrays()
        return Read(echo, reader, json.brackets(item))
    others = json.brackets(echo.get("id")) - sum(map(json.brackets, inherited.values()))
    return Read(echo, reader, reader.arrays + others)


def _take_line(catalogue: Catalogue, line: bytes | Problem) -> Taken | None:
    """Take what a line holds, if it is plain."""
    if isinstance(line, Problem):
        return None
    try:
        item = json.parse(line)
        taken = take(item, _loss(catalogue, item, NO_DEFAULTS))
    except Problem:
        return None
    return taken if taken and taken.brackets == json.count_brackets(line) else None


def _read_line(catalogue: Catalogue, line: bytes | Problem) -> Read:
    """Read one line, by a parser of its own: what is read stays there until all lines are known."""
    if isinstance(line, Problem):
        return Read({}, line, 0)
    try:
        found = _read(catalogue, json.parse(line, alone=True), NO_DEFAULTS)
    except Problem as problem:
        return Read({}, problem, 0)
    if isinstance(found.reader, native.Reader) and json.count_brackets(line) != found.brackets:
        found.reader.refuse_hidden_arrays()
    return found


def _arrange(taken: Sequence[Taken | None], read: Callable[[int], Read]) -> Batch:
    """Check items against their losses: those that were taken as one of their kind, the others each by itself."""
    kinds: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, one in enumerate(taken):
        kinds[place if one is None else one.kind].append(place)
    echoes: list[Mapping[str, Any]] = [one.echo if one else NO_DEFAULTS for one in taken]
    groups: list[Group] = []
    problems: dict[int, Problem] = {}
    calls: defaultdict[Hashable, list[tuple[int, native.Decoded]]] = defaultdict(list)
    for places in kinds.values():
        if group := _bind_taken(places, taken, read):
            groups.append(group)
            continue
        for place in places:
            echoes[place], reader, _ = read(place)
            try:
                if isinstance(reader, Problem):
                    raise reader
                decoded = reader.bind()
                calls[likeness(decoded.call), decoded.encoding].append((place, decoded))
            except Problem as problem:
                problems[place] = problem
    for alike in calls.values():
        part = stacked([decoded.call for _, decoded in alike]) if len(alike) > 1 else alike[0][1].call
        groups.append(Group([place for place, _ in alike], part, alike[0][1].encoding))
    return Batch(echoes, groups, problems)


def _bind_taken(
    places: Sequence[int], taken: Sequence[Taken | None], read: Callable[[int], Read]
) -> Group | None:
    """Check several items of one kind by what one of them shares with all; None where that does not settle it."""
    alike = [one for place in places if (one := taken[place])]
    if len(alike) < 2:
        return None
    reader = read(places[0]).reader
    if isinstance(reader, Problem) or reader.faults:
        return None
    stack = bind_alike(reader.request, stacks(alike))
    return Group(places, stack, reader.encoding) if stack else None
