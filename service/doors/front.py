"""The front of the application: one pass over each request, from its headers to the record of its end.

A request is matched and admitted before its body is read. Evaluations are answered by their doors, without the
framework, whose routing takes as long as a small call. Every request is recorded at its end, also if its client left or
the server failed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import problems
from service.admission.access import Access
from service.admission.account import Hold
from service.admission.body import ClientGone
from service.admission.cors import Origins
from service.admission.gate import Gate
from service.problems import Busy, MethodNotAllowed, Problem, Throttled, Unauthorized, Unavailable
from service.routes import Match, match_route
from service.telemetry.stages import Stages
from service.telemetry.watch import Watch

logger = logging.getLogger("lossd")
CLOSE = {"Connection": "close"}
JSON = (b"content-type", b"application/json")


class Answer(NamedTuple):
    """The headers and body of an answer; the body is in pieces."""

    headers: list[tuple[bytes, bytes]]
    parts: Sequence[bytes | memoryview]
    status: int = 200


Door = Callable[[Scope, Receive], Awaitable[Answer]]


class Front:
    """Hands requests to their doors, and everything else to the framework, ``app``.

    ``streams`` sends its answers itself, because they start before all of the request has arrived. Unsupported
    methods are refused here, by the table of routes, because the framework does not know the routes of the doors.

    ``scope["state"]`` holds the ``match`` of the request with its route, its ``headers`` by name, its ``stages``, which
    collect its timings, and its ``hold`` on the account.
    """

    def __init__(
        self,
        app: ASGIApp,
        doors: Mapping[str, Door],
        streams: ASGIApp,
        gate: Gate,
        access: Access | None = None,
        origins: Origins | None = None,
    ) -> None:
        self.app = app
        self.doors = doors
        self.streams = streams
        self.gate = gate
        self.account = gate.account
        self.recorder = gate.recorder
        self.access = access
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        headers = state["headers"] = dict[bytes, bytes](scope["headers"])
        stages = state["stages"] = Stages(headers)
        # matched already, unless the application runs on another server
        if "match" not in state:
            media = headers.get(b"content-type", b"")
            state["match"] = match_route(scope["method"], scope["path"], media)
        if "hold" in state:
            hold: Hold = state["hold"]
            hold.use()
        else:
            # our server opens one with the first bytes
            hold = state["hold"] = self.account.open()
        if state["match"].route.door:
            hold.begin()
        try:
            await self._answer(scope, receive, send)
        except asyncio.CancelledError:
            # the server is stopping and waits no longer
            logger.warning("request %s to %s was cut off", stages.request_id, scope["path"])
            await self._break_off(_cut_off(), scope, receive, send, CLOSE)
        except Exception as error:
            problem = problems.of_bug(error)
            if problem.status == 500:
                logger.exception("request %s to %s failed", stages.request_id, scope["path"])
            else:
                logger.warning("out of memory in request %s to %s", stages.request_id, scope["path"])
            if not await self._break_off(problem, scope, receive, send):
                raise
        finally:
            self.recorder.finish(scope)
            hold.leave()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, and answer it."""
        state, stages = scope["state"], scope["state"]["stages"]
        asked: Match = state["match"]
        answer = self.streams if asked.route.stream else self.app
        try:
            preflight = None
            if self.origins is not None and b"origin" in state["headers"]:
                send = self.origins.allowing(scope, send)
                preflight = self.origins.preflight(scope)
            if preflight is None:
                self._admit(scope, asked)
                if door := self.doors.get(asked.route.door):
                    await _send(await door(scope, receive), stages, state["hold"], send)
                    return
            watch = Watch(receive, send, stages)
            await (preflight or answer)(scope, watch.receive, watch.send)
        except ClientGone:
            return
        except Problem as problem:
            # the frames of the traceback hold the body, and some the problem
            await _refuse(problem.with_traceback(None), scope, receive, send)

    def _admit(self, scope: Scope, asked: Match) -> None:
        """Refuse a request that may not be answered, or not now.

        Raises:
            Unauthorized: it needs a key.
            Throttled: its key is over a limit.
            Busy: the account is full.
            Unavailable: the server is draining, or has failed.
            MethodNotAllowed: its path does not support its method.
        """
        if self.access is not None:
            self.access.admit(scope)
        if asked.allowed:
            raise MethodNotAllowed(scope["method"], asked.allowed)
        account, lifecycle = self.account, self.gate.lifecycle
        full = account.accepted >= account.capacity
        if asked.route.door and (full or lifecycle.draining or lifecycle.failed):
            self.gate.refuse()

    async def _break_off(
        self,
        problem: Problem,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[str, str] | None = None,
    ) -> bool:
        """Answer with a problem, unless the answer has started already; return whether it had not."""
        stages: Stages = scope["state"]["stages"]
        if stages.started:
            stages.status, stages.finished = problem.status, True
            return False
        send = Watch(receive, send, stages).send
        await problems.response(problem, scope["path"], headers)(scope, receive, send)
        return True


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with a problem, and note the reason of a refusal."""
    stages: Stages = scope["state"]["stages"]
    if isinstance(problem, Busy | Throttled):
        stages.rejected = problem.limit
    elif isinstance(problem, Unauthorized):
        stages.rejected = "key"
    # the client's next request may then reach another server
    headers = CLOSE if isinstance(problem, Unavailable) else None
    send = Watch(receive, send, stages).send
    await problems.response(problem, scope["path"], headers)(scope, receive, send)


async def _send(answer: Answer, stages: Stages, hold: Hold, send: Send) -> None:
    """Send an answer in pieces; the unsent ones are counted on the hold."""
    headers, status = [*answer.headers, *stages.headers()], answer.status
    # an answer without content has one empty part
    parts = deque(answer.parts or (b"",))
    waiting = sum(map(len, parts))
    hold.replace_body(waiting)
    # release pieces as they are sent
    del answer
    try:
        stages.started, stages.status = True, status
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while parts:
            part = parts.popleft()
            stages.bytes_out += len(part)
            stages.finished = not parts
            await send({"type": "http.response.body", "body": part, "more_body": bool(parts)})
            hold.give(len(part))
            waiting -= len(part)
    finally:
        if waiting:
            hold.give(waiting)


def _cut_off() -> Problem:
    return Unavailable("The server was shut down before the request was finished.")
