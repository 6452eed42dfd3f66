"""What every answer carries, and the last resort: a request's id, its timing, and a 500 without a stack."""

import logging
import re
import secrets
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.stages import Stages
from service.problems import Internal

logger = logging.getLogger("lossd")
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


class RequestContext:
    """Middleware around everything else. ``scope["state"]["stages"]`` is where a route tells its times."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stages = scope.setdefault("state", {})["stages"] = Stages()
        identity = _identity(dict(scope["headers"]))
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = ((b"x-request-id", identity), (b"server-timing", stages.header()))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s to %s broke", identity.decode(), scope["path"])
            if started:
                raise
            problem = Internal("The server broke while it worked on this; its log tells more.")
            await problems.response(problem, scope["path"])(scope, receive, send_with_headers)


def _identity(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the client's own request id, else its trace's, else a new one."""
    sent = headers.get(b"x-request-id")
    if sent and REQUEST_ID.fullmatch(sent):
        return sent
    if trace := TRACEPARENT.fullmatch(headers.get(b"traceparent", b"")):
        return trace[1]
    return secrets.token_hex(16).encode()
