"""Who may call: a request without a known key is refused before any of its body is read."""

import logging
from collections import defaultdict

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import metrics, openapi, problems
from service.api.keys import Key, KeyFile
from service.api.quota import Quota
from service.api.stages import Stages
from service.problems import Throttled, Unauthorized
from service.settings import Settings

logger = logging.getLogger("lossd")
OPEN = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", openapi.PATH, "/docs"})
"""Paths without keys: an orchestrator has none, and the documentation is the same in every copy of a release."""
CHALLENGE = {"WWW-Authenticate": "Bearer"}
LOOPBACK = ("127.", "localhost", "::1")


class Access:
    """Middleware that lets requests with a key of the file through, as many as the key may make."""

    def __init__(self, app: ASGIApp, keys: KeyFile, settings: Settings) -> None:
        self.app = app
        self.keys = keys
        self.settings = settings
        self.open = OPEN | {metrics.PATH} if settings.metrics_open else OPEN
        self._quotas: defaultdict[str, Quota] = defaultdict(Quota)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.open:
            await self.app(scope, receive, send)
            return
        stages: Stages = scope["state"]["stages"]
        try:
            key = self._identify(scope)
            stages.key = key.name
            rate = self.settings.key_rate if key.rate is None else key.rate
            concurrency = self.settings.key_concurrency if key.concurrency is None else key.concurrency
            with self._quotas[key.name].admit(rate, concurrency):
                await self.app(scope, receive, send)
        except Unauthorized as problem:
            stages.rejected = "key"
            await problems.response(problem, scope["path"], CHALLENGE)(scope, receive, send)
        except Throttled as problem:
            stages.rejected = problem.limit
            again = {"Retry-After": str(problem.retry_after)}
            await problems.response(problem, scope["path"], again)(scope, receive, send)

    def _identify(self, scope: Scope) -> Key:
        """Return the key that a request presents.

        Raises:
            Unauthorized: it presents none, several that differ, or one that is not of the file.
        """
        presented = _presented(scope)
        if len(presented) != 1:
            got = "several that differ" if presented else "none"
            raise Unauthorized(f"Expected a key as Authorization: Bearer or as X-API-Key; got {got}.")
        if key := self.keys.find(*presented):
            return key
        raise Unauthorized("Expected a key of this server; got one that it does not know.")


def warn_if_open(settings: Settings) -> None:
    """Say so if anyone who reaches this server may use it, and others than this machine may reach it."""
    if settings.api_keys_file is None and not settings.host.startswith(LOOPBACK):
        logger.warning("anyone who reaches %s may use this server: set LOSSD_API_KEYS_FILE", settings.host)


def _presented(scope: Scope) -> set[bytes]:
    """Return the keys that a request's headers hold; other schemes than Bearer are not ours to read."""
    found: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            found.add(value[7:].strip())
    return found - {b""}
