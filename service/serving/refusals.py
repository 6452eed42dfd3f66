"""Answers that the server writes itself, without the application."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from uvicorn.server import ServerState

from service.admission import problems
from service.admission.account import Account
from service.admission.gate import Gate
from service.problems import HeadersTooLarge, Problem, Stalled, Unavailable
from service.routes import Route, match_route
from service.serving.cycle import STATUS_LINES
from service.serving.parser import MOST_HEADERS, Head
from service.settings import Settings, variable
from service.telemetry.stages import Stages

UNTIMED = Stages().timing()
"""An immediate refusal has no timed stages."""
REFUSALS_A_SECOND = 1000
"""Refusals a second that take a tenth of the server's time."""
MOST_PAUSE_S = 0.5
"""Longest pause in reading from a refused client."""


class Refusals:
    """Decides which requests to refuse, and writes and records the refusals."""

    def __init__(self, settings: Settings, app_state: Mapping[str, Any], server_state: ServerState) -> None:
        self._settings = settings
        self._gate: Gate | None = app_state.get("gate")
        self._account: Account | None = app_state.get("account")
        self._server = server_state

    def of(self, route: Route) -> Problem | None:
        """Return why there is no room for a request, or None. Probes are always accepted."""
        if self._account and not route.probe and (full := self._account.refusal()):
            return full
        return self._gate.refusal(route) if self._gate and self._gate.closed else None

    def answer(self, problem: Problem, reason: str, head: Head, *, close: bool) -> bytes:
        """Record a refusal and return its bytes. ``head`` may be incomplete.

        Refusals that keep the connection open may come by the thousand: they are counted, not logged one by one.
        """
        path = unquote(head.target.decode("latin-1").partition("?")[0])
        fields = dict(head.headers)
        identity = Stages(fields).request_id.encode()
        if self._gate:
            route = match_route(head.method, path, fields.get(b"content-type", b"")).route
            if close:
                self._gate.note(head.method, path, route, problem, reason, identity.decode())
            else:
                self._gate.recorder.shed(route.label, reason)
        response = problems.response(problem, path)
        headers = [*response.raw_headers, *self._server.default_headers]
        headers += [(b"x-request-id", identity), (b"server-timing", UNTIMED)]
        headers += [(b"connection", b"close")] if close else []
        lines = [STATUS_LINES[problem.status], *(b"%s: %s" % header for header in headers)]
        return b"\r\n".join([*lines, b"", bytes(response.body)])

    def pause(self, go_on: Callable[[], None]) -> None:
        """Schedule a call after the pause that a refused client gets, in case it ignores ``Retry-After``.

        The more refused clients there are, the longer the pause: refusals must not take time from the work.
        """
        if self._gate is None:
            go_on()
            return
        self._gate.refused += 1
        seconds = min(MOST_PAUSE_S, self._gate.refused / REFUSALS_A_SECOND)
        asyncio.get_running_loop().call_later(seconds, self._end_pause, self._gate, go_on)

    def _end_pause(self, gate: Gate, go_on: Callable[[], None]) -> None:
        """Resume reading from a refused client."""
        gate.refused -= 1
        go_on()

    # the problems of connections

    def one_too_many(self) -> Problem:
        """Return the problem of a connection over the limit."""
        most = f"{self._settings.max_connections} connections ({variable('max_connections')})"
        return Unavailable(f"Expected at most {most}; got one more.")

    def oversized(self) -> Problem:
        """Return the problem of a request whose head is over the limit."""
        most = f"{self._settings.max_header_bytes} bytes ({variable('max_header_bytes')})"
        return HeadersTooLarge(
            f"Expected a line and at most {MOST_HEADERS} headers, of at most {most}; got more."
        )

    def stalled(self) -> Problem:
        """Return the problem of a request that arrives too slowly."""
        whole = f"{self._settings.upload_s:g} s ({variable('upload_s')})"
        pause = f"{self._settings.idle_s:g} s ({variable('idle_s')})"
        return Stalled(f"Expected all of the request within {whole}, and no pause of {pause}.")
