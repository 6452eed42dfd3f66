"""The items of a batch, or the lines of a stream: read one by one, like ones checked together."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.catalogue.registry import AnyLoss, Catalogues, Unknown
from service.engine.bind import bind, bind_alike
from service.engine.call import Call
from service.engine.composition import BatchPlanner, Planner
from service.engine.fuse import likeness
from service.engine.measure import Measurement
from service.engine.stack import Part, stacked
from service.problems import MOST_FAULTS, Fault, Invalid, NotFound, Problem, TooLarge, quoted
from service.wire import compose, json, metrics, request
from service.wire.alike import Taken, inputs_of, is_exact, stacks, take
from service.wire.compose import DecodedComposition, read_composition
from service.wire.defaults import Defaults
from service.wire.document import Document
from service.wire.envelope import Encoding, read_envelope
from service.wire.metrics import read_measurement
from service.wire.request import Read

FIELDS = ("id", "loss", "metric", "terms", *request.FIELDS)
METRIC_FIELDS = ("id", "metric", *metrics.FIELDS)
COMPOSITION_FIELDS = ("id", *compose.FIELDS)
EVERY = tuple(dict.fromkeys((*FIELDS, *METRIC_FIELDS, *COMPOSITION_FIELDS)))
MOST_REPORTED = 1000
"""Most faults reported in full over all items; further items report only their first."""
MOST_COMPARED = 100
"""Most unknown losses for which the closest names are listed; each takes 0.8 ms to compare with all others."""


@dataclass(frozen=True, slots=True)
class Group:
    """Valid items that are alike: their places, their calls, one of these, and the format of their answers."""

    places: Sequence[int]
    part: Part
    like: Call
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of a batch: each is in a group, names a metric, is a composition, or has a problem.

    ``echoes`` hold their ids.
    """

    echoes: Sequence[Mapping[str, Any]]
    groups: Sequence[Group]
    problems: Mapping[int, Problem]
    measurements: Mapping[int, Measurement] = field(default_factory=dict[int, Measurement])
    compositions: Mapping[int, DecodedComposition] = field(default_factory=dict[int, DecodedComposition])


@dataclass(frozen=True, slots=True)
class _Kind:
    """Items that differ only in their numbers: the first one as read, the places of all, the values taken."""

    first: Read
    places: list[int] = field(default_factory=list[int])
    taken: list[Taken] = field(default_factory=list[Taken])


class Items:
    """Reads items one after another. Documents are not kept: tensors own their memory."""

    def __init__(self, catalogues: Catalogues, defaults: Defaults, planner: Planner) -> None:
        self._catalogue = catalogues.losses
        self._metrics = catalogues.metrics
        self._planner = BatchPlanner(planner)
        self._measurements: dict[int, Measurement] = {}
        self._compositions: dict[int, DecodedComposition] = {}
        self._defaults = defaults
        self._echoes: list[Mapping[str, Any]] = []
        self._kinds: dict[Hashable, _Kind] = {}
        self._calls: defaultdict[Hashable, list[tuple[int, Call]]] = defaultdict(list)
        self._encodings: dict[Hashable, Encoding] = {}
        self._problems: dict[int, Problem] = {}
        self._reported = 0
        self._compared = 0
        self._last: tuple[Document, Taken] | None = None
        self._kind: _Kind | None = None

    def __len__(self) -> int:
        return len(self._echoes)

    def add(self, document: Document, item: Any) -> None:
        """Read the next item.

        Raises:
            Unreadable: a part of the document that is parsed only here is not JSON.
        """
        place, echo = len(self._echoes), dict[str, Any]()
        try:
            like = self._last[1] if self._last and self._last[0] is document and document.alike else None
            if taken := take(document, item, self._catalogue, self._defaults.loss, like):
                echo |= taken.echo
                self._keep(place, taken, document, item)
                self._last = document, taken
            elif type(item) is json.OBJECT and item.get("metric") is not None:
                self._measurements[place] = self._read_metric(document, item, echo)
            elif type(item) is json.OBJECT and item.get("terms") is not None:
                self._compositions[place] = self._read_composition(document, item, echo)
            else:
                self._bind(place, self._read(document, item, echo))
        except (Invalid, NotFound, TooLarge) as problem:
            self._refuse(place, problem)
        self._echoes.append(echo)

    def refuse(self, problem: Problem) -> None:
        """Record the problem of the next item."""
        self._echoes.append({})
        self._refuse(len(self) - 1, problem)

    def arranged(self) -> Batch:
        """Return all items, like ones in groups."""
        self._last = self._kind = None
        groups: list[Group] = []
        for kind in self._kinds.values():
            first = kind.first
            if len(kind.places) == 1:
                self._bind(kind.places[0], first)
                continue
            if not first.faults and (stack := bind_alike(first.request, stacks(kind.taken))):
                groups.append(Group(kind.places, stack, stack.like, first.encoding))
                continue
            for place, taken in zip(kind.places, kind.taken, strict=True):
                asked = first.request._replace(inputs=inputs_of(taken))
                self._bind(place, first._replace(request=asked))
        for like, calls in self._calls.items():
            call = calls[0][1]
            part: Part = stacked([call for _, call in calls]) if len(calls) > 1 else call
            groups.append(Group([place for place, _ in calls], part, call, self._encodings[like]))
        return Batch(self._echoes, groups, self._problems, self._measurements, self._compositions)

    def _keep(self, place: int, taken: Taken, document: Document, item: Any) -> None:
        """Add the values of an item to its kind; the first item of a kind is read in full."""
        kind = self._kind if self._last and taken.kind is self._last[1].kind else self._kinds.get(taken.kind)
        if kind is None:
            kind = self._kinds[taken.kind] = _Kind(self._read(document, item, {}, taken.loss))
        self._kind = kind
        kind.places.append(place)
        kind.taken.append(taken)

    def _read(self, document: Document, item: Any, echo: dict[str, Any], loss: AnyLoss | None = None) -> Read:
        """Read one item, and store its id in its echo. Its ``loss`` may be known.

        Raises:
            Invalid: it is not an object, or has no loss.
            NotFound: there is no such loss.
            Unreadable: a part of it is not JSON.
        """
        if type(item) is not json.OBJECT:
            raise Invalid(Fault("", "type", f"Expected an object; got {json.show(item)}."))
        fields, faults = document.given(item, FIELDS)
        faults += _echoed(fields, echo)
        name = fields.pop("loss", self._defaults.loss)
        if not isinstance(name, str):
            got = "nothing" if name is None else json.show(name)
            raise Invalid(*faults, Fault("/loss", "missing", f"Expected the name of a loss; got {got}."))
        if loss is not None or (loss := self._catalogue.find(name)) is not None:
            return request.read(document, loss, fields, faults, self._defaults)
        self._compared += 1
        closest = self._catalogue.closest(name) if self._compared <= MOST_COMPARED else []
        such = f", such as {', '.join(closest)}" if closest else ""
        detail = f"Expected the name of a loss{such}; got {quoted(name)}."
        known = [Fault("/loss", "unknown", detail), *faults, *read_envelope(fields)[1]]
        raise NotFound(str(Unknown(name, closest)), *known[:MOST_FAULTS])

    def _read_metric(self, document: Document, item: Any, echo: dict[str, Any]) -> Measurement:
        """Read an item that names a metric, and store its id in its echo.

        Raises:
            Invalid: it is not valid.
            NotFound: there is no such metric.
            Unreadable: a part of it is not JSON.
        """
        fields, faults = document.given(item, METRIC_FIELDS, others=EVERY)
        faults += _echoed(fields, echo)
        name = fields.pop("metric", None)
        if isinstance(name, str) and (metric := self._metrics.find(name)) is not None:
            return read_measurement(document, metric, fields, faults)
        if not isinstance(name, str):
            raise Invalid(
                *faults, Fault("/metric", "type", f"Expected the name of a metric; got {json.show(name)}.")
            )
        detail = f"Expected the name of a metric; got {quoted(name)}."
        raise NotFound(str(Unknown(name, [], "metric")), Fault("/metric", "unknown", detail), *faults)

    def _read_composition(self, document: Document, item: Any, echo: dict[str, Any]) -> DecodedComposition:
        """Read an item that is a composition, and store its id in its echo.

        Raises:
            Invalid: it is not valid.
            TooLarge: its work is over the limit.
            Unreadable: a part of it is not JSON.
        """
        fields, faults = document.given(item, COMPOSITION_FIELDS, others=EVERY)
        faults += _echoed(fields, echo)
        usual = self._defaults.envelope
        return read_composition(document, self._catalogue, fields, faults, self._planner, usual)

    def _bind(self, place: int, read: Read) -> None:
        """Check an item against its loss."""
        try:
            call = bind(read.request, read.faults)
        except Invalid as problem:
            self._refuse(place, problem)
            return
        like = likeness(call) if call.key is None else call.key, read.encoding
        self._calls[like].append((place, call))
        self._encodings[like] = read.encoding

    def _refuse(self, place: int, problem: Problem) -> None:
        """Record an item's problem; if there were many faults before, only its first one."""
        if self._reported >= MOST_REPORTED and len(problem.faults) > 1:
            problem.detail += f" {len(problem.faults) - 1} more faults of this item are not listed."
            problem.faults = problem.faults[:1]
        self._reported += len(problem.faults)
        # the traceback would keep the document alive
        self._problems[place] = problem.with_traceback(None)


def _echoed(fields: dict[str, Any], echo: dict[str, Any]) -> list[Fault]:
    """Move an id into the echo of its item; return its fault if it could not be echoed exactly."""
    if "id" not in fields:
        return []
    identity = fields.pop("id")
    if not is_exact(identity):
        return [_wrong_id(identity)]
    echo["id"] = identity
    return []


def _wrong_id(identity: Any) -> Fault:
    """Return the fault of an id that could not be echoed exactly."""
    expected = "a string or a number"
    if isinstance(identity, float):
        expected = "a string, or a number that float64 holds exactly"
    elif json.is_span(identity):
        expected = "a shorter string"
    return Fault("/id", "type", f"Expected {expected}; got {json.show(identity)}.")
