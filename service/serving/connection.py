"""One connection: its requests one after another, the bytes they hold, and the time limits on the client."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState

from service.admission.account import Account
from service.problems import Busy, Problem, Unreadable
from service.routes import OTHER, Match, match
from service.serving.cycle import HIGH_WATER, Cycle, scope_of
from service.serving.outflow import Outflow
from service.serving.parser import Head, Malformed, Oversized, RequestParser
from service.serving.refusals import Refusals
from service.settings import Settings

LOOK_S = 1.0
"""Seconds between checks for a stalled client."""
LINGER_S = 2.0
"""Seconds to wait for the client to close a connection before the server does.

Data that arrives on a closed socket resets it, and the client may lose the last answer."""
MOST_IGNORED = 1 << 16
"""Longest body of a refused request that is read and discarded to keep the connection open."""


class Connection(asyncio.Protocol):
    """A client's connection, created by `uvicorn.Server`, which also shuts it down.

    Requests are handled one at a time: the next one is read after the answer to the last has been sent. Anything the
    client sends ahead stays in the socket, except what was read together with the last request.
    """

    transport: asyncio.Transport
    out: Outflow

    def __init__(
        self,
        settings: Settings,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = _loop or asyncio.get_running_loop()
        self._settings = settings
        self._app: ASGIApp = cast(Any, config).loaded_app
        self._keep_alive_s = config.timeout_keep_alive
        self._server = server_state
        self._connections = cast(set[asyncio.Protocol], server_state.connections)
        self._state = app_state
        self._account: Account | None = app_state.get("account")
        self._refusals = Refusals(settings, app_state, server_state)
        self._parser = RequestParser(self, settings.max_header_bytes)
        self._unread = b""
        """Bytes received and not parsed yet."""
        self._asked = Match(OTHER, {})
        self._cycle: Cycle | None = None
        self._open = self._refused = False
        """Whether a request is open (its answer not sent yet), and whether the server answers it itself."""
        self._last = self._hung_up = False
        """Whether no further request is accepted, and whether nothing more is sent or read."""
        self._reads, self._rests, self._used = True, False, False
        self._ignored = 0
        self._begun = self._heard = self._loop.time()

    # called by the event loop and by uvicorn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start watching the connection, or refuse it if there are too many."""
        self.transport = cast(asyncio.Transport, transport)
        self.out = Outflow(self.transport, self._settings, self._loop.time)
        self._looking = self._loop.call_later(LOOK_S, self._look)
        self._connections.add(self)
        if len(self._connections) > self._settings.max_connections:
            problem = self._refusals.one_too_many()
            self.out.write(self._refusals.answer(problem, "connections", Head(), close=True))
            self._last = self._hung_up = True
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes."""
        self._heard = self._loop.time()
        if not self._hung_up:
            self._unread += data
            self._parse()

    def eof_received(self) -> None:
        """Treat a client that stops sending as gone; an answer already written still reaches it."""
        if self._cycle and not self._cycle.complete:
            self._cycle.disconnect()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        self.out.pause()

    def resume_writing(self) -> None:
        """Continue: everything written has been sent."""
        self._heard = self._loop.time()
        self.out.resume()
        self._settle()
        self._parse()

    def shutdown(self) -> None:
        """Close the connection, after sending any pending answer."""
        self._last = True
        if self._cycle:
            self._cycle.keep_alive = False
        if not self._open or self._hung_up:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the request and report the disconnect to the application."""
        self._looking.cancel()
        self._connections.discard(self)
        self._last = self._hung_up = True
        self._unread = b""
        if self._cycle:
            self._cycle.disconnect()
        self.out.resume()
        self._release()

    # called by the parser

    def on_head(self, head: Head) -> None:
        """Start the application on a request, unless there is no room for it."""
        scope = scope_of(head, self.transport, self._state)
        self._open, self._ignored = True, 0
        self._last = self._last or not head.keep_alive
        fields = dict(head.headers)
        self._asked = match(head.method, scope["path"], fields.get(b"content-type", b""))
        expects = head.version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"
        if problem := self._refusals.of(self._asked.route):
            self._refuse(problem, expects=expects)
            return
        hold = self.out.hold = self._account.open() if self._account else None
        scope["state"] |= {"match": self._asked, "hold": hold}
        self._cycle = Cycle(
            self, scope, keep_alive=not self._last, expects=expects, streams=self._asked.route.stream
        )
        task = self._loop.create_task(self._cycle.run(self._app))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)
        if hold:
            # the application runs on for a while after its client has left
            hold.use()
            task.add_done_callback(lambda _: hold.leave())

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body, unless the request is already answered."""
        if self._cycle and not self._cycle.complete:
            self._cycle.feed(body)
            return
        self._ignored += len(body)
        if self._ignored > self._settings.max_body_bytes:
            self._hang_up()

    def on_end(self) -> None:
        """Note that the whole request has arrived."""
        if self._cycle:
            self._cycle.end()
        self._settle()

    # called by the request

    @property
    def default_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Headers sent with every answer."""
        return self._server.default_headers

    def listen(self) -> None:
        """Resume reading: the application is waiting for more of the body."""
        self._regulate()

    def answered(self) -> None:
        """Continue with the next request, once this one's answer has been sent in full."""
        self._last = self._last or self._cycle is None or not self._cycle.keep_alive
        self._settle()
        self._parse()

    def break_off(self) -> None:
        """Close the connection because an answer will not be finished."""
        self.transport.close()

    # the requests, one after another

    @property
    def _waits(self) -> bool:
        """Whether received bytes wait for an earlier request to finish."""
        return self._rests or self._hung_up or (self._open and self._parser.complete)

    def _parse(self) -> None:
        """Parse the received bytes, up to the end of a request."""
        if self._unread and not self._waits:
            self._feed()
            if self._hung_up:
                self._unread = b""
            elif self._unread and not self._waits:
                self._loop.call_soon(self._parse)
            elif self._unread and self.out.hold:
                self.out.hold.add(len(self._unread))
        self._regulate()

    def _feed(self) -> None:
        """Feed the parser, and refuse what it cannot parse."""
        if self._parser.complete or not self._parser.begun:
            self._begun, self._asked = self._loop.time(), Match(OTHER, {})
        try:
            self._unread = self._parser.feed(self._unread)
        except Oversized:
            self._end(self._refusals.oversized(), "headers")
        except Malformed as fault:
            self._end(Unreadable(str(fault)), "broken")

    def _regulate(self) -> None:
        """Read from the client only while there is room for its data."""
        full = self._cycle is not None and self._cycle.waiting > HIGH_WATER
        reads = not (self._unread or self._rests or full)
        if reads != self._reads and not self.transport.is_closing():
            self._reads = reads
            if reads:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _settle(self) -> None:
        """Finish a request once all of it has arrived and its whole answer has been sent."""
        answered = self._refused or (self._cycle is not None and self._cycle.complete)
        if self.out.paused or not ((self._open and answered) or self._hung_up):
            return
        if self._last:
            self._hang_up()
        if self._hung_up or self._parser.complete:
            self._release()

    def _release(self) -> None:
        """Release a request."""
        if self.out.hold:
            self.out.hold.leave()
        self._cycle = self.out.hold = None
        self._open = self._refused = False
        self._used = True
        self._heard = self._loop.time()

    # the end of a request or of the connection

    def _refuse(self, problem: Problem, *, expects: bool) -> None:
        """Refuse a request before a task is created for it.

        At ten times its capacity, a server has a tenth of the usual time for each refusal.
        """
        length = self._parser.left
        short = length is not None and length <= MOST_IGNORED and not expects
        keep = short and isinstance(problem, Busy) and not self._last
        reason = problem.limit if isinstance(problem, Busy) else "unavailable"
        self.out.write(self._refusals.answer(problem, reason, self._parser.head, close=not keep))
        self._refused, self._last = True, not keep
        if keep:
            self._rests = True
            self._refusals.pause(self._rested)
        else:
            self._settle()

    def _rested(self) -> None:
        """Resume reading from a refused client."""
        self._rests = False
        self._parse()

    def _look(self) -> None:
        """Close the connection if its client stalls."""
        self._looking = self._loop.call_later(LOOK_S, self._look)
        now, limits = self._loop.time(), self._settings
        quiet = now - self._heard
        if self.out.paused:
            if self.out.stalls():
                self.transport.abort()
        elif self._hung_up:
            if quiet > LINGER_S:
                self.transport.close()
        elif not self._reads:
            # the server is busy, not the client
            self._heard = now
        elif self._parser.begun and not self._parser.complete:
            late = now - self._begun > limits.upload_s and not self._asked.route.stream
            if late or quiet > limits.idle_s:
                self._end(self._refusals.stalled(), "stalled")
        elif not self._open and quiet > (self._keep_alive_s if self._used else limits.idle_s):
            self.transport.close()

    def _end(self, problem: Problem, reason: str) -> None:
        """Close the connection, with a problem if no answer has started."""
        if self._hung_up or self.transport.is_closing():
            return
        answered = self._refused
        if self._cycle:
            answered = self._cycle.started
            self._cycle.disconnect()
        if not answered:
            self.out.write(self._refusals.answer(problem, reason, self._parser.head, close=True))
        self._hang_up()

    def _hang_up(self) -> None:
        """Stop sending and reading; the client closes the connection, or the server does soon after."""
        if not self._hung_up and not self.transport.is_closing():
            self._last = self._hung_up = True
            self._heard = self._loop.time()
            self._unread = b""
            self.transport.write_eof()
            self._settle()
            self._regulate()
