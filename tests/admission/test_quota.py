"""Quotas of a key: a rate with bursts of one second, and concurrent requests."""

import pytest

from service.admission.quota import Quota
from service.problems import Throttled


def test_a_second_of_a_rate_may_be_used_at_once() -> None:
    quota = Quota()
    for _ in range(100):
        quota.admit(100, 0)
    with pytest.raises(Throttled) as raised:
        quota.admit(0.001, 0)
    assert raised.value.limit == "rate"
    assert 1 <= raised.value.retry_after <= 1000


def test_what_has_ended_is_no_longer_under_way() -> None:
    quota = Quota()
    for _ in range(5):
        quota.admit(0, 1)()
    end = quota.admit(0, 1)
    with pytest.raises(Throttled) as raised:
        quota.admit(0, 1)
    assert (raised.value.limit, raised.value.retry_after) == ("concurrency", 1)
    end()
    quota.admit(0, 1)


def test_zero_is_no_limit() -> None:
    quota = Quota()
    for _ in range(10_000):
        quota.admit(0, 0)


def test_a_request_over_the_concurrency_costs_nothing_of_the_rate() -> None:
    quota = Quota()
    end = quota.admit(2, 1)
    for _ in range(10):
        with pytest.raises(Throttled):
            quota.admit(2, 1)
    end()
    quota.admit(2, 1)
