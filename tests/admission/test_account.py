"""The account: bytes of all requests stay within a limit, and everything is given back at the end."""

import pytest

from service.admission.account import SMALL, Account
from service.problems import Busy

LIMIT = 10 * SMALL


def test_bytes_over_the_limit_are_refused_where_others_hold_some() -> None:
    account = Account(LIMIT)
    alone, other = account.open(), account.open()
    alone.take(2 * LIMIT)
    with pytest.raises(Busy) as raised:
        other.take(SMALL + 1)
    assert raised.value.limit == "bytes"
    assert (account.bytes, other.bytes) == (2 * LIMIT, 0)
    alone.give(2 * LIMIT)
    other.take(SMALL + 1)
    assert account.bytes == SMALL + 1


def test_small_requests_and_answers_that_are_there_are_counted_and_not_refused() -> None:
    account = Account(LIMIT)
    account.open().take(LIMIT)
    small = account.open()
    small.take(SMALL)
    with pytest.raises(Busy):
        small.take(1)
    small.add(LIMIT)
    assert account.bytes == 2 * LIMIT + SMALL


def test_all_is_given_back_when_the_last_user_leaves() -> None:
    account, ended = Account(LIMIT), list[str]()
    hold = account.open()
    hold.at_end(lambda: ended.append("permit"))
    hold.at_end(lambda: ended.append("quota"))
    hold.take(SMALL)
    with hold.used():
        hold.leave()
        assert (account.holds, account.bytes, ended) == (1, SMALL, [])
    assert (account.holds, account.bytes, ended) == (0, 0, ["permit", "quota"])
