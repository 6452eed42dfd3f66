"""What every answer carries, and the last resort: a request's id, its timing, and a 500 without a stack."""

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.stages import Stages
from service.problems import Internal

logger = logging.getLogger("lossd")
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class RequestContext:
    """Middleware around everything else. ``scope["state"]["stages"]`` is where a route tells its times."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stages = scope.setdefault("state", {})["stages"] = Stages()
        identity = _identity(Headers(scope=scope))
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = identity
                headers["Server-Timing"] = stages.header()
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s to %s broke", identity, scope["path"])
            if started:
                raise
            problem = Internal("The server broke while it worked on this; its log tells more.")
            await problems.response(problem, scope["path"])(scope, receive, send_with_headers)


def _identity(headers: Headers) -> str:
    """Return the client's own request id, else its trace's, else a new one."""
    sent = headers.get("x-request-id", "")
    if REQUEST_ID.fullmatch(sent):
        return sent
    if trace := TRACEPARENT.fullmatch(headers.get("traceparent", "")):
        return trace[1]
    return secrets.token_hex(16)
