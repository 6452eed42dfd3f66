"""The gate: refuse work while the account is full or the server is draining."""

from time import time

from service.admission.account import Account
from service.admission.lifecycle import Lifecycle
from service.problems import Problem
from service.routes import Route
from service.telemetry.finished import Finished
from service.telemetry.recorder import Recorder
from service.telemetry.stages import Stages


class Gate:
    """Decides, before its body is read, whether the server can take a request for work."""

    def __init__(self, account: Account, lifecycle: Lifecycle, recorder: Recorder) -> None:
        self.account = account
        self.lifecycle = lifecycle
        self.recorder = recorder
        self.refused = 0
        """Connections paused because their last request was refused."""

    @property
    def closed(self) -> bool:
        """Whether all work is refused now."""
        return self.lifecycle.closing or self.account.full

    def refuse(self) -> None:
        """Refuse work if there is no room.

        Raises:
            Busy: the account is full.
            Unavailable: the server is draining, or has failed.
        """
        if self.lifecycle.closing:
            self.lifecycle.refuse_unready()
        self.account.refuse_if_full()

    def refusal(self, route: Route) -> Problem | None:
        """Return why a request for work would be refused, before it is created; None if it would not."""
        try:
            if route.work:
                self.refuse()
        except Problem as problem:
            return problem
        return None

    def note(
        self, method: str, path: str, route: Route, problem: Problem, reason: str, identity: str
    ) -> None:
        """Record requests that were refused before they were created."""
        stages = Stages()
        stages.request_id, stages.rejected = identity, reason
        stages.status, stages.finished = problem.status, True
        raw = path.encode("latin-1", "replace")
        self.recorder.add(Finished(method, raw, route, problem.status, time(), 0.0, 0, 0, stages, b"", b""))
