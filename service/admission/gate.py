"""What is let in to be worked on: no more at once than the memory is meant to hold, nothing once the server drains."""

import threading
from time import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admission import problems
from service.admission.lifecycle import Lifecycle
from service.engine.queue import Queue
from service.problems import Busy, Problem, Unavailable
from service.routes import Route
from service.settings import Settings, variable
from service.telemetry.finished import Finished
from service.telemetry.recorder import Recorder
from service.telemetry.stages import Stages

SMALL = 64 * 1024
"""Bytes of a body that are not worth counting: the queue bounds how many there are."""
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
        self.lock = threading.Lock()
        self.refused = 0
        """Connections that wait because their last request was refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["state"]["match"].route.work:
            await self.app(scope, receive, send)
            return
        try:
            self._refuse()
            with self.lifecycle.work():
                await self._work(scope, receive, send)
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

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request be worked on; what is small, and what a stream has answered, holds nothing worth counting."""
        hold = scope["state"]["hold"] = Hold(self, scope["state"]["stages"])
        headers: dict[bytes, bytes] = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        small = declared.isdigit() and int(declared) <= SMALL
        streams = scope["state"]["match"].route.stream
        try:
            await self.app(scope, receive if small or streams else _counted(receive, hold), send)
        finally:
            hold.take(-hold.bytes)

    def refusal(self, route: Route) -> Problem | None:
        """Say why a request is refused, if it is one for work and would be: before there is one."""
        try:
            if route.work:
                self._refuse()
        except Problem as problem:
            return problem
        return None

    def note(
        self, method: str, path: str, route: Route, problem: Problem, reason: str, identity: str
    ) -> None:
        """Record what was refused before there was a request."""
        stages = Stages()
        stages.request_id, stages.rejected = identity, reason
        raw = path.encode("latin-1", "replace")
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


class Hold:
    """The bytes that one request holds, of those that the gate lets in."""

    def __init__(self, gate: Gate, stages: Stages) -> None:
        self._gate = gate
        self._stages = stages
        self.bytes = 0

    def take(self, length: int) -> None:
        """Hold so many bytes more; less than none lets go of some. Threads may call it.

        Raises:
            Busy: there would be more than the limit, and others hold some of them.
        """
        gate = self._gate
        with gate.lock:
            if length > 0 and gate.held > self.bytes and gate.held + length > gate.limit:
                most = f"{gate.limit} bytes of bodies at once ({variable('max_inflight_bytes')})"
                # whoever answers this, it is not the queue that is full
                self._stages.rejected = "bytes"
                raise Busy("bytes", most, retry_after=1)
            gate.held += length
            self.bytes += length


def _counted(receive: Receive, hold: Hold) -> Receive:
    """Hold what is received."""

    async def counted() -> Message:
        message = await receive()
        hold.take(len(message.get("body", b"")))
        return message

    return counted
