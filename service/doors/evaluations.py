"""Evaluations over HTTP: specs, parts, results, rows, and evaluations that are computed at once and not stored."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.types import Receive, Scope

from service.admission import body, codings, query
from service.catalogue.registry import Catalogues
from service.doors.coded import inflate, json_answer
from service.doors.front import Answer
from service.doors.pipeline import Pipeline, Work
from service.doors.waiting import deadline, wait
from service.engine import cost
from service.engine.lane import Lane
from service.evaluations.results import Selection, named_measure, refuse_incomparable, results_of, worst_of
from service.evaluations.spec import Spec
from service.evaluations.store import EvaluationEntry, Store
from service.settings import Settings
from service.wire import evaluation_answers as answers
from service.wire import evaluation_query as queries
from service.wire.evaluation_parts import PartLimits, decode_part
from service.wire.evaluation_spec import SpecLimits, read_spec, stored_spec
from service.wire.evaluation_stateless import read_stateless
from service.wire.names import valid_name
from service.wire.text import Body
from service.wire.written import joined, parts

T = TypeVar("T")
LOOK_S = 2 * cost.INLINE_S
"""Seconds to look something up in the database: never on the event loop."""
ROW_S = 2e-7
"""Seconds to finish a row of one metric."""
DRAW_S = 2e-8
"""Seconds to draw a row of one metric once more."""
LOOKERS = 4
"""Threads that read from the database."""
ONE = "/v1/evaluations/{name}"


@dataclass(frozen=True, slots=True)
class _Request:
    """A request in progress: its owner, the names in its path, its query, and its body, which decoding takes."""

    work: Work
    owner: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    body: list[Body]

    @property
    def name(self) -> str:
        """The name of the evaluation.

        Raises:
            Invalid: it has characters that no name has.
        """
        return valid_name(self.names["name"], "the name of an evaluation")


class EvaluationRequests:
    """Answers requests for evaluations."""

    def __init__(self, settings: Settings, pipeline: Pipeline, store: Store, catalogues: Catalogues) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.store = store
        self.catalogues = catalogues
        self._lane = Lane("evaluations", LOOKERS)
        self._handlers: Mapping[
            tuple[str, str], tuple[Callable[[_Request], Awaitable[Answer]], tuple[str, ...]]
        ] = {
            ("POST", "/v1/evaluations"): (self._compute, ()),
            ("GET", "/v1/evaluations"): (self._list, queries.LIST),
            ("PUT", ONE): (self._create, ()),
            ("GET", ONE): (self._results, queries.RESULTS),
            ("DELETE", ONE): (self._delete, ()),
            ("PUT", f"{ONE}/parts/{{key}}"): (self._put, ()),
            ("GET", f"{ONE}/rows"): (self._rows, queries.ROWS),
        }

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one request."""
        route = scope["state"]["match"].route
        handle, known = self._handlers[route.method, route.template]
        answer = await handle(await self._begin(scope, receive, known))
        # an answer to HEAD has the headers of one to GET
        return Answer(answer.headers, (), answer.status) if scope["method"] == "HEAD" else answer

    async def _begin(self, scope: Scope, receive: Receive, known: tuple[str, ...]) -> _Request:
        """Accept a request with its body, of any media type.

        Raises:
            Invalid: it has query parameters other than the known ones.
            Unreadable: the body is not in its declared coding, or the deadline is not a number.
            TooLarge: the body is longer than the limit, or declares to be.
            Busy: there is no room for it now.
            ClientGone: the client left before the end.
        """
        asked, state = query.read_query(scope, *known), scope["state"]
        headers, settings = state["headers"], self.settings
        seconds, coding = deadline(headers, settings.deadline_s), codings.of_request(headers)
        buffer = bytearray()
        await body.read_into(buffer, scope, receive, settings)
        work = self.pipeline.begin(scope, receive, len(buffer), seconds)
        if coding and buffer:
            coded, buffer = buffer, bytearray()
            await inflate(self.pipeline, work, coded, coding, buffer, settings.max_body_bytes)
        return _Request(work, state["stages"].key, state["match"].parameters, asked, headers, [buffer])

    async def _create(self, request: _Request) -> Answer:
        """Create an evaluation, unless it is there."""
        queries.media_of(request.headers, ("json",))
        limits = SpecLimits(self.settings.evaluation_max_metrics, self.settings.evaluation_max_expires_s)

        def submit() -> Future[Any]:
            spec = read_spec(request.body.pop(), self.catalogues, limits)
            return self.store.create(request.owner, request.name, spec)

        entry, new = await self._stored(request, submit)
        members = {**answers.entry_answer(entry), "spec": entry.document}
        return self._json(request, members, 201 if new else 200)

    async def _put(self, request: _Request) -> Answer:
        """Store a part."""
        media = queries.media_of(request.headers)
        key = valid_name(request.names["key"], "the key of a part")
        entry, spec = await self._spec(request, request.name)
        limits = PartLimits(self.pipeline.queue.device, self.settings.max_work)

        def submit() -> Future[Any]:
            part = decode_part(spec, key, request.body.pop(), media, limits)
            return self.store.put(request.owner, entry, spec, key, part)

        stored = await self._stored(request, submit)
        return self._json(request, answers.part_answer(stored), 201 if stored.first else 200)

    async def _results(self, request: _Request) -> Answer:
        """Compute the results of all rows that are there now."""
        entry, spec = await self._spec(request, request.name)
        asked = queries.selection_of(request.query, spec, self.settings.evaluation_max_slices)
        other: EvaluationEntry | None = None
        if (against := request.query.get("against")) is not None:
            other, there = await self._spec(request, valid_name(against, "the name of an evaluation"))
            refuse_incomparable(spec, there, asked)

        def compute() -> Answer:
            compared = None if other is None else self.store.merged(other)
            found = results_of(self.store.merged(entry), asked, compared)
            return self._json(request, answers.results_answer(entry.name, spec, found))

        rows = entry.rows + (other.rows if other else 0)
        return await self._in_lane(request, "compute", compute, LOOK_S + _seconds(rows, asked))

    async def _rows(self, request: _Request) -> Answer:
        """Return the rows with the worst values of a metric."""
        entry, spec = await self._spec(request, request.name)
        worst = queries.required(request.query, "worst", "the name of a metric")
        measure = named_measure(spec, worst, "worst")
        most = queries.count_of(request.query, queries.ROWS_SHOWN, queries.MOST_ROWS_SHOWN)

        def compute() -> Answer:
            found = worst_of(self.store.merged(entry), spec, measure, most)
            return self._json(request, answers.rows_answer(found))

        return await self._in_lane(request, "compute", compute, LOOK_S + entry.rows * ROW_S)

    async def _list(self, request: _Request) -> Answer:
        """List the evaluations of the request's key."""
        most = queries.count_of(request.query, queries.PAGE, queries.MOST_ON_PAGE)
        after = request.query.get("cursor", "")
        if after:
            valid_name(after, "a cursor")

        def look() -> Answer:
            found = self.store.listing(request.owner, after, most + 1)
            members: dict[str, Any] = {
                "evaluations": [answers.entry_answer(entry) for entry in found[:most]],
                "next": found[most - 1].name if len(found) > most else None,
            }
            return self._json(request, members)

        return await self._look_up(request, look)

    async def _delete(self, request: _Request) -> Answer:
        """Delete an evaluation."""
        await self._stored(request, partial(self.store.delete, request.owner, request.name))
        return Answer([], (), 204)

    async def _compute(self, request: _Request) -> Answer:
        """Compute an evaluation of the data in the request, and store nothing."""
        queries.media_of(request.headers, ("json",))
        settings, most = self.settings, self.settings.evaluation_max_slices
        limits = SpecLimits(settings.evaluation_max_metrics, settings.evaluation_max_expires_s)
        computed = PartLimits(self.pipeline.queue.device, settings.max_work)

        def compute() -> Answer:
            found = read_stateless(request.body.pop(), self.catalogues, limits, computed, most)
            results = results_of(found.merged, found.asked)
            return self._json(request, answers.results_answer(None, found.spec, results))

        return await self._in_lane(request, "compute", compute, LOOK_S + cost.reading(request.work.size))

    async def _spec(self, request: _Request, name: str) -> tuple[EvaluationEntry, Spec]:
        """Return an evaluation of the request's key, and its spec."""

        def look() -> tuple[EvaluationEntry, Spec]:
            entry = self.store.entry(request.owner, name)
            return entry, stored_spec(entry.spec, self.catalogues)

        return await self._look_up(request, look)

    async def _stored(self, request: _Request, submit: Callable[[], "Future[T]"]) -> T:
        """Submit a change in a thread, and wait until it is committed."""
        work = request.work
        seconds = LOOK_S + cost.reading(work.size)
        future = asyncio.wrap_future(await self._in_lane(request, "compute", submit, seconds))
        return await wait(future, work.receive, work.due)

    async def _look_up(self, request: _Request, look: Callable[[], T]) -> T:
        """Read from the database in threads that may wait for it: those of small calls may not."""
        work = request.work
        return await wait(self._lane.run(look, [work.hold]), work.receive, work.due)

    async def _in_lane(self, request: _Request, stage: str, step: Callable[[], T], seconds: float) -> T:
        """Run a step in a thread, and measure it."""
        work = request.work
        return await self.pipeline.run(work, partial(work.timed, stage, step), seconds)

    def _json(self, request: _Request, members: Mapping[str, Any], status: int = 200) -> Answer:
        """Return an answer of these members."""
        answer = json_answer([*joined(parts(members))], request.headers)
        return Answer(answer.headers, answer.parts, status)


def _seconds(rows: int, asked: Selection) -> float:
    """Estimate the time to compute results."""
    once = len(asked.measures) * rows * (1 + len(asked.slices))
    return once * (ROW_S + (DRAW_S * asked.interval.replicates if asked.interval else 0.0))
