"""Shutdown: the server waits for running requests, even if their clients have left, and for nothing else."""

import pytest

from service.admission.account import Account
from service.admission.lifecycle import Lifecycle
from service.problems import Unavailable


def test_a_request_is_waited_for_until_nobody_works_on_it() -> None:
    lifecycle, account = Lifecycle(), Account(1)
    hold = account.open()
    lifecycle.begin(hold)
    with hold.used():
        # it is answered
        hold.leave()
        assert lifecycle.active == 1
    assert lifecycle.active == 0


def test_a_server_that_ends_begins_nothing() -> None:
    lifecycle = Lifecycle()
    lifecycle.draining = True
    with pytest.raises(Unavailable, match="shutting down"):
        lifecycle.begin(Account(1).open())
    assert lifecycle.active == 0
