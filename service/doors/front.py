"""Answers evaluations before they reach the framework, whose routing takes as long as a small call."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import problems
from service.admission.account import Hold
from service.admission.body import ClientGone
from service.problems import MethodNotAllowed, Problem
from service.routes import Match


@dataclass(frozen=True, slots=True)
class Answer:
    """The headers and body of an answer; the body is in pieces."""

    headers: list[tuple[bytes, bytes]]
    parts: Sequence[bytes | memoryview]
    status: int = 200


Door = Callable[[Scope, Receive], Awaitable[Answer]]
JSON = (b"content-type", b"application/json")


class Front:
    """Middleware that hands requests to their doors, and everything else to the application.

    ``streams`` sends its answers itself, because they start before all of the request has arrived. Unsupported
    methods are refused here, by the table of routes, because the application does not know the routes of the doors.
    """

    def __init__(self, app: ASGIApp, doors: Mapping[str, Door], streams: ASGIApp) -> None:
        self.app = app
        self.doors = doors
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked: Match = scope["state"]["match"]
        try:
            if asked.allowed:
                raise MethodNotAllowed(scope["method"], asked.allowed)
            if door := self.doors.get(asked.route.door):
                await _send(await door(scope, receive), scope["state"]["hold"], send)
            elif asked.route.door == "stream":
                await self.streams(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except ClientGone:
            return
        except Problem as problem:
            # the frames of the traceback hold the body, and some the problem
            await problems.send_problem(problem.with_traceback(None), scope, receive, send)


async def _send(answer: Answer, hold: Hold, send: Send) -> None:
    """Send an answer in pieces; the unsent ones are counted on the hold."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    parts = deque(answer.parts)
    waiting = sum(map(len, parts))
    hold.add(waiting)
    # release pieces as they are sent
    del answer
    if not parts:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    try:
        while parts:
            part = parts.popleft()
            await send({"type": "http.response.body", "body": part, "more_body": bool(parts)})
            hold.give(len(part))
            waiting -= len(part)
    finally:
        hold.give(waiting)
