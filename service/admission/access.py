"""Who may call: requests without a known key are refused before their body is read."""

import logging
from collections import defaultdict

from starlette.types import Scope

from service.admission.keys import Key, KeyFile
from service.admission.quota import Quota
from service.problems import Unauthorized
from service.routes import Route
from service.settings import Settings
from service.telemetry import metrics

logger = logging.getLogger("lossd")
LOOPBACK = ("127.", "localhost", "::1")


class Access:
    """Admits requests with a key from the file, within the limits of that key."""

    def __init__(self, keys: KeyFile, settings: Settings) -> None:
        self.keys = keys
        self.settings = settings
        self._quotas: defaultdict[str, Quota] = defaultdict(Quota)

    def admit(self, scope: Scope) -> None:
        """Admit a request until it ends.

        Raises:
            Unauthorized: it has no key, several different ones, or one that is not in the file.
            Throttled: its key is over a limit.
        """
        state = scope["state"]
        if not self._needs_key(state["match"].route):
            return
        key = self._identify(scope)
        state["stages"].key = key.name
        rate = self.settings.key_rate if key.rate is None else key.rate
        concurrency = self.settings.key_concurrency if key.concurrency is None else key.concurrency
        state["hold"].at_end(self._quotas[key.name].admit(rate, concurrency))

    def _needs_key(self, route: Route) -> bool:
        """Return whether a route requires a key."""
        return route.needs_key and not (self.settings.metrics_open and route.template == metrics.PATH)

    def _identify(self, scope: Scope) -> Key:
        """Return the key of a request.

        Raises:
            Unauthorized: the request has no key, several different ones, or one that is not in the file.
        """
        presented = _presented(scope)
        if len(presented) != 1:
            got = "several different ones" if presented else "none"
            raise Unauthorized(f"Expected a key as Authorization: Bearer or as X-API-Key; got {got}.")
        if key := self.keys.find(*presented):
            return key
        raise Unauthorized("Expected a key of this server; got an unknown one.")


def warn_if_open(settings: Settings) -> None:
    """Log a warning if other machines can reach this server and no key is required."""
    if settings.api_keys_file is None and not settings.host.startswith(LOOPBACK):
        logger.warning("%s is open to everyone who can reach it: set LOSSD_API_KEYS_FILE", settings.host)


def _presented(scope: Scope) -> set[bytes]:
    """Return the keys in a request's headers; authorization schemes other than Bearer are ignored."""
    found: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            found.add(value[7:].strip())
    return found - {b""}
