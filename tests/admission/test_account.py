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


def test_new_work_is_refused_from_the_limit_on() -> None:
    account = Account(LIMIT)
    hold = account.open()
    hold.take(LIMIT - 1)
    assert account.refusal() is None
    hold.add(1)
    assert isinstance(account.refusal(), Busy)


def test_what_fills_the_limit_exactly_is_admitted_and_a_byte_more_is_not() -> None:
    account = Account(LIMIT)
    account.open().take(LIMIT - SMALL - 2)
    other = account.open()
    other.take(SMALL + 2)
    assert account.bytes == LIMIT
    with pytest.raises(Busy):
        other.take(1)


def test_over_the_capacity_a_request_is_refused_until_another_ends() -> None:
    account = Account(LIMIT, capacity=2)
    first, second, third = (account.open() for _ in range(3))
    first.accept()
    assert not account.full
    second.accept()
    assert account.full
    with pytest.raises(Busy) as raised:
        third.accept()
    assert (raised.value.limit, raised.value.retry_after) == ("queue", 1)
    for hold in (third, first):
        hold.leave()
    account.open().accept()
    assert account.accepted == 2


def test_a_refusal_says_when_all_that_is_accepted_will_have_ended() -> None:
    """A capacity beyond the integers that Python keeps is reached like any other."""
    account = Account(LIMIT, capacity=300)
    for _ in range(300):
        account.refuse_if_full()
        account.open().accept()
    account.pace = 0.5
    with pytest.raises(Busy) as refused:
        account.open().accept()
    assert refused.value.retry_after == 150


def test_an_answer_takes_the_place_of_the_body_on_the_account() -> None:
    account = Account(LIMIT)
    hold = account.open()
    hold.add(1)
    hold.take(1000)
    hold.drop(400)
    assert account.bytes == 601
    hold.replace_body(50)
    assert account.bytes == hold.bytes == 51
    hold.replace_body(0)
    assert account.bytes == 51
