"""What is let in to be worked on: no more at once than the memory is meant to hold, nothing once the server drains."""

from collections.abc import Generator
from contextlib import contextmanager
from time import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import body, problems
from service.api.finished import Finished, route_of
from service.api.lifecycle import Lifecycle
from service.api.recorder import Recorder
from service.api.stages import Stages
from service.api.stream import MEDIA
from service.engine.queue import Queue
from service.problems import Busy, Problem, Unavailable
from service.settings import Settings, variable

WORK = ("/v1/losses/", "/v1/batch", "/v2/models/")
"""What the paths begin with at which work is POSTed."""
CLOSE = {"Connection": "close"}


class Gate:
    """Middleware that refuses work before its body is read, where the server cannot take it."""

    def __init__(
        self, app: ASGIApp, lifecycle: Lifecycle, queue: Queue, recorder: Recorder, settings: Settings
    ) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.queue = queue
        self.recorder = recorder
        self.limit = settings.max_inflight_bytes
        self.held = 0
        self.refused = 0
        """Connections that wait because their last request was refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_work(scope["method"], scope["path"]):
            await self.app(scope, receive, send)
            return
        try:
            self._refuse()
            with self.lifecycle.work(), self._hold(scope, receive) as counted:
                await self.app(scope, counted, send)
        except Unavailable as problem:
            # so that the client's next request goes to another server
            await problems.response(problem, scope["path"], CLOSE)(scope, receive, send)
        except Busy as problem:
            scope["state"]["stages"].rejected = problem.limit
            await problems.response(problem, scope["path"])(scope, receive, send)

    @property
    def closed(self) -> bool:
        """Whether all work is refused now."""
        return self.lifecycle.draining or self.queue.full

    def refusal(self, method: str, path: str) -> Problem | None:
        """Say why a request is refused, if it is one for work and would be: before there is one."""
        try:
            if _is_work(method, path):
                self._refuse()
        except Problem as problem:
            return problem
        return None

    def note(self, method: str, path: str, problem: Problem, reason: str, identity: str) -> None:
        """Record what was refused before there was a request."""
        stages = Stages()
        stages.request_id, stages.rejected = identity, reason
        raw, route = path.encode("latin-1", "replace"), route_of(path, b"")
        self.recorder.add(Finished(method, raw, route, problem.status, time(), 0.0, 0, 0, stages, b"", b""))

    def _refuse(self) -> None:
        """Refuse what there is no room for.

        Raises:
            Busy: as many requests as the queue takes are accepted.
            Unavailable: the server is draining.
        """
        if self.lifecycle.draining:
            self.lifecycle.refuse_unready()
        self.queue.refuse_if_full()

    @contextmanager
    def _hold(self, scope: Scope, receive: Receive) -> Generator[Receive]:
        """Count the bytes of a body as held: all that it says it has, else as they arrive. Streams hold none.

        Raises:
            Busy: with them there would be more than the limit, and there are others.
        """
        declared = dict[bytes, bytes](scope["headers"]).get(b"content-length", b"")
        held = int(declared) if declared.isdigit() else 0
        counts = not declared and body.media(scope) != MEDIA

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            length = len(message.get("body", b""))
            self._take(length)
            held += length
            return message

        self._take(held)
        try:
            yield counted if counts else receive
        finally:
            self.held -= held

    def _take(self, length: int) -> None:
        """Hold so many bytes more."""
        if self.held and self.held + length > self.limit:
            most = f"{self.limit} bytes of bodies at once ({variable('max_inflight_bytes')})"
            raise Busy("bytes", most, retry_after=1)
        self.held += length


def _is_work(method: str, path: str) -> bool:
    """Tell whether a request asks for work."""
    return method == "POST" and path.startswith(WORK)
