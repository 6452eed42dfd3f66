"""What evaluates is answered in front of the framework, whose routing takes as long as a small call."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import problems
from service.admission.account import Hold
from service.admission.body import ClientGone
from service.problems import Problem


@dataclass(frozen=True, slots=True)
class Answer:
    """The headers and the body of an answer, the body in pieces."""

    headers: list[tuple[bytes, bytes]]
    parts: Sequence[bytes | memoryview]


Door = Callable[[Scope, Receive], Awaitable[Answer]]
JSON = (b"content-type", b"application/json")


class Front:
    """Middleware that lets each door answer what is asked of it, and leaves all else to the application.

    ``streams`` answers on its own: once its first line is sent, there is no other answer.
    """

    def __init__(self, app: ASGIApp, doors: Mapping[str, Door], streams: ASGIApp) -> None:
        self.app = app
        self.doors = doors
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["state"]["match"].route.door if scope["type"] == "http" else ""
        try:
            if door := self.doors.get(name):
                await _send(await door(scope, receive), scope["state"]["hold"], send)
            elif name == "stream":
                await self.streams(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except ClientGone:
            return
        except Problem as problem:
            await problems.answer(problem, scope, receive, send)


async def _send(answer: Answer, hold: Hold, send: Send) -> None:
    """Send an answer, piece by piece; what waits for its turn is held."""
    await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
    parts = deque(answer.parts)
    waiting = sum(map(len, parts))
    hold.add(waiting)
    # what is sent is let go of
    del answer
    try:
        while parts:
            part = parts.popleft()
            await send({"type": "http.response.body", "body": part, "more_body": bool(parts)})
            hold.give(len(part))
            waiting -= len(part)
    finally:
        hold.give(waiting)
