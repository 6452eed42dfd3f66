"""The writer of evaluations: one thread, whose commits many requests share."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from service.evaluations.database import Database
from service.problems import Problem

logger = logging.getLogger("lossd")
T = TypeVar("T")
MOST_TOGETHER = 64
"""Most requests that are committed together."""
IDLE_S = 60.0
"""Seconds without work after which expired evaluations are deleted."""
ATTEMPTS = 3


@dataclass(slots=True)
class Transaction:
    """A transaction under way, and what to do once it is committed."""

    connection: Connection
    found: dict[int, Any] = field(default_factory=dict[int, Any])
    """What this transaction has added to evaluations, by their ids, for the requests that come later in it."""
    committed: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])


@dataclass(slots=True)
class _Job:
    """A request, the place in the order of locks, and the future of its result."""

    work: Callable[[Transaction], Any]
    order: tuple[str, ...]
    future: "Future[Any]"


class Writer:
    """Runs changes one after another in a thread; several share a transaction.

    Changes raise a `Problem` before they write anything, or write all they have to; they may run again after a conflict.
    """

    def __init__(self, database: Database, idle: Callable[[Transaction], object]) -> None:
        self._database = database
        self._idle = idle
        self._jobs = SimpleQueue[_Job | None]()
        self._lock = Lock()
        self._thread: Thread | None = None

    def submit(self, work: Callable[[Transaction], T], *order: str) -> "Future[T]":
        """Return the future of a change's result, which is set once the change is committed.

        ``order`` names the rows that it locks.
        """
        future: Future[T] = Future()
        self.start()
        self._jobs.put(_Job(work, order, future))
        return future

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="evaluations", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Finish all changes that were submitted, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _run(self) -> None:
        """Commit changes until the writer is closed."""
        going = True
        while going:
            jobs = self._next()
            going = None not in jobs
            # all servers lock in the same order, so that none waits for another in a circle
            found = sorted((job for job in jobs if job is not None), key=lambda job: job.order)
            if found or going:
                self._commit(found or [_Job(self._idle, (), Future())])

    def _next(self) -> list[_Job | None]:
        """Return all changes that wait; none after a while without any."""
        jobs: list[_Job | None] = []
        try:
            jobs.append(self._jobs.get(timeout=IDLE_S))
            while len(jobs) < MOST_TOGETHER and jobs[-1] is not None:
                jobs.append(self._jobs.get_nowait())
        except Empty:
            pass
        return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        """Commit changes together; those of them that raise a problem change nothing."""
        jobs = [job for job in jobs if job.future.running() or job.future.set_running_or_notify_cancel()]
        try:
            outcomes, committed = self._attempt(jobs)
        except Exception as error:
            if isinstance(error, Problem) or len(jobs) < 2:
                self._fail(jobs, error)
            else:
                # the fault lies with one of them
                for job in jobs:
                    self._commit([job])
            return
        for then in committed:
            then()
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Problem):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _fail(self, jobs: list[_Job], error: Exception) -> None:
        """Give changes an error as their result."""
        if not isinstance(error, Problem):
            logger.error("an evaluation was not stored", exc_info=error)
        for job in jobs:
            job.future.set_exception(error)

    def _attempt(self, jobs: list[_Job]) -> tuple[list[Any], list[Callable[[], object]]]:
        """Commit changes; again if another server did the same at the same time."""
        for attempt in range(ATTEMPTS):
            try:
                with self._database.writing() as connection:
                    transaction = Transaction(connection)
                    outcomes = [_outcome(job, transaction) for job in jobs]
                return outcomes, transaction.committed
            except Problem as problem:
                if attempt + 1 == ATTEMPTS or not _may_pass(problem.__cause__):
                    raise
        raise AssertionError


def _outcome(job: _Job, transaction: Transaction) -> Any:
    """Return the result of a change, or its problem."""
    try:
        return job.work(transaction)
    except Problem as problem:
        return problem.with_traceback(None)


def _may_pass(error: BaseException | None) -> bool:
    """Return whether a transaction may succeed if it is repeated: it collided with another, or lost its connection."""
    if isinstance(error, IntegrityError):
        return True
    return isinstance(error, OperationalError) and (
        error.connection_invalidated or "deadlock" in str(error.orig)
    )
