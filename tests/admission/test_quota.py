"""What a key may use: a rate in bursts of a second, and so many at once."""

import pytest

from service.admission.quota import Quota
from service.problems import Throttled


def test_a_second_of_a_rate_may_be_used_at_once() -> None:
    quota = Quota()
    for _ in range(100):
        with quota.admit(100, 0):
            pass
    with pytest.raises(Throttled) as told, quota.admit(0.001, 0):
        pass
    assert told.value.limit == "rate"
    assert 1 <= told.value.retry_after <= 1000


def test_what_fails_is_no_longer_under_way() -> None:
    quota = Quota()
    for _ in range(5):
        with pytest.raises(KeyError), quota.admit(0, 1):
            raise KeyError
    with quota.admit(0, 1), pytest.raises(Throttled) as told, quota.admit(0, 1):
        pass
    assert (told.value.limit, told.value.retry_after) == ("concurrency", 1)


def test_zero_is_no_limit() -> None:
    quota = Quota()
    for _ in range(10_000):
        with quota.admit(0, 0), quota.admit(0, 0):
            pass


def test_a_request_over_the_concurrency_costs_nothing_of_the_rate() -> None:
    quota = Quota()
    with quota.admit(2, 1):
        for _ in range(10):
            with pytest.raises(Throttled), quota.admit(2, 1):
                pass
    with quota.admit(2, 1):
        pass
