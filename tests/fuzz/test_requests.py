"""Whatever is sent is answered soon, as a result or as a well-formed problem, and leaves no trace."""

from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.settings import Settings
from tests.fuzz.attacks import ATTACKS, Attacker
from tests.fuzz.doors import InProcess

EXAMPLES = {"evaluations": 1500, "batches": 400, "streams": 250, "frames": 800, "megabytes": 60}


@pytest.fixture(scope="module")
def attacker() -> Generator[Attacker]:
    door = InProcess(create_app(Settings(device="cpu")))
    yield Attacker(door)
    door.close()


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.timeout(300)
def test_whatever_is_sent_is_answered_well(attacker: Attacker, kind: str) -> None:
    strategy, attack = ATTACKS[kind]

    @settings(
        max_examples=EXAMPLES[kind],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(st.data())
    def attacked(data: st.DataObject) -> None:
        attack(attacker, data.draw(strategy))

    attacked()
