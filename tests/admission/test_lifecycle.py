"""Shutdown: the server waits for running requests, even if their clients have left, and for nothing else."""

import pytest

from service.admission.account import Account
from service.admission.lifecycle import Lifecycle
from service.problems import Unavailable


def test_a_request_is_active_until_nobody_works_on_it() -> None:
    account = Account(1)
    hold, look = account.open(), account.open()
    hold.begin()
    with hold.used():
        # it is answered
        hold.leave()
        look.leave()
        assert account.active == 1
    assert account.active == 0


def test_a_server_that_ends_is_not_ready() -> None:
    lifecycle = Lifecycle(Account(1))
    lifecycle.warm = True
    lifecycle.refuse_unready()
    lifecycle.draining = True
    assert lifecycle.closing
    with pytest.raises(Unavailable, match="shutting down"):
        lifecycle.refuse_unready()
