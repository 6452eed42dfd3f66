"""The history of a request: the time of each stage, its ID, its key, its loss, its answer.

Doors and framework fill it in; the ``Server-Timing`` header, metrics, logs and traces read it.
"""

import re
import secrets
from collections.abc import Mapping
from time import perf_counter

CLIENT_GONE = 499
"""Status of a request whose client left before the answer, as in nginx."""
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
NO_HEADERS: Mapping[bytes, bytes] = {}


class Stages:
    """Durations of a request's stages in seconds; 0 for stages it did not go through.

    The request ID is the client's own, else its trace ID, else a new one. ``started`` and ``finished`` say so of the
    answer.
    """

    def __init__(self, headers: Mapping[bytes, bytes] = NO_HEADERS) -> None:
        self.start = perf_counter()
        self.seconds = {"decode": 0.0, "queue": 0.0, "compute": 0.0, "encode": 0.0}
        self.began: dict[str, float] = {}
        trace = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
        sent = headers.get(b"x-request-id", b"")
        self.trace_id = trace[1].decode() if trace else ""
        self.request_id = (
            sent.decode() if REQUEST_ID.fullmatch(sent) else self.trace_id or secrets.token_hex(16)
        )
        self.loss = ""
        """The name of the loss or metric."""
        self.key = ""
        self.rejected = ""
        self.bytes_in = self.bytes_out = 0
        self.status = CLIENT_GONE
        self.started = self.finished = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of every answer."""
        return [(b"x-request-id", self.request_id.encode()), (b"server-timing", self.timing())]

    def timing(self) -> bytes:
        """Return the value of ``Server-Timing``, in milliseconds."""
        shown = [b"%s;dur=%.3f" % (stage.encode(), 1e3 * seconds) for stage, seconds in self.seconds.items()]
        return b", ".join([*shown, b"total;dur=%.3f" % (1e3 * (perf_counter() - self.start))])
