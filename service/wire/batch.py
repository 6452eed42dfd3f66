"""Batches: many items in one document, each read as a request of its own, so that a bad one fails alone."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import orjson
import torch

from service.catalogue.registry import Catalogue, UnknownLoss
from service.engine.bind import bind_alike
from service.engine.call import Evaluation
from service.problems import Fault, Invalid, NotFound, Problem, TooLarge
from service.wire import json, native

FIELDS = ("items", "defaults")
DEFAULTS = ("loss", "params", *native.EXPECTED)
ITEM = ("id", "loss", *native.FIELDS)
Read = tuple[Mapping[str, Any], native.Reader | Problem]
"""An item's id, where it has one, and the reader of the rest, or the problem with it."""


@dataclass(frozen=True, slots=True)
class Item:
    """What became of an item: a valid call, or the problem with it. ``echo`` holds its id where it has one."""

    echo: Mapping[str, Any]
    decoded: native.Decoded | None
    problem: Problem | None


def decode(catalogue: Catalogue, body: bytes, most: int) -> list[Item]:
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
    read = [_read(catalogue, item, defaults) for item in items]
    readers = [reader for _, reader in read if isinstance(reader, native.Reader)]
    if json.count_brackets(body) != 1 + sum(reader.arrays for reader in readers):
        for reader in readers:
            reader.refuse_hidden_arrays()
    return _bind(read)


def decode_lines(catalogue: Catalogue, lines: Sequence[bytes]) -> list[Item]:
    """Read lines, each of which is an item."""
    return _bind([_read_line(catalogue, line) for line in lines])


def encode(items: Sequence[Item], results: Sequence[Evaluation | Problem], device: torch.device) -> bytes:
    """Write what became of the items, in their order."""
    pairs = enumerate(zip(items, results, strict=True))
    written = [result(item, became, f"/v1/batch#/items/{place}", device) for place, (item, became) in pairs]
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
        "summary": {name: {"count": len(v), "mean": sum(v) / len(v)} for name, v in values.items()},
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_line(item: Item, became: Evaluation | Problem, number: int, device: torch.device) -> bytes:
    """Write what became of one line; a bad one is told by its number, from 1."""
    written = result(item, became, f"/v1/batch#line={number}", device)
    if written["status"] == "error":
        written["line"] = number
    return orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def result(item: Item, became: Evaluation | Problem, instance: str, device: torch.device) -> dict[str, Any]:
    """Return the members of one result."""
    problem = became if isinstance(became, Problem) else item.problem
    if problem is not None or isinstance(became, Problem) or item.decoded is None:
        assert problem is not None
        return {**item.echo, "status": "error", "error": problem.document(instance)}
    return {**item.echo, "status": "ok", **native.answer(item.decoded, became, device)}


def _defaults(value: Any) -> tuple[Mapping[str, Any], list[Fault]]:
    """Read what items have that do not say otherwise."""
    if value is None:
        return {}, []
    if not json.is_object(value):
        return {}, [Fault("/defaults", "type", f"Expected an object; got {json.show(value)}.")]
    return json.members(value, DEFAULTS, "defaults")


def _read(catalogue: Catalogue, value: Any, defaults: Mapping[str, Any]) -> Read:
    """Read one item up to the point where all are known."""
    if not json.is_object(value):
        return {}, Invalid(Fault("", "type", f"Expected an object; got {json.show(value)}."))
    fields, faults = json.members(value, ITEM)
    echo: dict[str, Any] = {}
    if "id" in fields:
        identity = fields.pop("id")
        if isinstance(identity, str | int | float) and not isinstance(identity, bool):
            echo["id"] = identity
        else:
            detail = f"Expected a string or a number; got {json.show(identity)}."
            faults.append(Fault("/id", "type", detail))
    fields = {**defaults, **fields}
    name = fields.pop("loss", None)
    if not isinstance(name, str):
        got = "nothing" if name is None else json.show(name)
        return echo, Invalid(*faults, Fault("/loss", "missing", f"Expected the name of a loss; got {got}."))
    try:
        return echo, native.Reader(catalogue[name], fields, faults)
    except UnknownLoss as error:
        return echo, NotFound(str(error))


def _read_line(catalogue: Catalogue, line: bytes) -> Read:
    """Read one line up to the point where all of a window are known."""
    try:
        echo, reader = _read(catalogue, json.parse(line, alone=True), {})
    except Problem as problem:
        return {}, problem
    if isinstance(reader, native.Reader) and json.count_brackets(line) != reader.arrays:
        reader.refuse_hidden_arrays()
    return echo, reader


def _bind(read: Sequence[Read]) -> list[Item]:
    """Check items against their losses: those that differ in values alone all at once, where that settles it."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, (_, reader) in enumerate(read):
        key = reader.likeness() if isinstance(reader, native.Reader) else None
        groups[place if key is None else key].append(place)
    items: dict[int, Item] = {}
    for places in groups.values():
        readers = [reader for place in places if isinstance(reader := read[place][1], native.Reader)]
        calls = bind_alike([reader.request for reader in readers]) if len(readers) > 1 else None
        for number, place in enumerate(places):
            echo, reader = read[place]
            if calls is None or isinstance(reader, Problem):
                items[place] = _bind_alone(echo, reader)
            else:
                items[place] = Item(echo, native.Decoded(calls[number], reader.encoding), None)
    return [items[place] for place in range(len(read))]


def _bind_alone(echo: Mapping[str, Any], reader: native.Reader | Problem) -> Item:
    """Check an item against its loss."""
    if isinstance(reader, Problem):
        return Item(echo, None, reader)
    try:
        return Item(echo, reader.bind(), None)
    except Problem as problem:
        return Item(echo, None, problem)
