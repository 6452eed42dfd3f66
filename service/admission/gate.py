"""The gate: refuse work while the queue is full or the server is draining."""

from time import time

from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import problems
from service.admission.lifecycle import Lifecycle
from service.engine.queue import Queue
from service.problems import Busy, Problem, Unavailable
from service.routes import Route
from service.telemetry.finished import Finished
from service.telemetry.recorder import Recorder
from service.telemetry.stages import Stages

CLOSE = {"Connection": "close"}


class Gate:
    """Middleware that refuses work before its body is read if the server cannot take it."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, queue: Queue, recorder: Recorder) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.queue = queue
        self.recorder = recorder
        self.refused = 0
        """Connections paused because their last request was refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["state"]["match"].route.work:
            await self.app(scope, receive, send)
            return
        try:
            self._refuse()
            self.lifecycle.begin(scope["state"]["hold"])
        except Unavailable as problem:
            # the client's next request may then reach another server
            await problems.answer(problem, scope, receive, send, CLOSE)
        except Busy as problem:
            await problems.answer(problem, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    @property
    def closed(self) -> bool:
        """Whether all work is refused now."""
        return self.lifecycle.closing or self.queue.full

    def refusal(self, route: Route) -> Problem | None:
        """Return why a request for work would be refused, before it is created; None if it would not."""
        try:
            if route.work:
                self._refuse()
        except Problem as problem:
            return problem
        return None

    def note(
        self, method: str, path: str, route: Route, problem: Problem, reason: str, identity: str
    ) -> None:
        """Record requests that were refused before they were created."""
        stages = Stages()
        stages.request_id, stages.rejected = identity, reason
        raw = path.encode("latin-1", "replace")
        self.recorder.add(Finished(method, raw, route, problem.status, time(), 0.0, 0, 0, stages, b"", b""))

    def _refuse(self) -> None:
        """Refuse work if there is no room.

        Raises:
            Busy: the queue is full.
            Unavailable: the server is draining, or has failed.
        """
        if self.lifecycle.closing:
            self.lifecycle.refuse_unready()
        self.queue.refuse_if_full()
