"""The outermost middleware: request IDs, timing headers, and a 500 without a stack trace.

Every request is recorded at its end, also if its client left or the server failed.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping
from time import perf_counter, time

from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import problems
from service.admission.account import Account, Hold
from service.problems import Unavailable
from service.routes import Match, Route, match_route
from service.telemetry.finished import CLIENT_GONE, Finished
from service.telemetry.recorder import Recorder
from service.telemetry.stages import Stages
from service.telemetry.watch import Watch

logger = logging.getLogger("lossd")
CLOSE = {"Connection": "close"}
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


class RequestContext:
    """Outermost middleware.

    ``scope["state"]`` holds the request's ``headers`` by name, its ``stages``, which collect its timings, and its ``hold``
    on the account.
    """

    def __init__(self, app: ASGIApp, account: Account, recorder: Recorder) -> None:
        self.app = app
        self.account = account
        self.recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stages = scope.setdefault("state", {})["stages"] = Stages()
        headers = scope["state"]["headers"] = dict[bytes, bytes](scope["headers"])
        _identify(stages, headers)
        # matched already, unless the application runs on another server
        asked: Match = scope["state"].get("match") or match_route(
            scope["method"], scope["path"], headers.get(b"content-type", b"")
        )
        scope["state"]["match"] = asked
        hold = self._hold(scope)
        watch = Watch(receive, send, stages)
        try:
            await self.app(scope, watch.receive, watch.send)
        except asyncio.CancelledError:
            # the server is stopping and waits no longer
            logger.warning("request %s to %s was cut off", stages.request_id, scope["path"])
            if watch.started:
                watch.status, watch.finished = 503, True
                return
            problem = Unavailable("The server was shut down before the request was finished.")
            await problems.response(problem, scope["path"], CLOSE)(scope, receive, watch.send)
        except Exception as error:
            problem = problems.of_bug(error)
            if problem.status == 500:
                logger.exception("request %s to %s failed", stages.request_id, scope["path"])
            else:
                logger.warning("out of memory in request %s to %s", stages.request_id, scope["path"])
            if watch.started:
                watch.status, watch.finished = problem.status, True
                raise
            await problems.response(problem, scope["path"])(scope, receive, watch.send)
        finally:
            self.recorder.add(_finished(scope, headers, asked.route, watch, stages))
            hold.leave()

    def _hold(self, scope: Scope) -> Hold:
        """Use the hold opened by our server; open one if the application runs on another."""
        hold: Hold | None = scope["state"].get("hold")
        if hold is None:
            hold = scope["state"]["hold"] = self.account.open()
        else:
            hold.use()
        return hold


def _identify(stages: Stages, headers: Mapping[bytes, bytes]) -> None:
    """Set the request ID to the client's own, else its trace ID, else a new one."""
    if trace := TRACEPARENT.fullmatch(headers.get(b"traceparent", b"")):
        stages.trace_id = trace[1].decode()
    sent = headers.get(b"x-request-id", b"")
    if REQUEST_ID.fullmatch(sent):
        stages.request_id = sent.decode()
    else:
        stages.request_id = stages.trace_id or secrets.token_hex(16)


def _finished(
    scope: Scope, headers: Mapping[bytes, bytes], route: Route, watch: Watch, stages: Stages
) -> Finished:
    """Return the record of a finished request."""
    return Finished(
        method=scope["method"],
        path=scope.get("raw_path") or scope["path"].encode("utf-8", "replace"),
        route=route,
        status=watch.status if watch.finished else CLIENT_GONE,
        ended=time(),
        seconds=perf_counter() - stages.start,
        bytes_in=watch.bytes_in,
        bytes_out=watch.bytes_out,
        stages=stages,
        traceparent=headers.get(b"traceparent", b""),
        tracestate=headers.get(b"tracestate", b""),
    )
